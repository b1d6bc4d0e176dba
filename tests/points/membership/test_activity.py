"""What members do counts once, in its month, and earns a better tier at once."""

import asyncio
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from msgspec.structs import replace

from kernel.database import Connection, Pool, transaction
from kernel.errors import Refusal
from points.earning import reversals
from points.earning import service as earning
from points.earning.model import Activity, Earned
from points.ledger import service as ledger
from points.membership import service
from points.membership.model import Deed, Scheme, ShopLevel, Threshold
from points.membership.rules import OccurredInFuture, OccurredTooLongAgo, shop_level_of, window_of

Club = Any


async def test_a_deed_counts_once_for_ever(club: Club) -> None:
    member = await club.enrol()
    deed = club.deed(member, 700, source_ref="order-1")
    assert await club.record(deed) == [True]
    assert await club.record(deed) == [False]
    assert await club.record(club.deed(member, 9, source_ref="order-1", kind="medical")) == [True]
    assert await club.record(deed, partner_id=uuid4()) == [True]
    assert await club.counted(member) == [("2026-11-01", 1_409, 3)]
    assert await club.contradictions([member]) == []


async def test_of_copies_in_one_report_the_first_counts(club: Club) -> None:
    member = await club.enrol()
    deed = club.deed(member, 700)
    assert await club.record(deed, club.deed(member, 1), deed) == [True, True, False]
    assert await club.counted(member) == [("2026-11-01", 701, 2)]


async def test_months_begin_at_midnight_in_shanghai(club: Club) -> None:
    member = await club.enrol()
    first = datetime(2026, 10, 31, 16, 0, tzinfo=UTC)
    await club.record(
        club.deed(member, 1, occurred_at=first),
        club.deed(member, 2, occurred_at=first - timedelta(microseconds=1)),
        club.deed(member, 4, occurred_at=datetime(2026, 2, 28, 15, 59, tzinfo=UTC)),
    )
    assert await club.counted(member) == [("2026-02-01", 4, 1), ("2026-10-01", 2, 1), ("2026-11-01", 1, 1)]


async def test_who_qualifies_rises_at_once(club: Club) -> None:
    await club.use_scheme()
    member, other = await club.enrol("comm"), await club.enrol("comm")
    await club.record(club.deed(member, 1_999), club.deed(other, 5))
    assert await club.tier(member) == "bronze"
    await club.record(club.deed(member, 1, occurred_at=club.now - timedelta(days=300)))
    assert await club.tier(member) == "bronze"
    assert await club.reasons(member) == ["enrolled", "upgraded"], "it multiplies more"
    await club.record(club.deed(member, 500), club.deed(member, 500), club.deed(other, 5))
    assert (await club.tier(member), await club.tier(other)) == ("silver", "bronze")
    assert await club.reasons(other) == ["enrolled"]
    assert await club.contradictions([member, other]) == []


@pytest.mark.parametrize(
    ("needs", "levels", "deeds", "shop_level"),
    [
        ("any", {"min_fen": (10, 20, 30), "min_count": (2, 4, 6)}, [10], "bronze"),
        ("any", {"min_fen": (10, 20, 30), "min_count": (2, 4, 6)}, [1, 1], "bronze"),
        ("any", {"min_fen": (10, 20, 30), "min_count": (2, 4, 6)}, [30], "gold"),
        ("any", {"min_count": (2, 3, 4)}, [10**9], "iron"),
        ("any", {"min_count": (2, 3, 4)}, [0, 0, 0], "silver"),
        ("all", {"min_count": (2, 3, 4)}, [0, 0, 0, 0], "gold"),
        ("all", {"min_fen": (10, 10, 10)}, [9], "iron"),
        ("all", {"min_fen": (10, 10, 10)}, [10], "gold"),
    ],
)
async def test_the_statement_notices_who_meets_a_level_as_the_rules_do(
    club: Club, needs: Any, levels: dict[str, tuple[int, ...]], deeds: list[int], shop_level: str
) -> None:
    names: tuple[ShopLevel, ...] = ("bronze", "silver", "gold")
    scheme = Scheme(
        version=0,
        window_kind="calendar",
        window_months=12,
        needs=needs,
        rises="at_once",
        validity_months=1,
        grace_days=0,
        levels={
            name: Threshold(**{kind: values[place] for kind, values in levels.items()})
            for place, name in enumerate(names)
        },
    )
    await club.use_scheme(scheme)
    member = await club.enrol("comm")
    await club.record(*(club.deed(member, fen) for fen in deeds))
    assert shop_level_of(scheme, fen=sum(deeds), count=len(deeds)) == shop_level
    standing = (await service.list_standings(club.connection, [member]))[member.member_id]
    assert standing.shop_level == shop_level
    assert await club.contradictions([member]) == []


async def test_where_tiers_rise_at_the_evaluation_a_day_earns_by_the_tier_of_its_morning(club: Club) -> None:
    await club.use_scheme(replace(club.scheme, rises="at_evaluation"))
    member = await club.enrol("comm")
    for number in range(4):
        earned = await earn(club, member, 100_000, f"order-{number}")
        assert isinstance(earned, Earned) and earned.points == 1_050
    assert await club.reasons(member) == ["enrolled"]
    (verdict,) = await club.evaluate(member, on=date(2026, 11, 20))
    assert (verdict.reason, verdict.tier) == ("upgraded", "silver")


async def test_what_is_outside_the_window_does_not_raise(club: Club) -> None:
    await club.use_scheme()
    member = await club.enrol("comm")
    old = datetime(2025, 11, 30, 15, 59, tzinfo=UTC)
    await club.record(*(club.deed(member, 1_000, occurred_at=old) for _ in range(10)))
    assert await club.reasons(member) == ["enrolled"]
    just = old + timedelta(minutes=1)
    await club.record(*(club.deed(member, 1_000, occurred_at=just) for _ in range(4)))
    assert await club.reasons(member) == ["enrolled", "upgraded"]
    assert await club.tier(member) == "silver"


@pytest.mark.parametrize(
    ("age", "refusal"),
    [
        (timedelta(minutes=-5, microseconds=-1), OccurredInFuture),
        (timedelta(days=730, microseconds=1), OccurredTooLongAgo),
    ],
)
async def test_a_report_is_answered_item_by_item(club: Club, age: timedelta, refusal: type[Refusal]) -> None:
    member = await club.enrol()
    good, bad = club.deed(member, 1), club.deed(member, 1, occurred_at=club.now - age)
    reported = [(club.partner_id, deed) for deed in (bad, good, bad, good)]
    answers = await service.report_activity(club.connection, reported, now=club.now)
    assert [type(answer) for answer in answers] == [refusal, Deed, refusal, service.ActivityAlreadyCounted]
    assert await club.counted(member) == [("2026-11-01", 1, 1)]


async def earn(club: Club, member: Any, fen: int, ref: str) -> Earned | Refusal:
    activity = Activity(member=member, source_ref=ref, kind="purchase", occurred_at=club.now, amount_fen=fen)
    [answer] = await earning.earn(club.connection, [activity], partner_id=club.partner_id, now=club.now)
    return answer


async def test_an_earning_counts_as_activity_and_never_twice(club: Club) -> None:
    member = await club.enrol()
    assert isinstance(await earn(club, member, 10_000, "order-1"), Earned)
    assert isinstance(await earn(club, member, 10_000, "order-1"), Refusal)
    assert await club.record(club.deed(member, 10_000, source_ref="order-1")) == [False]
    await club.record(club.deed(member, 300, source_ref="order-2"))
    assert isinstance(await earn(club, member, 300, "order-2"), Earned), "it earns, though it counted before"
    assert await club.counted(member) == [("2026-11-01", 10_300, 2)]


async def undo(club: Club, earned: Earned | Refusal, fen: int) -> None:
    assert isinstance(earned, Earned)
    await reversals.reverse(
        club.connection,
        operation_id=earned.operation_id,
        partner_id=club.partner_id,
        side="earn",
        refund_ref=str(uuid4()),
        refunded_fen=fen,
        now=club.now,
    )


async def test_refunds_reduce_what_counted_and_never_below_zero(club: Club) -> None:
    member = await club.enrol()
    # told as an activity of less than it earned for: refunds take back no more than counted
    await club.record(club.deed(member, 300, source_ref="order-1"))
    first = await earn(club, member, 1_000, "order-1")
    second = await earn(club, member, 500, "order-2")
    steps = [
        (first, 200, 600, 2),
        (second, 499, 101, 2),
        (first, 200, 1, 1),
        (second, 1, 0, 0),
        (first, 600, 0, 0),
    ]
    for earned, fen, left, count in steps:
        await undo(club, earned, fen)
        assert await club.counted(member) == [("2026-11-01", left, count)]
    assert await club.contradictions([member]) == []


async def test_a_batch_of_earnings_counts_by_one_statement_however_many(club: Club) -> None:
    members = [await club.enrol() for _ in range(3)]

    async def cost_of(count: int) -> int:
        activities = [
            Activity(
                member=members[n % 3],
                source_ref=str(uuid4()),
                kind="purchase",
                occurred_at=club.now,
                amount_fen=100,
            )
            for n in range(count)
        ]
        statements: list[str] = []
        with club.connection.query_logger(lambda record: statements.append(record.query)):
            await earning.earn(club.connection, activities, partner_id=club.partner_id, now=club.now)
            await asyncio.sleep(0)  # the driver tells of a statement after it
        return sum("membership_activity" in statement for statement in statements)

    assert await cost_of(1) == await cost_of(60) == 1


async def test_spending_points_leaves_activity_alone(club: Club) -> None:
    member = await club.enrol()
    await earn(club, member, 100_000, "order-1")
    hold = await ledger.place_hold(
        club.connection,
        member=member,
        partner_id=club.partner_id,
        points=1_000,
        order_ref="x",
        ttl_seconds=60,
        now=club.now,
    )
    await ledger.capture_hold(club.connection, hold_id=hold.id, partner_id=club.partner_id, now=club.now)
    assert await club.counted(member) == [("2026-11-01", 100_000, 1)]
    await reversals.reverse(
        club.connection,
        operation_id=hold.id,
        partner_id=club.partner_id,
        side="spend",
        refund_ref="r",
        refunded_fen=5,
        now=club.now,
    )
    assert await club.counted(member) == [("2026-11-01", 100_000, 1)]


async def test_a_refund_after_a_tier_change_reverses_what_was_granted(club: Club) -> None:
    await club.use_scheme()
    member = await club.enrol("comm")
    before = await earn(club, member, 100_000, "order-1")
    assert isinstance(before, Earned) and before.points == 1_050
    for ref in ("order-2", "order-3", "order-4"):
        await earn(club, member, 100, ref)
    assert await club.tier(member) == "silver"
    reversal = await reversals.reverse(
        club.connection,
        operation_id=before.operation_id,
        partner_id=club.partner_id,
        side="earn",
        refund_ref="all of it",
        refunded_fen=100_000,
        now=club.now,
    )
    assert reversal.points_clawed_back == 1_050
    assert await club.tier(member) == "silver", "less activity acts at the evaluation"
    assert await club.evaluate(member, on=date(2026, 11, 20)) == []


async def test_activity_reported_in_parallel_counts_exactly(pool: Pool, now: datetime) -> None:
    partner_id = uuid4()
    async with transaction(pool) as connection:
        members = await service.enrol_members(connection, count=5, now=now)

    async def report(number: int) -> int:
        # every deed comes from two reporters, in opposite orders
        deeds = [
            Deed(
                member=member,
                kind="purchase",
                source_ref=f"{number // 2}-{n}",
                occurred_at=now,
                amount_fen=10 + n,
            )
            for member in members
            for n in range(4)
        ]
        if number % 2:
            deeds.reverse()
        async with transaction(pool) as connection:
            return sum(await service.record_activity(connection, [(partner_id, d) for d in deeds], now=now))

    counted = await asyncio.gather(*(report(number) for number in range(12)))
    assert sum(counted) == 6 * 5 * 4
    async with transaction(pool) as connection:
        rows = await connection.fetch(
            "SELECT qualifying_fen, qualifying_count FROM membership_activity_month WHERE member_id = ANY ($1)",
            [member.member_id for member in members],
        )
    assert [tuple(row) for row in rows] == [(6 * (10 + 11 + 12 + 13), 24)] * 5


@pytest.mark.parametrize(
    ("kind", "months"), [("rolling", 1), ("rolling", 12), ("rolling", 36), ("calendar", 12)]
)
@pytest.mark.parametrize("day", ["2026-01-01", "2026-01-31", "2028-02-29", "2026-12-31"])
async def test_the_window_of_the_statement_is_the_window_of_the_rules(
    connection: Connection, kind: Any, months: int, day: str
) -> None:
    scheme = Scheme(
        version=1,
        window_kind=kind,
        window_months=months,
        needs="all",
        validity_months=12,
        grace_days=0,
        levels={},
    )
    on = date.fromisoformat(day)
    found = await connection.fetchval("SELECT membership_window_start($1, $2, $3)", kind, months, on)
    assert found == window_of(scheme, on).start_on
