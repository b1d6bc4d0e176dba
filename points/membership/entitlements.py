"""Entitlements: rights of members, given for a cause, booked for a date, used once per reference."""

from datetime import date, datetime
from uuid import UUID

from msgspec.structs import replace

from kernel.caller import MemberRef
from kernel.database import Connection
from kernel.errors import Conflict
from kernel.ids import new_id
from points.membership import entitlement_queries as queries
from points.membership.model import Booking, Entitlement
from points.membership.rules import (
    BookingClosed,
    BookingUnknown,
    EntitlementUnknown,
    check_booked_use,
    check_booking,
    check_use,
)


class EntitlementUseAlreadyCounted(Conflict):
    """A use with this use_ref has already been counted for this entitlement."""


class BookingRefTaken(Conflict):
    """A booking with this booking_ref has already been made for this entitlement."""


async def grant_entitlement(
    connection: Connection,
    *,
    member: MemberRef,
    partner_id: UUID,
    kind: str,
    source: str,
    quantity: int,
    expires_at: datetime | None,
    now: datetime,
) -> UUID:
    """Give `member` the right to `quantity` uses; `source` is what undoing would revoke it."""
    entitlement = Entitlement(
        id=new_id(now),
        member=member,
        partner_id=partner_id,
        kind=kind,
        source=source,
        quantity=quantity,
        used=0,
        expires_at=expires_at,
        revoked_at=None,
        granted_at=now,
    )
    await queries.insert_entitlement(connection, entitlement)
    return entitlement.id


async def revoke_entitlements(
    connection: Connection, *, member: MemberRef, source: str, now: datetime
) -> int:
    """Take back what `source` gave and is not used up, booked or not; returns how many."""
    return await queries.revoke_entitlements(connection, member, source=source, now=now)


async def list_entitlements(
    connection: Connection, member: MemberRef, *, partner_id: UUID, before: UUID | None = None, limit: int
) -> list[Entitlement]:
    """The member's rights at this partner, newest first, those older than `before`."""
    return await queries.list_entitlements(
        connection, member, partner_id=partner_id, before=before, limit=limit
    )


async def find_entitlement(connection: Connection, entitlement_id: UUID, *, partner_id: UUID) -> Entitlement:
    """One of this partner's, without a lock."""
    found = await queries.find_entitlement(connection, entitlement_id, partner_id=partner_id)
    if found is None:
        raise EntitlementUnknown
    return found


async def use_entitlement(
    connection: Connection,
    *,
    entitlement_id: UUID,
    partner_id: UUID,
    use_ref: str,
    quantity: int,
    booking_ref: str | None = None,
    now: datetime,
) -> Entitlement:
    """Count a use, of what was booked or of what is left; the row is locked, so two checkouts cannot share the last one."""
    entitlement = await _lock(connection, entitlement_id, partner_id)
    booked = 0
    if booking_ref is None:
        check_use(entitlement, quantity, now)
    else:
        booking = await queries.find_booking(connection, entitlement, booking_ref=booking_ref)
        check_booked_use(entitlement, booking, quantity, now)
        assert booking is not None
        await queries.close_booking(connection, entitlement, replace(booking, state="used"), now=now)
        booked = quantity
    if not await queries.insert_use(connection, entitlement, use_ref=use_ref, quantity=quantity, now=now):
        raise EntitlementUseAlreadyCounted(use_ref=use_ref)
    await queries.move_uses(connection, entitlement, used=quantity, booked=-booked)
    return replace(entitlement, used=entitlement.used + quantity, booked=entitlement.booked - booked)


async def book_entitlement(
    connection: Connection,
    *,
    entitlement_id: UUID,
    partner_id: UUID,
    booking_ref: str,
    booked_for: date,
    quantity: int,
    now: datetime,
) -> tuple[Entitlement, Booking]:
    """Promise uses for a date; under the row's lock the quota is never promised twice."""
    entitlement = await _lock(connection, entitlement_id, partner_id)
    if await queries.find_booking(connection, entitlement, booking_ref=booking_ref) is not None:
        raise BookingRefTaken(booking_ref=booking_ref)
    check_booking(entitlement, booked_for=booked_for, quantity=quantity, now=now)
    booking = Booking(booking_ref=booking_ref, booked_for=booked_for, quantity=quantity, state="booked")
    await queries.insert_booking(connection, entitlement, booking, now=now)
    await queries.move_uses(connection, entitlement, booked=quantity)
    return replace(entitlement, booked=entitlement.booked + quantity), booking


async def cancel_booking(
    connection: Connection, *, entitlement_id: UUID, partner_id: UUID, booking_ref: str, now: datetime
) -> tuple[Entitlement, Booking]:
    """Give a promise back; its uses are free again, or gone if their tier was taken for fraud meanwhile."""
    entitlement = await _lock(connection, entitlement_id, partner_id)
    booking = await queries.find_booking(connection, entitlement, booking_ref=booking_ref)
    if booking is None:
        raise BookingUnknown
    if booking.state != "booked":
        raise BookingClosed(state=booking.state)
    cancelled = replace(booking, state="cancelled")
    await queries.close_booking(connection, entitlement, cancelled, now=now)
    gone = booking.quantity if entitlement.withdrawn else 0
    await queries.move_uses(connection, entitlement, booked=-booking.quantity, withdrawn=gone)
    return (
        replace(
            entitlement,
            booked=entitlement.booked - booking.quantity,
            withdrawn=entitlement.withdrawn + gone,
        ),
        cancelled,
    )


async def _lock(connection: Connection, entitlement_id: UUID, partner_id: UUID) -> Entitlement:
    entitlement = await queries.lock_entitlement(connection, entitlement_id, partner_id=partner_id)
    if entitlement is None:
        raise EntitlementUnknown
    return entitlement
