"""Webhooks: who wants to be told, what is on its way, and how the world answered."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from msgspec import Struct

EndpointStatus = Literal["active", "disabled"]
DeliveryState = Literal["pending", "delivered", "retrying", "dead"]

#: the event a partner sends itself to see whether its receiver works
TEST_EVENT = "webhook.test"


class Endpoint(Struct, frozen=True, kw_only=True):
    """One address of a partner."""

    id: UUID
    partner_id: UUID
    url: str
    #: exact types, or `*` for all
    event_types: list[str]
    status: EndpointStatus
    disabled_reason: str | None
    created_at: datetime
    #: since when nothing was delivered; None while all is well
    failing_since: datetime | None


class NewEndpoint(Struct, frozen=True, kw_only=True):
    """An endpoint with its secret, which is shown this once."""

    endpoint: Endpoint
    secret: str


class Event(Struct, frozen=True, kw_only=True):
    """An event with its place in the partner's sequence."""

    id: UUID
    partner_id: UUID
    type: str
    #: the public id of the thing it happened to
    aggregate: str
    payload: dict[str, Any]
    occurred_at: datetime
    position: int


class EventBody(Struct, frozen=True, kw_only=True):
    """What a partner reads, by webhook and by poll alike."""

    id: str
    type: str
    occurred_at: datetime
    partner: str
    #: follows the order in which things happened; a gap means nothing
    sequence: int
    #: the public id of the thing it happened to
    object: str
    data: dict[str, Any]


class Claim(Struct, frozen=True, kw_only=True):
    """A delivery this worker may send until its lease ends."""

    id: UUID
    endpoint_id: UUID
    lease_token: UUID
    #: 1 for the first try
    attempt: int
    #: when the first try was due
    started_at: datetime
    url: str
    secret_sealed: bytes
    previous_secret_sealed: bytes | None
    previous_valid_until: datetime | None
    event_id: UUID
    partner_id: UUID
    type: str
    aggregate: str
    payload: dict[str, Any]
    occurred_at: datetime
    position: int

    def event(self) -> Event:
        return Event(
            id=self.event_id,
            partner_id=self.partner_id,
            type=self.type,
            aggregate=self.aggregate,
            payload=self.payload,
            occurred_at=self.occurred_at,
            position=self.position,
        )


class Answer(Struct, frozen=True, kw_only=True):
    """How one attempt ended: a status, or the reason why there is none."""

    status: int | None = None
    error: str | None = None
    #: what the receiver asked for, in seconds
    retry_after_seconds: int | None = None


class Delivery(Struct, frozen=True, kw_only=True):
    """What the partner may see of a delivery."""

    id: UUID
    event_id: UUID
    type: str
    sequence: int
    state: DeliveryState
    attempt: int
    #: when it is tried next; None once it is delivered or dead
    next_at: datetime | None
    last_status: int | None
    last_error: str | None
    delivered_at: datetime | None


class Replay(Struct, frozen=True, kw_only=True):
    """What a request to send again came to."""

    queued: int
    #: where a next call goes on; None when everything asked for is queued
    last_position: int | None = None
