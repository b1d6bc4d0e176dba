"""Rights of a tier: given once for a period, booked exactly, kept when booked, taken for fraud."""

import asyncio
from datetime import date, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from kernel.caller import MemberRef
from kernel.database import Pool, transaction
from kernel.errors import Refusal
from points.membership import service
from points.membership.model import Entitlement, Privilege
from points.membership.rules import (
    BookedForPast,
    BookedTooLate,
    BookingClosed,
    BookingDiffers,
    BookingUnknown,
    EntitlementExpired,
    EntitlementRevoked,
    EntitlementUnknown,
    EntitlementUsedUp,
)
from points.membership.version_rules import PrivilegeUnsound

Club = Any

TODAY = date(2026, 11, 20)


async def give(club: Club, *privileges: tuple[Any, str, int, Any]) -> None:
    """(tier, kind, quantity, period), in force from today on."""
    proposal = await service.propose_privileges(
        club.connection,
        [
            Privilege(tier=tier, partner_id=club.partner_id, kind=kind, quantity=quantity, period=period)
            for tier, kind, quantity, period in privileges
        ],
        by="maker",
        now=club.now,
    )
    await service.switch_on(
        club.connection, "privileges", proposal.version, effective_on=TODAY, by="checker", now=club.now
    )


async def rights(club: Club, member: MemberRef) -> list[Entitlement]:
    found = await service.list_entitlements(club.connection, member, partner_id=club.partner_id, limit=50)
    return sorted(found, key=lambda right: (right.kind, right.expires_at or club.now))


async def book(club: Club, right: Entitlement, ref: str, **changes: Any) -> Entitlement:
    given = {"booked_for": TODAY, "quantity": 1, "now": club.now, "partner_id": club.partner_id} | changes
    booked, _ = await service.book_entitlement(
        club.connection, entitlement_id=right.id, booking_ref=ref, **given
    )
    return booked


async def use(club: Club, right: Entitlement, ref: str, **changes: Any) -> Entitlement:
    given = {"quantity": 1, "now": club.now, "partner_id": club.partner_id} | changes
    used: Entitlement = await service.use_entitlement(
        club.connection, entitlement_id=right.id, use_ref=ref, **given
    )
    return used


async def test_a_tier_gives_its_rights_once_for_each_period(club: Club) -> None:
    await give(
        club,
        ("gold", "lounge", 2, "month"),
        ("gold", "check_up", 1, "quarter"),
        ("gold", "golf", 3, "year"),
        ("silver", "lounge", 1, "month"),
    )
    gold, silver = await club.enrol("comm", "gold"), await club.enrol("comm", "silver")
    start = await club.enrol("express")
    for _ in range(2):
        await club.night(TODAY, club.now)
    assert [(r.kind, r.quantity, r.expires_at) for r in await rights(club, gold)] == [
        ("check_up", 1, datetime.fromisoformat("2027-01-01T00:00:00+08:00")),
        ("golf", 3, datetime.fromisoformat("2027-01-01T00:00:00+08:00")),
        ("lounge", 2, datetime.fromisoformat("2026-12-01T00:00:00+08:00")),
    ]
    assert [(r.kind, r.quantity) for r in await rights(club, silver)] == [("lounge", 1)]
    assert await rights(club, start) == []
    december = datetime.fromisoformat("2026-12-01T00:45:00+08:00")
    await club.night(date(2026, 11, 30), december)
    assert [(r.kind, r.quantity) for r in await rights(club, gold)] == [
        *(("check_up", 1), ("golf", 3), ("lounge", 2), ("lounge", 2))
    ]


async def test_who_rises_has_the_rights_at_once_and_the_better_quota(club: Club) -> None:
    await club.use_scheme()
    await give(club, ("bronze", "lounge", 1, "month"), ("silver", "lounge", 3, "month"))
    member = await club.enrol("comm")
    await club.night(TODAY, club.now)
    (right,) = await rights(club, member)
    await use(club, right, "u1")
    await club.record(*(club.deed(member, 600) for _ in range(4)))
    (right,) = await rights(club, member)
    assert (right.quantity, right.used, right.left) == (3, 1, 2)


async def test_a_booked_right_survives_a_fall_and_the_rest_runs_out_with_its_period(club: Club) -> None:
    await give(club, ("gold", "golf", 3, "year"))
    member = await club.enrol("comm", "gold")
    later = club.after(395)
    await club.night(TODAY, later - timedelta(days=1))
    (right,) = await rights(club, member)
    visit = date(2027, 12, 24)
    await book(club, right, "b1", booked_for=visit, now=later - timedelta(days=1))
    await club.night(date(2027, 12, 20), later)
    assert await club.tier(member) == "silver"
    (right,) = await rights(club, member)
    assert (right.booked, right.left) == (1, 2)
    used = await use(
        club, right, "u1", booking_ref="b1", now=datetime.fromisoformat("2027-12-24T10:00:00+08:00")
    )
    assert (used.used, used.booked, used.left) == (1, 0, 2)
    with pytest.raises(EntitlementExpired):
        await use(club, right, "u2", now=datetime.fromisoformat("2028-01-01T00:00:00+08:00"))
    await club.night(date(2028, 1, 1), datetime.fromisoformat("2028-01-02T00:45:00+08:00"))
    assert len(await rights(club, member)) == 1, "the next year gives nothing to silver"


async def test_fraud_withdraws_what_is_not_booked(club: Club) -> None:
    await give(club, ("gold", "golf", 5, "year"))
    member = await club.enrol("comm", "gold")
    await club.night(TODAY, club.now)
    (right,) = await rights(club, member)
    await use(club, right, "u1")
    await book(club, right, "b1")
    await book(club, right, "b2")
    await service.judge_fraud(club.connection, member, found_by="checker", now=club.now)
    (right,) = await rights(club, member)
    assert (right.quantity, right.used, right.booked, right.withdrawn, right.left) == (5, 1, 2, 2, 0)
    for act in (use(club, right, "u2"), book(club, right, "b3")):
        with pytest.raises(EntitlementUsedUp):
            await act
    assert (await use(club, right, "u2", booking_ref="b1")).used == 2
    freed, _ = await service.cancel_booking(
        club.connection, entitlement_id=right.id, partner_id=club.partner_id, booking_ref="b2", now=club.now
    )
    assert (freed.booked, freed.left, freed.withdrawn) == (0, 0, 3), "what is cancelled then is gone"


async def test_bookings_are_refused_each_for_its_reason(club: Club) -> None:
    member = await club.enrol()
    right_id = await service.grant_entitlement(
        club.connection,
        member=member,
        partner_id=club.partner_id,
        kind="golf",
        source="plan-1",
        quantity=2,
        expires_at=datetime.fromisoformat("2026-11-25T00:00:00+08:00"),
        now=club.now,
    )
    right = await service.find_entitlement(club.connection, right_id, partner_id=club.partner_id)
    await book(club, right, "b1")
    refused: list[tuple[type[Refusal], dict[str, Any]]] = [
        (service.BookingRefTaken, {"ref": "b1"}),
        (BookedForPast, {"booked_for": TODAY - timedelta(days=1)}),
        (BookedTooLate, {"booked_for": date(2026, 11, 25)}),
        (EntitlementUsedUp, {"quantity": 2}),
        (EntitlementUnknown, {"partner_id": uuid4()}),
        (EntitlementExpired, {"now": datetime.fromisoformat("2026-11-25T00:00:00+08:00")}),
    ]
    for refusal, changes in refused:
        with pytest.raises(refusal):
            await book(club, right, **({"ref": "b2"} | changes))
    await book(club, right, "b2", booked_for=date(2026, 11, 24))
    uses: list[tuple[type[Refusal], dict[str, Any]]] = [
        (EntitlementUsedUp, {}),
        (BookingUnknown, {"booking_ref": "b3"}),
        (BookingDiffers, {"booking_ref": "b1", "quantity": 2}),
    ]
    for refusal, changes in uses:
        with pytest.raises(refusal):
            await use(club, right, "u1", **changes)
    await use(club, right, "u1", booking_ref="b1")
    with pytest.raises(BookingClosed):
        await use(club, right, "u2", booking_ref="b1")
    for ref, closed in (("b1", BookingClosed), ("b9", BookingUnknown)):
        with pytest.raises(closed):
            await service.cancel_booking(
                club.connection,
                entitlement_id=right.id,
                partner_id=club.partner_id,
                booking_ref=ref,
                now=club.now,
            )
    assert (
        await service.revoke_entitlements(club.connection, member=member, source="plan-1", now=club.now) == 1
    )
    with pytest.raises(EntitlementRevoked):
        await use(club, right, "u2", booking_ref="b2")


async def test_a_cancelled_booking_frees_its_uses(club: Club) -> None:
    await give(club, ("gold", "golf", 1, "year"))
    member = await club.enrol("comm", "gold")
    await club.night(TODAY, club.now)
    (right,) = await rights(club, member)
    assert (await book(club, right, "b1")).left == 0
    await service.cancel_booking(
        club.connection, entitlement_id=right.id, partner_id=club.partner_id, booking_ref="b1", now=club.now
    )
    assert (await book(club, right, "b2")).left == 0


async def test_fifty_bookings_at_once_promise_no_more_than_there_is(pool: Pool, now: datetime) -> None:
    partner_id = uuid4()
    async with transaction(pool) as connection:
        (member,) = await service.enrol_members(connection, count=1, now=now)
        right_id = await service.grant_entitlement(
            connection,
            member=member,
            partner_id=partner_id,
            kind="golf",
            source="t",
            quantity=7,
            expires_at=None,
            now=now,
        )

    async def one(number: int) -> bool:
        try:
            async with transaction(pool) as connection:
                if number % 5 == 0:
                    await service.use_entitlement(
                        connection,
                        entitlement_id=right_id,
                        partner_id=partner_id,
                        use_ref=f"u{number}",
                        quantity=1,
                        now=now,
                    )
                else:
                    await service.book_entitlement(
                        connection,
                        entitlement_id=right_id,
                        partner_id=partner_id,
                        booking_ref=f"b{number}",
                        booked_for=now.date(),
                        quantity=1,
                        now=now,
                    )
        except EntitlementUsedUp:
            return False
        return True

    done = await asyncio.gather(*(one(number) for number in range(50)))
    assert sum(done) == 7
    async with transaction(pool) as connection:
        right = await service.find_entitlement(connection, right_id, partner_id=partner_id)
        booked = await connection.fetchval(
            "SELECT count(*) FROM membership_booking WHERE entitlement_id = $1", right_id
        )
    assert (right.used + right.booked, right.booked, right.left) == (7, booked, 0)


@pytest.mark.parametrize("quantities", [(0,), (1001,), (1, 2)])
async def test_unsound_privileges_are_refused(club: Club, quantities: tuple[int, ...]) -> None:
    with pytest.raises(PrivilegeUnsound):
        await give(club, *(("gold", "golf", quantity, "year") for quantity in quantities))
