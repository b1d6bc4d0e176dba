"""Whatever a member, a partner and the clock do in any order, the books add up."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernel import jobs
from kernel.calendar import business_date
from kernel.database import Connection, Pool
from kernel.errors import Refusal
from points.ledger import service
from points.ledger.deeds import RefundPart, TransferRequest
from points.ledger.model import POINTS as TESSERA
from points.ledger.model import Balance, Side

MakeBank = Callable[[datetime], Any]

POINTS = st.integers(1, 120)
STEPS = st.one_of(
    st.tuples(
        st.just("earn"),
        POINTS,
        st.sampled_from([1, 5, 40, None]),
        st.sampled_from([1, 2]),
        st.sampled_from([0, 333_333, 1_000_000]),
        st.sampled_from([None, None, 3_600, 86_400 * 2]),
    ),
    st.tuples(st.just("hold"), POINTS, st.sampled_from([60, 600_000])),
    st.tuples(st.just("capture"), st.integers(0, 9), st.integers(1, 100)),
    st.tuples(st.just("release"), st.integers(0, 9)),
    st.tuples(st.just("refund_earning"), st.integers(0, 9), st.integers(1, 12_000)),
    st.tuples(st.just("refund_spend"), st.integers(0, 9), st.integers(1, 120)),
    st.tuples(st.just("spend"), POINTS),
    st.tuples(st.just("refund_both"), st.integers(0, 9), st.integers(0, 9), st.integers(1, 120)),
    st.tuples(st.just("adjust"), st.integers(-80, 80).filter(bool)),
    st.tuples(st.just("give"), POINTS, st.booleans()),
    st.tuples(st.just("wait"), st.sampled_from([1, 90, 3_600, 86_400 * 3, 86_400 * 20])),
    st.tuples(st.just("lapse")),
    st.tuples(st.just("expire")),
    st.tuples(st.just("activate")),
)


class Walk:
    """One member's life, one step at a time."""

    def __init__(self, bank: Any, connection: Connection) -> None:
        self.bank = bank
        self.connection = connection
        self.now: datetime = bank.now
        self.earnings: list[UUID] = []
        self.holds: list[UUID] = []
        self.refunds = 0

    async def take(self, member: Any, step: tuple[Any, ...]) -> None:
        bank, connection, partner = self.bank, self.connection, {"partner_id": self.bank.partner_id}
        match step:
            case ("earn", points, days, funder, cost, waits):
                expires_in = None if days is None else self.now - bank.now + timedelta(days=days)
                activates_in = None if waits is None else self.now - bank.now + timedelta(seconds=waits)
                if expires_in is not None and activates_in is not None and expires_in <= activates_in:
                    activates_in = None
                outcome = await bank.earn(
                    connection,
                    member,
                    points,
                    expires_in=expires_in,
                    activates_in=activates_in,
                    funder_id=funder,
                    unit_cost_e6=cost,
                    now=self.now,
                )
                self.earnings.append(outcome.operation_id)
            case ("hold", points, ttl):
                hold = await bank.hold(connection, member, points, ttl_seconds=ttl, now=self.now)
                self.holds.append(hold.id)
            case ("capture", which, points) if self.holds:
                hold_id = self.holds[which % len(self.holds)]
                await service.capture_hold(
                    connection, hold_id=hold_id, points=points, now=self.now, **partner
                )
            case ("release", which) if self.holds:
                hold_id = self.holds[which % len(self.holds)]
                await service.release_hold(connection, hold_id=hold_id, now=self.now, **partner)
            case ("refund_earning", which, fen) if self.earnings:
                await self.refund("earn", self.earnings[which % len(self.earnings)], fen)
            case ("refund_spend", which, fen) if self.holds:
                await self.refund("spend", self.holds[which % len(self.holds)], fen)
            case ("spend", points):
                spent = await bank.spend_at_once(connection, member, points, now=self.now)
                self.holds.append(spent.id)
            case ("refund_both", earned, spent, fen) if self.earnings and self.holds:
                self.refunds += 1
                await service.refund(
                    connection,
                    spend=RefundPart(operation_id=self.holds[spent % len(self.holds)], refunded_fen=fen),
                    earning=RefundPart(
                        operation_id=self.earnings[earned % len(self.earnings)], refunded_fen=fen
                    ),
                    refund_ref=f"r{self.refunds}",
                    now=self.now,
                    **partner,
                )
            case ("adjust", points):
                await bank.adjust(connection, member, points, now=self.now)
            case ("give", points, arrives):
                await self.give(member, points, arrives)
            case ("wait", seconds):
                self.now += timedelta(seconds=seconds)
            case ("lapse",):
                await service.lapse_due(connection, limit=50, now=self.now)
            case ("expire" | "activate" as sweep,):
                before = await service.read_balance(connection, member, now=self.now)
                book = service.expire_due if sweep == "expire" else service.activate_due
                await book(connection, limit=50, now=self.now)
                assert await service.read_balance(connection, member, now=self.now) == before

    async def give(self, member: Any, points: int, arrives: bool) -> None:
        """Sent to somebody else, who gives it back at once; or sent to somebody who does not take it."""
        self.refunds += 1
        other = await self.bank.enrol(self.connection)
        for sender, receiver in ((member, other), (other, member)):
            request = TransferRequest(
                sender=sender,
                receiver=receiver,
                partner_id=self.bank.partner_id,
                points=points,
                transfer_ref=f"t{self.refunds}",
                point_type=TESSERA,
            )
            await service.send_points(self.connection, request, now=self.now)
            subjects = self.bank.everybody if arrives else self.bank.nobody
            assert await service.end_transfers(self.connection, subjects, limit=9, now=self.now) == 1
            if not arrives:
                return

    async def refund(self, side: Side, operation_id: UUID, fen: int) -> None:
        self.refunds += 1
        await service.reverse(
            self.connection,
            operation_id=operation_id,
            partner_id=self.bank.partner_id,
            side=side,
            refund_ref=f"r{self.refunds}",
            refunded_fen=fen,
            now=self.now,
        )


async def state_months(connection: Connection, member: Any, *, now: datetime) -> list[str]:
    """Every month of the walk is stated; the views that contradict a statement or find an entry on none."""
    for period in await service.list_open_months(connection, until=business_date(now - timedelta(days=31))):
        while await jobs.advance(connection, service.STATEMENTS, business_on=period, now=now):
            pass
    last = next(iter(await service.list_statements(connection, member, limit=1, now=now)), None)
    balance = await connection.fetchrow("SELECT * FROM ledger_wallet WHERE member_id = $1", member.member_id)
    if last is None or balance is None:
        assert last is None and (balance is None or balance["seq"] == 0)
        return []
    owned = balance["available_points"] + balance["held_points"] + balance["pending_points"]
    assert last.closing_points == owned
    assert (last.closing_arrears_points, last.last_seq) == (balance["arrears_points"], balance["seq"])
    views = ("books_i40_statement_is_its_entries", "books_i41_statements_follow_each_other")
    found = [
        await connection.fetch(f"SELECT FROM {view} WHERE member_id = $1", member.member_id) for view in views
    ]
    return [view for view, rows in zip(views, found, strict=True) if rows]


@given(steps=st.lists(STEPS, min_size=5, max_size=40))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_the_books_add_up_after_any_life(
    pool: Pool, make_bank: MakeBank, steps: list[tuple[Any, ...]]
) -> None:
    bank = make_bank(datetime(2026, 11, 20, 4, 0, tzinfo=UTC))
    async with pool.acquire() as connection:
        outer = connection.transaction()
        await outer.start()
        try:
            member = await bank.enrol(connection)
            walk = Walk(bank, connection)
            seen: dict[datetime, Balance] = {}
            for step in steps:
                savepoint = connection.transaction()
                await savepoint.start()
                try:
                    await walk.take(member, step)
                    await savepoint.commit()
                except Refusal:
                    await savepoint.rollback()
                balance = await service.read_balance(connection, member, now=walk.now)
                assert balance.available_points == 0 or balance.arrears_points == 0
                seen[walk.now] = balance
            for moment, found in seen.items():
                assert await service.balance_at(connection, member, at=moment) == found
            assert await bank.audit(connection, member) == []
            assert await state_months(connection, member, now=walk.now + timedelta(days=40)) == []
        finally:
            await outer.rollback()
