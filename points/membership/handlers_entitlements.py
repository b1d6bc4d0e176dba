"""Rights over HTTP: what a member holds at a partner, booked for a date, cancelled, used."""

from datetime import date, datetime
from typing import Annotated, Literal
from uuid import UUID

from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody
from msgspec import Meta, Struct

from kernel.caller import Caller, ConsentMissing, Subjects
from kernel.database import Connection
from kernel.ids import from_wire, to_wire
from kernel.pages import CursorSeal, Page, check_limit
from points.membership import entitlements as service
from points.membership.model import Booking, Entitlement
from points.membership.rules import state_of

READ = "members:read"
WRITE = "entitlements:write"

Reference = Annotated[str, Meta(min_length=1, max_length=128)]
Quantity = Annotated[int, Meta(ge=1, le=1000, description="How many uses at once.")]


class EntitlementView(Struct, frozen=True, kw_only=True):
    """A right of a member at this partner."""

    id: str
    kind: str
    state: str
    quantity: int
    used: int
    #: promised for a date and not used yet
    booked: int
    #: to be used or booked
    left: int
    expires_at: datetime | None
    granted_at: datetime


class UseEntitlement(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One use of a right."""

    use_ref: Annotated[Reference, Meta(description="Your number of this use; counts once.")]
    quantity: Quantity = 1
    booking_ref: Annotated[Reference, Meta(description="The booking that is used, in full.")] | None = None


class BookEntitlement(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Uses of a right to be promised for a date."""

    booking_ref: Annotated[Reference, Meta(description="Your number of the booking; good once.")]
    booked_for: Annotated[date, Meta(description="The day of the visit, in Asia/Shanghai.")]
    quantity: Quantity = 1


class CancelBooking(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A booking that will not be used."""

    booking_ref: Annotated[Reference, Meta(description="Your number of the booking.")]


class BookingView(Struct, frozen=True, kw_only=True):
    """A booking, and the right as it stands with it."""

    booking_ref: str
    booked_for: date
    quantity: int
    state: Literal["booked", "used", "cancelled"]
    entitlement: EntitlementView


@get("/v1/members/{sub:str}/entitlements", scope=READ, level="A1", member_token=True)
async def list_entitlements(
    sub: FromPath[str],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    subjects: NamedDependency[Subjects],
    cursors: NamedDependency[CursorSeal],
    now: NamedDependency[datetime],
    limit: FromQuery[int] = 20,
    cursor: FromQuery[str | None] = None,
) -> Page[EntitlementView]:
    """List a member's entitlements at this partner, newest first."""
    check_limit(limit)
    member = await subjects.resolve_one(connection, caller, sub, scope=READ, now=now)
    binding = f"{caller.client_id}:entitlements:{sub}"
    before = None if cursor is None else UUID(cursors.open(binding, cursor))
    found = await service.list_entitlements(
        connection, member, partner_id=caller.partner_id, before=before, limit=limit + 1
    )
    more = cursors.seal(binding, str(found[limit - 1].id)) if len(found) > limit else None
    return Page(data=[_view(entitlement, now) for entitlement in found[:limit]], next_cursor=more)


@post("/v1/entitlements/{id:str}/use", scope=WRITE, idempotent=True, level="A2", status_code=200)
async def use_entitlement(
    id: FromPath[str],
    data: JSONBody[UseEntitlement],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    subjects: NamedDependency[Subjects],
    now: NamedDependency[datetime],
) -> EntitlementView:
    """Use an entitlement, or a booking of it."""
    entitlement_id = from_wire("etl", id)
    if data.booking_ref is None:
        present = await service.find_entitlement(connection, entitlement_id, partner_id=caller.partner_id)
        await _check_consent(connection, caller, subjects, present, now)
    entitlement = await service.use_entitlement(
        connection,
        entitlement_id=entitlement_id,
        partner_id=caller.partner_id,
        use_ref=data.use_ref,
        quantity=data.quantity,
        booking_ref=data.booking_ref,
        now=now,
    )
    return _view(entitlement, now)


@post("/v1/entitlements/{id:str}/book", scope=WRITE, idempotent=True, level="A2")
async def book_entitlement(
    id: FromPath[str],
    data: JSONBody[BookEntitlement],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    subjects: NamedDependency[Subjects],
    now: NamedDependency[datetime],
) -> BookingView:
    """Book uses of an entitlement for a date; they stay booked when the member's tier falls."""
    entitlement_id = from_wire("etl", id)
    present = await service.find_entitlement(connection, entitlement_id, partner_id=caller.partner_id)
    await _check_consent(connection, caller, subjects, present, now)
    entitlement, booking = await service.book_entitlement(
        connection,
        entitlement_id=entitlement_id,
        partner_id=caller.partner_id,
        booking_ref=data.booking_ref,
        booked_for=data.booked_for,
        quantity=data.quantity,
        now=now,
    )
    return _booking(entitlement, booking, now)


@post("/v1/entitlements/{id:str}/cancel", scope=WRITE, idempotent=True, level="A2", status_code=200)
async def cancel_booking(
    id: FromPath[str],
    data: JSONBody[CancelBooking],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    now: NamedDependency[datetime],
) -> BookingView:
    """Cancel a booking; its uses are free again."""
    entitlement, booking = await service.cancel_booking(
        connection,
        entitlement_id=from_wire("etl", id),
        partner_id=caller.partner_id,
        booking_ref=data.booking_ref,
        now=now,
    )
    return _booking(entitlement, booking, now)


async def _check_consent(
    connection: Connection, caller: Caller, subjects: Subjects, entitlement: Entitlement, now: datetime
) -> None:
    """A booking, or a use that was not booked, needs the member's consent of today; keeping or cancelling a promise does not."""
    names = await subjects.names(
        connection, partner_id=caller.partner_id, member_ids=[entitlement.member.member_id]
    )
    sub = names.get(entitlement.member.member_id)
    if sub is None:
        raise ConsentMissing
    await subjects.resolve_one(connection, caller, sub, scope=WRITE, now=now)


def _booking(entitlement: Entitlement, booking: Booking, now: datetime) -> BookingView:
    return BookingView(
        booking_ref=booking.booking_ref,
        booked_for=booking.booked_for,
        quantity=booking.quantity,
        state=booking.state,
        entitlement=_view(entitlement, now),
    )


def _view(entitlement: Entitlement, now: datetime) -> EntitlementView:
    return EntitlementView(
        id=to_wire("etl", entitlement.id),
        kind=entitlement.kind,
        state=state_of(entitlement, now),
        quantity=entitlement.quantity,
        used=entitlement.used,
        booked=entitlement.booked,
        left=entitlement.left,
        expires_at=entitlement.expires_at,
        granted_at=entitlement.granted_at,
    )


routes = [list_entitlements, use_entitlement, book_entitlement, cancel_booking]
