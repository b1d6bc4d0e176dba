"""What an app may ask about itself."""

from datetime import date, datetime
from typing import Annotated

from litestar import get
from litestar.di import NamedDependency
from litestar.params import FromQuery
from msgspec import Meta, Struct

from kernel.caller import Caller
from kernel.database import Connection
from kernel.ids import to_wire
from kernel.pages import CursorSeal, Page, check_limit
from kernel.settings import Settings
from partners.registry import service
from partners.registry.model import AppStatus, KeyStatus, PartnerKind, PartnerStatus, Scene


class Name(Struct, frozen=True, kw_only=True):
    """A name in both languages."""

    zh: str
    en: str


class AppView(Struct, frozen=True, kw_only=True):
    """The app whose token was used."""

    client_id: str
    status: AppStatus
    #: what the app may ask tokens for
    scopes: list[str]
    #: what this token allows
    token_scopes: list[str]
    rate_per_second: int
    burst: int


class AgreementView(Struct, frozen=True, kw_only=True):
    """What the partner may sell today."""

    scenarios: list[str]
    starts_on: date
    ends_on: date


class Me(Struct, frozen=True, kw_only=True):
    """The partner and the app behind a token."""

    id: Annotated[str, Meta(description="The partner, `ptn_…`.")]
    slug: str
    name: Name
    kind: PartnerKind
    scene: Scene
    status: PartnerStatus
    livemode: Annotated[bool, Meta(description="False in the sandbox.")]
    app: AppView
    agreement: AgreementView | None


class KeyView(Struct, frozen=True, kw_only=True):
    """A registered public key."""

    kid: str
    status: KeyStatus
    jwk: dict[str, str]
    added_at: datetime


@get("/v1/me", scope="self", level="A1", member_token=True)
async def read_me(
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    settings: NamedDependency[Settings],
    now: NamedDependency[datetime],
) -> Me:
    """The partner and the app behind the token."""
    partner = await service.find_partner(connection, caller.partner_id)
    app = await service.find_app(connection, caller.app_id)
    agreement = await service.find_agreement(connection, partner.id, now=now)
    return Me(
        id=to_wire("ptn", partner.id),
        slug=partner.slug,
        name=Name(zh=partner.name_zh, en=partner.name_en),
        kind=partner.kind,
        scene=partner.scene,
        status=partner.status,
        livemode=settings.mode == "live",
        app=AppView(
            client_id=app.client_id,
            status=app.status,
            scopes=app.scopes,
            token_scopes=sorted(caller.scopes),
            rate_per_second=app.rate_per_second,
            burst=app.burst,
        ),
        agreement=None
        if agreement is None
        else AgreementView(
            scenarios=agreement.scenarios, starts_on=agreement.starts_on, ends_on=agreement.ends_on
        ),
    )


@get("/v1/keys", scope="self", level="A1")
async def list_keys(
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    cursors: NamedDependency[CursorSeal],
    limit: FromQuery[int] = 20,
    cursor: FromQuery[str | None] = None,
) -> Page[KeyView]:
    """The app's registered public keys, in the order of their kid."""
    check_limit(limit)
    binding = f"keys:{caller.app_id}"
    after = "" if cursor is None else cursors.open(binding, cursor)
    keys = await service.list_keys(connection, caller.app_id, after=after, limit=limit + 1)
    return Page(
        data=[KeyView(kid=k.kid, status=k.status, jwk=k.jwk, added_at=k.added_at) for k in keys[:limit]],
        next_cursor=cursors.seal(binding, keys[limit - 1].kid) if len(keys) > limit else None,
    )


routes = [read_me, list_keys]
