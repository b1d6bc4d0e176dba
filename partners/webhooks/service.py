"""Webhooks: endpoints and their secrets, the relay from the outbox to deliveries, and the life of a delivery."""

import base64
import os
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from kernel import audit, outbox
from kernel.audit import AuditRecord
from kernel.database import Connection
from kernel.errors import Absent, Conflict
from kernel.ids import new_id, to_wire
from kernel.vault import Vault
from partners.registry import service as registry
from partners.webhooks import queries
from partners.webhooks.model import (
    TEST_EVENT,
    Answer,
    Claim,
    Delivery,
    DeliveryState,
    Endpoint,
    Event,
    EventBody,
    NewEndpoint,
    Replay,
)
from partners.webhooks.rules import Mode, check_secret, check_url, plan_next_step

BUCKETS = 1024
ENDPOINTS_MAX = 20
PER_ENDPOINT = 4
LEASE_SECONDS = 30
PREVIOUS_SECRET_HOURS = 24
REPLAY_LIMIT = 10_000
_SUSPENDED_MINUTES = 10
_SILENT = frozenset(("suspended", "terminated", "rejected"))
_FIRST = UUID(int=0)


class TooManyWebhookEndpoints(Conflict):
    """The partner already has as many webhook endpoints as it may."""


class DeliveryInProgress(Conflict):
    """The event is already on its way to this endpoint."""


async def relay(connection: Connection, *, limit: int, now: datetime) -> int:
    """Give waiting events their positions and lay out their deliveries; returns how many events."""
    runs = await outbox.stamp_positions(connection, limit=limit)
    if runs:
        await queries.add_deliveries(connection, runs, now=now)
    return sum(run.events for run in runs)


async def claim_due(
    connection: Connection,
    *,
    limit: int,
    per_endpoint: int = PER_ENDPOINT,
    lease_seconds: int = LEASE_SECONDS,
    now: datetime,
) -> list[Claim]:
    """Deliveries to be sent now, oldest first. A suspended partner is told nothing until it is reinstated."""
    assert 1 <= per_endpoint <= PER_ENDPOINT
    claims = await queries.claim_due(
        connection, limit=limit, per_endpoint=per_endpoint, lease_seconds=lease_seconds, now=now
    )
    silent = set()
    for partner_id in {claim.partner_id for claim in claims}:
        partner = await registry.find_partner(connection, partner_id)
        if partner.status in _SILENT:
            silent.add(partner_id)
    later = now + timedelta(minutes=_SUSPENDED_MINUTES)
    for claim in claims:
        if claim.partner_id in silent:
            await queries.postpone(
                connection, delivery_id=claim.id, lease_token=claim.lease_token, next_at=later
            )
    return sorted(
        (claim for claim in claims if claim.partner_id not in silent), key=lambda claim: claim.position
    )


async def mark_delivered(connection: Connection, claim: Claim, *, status: int, now: datetime) -> bool:
    """False when the lease ran out and the delivery is somebody else's now."""
    return await queries.mark_delivered(
        connection, delivery_id=claim.id, lease_token=claim.lease_token, status=status, now=now
    )


async def mark_failed(
    connection: Connection, claim: Claim, answer: Answer, *, jitter_permille: int, now: datetime
) -> DeliveryState | None:
    """Plan the next try, or give up; None when the lease ran out and the delivery is somebody else's now."""
    locked = await queries.lock_failing(connection, delivery_id=claim.id, lease_token=claim.lease_token)
    if locked is None:
        return None
    step = plan_next_step(
        answer,
        attempt=claim.attempt,
        started_at=claim.started_at,
        failing_since=locked[0],
        jitter_permille=jitter_permille,
        now=now,
    )
    await queries.mark_failed(
        connection,
        delivery_id=claim.id,
        lease_token=claim.lease_token,
        next_at=step.next_at,
        status=answer.status,
        error=answer.error,
    )
    await queries.note_failing(
        connection, endpoint_id=claim.endpoint_id, disable_reason=step.disable_reason, now=now
    )
    return "dead" if step.next_at is None else "retrying"


async def register_endpoint(
    connection: Connection,
    *,
    partner_id: UUID,
    url: str,
    event_types: Sequence[str],
    secret: str | None,
    vault: Vault,
    mode: Mode,
    now: datetime,
) -> NewEndpoint:
    """A new endpoint. It signs with `secret`, else with the one set for the partner, else with a fresh one."""
    check_url(url, mode)
    await queries.lock_endpoints(connection, partner_id=partner_id)
    if await queries.count_endpoints(connection, partner_id=partner_id) >= ENDPOINTS_MAX:
        raise TooManyWebhookEndpoints(limit=ENDPOINTS_MAX)
    secret = secret or await _find_partner_secret(connection, partner_id, vault) or new_secret()
    check_secret(secret)
    endpoint_id = new_id(now)
    endpoint = await queries.insert_endpoint(
        connection,
        endpoint_id=endpoint_id,
        public_id=to_wire("whe", endpoint_id),
        partner_id=partner_id,
        url=url,
        event_types=sorted(set(event_types)),
        sealed=seal_secret(vault, endpoint_id, secret),
        now=now,
    )
    await _audit(connection, endpoint, "webhook_endpoint.register", now=now)
    return NewEndpoint(endpoint=endpoint, secret=secret)


async def set_partner_secret(
    connection: Connection, *, partner_id: UUID, secret: str, vault: Vault, now: datetime
) -> None:
    """From now on new endpoints of the partner sign with `secret`."""
    check_secret(secret)
    sealed = vault.encrypt(
        secret, table="webhooks_partner_secret", column="secret_sealed", row=str(partner_id)
    )
    await queries.save_partner_secret(connection, partner_id=partner_id, sealed=sealed, now=now)


async def rotate_secret(
    connection: Connection, *, endpoint_id: UUID, partner_id: UUID, vault: Vault, now: datetime
) -> NewEndpoint:
    """A new secret; for 24 hours the old one signs as well, so the receiver can change over at leisure."""
    sealed = await queries.lock_secret(connection, endpoint_id=endpoint_id, partner_id=partner_id)
    if sealed is None:
        raise Absent
    old = open_secret(vault, endpoint_id, sealed)
    secret = new_secret()
    await queries.replace_secret(
        connection,
        endpoint_id=endpoint_id,
        sealed=seal_secret(vault, endpoint_id, secret),
        previous=seal_secret(vault, endpoint_id, old, column="previous_secret_sealed"),
        previous_valid_until=now + timedelta(hours=PREVIOUS_SECRET_HOURS),
    )
    endpoint = await find_endpoint(connection, endpoint_id=endpoint_id, partner_id=partner_id)
    await _audit(connection, endpoint, "webhook_endpoint.rotate_secret", now=now)
    return NewEndpoint(endpoint=endpoint, secret=secret)


async def find_endpoint(connection: Connection, *, endpoint_id: UUID, partner_id: UUID) -> Endpoint:
    """The partner's own endpoint."""
    endpoint = await queries.find_endpoint(connection, endpoint_id=endpoint_id, partner_id=partner_id)
    if endpoint is None:
        raise Absent
    return endpoint


async def list_endpoints(
    connection: Connection, *, partner_id: UUID, after: UUID = _FIRST, limit: int
) -> list[Endpoint]:
    """The partner's endpoints in the order of registration."""
    return await queries.list_endpoints(connection, partner_id=partner_id, after=after, limit=limit)


async def list_deliveries(
    connection: Connection, *, endpoint_id: UUID, partner_id: UUID, before: int = 2**63 - 1, limit: int
) -> list[Delivery]:
    """What was sent to the endpoint, newest event first."""
    await find_endpoint(connection, endpoint_id=endpoint_id, partner_id=partner_id)
    return await queries.list_deliveries(connection, endpoint_id=endpoint_id, before=before, limit=limit)


async def replay_event(
    connection: Connection, *, endpoint_id: UUID, partner_id: UUID, event_id: UUID, now: datetime
) -> Replay:
    """Send one delivered or dead event again, with its own id."""
    await find_endpoint(connection, endpoint_id=endpoint_id, partner_id=partner_id)
    if await queries.replay_event(connection, endpoint_id=endpoint_id, event_id=event_id, now=now):
        return Replay(queued=1)
    state = await queries.find_delivery_state(connection, endpoint_id=endpoint_id, event_id=event_id)
    if state is None:
        raise Absent
    raise DeliveryInProgress(state=state)


async def replay_since(
    connection: Connection,
    *,
    endpoint_id: UUID,
    partner_id: UUID,
    since: datetime,
    after: int = 0,
    limit: int = REPLAY_LIMIT,
    now: datetime,
) -> Replay:
    """Send everything since a moment again, also what the endpoint missed while it was disabled."""
    await find_endpoint(connection, endpoint_id=endpoint_id, partner_id=partner_id)
    return await queries.replay_since(
        connection, endpoint_id=endpoint_id, since=since, after=after, limit=limit, now=now
    )


async def request_test(
    connection: Connection, *, endpoint_id: UUID, partner_id: UUID, now: datetime
) -> Endpoint:
    """Write a test event addressed to this endpoint alone."""
    endpoint = await find_endpoint(connection, endpoint_id=endpoint_id, partner_id=partner_id)
    wire_id = to_wire("whe", endpoint_id)
    event = outbox.Event(
        bucket=partner_id.int % BUCKETS,
        partner_id=partner_id,
        type=TEST_EVENT,
        aggregate=wire_id,
        payload={"webhook_endpoint": wire_id},
    )
    await outbox.enqueue(connection, [event], now=now)
    return endpoint


async def enable_endpoint(
    connection: Connection, *, endpoint_id: UUID, partner_id: UUID, now: datetime
) -> Endpoint:
    """Switch a disabled endpoint on again, and send it a test event first."""
    await find_endpoint(connection, endpoint_id=endpoint_id, partner_id=partner_id)
    await queries.enable_endpoint(connection, endpoint_id=endpoint_id)
    endpoint = await request_test(connection, endpoint_id=endpoint_id, partner_id=partner_id, now=now)
    await _audit(connection, endpoint, "webhook_endpoint.verify", now=now)
    return endpoint


async def list_events(connection: Connection, *, partner_id: UUID, after: int, limit: int) -> list[Event]:
    """The partner's events behind a position; the second way to learn everything a webhook would have told."""
    return await queries.list_events(connection, partner_id=partner_id, after=after, limit=limit)


async def find_position(connection: Connection, *, partner_id: UUID, event_id: UUID) -> int:
    """The position of one of the partner's events."""
    position = await queries.find_position(connection, partner_id=partner_id, event_id=event_id)
    if position is None:
        raise Absent
    return position


def body_of(event: Event) -> EventBody:
    """The event as a partner reads it."""
    return EventBody(
        id=to_wire("evt", event.id),
        type=event.type,
        occurred_at=event.occurred_at,
        partner=to_wire("ptn", event.partner_id),
        sequence=event.position,
        object=event.aggregate,
        data=event.payload,
    )


def new_secret() -> str:
    """A fresh signing secret of 256 bits."""
    return "whsec_" + base64.b64encode(os.urandom(32)).decode()


def seal_secret(vault: Vault, endpoint_id: UUID, secret: str, column: str = "secret_sealed") -> bytes:
    """The secret as it is stored, bound to its endpoint and column."""
    return vault.encrypt(secret, table="webhooks_endpoint", column=column, row=str(endpoint_id))


def open_secret(vault: Vault, endpoint_id: UUID, sealed: bytes, column: str = "secret_sealed") -> str:
    """What `seal_secret` sealed."""
    return vault.decrypt(sealed, table="webhooks_endpoint", column=column, row=str(endpoint_id))


async def _find_partner_secret(connection: Connection, partner_id: UUID, vault: Vault) -> str | None:
    sealed = await queries.find_partner_secret(connection, partner_id=partner_id)
    if sealed is None:
        return None
    return vault.decrypt(sealed, table="webhooks_partner_secret", column="secret_sealed", row=str(partner_id))


async def _audit(connection: Connection, endpoint: Endpoint, action: str, *, now: datetime) -> None:
    wire_id = to_wire("ptn", endpoint.partner_id)
    record = AuditRecord(
        actor=f"partner:{wire_id}", action=action, subject=to_wire("whe", endpoint.id), detail={}
    )
    await audit.append(connection, record, partner_id=endpoint.partner_id, now=now)
