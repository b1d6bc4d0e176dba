"""Webhook endpoints and the event list over HTTP."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody
from msgspec import Meta, Struct

from kernel.caller import Caller
from kernel.database import Connection
from kernel.errors import Unprocessable
from kernel.ids import from_wire, to_wire
from kernel.pages import CursorSeal, Page, check_limit
from kernel.settings import Settings
from kernel.vault import Vault
from partners.webhooks import service
from partners.webhooks.model import Delivery, DeliveryState, Endpoint, EndpointStatus, EventBody

EventType = Annotated[
    str,
    Meta(
        pattern=r"^(\*|[a-z][a-z_]{0,31}(\.[a-z][a-z_]{0,31}){1,3})$",
        description="An event type such as `points.earned`, or `*` for all.",
    ),
]


class ReplayNeedsOneChoice(Unprocessable):
    """Say either which event is to be sent again, by `event_id`, or from when on, by `since`."""


class NewEndpointRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where to be told, and what."""

    url: Annotated[
        str, Meta(min_length=8, max_length=2048, description="https, port 443, a public host name.")
    ]
    event_types: Annotated[list[EventType], Meta(min_length=1, max_length=50)]


class ReplayRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to send again: one event, or everything since a moment."""

    event_id: Annotated[str, Meta(max_length=40, description="An event id, `evt_…`.")] | None = None
    since: Annotated[datetime, Meta(tz=True, description="Events that happened at or after this.")] | None = (
        None
    )
    cursor: Annotated[str, Meta(max_length=256, description="`next_cursor` of the call before.")] | None = (
        None
    )


class EndpointAnswer(Struct, frozen=True, kw_only=True):
    """A webhook endpoint."""

    id: str
    url: str
    event_types: list[str]
    status: EndpointStatus
    #: `gone` after a 410, `failing` after five days without a delivery
    disabled_reason: str | None
    failing_since: datetime | None
    created_at: datetime


class EndpointWithSecret(EndpointAnswer, frozen=True, kw_only=True):
    """A webhook endpoint with its signing secret, shown this once."""

    secret: str


class DeliveryAnswer(Struct, frozen=True, kw_only=True):
    """One event's delivery to one endpoint."""

    id: str
    event_id: str
    type: str
    sequence: int
    state: DeliveryState
    attempts: int
    next_attempt_at: datetime | None
    last_status: int | None
    last_error: str | None
    delivered_at: datetime | None


class ReplayAnswer(Struct, frozen=True, kw_only=True):
    """How many deliveries were queued."""

    queued: int
    #: pass as `cursor`, with the same `since`, to queue the rest; null when all are queued
    next_cursor: str | None = None


class TestAnswer(Struct, frozen=True, kw_only=True):
    """A test event is on its way to the endpoint."""

    endpoint: EndpointAnswer
    event_type: str = "webhook.test"


@post("/v1/webhook_endpoints", scope="events:read", idempotent=True, level="A1")
async def register_endpoint(
    data: JSONBody[NewEndpointRequest],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    now: NamedDependency[datetime],
    vault: NamedDependency[Vault],
    settings: NamedDependency[Settings],
) -> EndpointWithSecret:
    """Register a webhook endpoint; its secret is shown this once."""
    new = await service.register_endpoint(
        connection,
        partner_id=caller.partner_id,
        url=data.url,
        event_types=data.event_types,
        secret=None,
        vault=vault,
        mode=settings.mode,
        now=now,
    )
    return _with_secret(new.endpoint, new.secret)


@get("/v1/webhook_endpoints", scope="events:read", level="A1")
async def list_endpoints(
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    cursors: NamedDependency[CursorSeal],
    limit: FromQuery[int] = 20,
    cursor: FromQuery[str | None] = None,
) -> Page[EndpointAnswer]:
    """List the partner's webhook endpoints."""
    check_limit(limit)
    binding = f"webhook_endpoints:{caller.partner_id}"
    after = UUID(cursors.open(binding, cursor)) if cursor else UUID(int=0)
    found = await service.list_endpoints(
        connection, partner_id=caller.partner_id, after=after, limit=limit + 1
    )
    more = cursors.seal(binding, str(found[limit - 1].id)) if len(found) > limit else None
    return Page(data=[_endpoint(endpoint) for endpoint in found[:limit]], next_cursor=more)


@post(
    "/v1/webhook_endpoints/{endpoint_id:str}/rotate_secret", scope="events:read", idempotent=True, level="A1"
)
async def rotate_secret(
    endpoint_id: FromPath[str],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    now: NamedDependency[datetime],
    vault: NamedDependency[Vault],
) -> EndpointWithSecret:
    """Replace the signing secret; for 24 hours the old one signs as well."""
    new = await service.rotate_secret(
        connection,
        endpoint_id=from_wire("whe", endpoint_id),
        partner_id=caller.partner_id,
        vault=vault,
        now=now,
    )
    return _with_secret(new.endpoint, new.secret)


@get("/v1/webhook_endpoints/{endpoint_id:str}/deliveries", scope="events:read", level="A1")
async def list_deliveries(
    endpoint_id: FromPath[str],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    cursors: NamedDependency[CursorSeal],
    limit: FromQuery[int] = 20,
    cursor: FromQuery[str | None] = None,
) -> Page[DeliveryAnswer]:
    """List what was sent to an endpoint, newest event first."""
    check_limit(limit)
    binding = f"webhook_deliveries:{caller.partner_id}:{endpoint_id}"
    found = await service.list_deliveries(
        connection,
        endpoint_id=from_wire("whe", endpoint_id),
        partner_id=caller.partner_id,
        before=cursors.open(binding, cursor) if cursor else 2**63 - 1,
        limit=limit + 1,
    )
    more = cursors.seal(binding, found[limit - 1].sequence) if len(found) > limit else None
    return Page(data=[_delivery(delivery) for delivery in found[:limit]], next_cursor=more)


@post(
    "/v1/webhook_endpoints/{endpoint_id:str}/replay",
    scope="events:read",
    idempotent=True,
    level="A1",
    status_code=202,
)
async def replay(
    endpoint_id: FromPath[str],
    data: JSONBody[ReplayRequest],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    cursors: NamedDependency[CursorSeal],
    now: NamedDependency[datetime],
) -> ReplayAnswer:
    """Send events again that were delivered or given up, under their own ids."""
    wanted, partner_id = from_wire("whe", endpoint_id), caller.partner_id
    if (data.event_id is None) == (data.since is None):
        raise ReplayNeedsOneChoice
    if data.event_id is not None:
        one = await service.replay_event(
            connection,
            endpoint_id=wanted,
            partner_id=partner_id,
            event_id=from_wire("evt", data.event_id),
            now=now,
        )
        return ReplayAnswer(queued=one.queued)
    assert data.since is not None
    binding = f"webhook_replay:{partner_id}:{endpoint_id}"
    run = await service.replay_since(
        connection,
        endpoint_id=wanted,
        partner_id=partner_id,
        since=data.since,
        after=cursors.open(binding, data.cursor) if data.cursor else 0,
        now=now,
    )
    more = cursors.seal(binding, run.last_position) if run.last_position is not None else None
    return ReplayAnswer(queued=run.queued, next_cursor=more)


@post(
    "/v1/webhook_endpoints/{endpoint_id:str}/test",
    scope="events:read",
    idempotent=True,
    level="A1",
    status_code=202,
)
async def send_test(
    endpoint_id: FromPath[str],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    now: NamedDependency[datetime],
) -> TestAnswer:
    """Send a `webhook.test` event to this endpoint."""
    endpoint = await service.request_test(
        connection, endpoint_id=from_wire("whe", endpoint_id), partner_id=caller.partner_id, now=now
    )
    return TestAnswer(endpoint=_endpoint(endpoint))


@post(
    "/v1/webhook_endpoints/{endpoint_id:str}/verify",
    scope="events:read",
    idempotent=True,
    level="A1",
    status_code=202,
)
async def verify_endpoint(
    endpoint_id: FromPath[str],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    now: NamedDependency[datetime],
) -> TestAnswer:
    """Switch a disabled endpoint on again and send it a `webhook.test` event."""
    endpoint = await service.enable_endpoint(
        connection, endpoint_id=from_wire("whe", endpoint_id), partner_id=caller.partner_id, now=now
    )
    return TestAnswer(endpoint=_endpoint(endpoint))


@get("/v1/events", scope="events:read", level="A1")
async def list_events(
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    cursors: NamedDependency[CursorSeal],
    after: FromQuery[str | None] = None,
    limit: FromQuery[int] = 50,
) -> Page[EventBody]:
    """List events in their order; `after` is the cursor or the last event id seen."""
    check_limit(limit)
    binding = f"events:{caller.partner_id}"
    position = await _position(connection, cursors, caller, binding, after)
    found = await service.list_events(
        connection, partner_id=caller.partner_id, after=position, limit=limit + 1
    )
    more = cursors.seal(binding, found[limit - 1].position) if len(found) > limit else None
    return Page(data=[service.body_of(event) for event in found[:limit]], next_cursor=more)


async def _position(
    connection: Connection, cursors: CursorSeal, caller: Caller, binding: str, after: str | None
) -> int:
    if after is None:
        return 0
    if after.startswith("evt_"):
        return await service.find_position(
            connection, partner_id=caller.partner_id, event_id=from_wire("evt", after)
        )
    position: int = cursors.open(binding, after)
    return position


def _endpoint(endpoint: Endpoint) -> EndpointAnswer:
    return EndpointAnswer(
        id=to_wire("whe", endpoint.id),
        url=endpoint.url,
        event_types=endpoint.event_types,
        status=endpoint.status,
        disabled_reason=endpoint.disabled_reason,
        failing_since=endpoint.failing_since,
        created_at=endpoint.created_at,
    )


def _with_secret(endpoint: Endpoint, secret: str) -> EndpointWithSecret:
    return EndpointWithSecret(
        id=to_wire("whe", endpoint.id),
        url=endpoint.url,
        event_types=endpoint.event_types,
        status=endpoint.status,
        disabled_reason=endpoint.disabled_reason,
        failing_since=endpoint.failing_since,
        created_at=endpoint.created_at,
        secret=secret,
    )


def _delivery(delivery: Delivery) -> DeliveryAnswer:
    return DeliveryAnswer(
        id=to_wire("whd", delivery.id),
        event_id=to_wire("evt", delivery.event_id),
        type=delivery.type,
        sequence=delivery.sequence,
        state=delivery.state,
        attempts=delivery.attempt,
        next_attempt_at=delivery.next_at,
        last_status=delivery.last_status,
        last_error=delivery.last_error,
        delivered_at=delivery.delivered_at,
    )


routes = [
    register_endpoint,
    list_endpoints,
    rotate_secret,
    list_deliveries,
    replay,
    send_test,
    verify_endpoint,
    list_events,
]
