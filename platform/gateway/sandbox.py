"""The sandbox: four partners with their keys, twenty members they all may try things with, offers and rewards.

The apps of the four ask no more than any DPoP library does by itself; a fifth app, of the mall, has the strict policy of
an app that goes live.

A fresh database is filled once. The private keys exist in the partner files alone, which are written before the
transaction commits: a crash in between leaves files nobody knows, and the next start writes new ones.
"""

import os
import shutil
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import structlog
from msgspec import Struct, structs

from gateway.admins import NewAdmin, Role, create_admin
from gateway.credentials import Credentials, SandboxMember, SigningKey, read_credentials
from gateway.sandbox_logins import SandboxLogin, give_logins, member_file
from gateway.sandbox_mobile import MobileApp, add_app, mobile_file, readdress_mobile
from kernel.calendar import add_months, business_date
from kernel.caller import MemberRef
from kernel.database import Connection
from kernel.settings import Settings, SettingsError
from kernel.supervisor.places import OUTSIDE, DataDirectory
from kernel.vault import Vault
from partners.oauth import service as oauth
from partners.oauth.keys import Signer
from partners.oauth.scopes import member_scopes
from partners.offers.model import OfferDefinition
from partners.offers.sandbox import ecommerce_offer, hospital_offer, publish_definition
from partners.registry import service as registry
from partners.registry.model import PartnerKind, Scene
from partners.webhooks import service as webhooks
from points.earning.campaigns import propose_campaign
from points.earning.sandbox import double_eleven, red_friday
from points.ledger.sandbox import mint_mall_points
from points.membership.model import BankLevel, ShopLevel
from points.membership.sandbox import give_consultations
from points.membership.service import enrol_members
from points.rewards.sandbox import stock_shelves

log = structlog.get_logger("sandbox")

BANK_LEVELS: tuple[BankLevel, ...] = ("express", "comm", "wode", "private")
SHOP_LEVELS: tuple[ShopLevel, ...] = ("iron", "bronze", "silver", "gold")
#: the first ones again, so that equals can be compared
EXTRA_MEMBERS = 4
YEARS = 5
#: the partner that has a second app with every policy on
STRICT: Scene = "ecommerce"
RATE_PER_SECOND = 5_000
BURST = 10_000

#: what `reset` removes of a data directory; secrets and logs stay
_DATA = ("postgres", "valkey", "sandbox")

_BASIC = ("members:read", "points:earn", "events:read", "settlement:read")
_FULL = (
    *_BASIC,
    "activity:write",
    "points:spend",
    "offers:read",
    "offers:write",
    "plans:read",
    "plans:write",
    "entitlements:write",
)


class SandboxPartner(Struct, frozen=True, kw_only=True):
    """A partner that every sandbox has."""

    #: slug and scene at once
    slug: Scene
    name_zh: str
    name_en: str
    contact: str
    kind: PartnerKind
    scopes: tuple[str, ...]
    scenarios: tuple[str, ...]
    #: who pays for what by the agreement
    funding: dict[str, Any]
    #: where its members are sent back to; `tessera redirect-uri add` registers more
    redirect_uris: tuple[str, ...] = ()
    #: it may ask its members on their phones
    backchannel: bool = False


PARTNERS = (
    SandboxPartner(
        slug="ecommerce",
        name_zh="晨光商城",
        name_en="Morning Light Mall",
        contact="400-000-0101 · privacy@mall.example",
        kind="product_supplier",
        scopes=_FULL,
        scenarios=("ecom_checkout", "group_buy"),
        funding={"points": "bank", "discount": "bank", "interest_subsidy": "merchant"},
        redirect_uris=("http://127.0.0.1:8765/callback",),
        backchannel=True,
    ),
    SandboxPartner(
        slug="hospital",
        name_zh="仁和综合医院",
        name_en="Renhe General Hospital",
        contact="400-000-0102 · privacy@hospital.example",
        kind="service_provider",
        scopes=_FULL,
        scenarios=("medical",),
        funding={"points": "bank", "interest_subsidy": "bank", "entitlement": "bank"},
        backchannel=True,
    ),
    SandboxPartner(
        slug="education",
        name_zh="启明学堂",
        name_en="Qiming Academy",
        contact="400-000-0103 · privacy@academy.example",
        kind="service_provider",
        scopes=_BASIC,
        scenarios=("edu_tuition", "edu_savings"),
        funding={"points": "partner"},
    ),
    SandboxPartner(
        slug="tax",
        name_zh="惠民税务服务中心",
        name_en="Huimin Tax Service Centre",
        contact="400-000-0104 · privacy@tax.example",
        kind="service_provider",
        scopes=_BASIC,
        scenarios=("tax_credit",),
        funding={"points": "bank"},
    ),
)


class _Member(Struct, frozen=True, kw_only=True):
    """A sandbox member before any partner has a name for it."""

    ref: MemberRef
    bank_level: BankLevel
    shop_level: ShopLevel


#: two people: what one proposes another approves
ADMINS: tuple[tuple[str, tuple[Role, ...]], ...] = (
    ("maker", ("viewer", "maker")),
    ("checker", ("viewer", "checker", "duty_officer")),
)


def admin_file(data_dir: Path) -> Path:
    return data_dir / "sandbox" / "admins.json"


def partner_file(data_dir: Path, slug: str) -> Path:
    return data_dir / "sandbox" / "partners" / f"{slug}.json"


def strict_file(data_dir: Path, slug: str) -> Path:
    """The partner file of the app that is held to everything."""
    return data_dir / "sandbox" / "strict" / f"{slug}.json"


async def seed(
    connection: Connection,
    *,
    settings: Settings,
    vault: Vault,
    signer: Signer,
    data_dir: Path,
    base_url: str,
    now: datetime,
) -> None:
    """Fill a fresh sandbox; in one that is filled, only tell the partner files where the platform is now."""
    if settings.mode != "sandbox":
        raise SettingsError("only a sandbox is seeded")
    known = {partner.slug for partner in await registry.list_partners(connection)}
    if all(partner.slug in known for partner in PARTNERS):
        _readdress_files(data_dir, base_url=base_url, issuer=signer.issuer)
        readdress_mobile(data_dir, base_url=base_url, write=_write)
        return
    members = await _enrol(connection, now=now)
    for partner in PARTNERS:
        if partner.slug in known:
            continue
        credentials = await _add_partner(
            connection, partner, members, vault=vault, base_url=base_url, issuer=signer.issuer, now=now
        )
        _write(partner_file(data_dir, partner.slug), credentials)
        if partner.slug == STRICT:
            strict = await _add_strict_app(connection, partner, credentials, now=now)
            _write(strict_file(data_dir, partner.slug), strict)
    if not any(partner.slug in known for partner in PARTNERS):
        _write(admin_file(data_dir), await _add_admins(connection, vault=vault, now=now))
        known_members = [(member.ref, member.bank_level, member.shop_level) for member in members]
        logins = await give_logins(connection, known_members, with_app=EXTRA_MEMBERS, vault=vault, now=now)
        _write(member_file(data_dir), logins)
        _write(mobile_file(data_dir), await add_app(connection, logins, base_url=base_url, now=now))
        for definition in (red_friday(now), double_eleven(now)):
            await propose_campaign(connection, definition, by=f"admin:{ADMINS[0][0]}", now=now)
        hospital = await registry.find_partner_by_slug(connection, "hospital")
        await stock_shelves(connection, provider_id=hospital.id, vault=vault, now=now)
        await mint_mall_points(connection, now=now)
        invited = [member.ref for member in members[-EXTRA_MEMBERS:]]
        await give_consultations(connection, invited, partner_id=hospital.id, now=now)
    log.info("sandbox_seeded", partners=len(PARTNERS), members=len(members))


async def _add_admins(connection: Connection, *, vault: Vault, now: datetime) -> list[NewAdmin]:
    return [
        await create_admin(connection, login=login, roles=roles, vault=vault, now=now)
        for login, roles in ADMINS
    ]


async def _add_partner(
    connection: Connection,
    partner: SandboxPartner,
    members: list[_Member],
    *,
    vault: Vault,
    base_url: str,
    issuer: str,
    now: datetime,
) -> Credentials:
    partner_id = await registry.register_partner(
        connection,
        slug=partner.slug,
        name_zh=partner.name_zh,
        name_en=partner.name_en,
        contact=partner.contact,
        kind=partner.kind,
        scene=partner.slug,
        status="live",
        now=now,
    )
    today = business_date(now)
    await registry.record_agreement(
        connection,
        partner_id=partner_id,
        scenarios=partner.scenarios,
        funding=partner.funding,
        starts_on=today - timedelta(days=1),
        ends_on=add_months(today, 12 * YEARS),
        now=now,
    )
    secret = webhooks.new_secret()
    await webhooks.set_partner_secret(connection, partner_id=partner_id, secret=secret, vault=vault, now=now)
    for definition in _offers_of(partner, now):
        await publish_definition(connection, definition, partner_id=partner_id, now=now)
    client_id, private_jwk = await _add_app(connection, partner, partner_id, strict=False, now=now)
    return Credentials(
        base_url=base_url,
        issuer=issuer,
        client_id=client_id,
        kid=private_jwk["kid"],
        private_jwk=private_jwk,
        scopes=sorted(partner.scopes),
        webhook_secret=secret,
        members=await _introduce(connection, members, partner_id, partner.scopes, vault=vault, now=now),
    )


async def _add_strict_app(
    connection: Connection, partner: SandboxPartner, easy: Credentials, *, now: datetime
) -> Credentials:
    """The partner's second app, and its file: the same partner, another name and key."""
    owner = await registry.find_partner_by_slug(connection, partner.slug)
    client_id, private_jwk = await _add_app(connection, partner, owner.id, strict=True, now=now)
    return structs.replace(easy, client_id=client_id, kid=private_jwk["kid"], private_jwk=private_jwk)


async def _add_app(
    connection: Connection, partner: SandboxPartner, partner_id: UUID, *, strict: bool, now: datetime
) -> tuple[str, dict[str, str]]:
    """A new app with its key: its name, and the private JWK that nobody else has."""
    app = await registry.register_app(
        connection,
        partner_id=partner_id,
        scopes=partner.scopes,
        rate_per_second=RATE_PER_SECOND,
        burst=BURST,
        request_signature="fapi" if strict else "optional",
        dpop_nonce_required=strict,
        now=now,
    )
    key = SigningKey.generate()
    kid = await registry.add_key(
        connection,
        app_id=app.id,
        jwk=key.public_jwk | {"kid": f"{partner.slug}-{'strict-' if strict else ''}1"},
        now=now,
    )
    for uri in partner.redirect_uris:
        await registry.add_redirect_uri(
            connection, client_id=app.client_id, uri=uri, sandbox=True, actor="job:sandbox", now=now
        )
    if partner.backchannel:
        await registry.allow_backchannel(
            connection, client_id=app.client_id, allowed=True, actor="job:sandbox", now=now
        )
    return app.client_id, key.private_jwk() | {"kid": kid, "alg": "ES256", "use": "sig"}


def _offers_of(partner: SandboxPartner, now: datetime) -> Iterator[OfferDefinition]:
    for definition in (ecommerce_offer(now), hospital_offer(now)):
        if definition.scenario in partner.scenarios:
            yield definition


async def _enrol(connection: Connection, *, now: datetime) -> list[_Member]:
    """One member for each pair of levels, and a few more."""
    pairs = list(product(BANK_LEVELS, SHOP_LEVELS))
    members = []
    for bank_level, shop_level in pairs + pairs[:EXTRA_MEMBERS]:
        (ref,) = await enrol_members(
            connection, count=1, bank_level=bank_level, shop_level=shop_level, now=now
        )
        members.append(_Member(ref=ref, bank_level=bank_level, shop_level=shop_level))
    return members


async def _introduce(
    connection: Connection,
    members: list[_Member],
    partner_id: UUID,
    scopes: tuple[str, ...],
    *,
    vault: Vault,
    now: datetime,
) -> list[SandboxMember]:
    """Every member under the partner's own name for it, with a consent to all the partner may ask."""
    introduced = []
    for member in members:
        sub = await oauth.subject_for(
            connection, partner_id=partner_id, member=member.ref, vault=vault, now=now
        )
        await oauth.grant_consent(
            connection,
            partner_id=partner_id,
            member=member.ref,
            scopes=member_scopes(scopes),
            ends_on=add_months(business_date(now), 12 * YEARS),
            purposes=["sandbox"],
            now=now,
        )
        introduced.append(SandboxMember(sub=sub, bank_level=member.bank_level, shop_level=member.shop_level))
    return introduced


def _readdress_files(data_dir: Path, *, base_url: str, issuer: str) -> None:
    for path in (
        *(partner_file(data_dir, partner.slug) for partner in PARTNERS),
        strict_file(data_dir, STRICT),
    ):
        if not path.exists():
            log.warning("partner_file_missing", path=str(path), remedy="tessera sandbox reset")
            continue
        present = read_credentials(path)
        wanted = structs.replace(present, base_url=base_url, issuer=issuer)
        if wanted != present:
            _write(path, wanted)


def _write(path: Path, credentials: Credentials | MobileApp | list[NewAdmin] | list[SandboxLogin]) -> None:
    """The file is there whole or not at all, and only its owner reads it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(credentials), indent=2) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def reset(settings: Settings) -> list[Path]:
    """Remove the sandbox's data; returns what was removed. Refuses what is not ours, not a sandbox, or in use."""
    if settings.mode != "sandbox":
        raise SettingsError("only a sandbox can be reset")
    if settings.database_url or settings.redis_url:
        raise SettingsError("the data is in servers of your own: empty those yourself")
    root = Path(settings.data_dir).absolute()
    if not (root / "lock").is_file() or not (root / "secrets").is_dir():
        raise SettingsError(f"{root} is not a data directory of tessera")
    holder = DataDirectory(root)
    holder.open()
    try:
        present = [path for name in _DATA if (path := root / name).exists() or path.is_symlink()]
        for path in present:
            _check_ours(path)
        for path in present:
            _remove(path)
        return present
    finally:
        holder.close()


def _check_ours(path: Path) -> None:
    """A link may only lead to the directory outside that the supervisor makes for servers without privileges."""
    target = path.resolve()
    outside = target.parent.parent == OUTSIDE.resolve() and target.parent.name.startswith("tessera-data-")
    if path.is_symlink() and not outside:
        raise SettingsError(f"{path} points to {target}, which tessera did not make: remove it yourself")


def _remove(path: Path) -> None:
    target = path.resolve()
    if path.is_symlink():
        path.unlink()
    if target.exists():
        shutil.rmtree(target)
