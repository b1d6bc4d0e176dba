"""A partner's request that waits for a member's answer, and a member who can log in: what tests of the pages begin with."""

import secrets
from datetime import date, datetime, timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import UUID, uuid4

from msgspec import Struct

from kernel.caller import MemberRef
from kernel.database import Connection
from kernel.ids import new_id
from kernel.vault import Vault, sha256
from partners.login.passwords import DRAWN_COST, hash_password
from partners.login.service import open_account
from partners.oauth import flow_queries
from partners.oauth.details import HealthRegistration, InstalmentPlan, PointsSpend, TaxData
from partners.oauth.model import AuthorizationRequest
from partners.oauth.pushing import REQUEST_URI, handle_of
from partners.registry import service as registry
from points.membership.service import enrol_members

PASSWORD = "correct horse battery staple"
PAGE_LIFE = timedelta(minutes=10)

#: one of each kind a member is shown
PLAN = InstalmentPlan(
    quote_id="qte_" + "0" * 26,
    amount_fen=1_299_900,
    periods=12,
    annual_rate_simple_ppm=138_418,
    annual_rate_compound_ppm=147_500,
    total_payable_fen=1_396_704,
)
SPEND = PointsSpend(max_points=20_000)
TAX = TaxData(tax_years=[2024, 2025], datatypes=["declared_income", "paid_tax"])
HEALTH = HealthRegistration(datatypes=["visit_date", "department"])


class Waiting(Struct, frozen=True, kw_only=True):
    """A request whose page is open."""

    request_id: UUID
    partner_id: UUID
    client_id: str
    request_uri: str
    handle: str

    @property
    def path(self) -> str:
        return f"/oauth2/interactions/{self.handle}"

    @property
    def authorize(self) -> str:
        """Where the partner sends its customer."""
        return "/oauth2/authorize?" + urlencode(
            {"client_id": self.client_id, "request_uri": self.request_uri}
        )


class Member(Struct, frozen=True, kw_only=True):
    """Somebody who can log in."""

    ref: MemberRef
    account_id: UUID
    login: str
    password: str
    totp_secret: str | None


async def push(
    connection: Connection,
    *,
    redirect_uri: str = "https://shop.example/callback",
    name_zh: str = "晨光商城",
    name_en: str = "Morning Light Mall",
    contact: str = "400-000-0101",
    ui_locales: str | None = None,
    sensitive: bool = False,
    details: tuple[Any, ...] = (),
    scopes: tuple[str, ...] = ("members:read", "points:spend"),
    purposes: tuple[str, ...] = ("membership", "points"),
    data_kinds: tuple[str, ...] = ("member_level", "points_balance"),
    issuer: str = "https://bank.example",
    member_id: int | None = None,
    vault: Vault,
    now: datetime,
) -> Waiting:
    """A live partner whose pushed request was just opened in a browser."""
    partner_id = await registry.register_partner(
        connection,
        slug=f"shop-{uuid4().hex[:12]}",
        name_zh=name_zh,
        name_en=name_en,
        contact=contact,
        kind="service_provider",
        scene="ecommerce",
        status="live",
        now=now,
    )
    app = await registry.register_app(connection, partner_id=partner_id, scopes=scopes, now=now)
    await connection.execute(
        "UPDATE registry_app SET redirect_uris = $2 WHERE id = $1", app.id, [redirect_uri]
    )
    request_id, request_uri = new_id(now), REQUEST_URI + secrets.token_urlsafe(32)
    handle = handle_of(request_uri, vault)
    document = AuthorizationRequest(
        issuer=issuer,
        redirect_uri=redirect_uri,
        state="s1",
        nonce=None,
        code_challenge="x" * 43,
        dpop_jkt=None,
        scopes=list(scopes),
        purposes=list(purposes),
        data_kinds=list(data_kinds),
        authorization_details=list(details),
        sensitive=sensitive,
        ends_on=date(2027, 11, 26),
        grant_action="create",
        grant_id=None,
        member_id=member_id,
        ui_locales=ui_locales,
    )
    await flow_queries.insert_request(
        connection,
        request_id=request_id,
        partner_id=partner_id,
        client_id=app.client_id,
        request_uri_hash=sha256(request_uri),
        handle_hash=sha256(handle),
        document=document,
        request_uri_expires_at=now + timedelta(seconds=60),
        now=now,
    )
    await flow_queries.open_request(
        connection,
        sha256(request_uri),
        client_id=app.client_id,
        page_expires_at=now + PAGE_LIFE,
        now=now,
    )
    return Waiting(
        request_id=request_id,
        partner_id=partner_id,
        client_id=app.client_id,
        request_uri=request_uri,
        handle=handle,
    )


async def enrol(
    connection: Connection,
    *,
    vault: Vault,
    password: str = PASSWORD,
    totp_secret: str | None = None,
    now: datetime,
) -> Member:
    """A member with a login of its own; the hash is cheap, so that tests are quick."""
    (ref,) = await enrol_members(connection, count=1, now=now)
    login = f"member-{uuid4().hex[:12]}"
    account_id = await open_account(
        connection,
        member=ref,
        login=login,
        password_hash=hash_password(password, DRAWN_COST),
        totp_secret=totp_secret,
        vault=vault,
        now=now,
    )
    return Member(ref=ref, account_id=account_id, login=login, password=password, totp_secret=totp_secret)
