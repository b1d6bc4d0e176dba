"""Registering partners and apps, moving them through their states, and looking after their keys and customers."""

from collections.abc import Collection, Mapping, Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID

import asyncpg

from kernel import audit, outbox
from kernel.audit import AuditRecord
from kernel.calendar import business_date
from kernel.caller import MemberRef
from kernel.database import Connection
from kernel.errors import Absent, Conflict
from kernel.ids import new_id, to_wire
from partners.registry import queries, queries_signatures
from partners.registry.model import (
    Agreement,
    App,
    AppStatus,
    Client,
    Key,
    KeyStatus,
    Partner,
    PartnerKind,
    PartnerStatus,
    RequestSignature,
    Scene,
)
from partners.registry.rules import (
    REDIRECTS_MAX,
    RedirectUriLimitReached,
    check_active_keys,
    check_key_move,
    check_new_key,
    check_partner_move,
    check_redirect_uri,
    public_jwk,
)

BUCKETS = 1024


class SlugTaken(Conflict):
    """Another partner already has this short name."""


class CustomersBusy(Conflict):
    """Another request is binding this partner's customers; repeat in a moment."""


async def register_partner(
    connection: Connection,
    *,
    slug: str,
    name_zh: str,
    name_en: str,
    kind: PartnerKind,
    scene: Scene,
    status: PartnerStatus = "draft",
    contact: str = "",
    now: datetime,
) -> UUID:
    """A new partner; only the sandbox begins with another `status` than draft."""
    partner = Partner(
        id=new_id(now),
        slug=slug,
        name_zh=name_zh,
        name_en=name_en,
        kind=kind,
        scene=scene,
        status=status,
        epoch=1,
        contact=contact,
    )
    try:
        await queries.insert_partner(connection, partner, now=now)
    except asyncpg.UniqueViolationError as violation:
        assert violation.constraint_name == "registry_partner_slug"
        raise SlugTaken(slug=slug) from None
    return partner.id


async def find_partner(connection: Connection, partner_id: UUID) -> Partner:
    partner = await queries.find_partner(connection, partner_id)
    if partner is None:
        raise Absent
    return partner


async def find_partner_by_slug(connection: Connection, slug: str) -> Partner:
    partner = await queries.find_partner_by_slug(connection, slug)
    if partner is None:
        raise Absent
    return partner


async def list_partners(connection: Connection) -> list[Partner]:
    return await queries.list_partners(connection)


async def find_next_partner(
    connection: Connection, *, after: UUID, statuses: Collection[PartnerStatus]
) -> Partner | None:
    """The partner in one of `statuses` whose id follows `after`, for whoever goes from one to the next."""
    return await queries.find_next_partner(connection, after=after, statuses=statuses)


async def set_partner_status(
    connection: Connection,
    *,
    partner_id: UUID,
    status: PartnerStatus,
    reason: str | None = None,
    actor: str,
    now: datetime,
) -> Partner:
    """Move the partner; tokens issued before end for good, also when it is reinstated later.

    An app works only while its partner is live, so a suspension stops every app at the same commit and a
    reinstatement finds each app as it was.
    """
    partner = await queries.lock_partner(connection, partner_id)
    if partner is None:
        raise Absent
    check_partner_move(partner.status, status)
    await queries.move_partner(connection, partner_id, present=partner.status, wanted=status, now=now)
    if status == "terminated":
        await queries.remove_apps(connection, partner_id)
    wire_id = to_wire("ptn", partner_id)
    event = outbox.Event(
        bucket=partner_id.int % BUCKETS,
        partner_id=partner_id,
        type=f"partner.{status}",
        aggregate=wire_id,
        payload={"partner": wire_id, "status": status, "was": partner.status},
    )
    await outbox.enqueue(connection, [event], now=now)
    # The reason stays in the house: the event tells the partner no more than the status.
    detail = {"was": partner.status} | ({} if reason is None else {"reason": reason})
    record = AuditRecord(actor=actor, action=f"partner.{status}", subject=wire_id, detail=detail)
    await audit.append(connection, record, partner_id=partner_id, now=now)
    return await find_partner(connection, partner_id)


async def register_app(
    connection: Connection,
    *,
    partner_id: UUID,
    scopes: Sequence[str],
    rate_per_second: int = 200,
    burst: int = 400,
    request_signature: RequestSignature = "fapi",
    dpop_nonce_required: bool = True,
    now: datetime,
) -> App:
    """A new app of the partner, with the strict policy unless told otherwise."""
    app_id = new_id(now)
    app = await queries.insert_app(
        connection,
        app_id=app_id,
        partner_id=partner_id,
        client_id=to_wire("app", app_id),
        scopes=sorted(set(scopes)),
        rate_per_second=rate_per_second,
        burst=burst,
        dpop_nonce_required=dpop_nonce_required,
        now=now,
    )
    await queries_signatures.move_request_signature(connection, app_id, request_signature)
    return app


async def find_app(connection: Connection, app_id: UUID) -> App:
    app = await queries.find_app(connection, app_id)
    if app is None:
        raise Absent
    return app


async def find_app_by_client(connection: Connection, client_id: str) -> App:
    app = await queries.find_app_by_client(connection, client_id)
    if app is None:
        raise Absent
    return app


async def list_apps(connection: Connection, partner_id: UUID) -> list[App]:
    return await queries.list_apps(connection, partner_id)


async def set_app_status(
    connection: Connection,
    *,
    app_id: UUID,
    status: AppStatus,
    reason: str | None = None,
    actor: str,
    now: datetime,
) -> App:
    """Switch an app on or off, or remove it for ever; its earlier tokens end in each case."""
    if not await queries.move_app(connection, app_id, status):
        raise Absent
    await queries.raise_epoch(connection, app_id, now=now)
    app = await find_app(connection, app_id)
    detail = {} if reason is None else {"reason": reason}
    record = AuditRecord(actor=actor, action=f"app.{status}", subject=app.client_id, detail=detail)
    await audit.append(connection, record, partner_id=app.partner_id, now=now)
    return app


async def find_client(connection: Connection, client_id: str) -> Client | None:
    """What authentication must know, or None for a stranger."""
    return await queries.find_client(connection, client_id)


async def list_clients(connection: Connection, client_ids: Sequence[str]) -> dict[str, Client]:
    """What authentication must know of several clients; strangers are left out."""
    return await queries.list_clients(connection, client_ids)


async def add_redirect_uri(
    connection: Connection, *, client_id: str, uri: str, sandbox: bool, actor: str, now: datetime
) -> None:
    """Let members be sent back to `uri`; the first one opens the authorization code grant to the app."""
    check_redirect_uri(uri, sandbox=sandbox)
    client = await _lock_client(connection, client_id)
    if uri in client.redirect_uris:
        return
    if len(client.redirect_uris) >= REDIRECTS_MAX:
        raise RedirectUriLimitReached(redirect_uris_max=REDIRECTS_MAX)
    await queries.add_redirect_uri(connection, client.app_id, uri)
    await _note_redirect(connection, client, "app.redirect_uri.add", uri, actor=actor, now=now)


async def remove_redirect_uri(
    connection: Connection, *, client_id: str, uri: str, actor: str, now: datetime
) -> None:
    """Send nobody back to `uri` any more, also with a request that was pushed before."""
    client = await _lock_client(connection, client_id)
    if uri not in client.redirect_uris:
        raise Absent
    await queries.remove_redirect_uri(connection, client.app_id, uri)
    await _note_redirect(connection, client, "app.redirect_uri.remove", uri, actor=actor, now=now)


async def allow_backchannel(
    connection: Connection, *, client_id: str, allowed: bool, actor: str, now: datetime
) -> None:
    """Let the app ask members on their phones, or not any more."""
    client = await _lock_client(connection, client_id)
    change = queries.allow_backchannel if allowed else queries.forbid_backchannel
    await change(connection, client.app_id)
    action = "app.backchannel.allow" if allowed else "app.backchannel.forbid"
    record = AuditRecord(actor=actor, action=action, subject=client.client_id, detail={})
    await audit.append(connection, record, partner_id=client.partner_id, now=now)


async def _lock_client(connection: Connection, client_id: str) -> Client:
    client = await queries.find_client(connection, client_id)
    if client is None or not await queries.lock_app(connection, client.app_id):
        raise Absent
    locked = await queries.find_client(connection, client_id)
    assert locked is not None, "apps are never deleted"
    return locked


async def _note_redirect(
    connection: Connection, client: Client, action: str, uri: str, *, actor: str, now: datetime
) -> None:
    record = AuditRecord(actor=actor, action=action, subject=client.client_id, detail={"uri": uri})
    await audit.append(connection, record, partner_id=client.partner_id, now=now)


async def add_key(
    connection: Connection,
    *,
    app_id: UUID,
    jwk: Mapping[str, Any],
    status: KeyStatus = "active",
    now: datetime,
) -> str:
    """Register a public key; returns its kid. The app's row is locked so that two keys cannot race past the limit."""
    if not await queries.lock_app(connection, app_id):
        raise Absent
    registered = await queries.list_keys(connection, app_id)
    kid, key = check_new_key(jwk, [(known.kid, known.jwk, known.status) for known in registered])
    await queries.insert_key(connection, app_id, kid=kid, jwk=public_jwk(kid, key), status=status, now=now)
    return kid


async def set_key_status(
    connection: Connection, *, app_id: UUID, kid: str, status: KeyStatus, now: datetime
) -> None:
    """Move a key; revoking one ends the partner's tokens, for a thief of the key may have fetched some."""
    if not await queries.lock_app(connection, app_id):
        raise Absent
    keys = await queries.list_keys(connection, app_id)
    present = next((key.status for key in keys if key.kid == kid), None)
    if present is None:
        raise Absent
    check_key_move(present, status)
    if status == "active":
        check_active_keys([key.status for key in keys])
    await queries.move_key(connection, app_id, kid, present=present, wanted=status, now=now)
    if status == "revoked":
        await queries.raise_epoch(connection, app_id, now=now)


async def list_keys(connection: Connection, app_id: UUID, *, after: str = "", limit: int = 100) -> list[Key]:
    return await queries.list_keys(connection, app_id, after=after, limit=limit)


async def record_agreement(
    connection: Connection,
    *,
    partner_id: UUID,
    scenarios: Sequence[str],
    funding: dict[str, Any],
    starts_on: date,
    ends_on: date,
    now: datetime,
) -> Agreement:
    agreement = Agreement(
        id=new_id(now),
        partner_id=partner_id,
        scenarios=list(scenarios),
        funding=funding,
        starts_on=starts_on,
        ends_on=ends_on,
    )
    await queries.insert_agreement(connection, agreement, now=now)
    return agreement


async def find_agreement(connection: Connection, partner_id: UUID, *, now: datetime) -> Agreement | None:
    """The agreement in force on the business date of `now`."""
    return await queries.find_agreement(connection, partner_id, today=business_date(now))


async def list_customers(
    connection: Connection, *, partner_id: UUID, ref_hashes: Sequence[bytes]
) -> dict[bytes, MemberRef]:
    """The members behind those of the partner's customer numbers that are bound."""
    return await queries.list_customers(connection, partner_id, ref_hashes)


async def lock_customers(connection: Connection, *, partner_id: UUID) -> None:
    """From here to commit nobody else binds customers of this partner."""
    try:
        await queries.lock_customers(connection, partner_id)
    except asyncpg.LockNotAvailableError:
        raise CustomersBusy from None


async def link_customers(
    connection: Connection, *, partner_id: UUID, customers: dict[bytes, MemberRef], now: datetime
) -> None:
    """Bind customer numbers found unbound under `lock_customers`."""
    await queries.insert_customers(connection, partner_id, customers, now=now)
