"""The known traps of points ledgers, one test each, in the order in which they are usually met."""

import asyncio
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from kernel.calendar import start_of_day
from kernel.caller import MemberRef
from kernel.database import Connection, Pool, acquire, transaction
from kernel.errors import Refusal
from kernel.idempotency import (
    IdempotencyKeyReused,
    StoredAnswer,
    begin,
    fingerprint,
    keyed,
    remember_each,
)
from kernel.vault import Vault, generate_ring
from points.earning.model import Activity
from points.earning.rules import base_points, end_of_points
from points.earning.service import earn
from points.ledger import service
from points.ledger.balances import NOTHING
from points.ledger.deeds import ExchangeRequest, Refund, RefundPart
from points.ledger.exchanges import set_rate
from points.ledger.model import POINTS, Balance, Hold, Reversal, Side
from points.ledger.point_types import register_point_type
from points.ledger.service import (
    HoldLapsed,
    HoldNotOpen,
    InsufficientPoints,
    RefundAlreadyPosted,
    RefundExceedsOrder,
)
from points.membership.model import FedLevel
from points.membership.service import enrol_member, enrol_members, feed_bank_levels

Bank = Any
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
GRACE = timedelta(days=30)


async def refund(
    bank: Bank, connection: Connection, side: Side, operation_id: UUID, fen: int, ref: str, **changed: Any
) -> Reversal:
    arguments = {"partner_id": bank.partner_id, "now": bank.now} | changed
    return await service.reverse(
        connection, operation_id=operation_id, side=side, refund_ref=ref, refunded_fen=fen, **arguments
    )


async def balance(
    bank: Bank, connection: Connection, member: MemberRef, now: datetime | None = None
) -> Balance:
    return await service.read_balance(connection, member, now=now or bank.now)


async def test_trap_01_hold_outlives_lot(bank: Bank, connection: Connection) -> None:
    """A hold pins its lots until its own deadline; what comes back to a lot that has ended is gone at once."""
    member = await bank.enrol(connection)
    await bank.earn(connection, member, 100, expires_in=DAY)
    captured, released = [
        await bank.hold(connection, member, points, ttl_seconds=2 * 86_400) for points in (60, 40)
    ]
    after_the_lot = bank.now + DAY + MINUTE
    assert await service.expire_due(connection, limit=10, now=after_the_lot) == 0
    outcome = await service.capture_hold(
        connection, hold_id=captured.id, partner_id=bank.partner_id, points=50, now=after_the_lot
    )
    assert (outcome.captured_points, outcome.released_points) == (50, 10)
    await service.release_hold(connection, hold_id=released.id, partner_id=bank.partner_id, now=after_the_lot)
    left = await balance(bank, connection, member, after_the_lot)
    assert (left.available_points, left.held_points) == (0, 0)
    assert await bank.lots(connection, member) == [(100, 0, 0)]

    await bank.earn(connection, member, 10)
    late = await bank.hold(connection, member, 10, ttl_seconds=60)
    with pytest.raises(HoldLapsed):
        await service.capture_hold(
            connection, hold_id=late.id, partner_id=bank.partner_id, now=bank.now + MINUTE
        )
    assert await bank.audit(connection, member) == []


@pytest.mark.parametrize("swept", ["job ran before", "job ran late"])
async def test_trap_02_expiry_job_against_a_spend_at_the_last_moment(
    bank: Bank, connection: Connection, swept: str
) -> None:
    """The job books what is true already: whether it has come by changes neither an answer nor a balance."""
    member = await bank.enrol(connection)
    await bank.earn(connection, member, 100, expires_in=DAY)
    end = bank.now + DAY
    last_moment = end - timedelta(microseconds=1)
    if swept == "job ran before":
        assert await service.expire_due(connection, limit=10, now=last_moment) == 0
    await bank.hold(connection, member, 30, now=last_moment)
    if swept == "job ran before":
        assert await service.expire_due(connection, limit=10, now=end) == 1
    with pytest.raises(InsufficientPoints) as refused:
        await bank.hold(connection, member, 1, now=end)
    assert refused.value.facts == {"available_points": 0}
    assert await balance(bank, connection, member, end) == Balance(
        available_points=0, held_points=30, pending_points=0, arrears_points=0
    )
    if swept == "job ran late":
        assert await service.expire_due(connection, limit=10, now=end + DAY) == 1
    assert await bank.lots(connection, member) == [(100, 30, 30)]
    assert await bank.audit(connection, member) == []


async def test_trap_03_debits_not_tied_to_lots(bank: Bank, connection: Connection) -> None:
    """Every point that leaves a wallet names the lot it came from, in the same transaction."""
    member = await bank.enrol(connection)
    for points, days in ((30, 9), (20, 3), (50, None)):
        await bank.earn(connection, member, points, expires_in=None if days is None else days * DAY)
    await bank.spend(connection, member, 70)
    traced = await connection.fetch(
        "SELECT e.points, array_agg((m.lot_seq, m.points) ORDER BY m.lot_seq) AS taken"
        "  FROM ledger_entry AS e JOIN ledger_lot_change AS m USING (bucket, member_id, point_type, seq)"
        " WHERE e.member_id = $1 AND e.credit_account = 11 AND m.kind = 'capture'"
        "   AND m.xmin = e.xmin GROUP BY e.seq, e.points",
        member.member_id,
    )
    assert [(row["points"], [tuple(one) for one in row["taken"]]) for row in traced] == [
        (70, [(1, 30), (2, 20), (3, 20)])
    ]
    assert await bank.audit(connection, member) == []


async def test_trap_04_reversal_of_spent_points(bank: Bank, connection: Connection) -> None:
    """Back to the same lots, last taken first; for a lot that has ended a child of the same funder and cost, with grace."""
    member = await bank.enrol(connection)
    await bank.earn(connection, member, 40, expires_in=DAY, funder_id=2, unit_cost_e6=700_000)
    await bank.earn(connection, member, 60, expires_in=9 * DAY)
    spent = await bank.spend(connection, member, 100)
    await refund(bank, connection, "spend", spent, 70, "r1")
    assert await bank.lots(connection, member) == [(40, 10, 0), (60, 60, 0)]
    later = bank.now + 2 * DAY
    await refund(bank, connection, "spend", spent, 30, "r2", now=later)
    [child] = await connection.fetch(
        "SELECT parent_lot_seq, funder_id, unit_cost_e6, remaining_points, expires_at FROM ledger_lot"
        " WHERE member_id = $1 AND parent_lot_seq IS NOT NULL",
        member.member_id,
    )
    assert tuple(child) == (1, 2, 700_000, 30, later + GRACE)
    assert (await balance(bank, connection, member, later)).available_points == 90
    assert await bank.audit(connection, member) == []


async def test_trap_05_reversal_of_an_earning_already_spent(bank: Bank, connection: Connection) -> None:
    """Own lot, same funder, then arrears; never held points, never below zero; later earnings repay first."""
    member = await bank.enrol(connection)
    earned = await bank.earn(connection, member, 100, expires_in=DAY)
    await bank.spend(connection, member, 90)
    await bank.earn(connection, member, 30)
    await bank.hold(connection, member, 25)
    reversal = await refund(bank, connection, "earn", earned.operation_id, 10_000, "r1")
    assert (reversal.points_clawed_back, reversal.arrears_added) == (100, 85)
    assert reversal.balance == Balance(
        available_points=0, held_points=25, pending_points=0, arrears_points=85
    )
    outcome = await bank.earn(connection, member, 100)
    assert (outcome.balance.available_points, outcome.balance.arrears_points) == (15, 0)
    assert await bank.audit(connection, member) == []


async def test_trap_06_refund_of_both_legs(bank: Bank, connection: Connection) -> None:
    """One refund gives back, then takes away, and nets once: what came back pays before anything is owed; both or neither."""
    member = await bank.enrol(connection)
    earned = await bank.earn(connection, member, 100, amount_fen=10_000)
    spent = await bank.spend(connection, member, 100)

    async def refund_both(ref: str, spend_fen: int, earning_fen: int) -> Refund:
        return await service.refund(
            connection,
            spend=RefundPart(operation_id=spent, refunded_fen=spend_fen),
            earning=RefundPart(operation_id=earned.operation_id, refunded_fen=earning_fen),
            partner_id=bank.partner_id,
            refund_ref=ref,
            now=bank.now,
        )

    done = await refund_both("r1", 60, 5_000)
    assert (done.spend.points_restored, done.earning.points_clawed_back) == (60, 50)
    assert (done.earning.arrears_added, done.balance.available_points) == (0, 10)
    savepoint = connection.transaction()
    await savepoint.start()
    with pytest.raises(RefundExceedsOrder):
        await refund_both("r2", 40, 5_001)
    await savepoint.rollback()
    assert await balance(bank, connection, member) == done.balance, "not even the half of it has happened"
    done = await refund_both("r2", 40, 5_000)
    assert done.balance == NOTHING
    assert await bank.audit(connection, member) == []


async def test_trap_07_partial_refunds_and_rounding(bank: Bank, connection: Connection) -> None:
    """Cumulative floor: after each refund the sum is exact, after the last one everything is undone; both sides."""
    member = await bank.enrol(connection)
    earned = await bank.earn(connection, member, 100, amount_fen=9_997)
    held = await bank.hold(connection, member, 100)
    await service.capture_hold(
        connection, hold_id=held.id, partner_id=bank.partner_id, order_fen=9_997, now=bank.now
    )
    await bank.earn(connection, member, 200)
    parts = [1, 3_333, 3_333, 99, 3_231]
    sides: list[tuple[Side, UUID]] = [("earn", earned.operation_id), ("spend", held.id)]
    for side, operation_id in sides:
        undone = refunded = 0
        for place, fen in enumerate(parts):
            reversal = await refund(bank, connection, side, operation_id, fen, f"r{place}")
            undone += reversal.points_clawed_back + reversal.points_restored
            refunded += fen
            assert undone == Fraction(100 * refunded, 9_997).__floor__()
        assert (refunded, undone) == (9_997, 100)
        with pytest.raises(RefundExceedsOrder):
            await refund(bank, connection, side, operation_id, 1, "more")
    assert await bank.audit(connection, member) == []


def test_trap_08_multiplier_rounding() -> None:
    """Whole numbers and one floor at the end: exact where binary fractions are not, for every amount and multiplier."""
    mistaken = 0
    for multiplier in (100, 105, 110, 115, 120, 125, 135, 145, 150, 160, 175, 200):
        for fen in range(0, 60_000, 20):
            exact = Fraction(fen * multiplier, 10_000).__floor__()
            assert base_points(fen, multiplier) == exact
            mistaken += int(fen / 100 * (multiplier / 100)) != exact
    assert mistaken > 0, "floats would have been good enough: choose harder amounts"


async def test_trap_09_refund_after_a_tier_change(bank: Bank, connection: Connection) -> None:
    """What was granted is reversed, not what today's tier would grant; the inputs are kept with the operation."""
    [member] = await enrol_members(connection, count=1, bank_level="express", now=bank.now)
    [earned] = await earn(connection, [activity(member, bank.now)], partner_id=bank.partner_id, now=bank.now)
    assert not isinstance(earned, Refusal) and earned.points == 100
    promoted = FedLevel(member=member, bank_level="private", valid_from=bank.now.date())
    await feed_bank_levels(connection, [promoted], fed_ref="levels-1", now=bank.now)
    [better] = await earn(
        connection,
        [activity(member, bank.now + DAY, "order-2")],
        partner_id=bank.partner_id,
        now=bank.now + DAY,
    )
    assert not isinstance(better, Refusal) and better.points == 150
    reversal = await refund(bank, connection, "earn", earned.operation_id, 10_000, "r1")
    assert reversal.points_clawed_back == 100
    told = await service.explain_operation(
        connection, operation_id=earned.operation_id, partner_id=bank.partner_id
    )
    assert (told.operation.tier, told.operation.multiplier_pct, told.operation.rule_version) == (
        "start",
        100,
        1,
    )


def activity(member: MemberRef, occurred_at: datetime, ref: str = "order-1") -> Activity:
    return Activity(
        member=member, source_ref=ref, kind="purchase", occurred_at=occurred_at, amount_fen=10_000
    )


@pytest.mark.parametrize(
    ("occurred_at", "ends_at"),
    [
        # Shanghai is eight hours ahead: the evening of the 28th in UTC is March there.
        ("2026-02-28T15:59:59Z", "2028-03-01"),
        ("2026-02-28T16:00:00Z", "2028-04-01"),
        ("2026-12-31T16:00:00Z", "2029-02-01"),
        ("2028-02-29T04:00:00Z", "2030-03-01"),
        ("2026-01-31T04:00:00Z", "2028-02-01"),
    ],
)
async def test_trap_13_time_zones(bank: Bank, connection: Connection, occurred_at: str, ends_at: str) -> None:
    """An end is an instant made of Shanghai's dates, the first at which the points are gone; no server's zone matters."""
    occurred = datetime.fromisoformat(occurred_at)
    end = start_of_day(datetime.fromisoformat(ends_at).date())
    assert end_of_points(occurred, occurred) == end
    [member] = await enrol_members(connection, count=1, now=occurred)
    await connection.execute("SET LOCAL timezone TO 'America/Los_Angeles'")
    await earn(connection, [activity(member, occurred)], partner_id=bank.partner_id, now=occurred)
    before = end - timedelta(microseconds=1)
    assert (await balance(bank, connection, member, before)).available_points == 100
    assert (await balance(bank, connection, member, end)).available_points == 0
    for now, left in ((before, 100), (end, 0)):
        while await service.expire_due(connection, limit=1_000, now=now):
            pass  # whatever else there is in these books
        assert await bank.lots(connection, member) == [(100, left, 0)]


async def test_trap_14_late_and_backdated_events(bank: Bank, connection: Connection) -> None:
    """It happened then, it was recorded now: history is not rewritten, and late points are not born dead."""
    [member] = await enrol_members(connection, count=1, now=bank.now - 100 * DAY)
    happened = bank.now - 60 * DAY
    partner = {"partner_id": bank.partner_id}
    await earn(connection, [activity(member, bank.now - 90 * DAY)], now=bank.now - 90 * DAY, **partner)
    await earn(connection, [activity(member, happened, "late")], now=bank.now, **partner)
    [late] = await connection.fetch(
        "SELECT effective_at, recorded_at, o.business_on FROM ledger_lot AS l JOIN ledger_operation AS o"
        " ON o.id = l.operation_id WHERE o.member_id = $1 AND source_ref = 'late'",
        member.member_id,
    )
    assert (late["effective_at"], late["recorded_at"]) == (happened, bank.now)
    assert late["business_on"] == bank.now.date()
    at = [await service.balance_at(connection, member, at=moment) for moment in (happened, bank.now)]
    assert [one.available_points for one in at] == [100, 200], "what was known then stays as it was"

    oldest = bank.now - 729 * DAY
    [old] = await earn(connection, [activity(member, oldest, "oldest")], now=bank.now, **partner)
    assert not isinstance(old, Refusal)
    [end] = [grant.expires_at for grant in old.grants]
    assert end is not None and end > bank.now
    assert await bank.audit(connection, member) == []


async def test_trap_15_double_redemption_and_double_earning(bank: Bank, connection: Connection) -> None:
    """An event earns once for ever, whatever the key; a key answers for the client's bytes, not for what became of them."""
    member = await bank.enrol(connection)
    first = await bank.earn(connection, member, 100, source_ref="order-1", expires_in=DAY)
    for later in (bank.now, bank.now + DAY, bank.now + 400 * DAY):
        again = await bank.earn(connection, member, 100, source_ref="order-1", now=later)
        assert (again.posted, again.operation_id) == (False, first.operation_id)

    vault, body = Vault(generate_ring()), b'{"points": 60}'
    request = keyed(
        app_id=bank.partner_id, key="k-1", fingerprint=fingerprint("POST", "/v1/points/holds", body)
    )
    assert await begin(connection, request, vault=vault) is None
    held = await bank.hold(connection, member, 60)
    answer = StoredAnswer(status=201, body=str(held.id).encode())
    await remember_each(connection, [(request, answer)], vault=vault, now=bank.now)
    # The lot has ended and the points are gone: the retry is answered as the first was, and holds nothing.
    assert (await balance(bank, connection, member, bank.now + DAY)).available_points == 0
    assert await begin(connection, request, vault=vault) == answer
    other = keyed(
        app_id=bank.partner_id, key="k-1", fingerprint=fingerprint("POST", "/v1/points/holds", body + b" ")
    )
    with pytest.raises(IdempotencyKeyReused):
        await begin(connection, other, vault=vault)
    assert (await balance(bank, connection, member)).held_points == 60


async def test_trap_16_release_or_commit_races(bank: Bank, pool: Pool) -> None:
    """One conditional change under the wallet's lock; whoever comes second learns what the first did."""
    async with transaction(pool) as connection:
        member = await bank.enrol(connection)
        await bank.earn(connection, member, 100)
        held = await bank.hold(connection, member, 100)

    async def second() -> object:
        async with transaction(pool) as connection:
            return await service.release_hold(
                connection, hold_id=held.id, partner_id=bank.partner_id, now=bank.now
            )

    async with transaction(pool) as connection:
        await service.capture_hold(connection, hold_id=held.id, partner_id=bank.partner_id, now=bank.now)
        waiting = asyncio.create_task(second())
        await until_somebody_waits(pool, waiting)
    with pytest.raises(HoldNotOpen) as refused:
        await waiting
    assert refused.value.facts == {"state": "captured"}
    async with transaction(pool) as connection:
        assert await balance(bank, connection, member) == Balance(
            available_points=0, held_points=0, pending_points=0, arrears_points=0
        )
        assert await bank.audit(connection, member) == []


async def test_trap_17_compensation_that_adds_to_the_current_value(
    bank: Bank, connection: Connection
) -> None:
    """A reversal names what it undoes and how much of that is left; repeating it adds nothing, and a constraint guards."""
    member = await bank.enrol(connection)
    await bank.earn(connection, member, 100)
    spent = await bank.spend(connection, member, 60)
    await refund(bank, connection, "spend", spent, 40, "r1")
    with pytest.raises(RefundAlreadyPosted):
        await refund(bank, connection, "spend", spent, 20, "r1")
    with pytest.raises(RefundExceedsOrder) as refused:
        await refund(bank, connection, "spend", spent, 21, "r2")
    assert refused.value.facts == {"refundable_fen": 20}
    assert (await balance(bank, connection, member)).available_points == 80
    with pytest.raises(asyncpg.CheckViolationError):
        await connection.execute(
            "UPDATE ledger_reversible SET reversed_points = base_points + 1 WHERE member_id = $1",
            member.member_id,
        )


async def test_trap_19_mixing_point_types(bank: Bank, connection: Connection) -> None:
    """Each type has its wallet; nothing pays for another unless it is exchanged, in one transaction, at a stored rate."""
    member = await bank.enrol(connection)
    miles = await register_point_type(
        connection, name="miles_of_traps", value_fen_e6=500_000, by="ann", now=bank.now
    )
    await set_rate(
        connection,
        from_type=POINTS,
        to_type=miles,
        numerator=2,
        denominator=3,
        valid_from=bank.now,
        by="ann",
        now=bank.now,
    )
    await bank.earn(connection, member, 100)

    async def hold_miles(points: int) -> Hold:
        return await service.place_hold(
            connection,
            member=member,
            partner_id=bank.partner_id,
            points=points,
            order_ref="order-1",
            ttl_seconds=60,
            point_type=miles,
            now=bank.now,
        )

    with pytest.raises(InsufficientPoints) as refused:
        await hold_miles(1)
    assert refused.value.facts == {"available_points": 0}
    request = ExchangeRequest(
        member=member,
        partner_id=bank.partner_id,
        from_type=POINTS,
        to_type=miles,
        points=50,
        exchange_ref="x-1",
    )
    done = await service.exchange_points(connection, request, now=bank.now)
    assert (done.taken_points, done.given_points) == (50, 33), (
        "one floor, and what makes no whole point stays"
    )
    with pytest.raises(InsufficientPoints):
        await hold_miles(34)
    assert (await hold_miles(33)).points == 33
    assert (await balance(bank, connection, member)).available_points == 50
    wallets = await connection.fetch(
        "SELECT point_type, available_points, held_points FROM ledger_wallet WHERE member_id = $1"
        " ORDER BY point_type",
        member.member_id,
    )
    assert [tuple(row) for row in wallets] == [(POINTS.code, 50, 0), (miles.code, 0, 33)]
    kept = await connection.fetchval("SELECT calculation FROM ledger_operation WHERE id = $1", done.id)
    assert (kept["numerator"], kept["denominator"]) == (2, 3)


async def test_trap_20_hot_house_account(bank: Bank, pool: Pool) -> None:
    """No row of the house is shared by everybody: an earning under way holds up nobody of another bucket."""
    async with transaction(pool) as connection:
        crowd = await enrol_members(connection, count=20, now=bank.now)
    one = crowd[0]
    other = next(member for member in crowd if member.bucket != one.bucket)
    async with transaction(pool) as under_way, transaction(pool) as beside:
        await bank.earn(under_way, one, 100)
        await beside.execute("SET LOCAL lock_timeout = '1s'")
        assert (await bank.earn(beside, other, 100)).posted
        rows = await under_way.fetch(
            "SELECT bucket FROM ledger_house_slot WHERE bucket = $1 AND account = 10", one.bucket
        )
    assert rows


async def test_trap_22_clamp_to_zero(bank: Bank, connection: Connection) -> None:
    """A balance that cannot be is refused by the database and shown as it is, never rounded up to nothing."""
    member = await bank.enrol(connection)
    await bank.earn(connection, member, 100, expires_in=DAY)
    for change in (
        "UPDATE ledger_wallet SET available_points = -1 WHERE member_id = $1",
        "UPDATE ledger_wallet SET arrears_points = 1 WHERE member_id = $1",
        "UPDATE ledger_lot SET remaining_points = -1 WHERE member_id = $1",
        "UPDATE ledger_lot SET held_points = remaining_points + 1 WHERE member_id = $1",
    ):
        savepoint = connection.transaction()
        await savepoint.start()
        with pytest.raises(asyncpg.CheckViolationError):
            await connection.execute(change, member.member_id)
        await savepoint.rollback()
    # A wallet that says less than its lots: somebody bent it. Spending on raises instead of inventing points.
    await connection.execute(
        "UPDATE ledger_wallet SET available_points = 40 WHERE member_id = $1", member.member_id
    )
    savepoint = connection.transaction()
    await savepoint.start()
    with pytest.raises(asyncpg.CheckViolationError):
        await bank.hold(connection, member, 50)
    await savepoint.rollback()
    assert (await balance(bank, connection, member, bank.now + DAY)).available_points == 40 - 100
    assert "the wallet shows its last entry" in await bank.audit(connection, member)


async def test_trap_23_erasure_law(bank: Bank, connection: Connection) -> None:
    """The ledger knows a number only: clearing the member's fields erases the person and moves no entry."""
    vault = Vault(generate_ring())
    member = await enrol_member(connection, name="王小明", phone="13800138000", vault=vault, now=bank.now)
    await bank.earn(connection, member, 100)
    await bank.spend(connection, member, 40)
    before = await connection.fetchval(
        "SELECT head_hash FROM ledger_wallet WHERE member_id = $1", member.member_id
    )
    await connection.execute(
        "UPDATE membership_member SET name_sealed = NULL, phone_sealed = NULL, phone_index = NULL"
        " WHERE bucket = $1 AND member_id = $2",
        member.bucket,
        member.member_id,
    )
    tables = await connection.fetch(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relname ~ '^(ledger|outbox|kernel)_'"
    )
    for (table,) in tables:
        found = await connection.fetchval(
            f"SELECT count(*) FROM {table} AS t WHERE t::text LIKE '%王小明%' OR t::text LIKE '%13800138000%'"
        )
        assert found == 0, table
    after = await connection.fetchval(
        "SELECT head_hash FROM ledger_wallet WHERE member_id = $1", member.member_id
    )
    assert before == after
    assert await bank.audit(connection, member) == []


async def test_trap_24_seal_order(bank: Bank, pool: Pool) -> None:
    """Ids follow the clock, commits do not: a wallet numbers its entries under its lock, without a gap, and chains them so."""
    async with transaction(pool) as connection:
        member = await bank.enrol(connection)
        await bank.earn(connection, member, 1)
    early, late = bank.posting(member, 10), bank.posting(member, 20)

    async def post_early() -> None:
        async with transaction(pool) as connection:
            await service.post_earnings(connection, [early], now=bank.now)

    async with transaction(pool) as connection:
        await service.post_earnings(connection, [late], now=bank.now + MINUTE)
        waiting = asyncio.create_task(post_early())
        await until_somebody_waits(pool, waiting)
    await waiting
    async with transaction(pool) as connection:
        chain = await connection.fetch(
            "SELECT seq, points, recorded_at FROM ledger_entry WHERE member_id = $1 ORDER BY seq",
            member.member_id,
        )
        assert [(row["seq"], row["points"]) for row in chain] == [(1, 1), (2, 20), (3, 10)]
        assert chain[2]["recorded_at"] < chain[1]["recorded_at"], (
            "the clock would have chained them otherwise"
        )
        assert await bank.audit(connection, member) == []


async def until_somebody_waits(pool: Pool, task: "asyncio.Task[Any]") -> None:
    async with acquire(pool) as looking:
        while not await looking.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            assert not task.done()
