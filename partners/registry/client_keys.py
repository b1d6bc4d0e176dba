"""An app looks after its own keys: a new one waits for its first use, the ones before it retire, any is revoked at once.

The app's row is locked first, so that changes of its keys follow each other; each is one conditional UPDATE, one event and
one line of the audit log.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from kernel import audit, outbox
from kernel.audit import AuditRecord
from kernel.database import Connection
from kernel.errors import Absent, Conflict
from partners.registry import jwks_queries, queries
from partners.registry.model import App, Key
from partners.registry.rules import (
    KeyMoveNotAllowed,
    LastUsableKey,
    check_rotation,
    is_usable,
    public_jwk,
)
from partners.registry.service import BUCKETS, find_app


class KeysPublishedElsewhere(Conflict):
    """This app's keys come from its `jwks_uri`; publish the new key there."""


async def register_key(
    connection: Connection,
    *,
    app_id: UUID,
    jwk: Mapping[str, Any],
    overlap: timedelta,
    actor: str,
    now: datetime,
) -> Key:
    """A key that becomes active by the first assertion it signs; the ones before it then retire after `overlap`."""
    app, registered = await _lock(connection, app_id)
    if app.jwks_uri is not None:
        raise KeysPublishedElsewhere
    kid, key = check_rotation(jwk, registered, now=now)
    await queries.insert_key(
        connection,
        app_id,
        kid=kid,
        jwk=public_jwk(kid, key),
        status="pending",
        overlap_seconds=int(overlap.total_seconds()),
        now=now,
    )
    facts = {"kid": kid, "thumbprint": key.thumbprint}
    await _tell(connection, app, "key.registered", facts, actor=actor, now=now)
    return await _find(connection, app_id, kid)


async def use_pending_key(connection: Connection, *, app_id: UUID, kid: str, now: datetime) -> bool:
    """Make the key active and retire those before it; of a crowd one does, and the others find it done.

    False if it was revoked meanwhile: its signature is worth nothing then.
    """
    app, _ = await _lock(connection, app_id)
    overlap_seconds = await queries.activate_key(connection, app_id, kid, now=now)
    if overlap_seconds is None:
        return (await _find(connection, app_id, kid)).status in ("active", "retiring")
    not_after = now + timedelta(seconds=overlap_seconds)
    retiring = await queries.retire_other_keys(connection, app_id, kid, not_after=not_after)
    facts = {"kid": kid, "retiring": retiring, "not_after": f"{not_after:%Y-%m-%dT%H:%M:%SZ}"}
    await _tell(connection, app, "key.activated", facts, actor=f"app:{app.client_id}", now=now)
    return True


async def revoke_key(
    connection: Connection,
    *,
    app_id: UUID,
    kid: str,
    last: bool = False,
    reason: str | None = None,
    actor: str,
    now: datetime,
) -> Key:
    """From this commit on nothing it signed is taken, and the partner's tokens end: a thief may have fetched some.

    `last` says that the app may be left without a way in.
    """
    app, registered = await _lock(connection, app_id)
    fetched = await jwks_queries.find_keys(connection, app_id)
    key = next((known for known in registered if known.kid == kid), None)
    if key is None and kid not in fetched:
        raise Absent
    if key is not None and key.status == "revoked":
        raise KeyMoveNotAllowed(present="revoked", wanted="revoked")
    others = [known for known in registered if known.kid != kid and is_usable(known, now=now)]
    usable = key is None or is_usable(key, now=now)
    if usable and not (last or others or fetched.keys() - {kid} or app.certificate_subject):
        raise LastUsableKey
    if key is None:
        await queries.insert_key(connection, app_id, kid=kid, jwk=fetched[kid], status="revoked", now=now)
    else:
        moved = await queries.move_key(connection, app_id, kid, present=key.status, wanted="revoked", now=now)
        assert moved, "the app's row is locked"
    await jwks_queries.drop_key(connection, app_id, kid)
    if key is None or key.status != "pending":
        await queries.raise_epoch(connection, app_id, now=now)
    await _tell(connection, app, "key.revoked", {"kid": kid}, reason=reason, actor=actor, now=now)
    return await _find(connection, app_id, kid)


async def _lock(connection: Connection, app_id: UUID) -> tuple[App, Sequence[Key]]:
    if not await queries.lock_app(connection, app_id):
        raise Absent
    return await find_app(connection, app_id), await queries.list_keys(connection, app_id)


async def _find(connection: Connection, app_id: UUID, kid: str) -> Key:
    return next(key for key in await queries.list_keys(connection, app_id) if key.kid == kid)


async def _tell(
    connection: Connection,
    app: App,
    happened: str,
    facts: dict[str, Any],
    *,
    reason: str | None = None,
    actor: str,
    now: datetime,
) -> None:
    event = outbox.Event(
        bucket=app.partner_id.int % BUCKETS,
        partner_id=app.partner_id,
        type=happened,
        aggregate=app.client_id,
        payload={"app": app.client_id, **facts},
    )
    await outbox.enqueue(connection, [event], now=now)
    # The reason stays in the house.
    detail = facts if reason is None else facts | {"reason": reason}
    record = AuditRecord(actor=actor, action=happened, subject=app.client_id, detail=detail)
    await audit.append(connection, record, partner_id=app.partner_id, now=now)
