"""What an app may ask about itself, and how it looks after its keys."""

from datetime import date, datetime, timedelta
from typing import Annotated, Any

from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody
from msgspec import Meta, Struct

from kernel.caller import Caller
from kernel.database import Connection
from kernel.ids import to_wire
from kernel.pages import CursorSeal, Page, check_limit
from kernel.settings import Settings
from partners.registry import client_keys, service
from partners.registry.model import AppStatus, Key, KeyStatus, PartnerKind, PartnerStatus, Scene
from partners.registry.rules import OVERLAP_DAYS, OVERLAP_DAYS_MAX


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
    status: Annotated[
        KeyStatus,
        Meta(description="A pending key becomes active by the first assertion that is signed with it."),
    ]
    jwk: dict[str, str]
    added_at: datetime
    activated_at: datetime | None
    not_after: Annotated[datetime | None, Meta(description="From this instant on a retiring key is refused.")]
    revoked_at: datetime | None

    @classmethod
    def of(cls, key: Key) -> "KeyView":
        return cls(
            kid=key.kid,
            status=key.status,
            jwk=key.jwk,
            added_at=key.added_at,
            activated_at=key.activated_at,
            not_after=key.not_after,
            revoked_at=key.revoked_at,
        )


class NewKey(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A public key to be used from its first assertion on."""

    jwk: Annotated[dict[str, Any], Meta(description="The public half, with a `kid` of its own.")]
    overlap_days: Annotated[
        int,
        Meta(ge=0, le=OVERLAP_DAYS_MAX, description="How long the present key stays good after that."),
    ] = OVERLAP_DAYS


class RevokeKey(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far a revocation may go."""

    last: Annotated[
        bool, Meta(description="True to revoke the key even if the app cannot authenticate without it.")
    ] = False


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
        data=[KeyView.of(key) for key in keys[:limit]],
        next_cursor=cursors.seal(binding, keys[limit - 1].kid) if len(keys) > limit else None,
    )


@post("/v1/keys", scope="self", level="A2", status_code=201)
async def add_key(
    data: JSONBody[NewKey],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    now: NamedDependency[datetime],
) -> KeyView:
    """Register the app's next key; it becomes active by the first assertion it signs, and the present one retires."""
    key = await client_keys.register_key(
        connection,
        app_id=caller.app_id,
        jwk=data.jwk,
        overlap=timedelta(days=data.overlap_days),
        actor=f"app:{caller.client_id}",
        now=now,
    )
    return KeyView.of(key)


@post("/v1/keys/{kid:str}/revoke", scope="self", level="A2", status_code=200)
async def revoke_key(
    kid: FromPath[str],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    now: NamedDependency[datetime],
    data: JSONBody[RevokeKey | None] = None,
) -> KeyView:
    """Refuse the key from now on; every access token of the partner ends, the one of this request included."""
    key = await client_keys.revoke_key(
        connection,
        app_id=caller.app_id,
        kid=kid,
        last=data is not None and data.last,
        actor=f"app:{caller.client_id}",
        now=now,
    )
    return KeyView.of(key)


routes = [read_me, list_keys, add_key, revoke_key]
