"""Whether the sweeps came by makes no difference: a life is told alike, swept every day or never."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernel.database import Connection, Pool
from kernel.errors import Refusal
from points.ledger import service

MakeBank = Callable[[datetime], Any]
DAY = timedelta(days=1)
START = datetime(2026, 11, 20, 4, tzinfo=UTC)

POINTS, WHICH, PERCENT = st.integers(1, 120), st.integers(0, 9), st.sampled_from([30, 100])
LIVES = st.sampled_from(
    [(3, None), (3, 1), (4, 2), (6, 2), (6, 3), (40, 1), (40, 3), (None, 2), (None, None)]
)
STEPS = st.one_of(
    st.tuples(st.just("earn"), POINTS, LIVES, st.sampled_from([1, 2])),
    st.tuples(st.just("hold"), POINTS),
    st.tuples(st.just("capture"), WHICH, PERCENT),
    st.tuples(st.just("release"), WHICH),
    st.tuples(st.just("refund_earning"), WHICH, PERCENT),
    st.tuples(st.just("refund_spend"), WHICH, PERCENT),
    st.tuples(st.just("wait"), st.sampled_from([1, 1, 3, 6])),
)


class Life:
    """One member's life; after every step, what can be read of the wallet."""

    def __init__(self, bank: Any, connection: Connection, *, swept: bool) -> None:
        self.bank = bank
        self.connection = connection
        self.swept = swept
        self.now: datetime = bank.now
        self.earned: list[tuple[UUID, int]] = []
        self.held: list[tuple[UUID, int]] = []
        self.refunds = 0

    async def tell(self, steps: list[tuple[Any, ...]]) -> list[Any]:
        member, told = await self.bank.enrol(self.connection), []
        for step in steps:
            savepoint = self.connection.transaction()
            await savepoint.start()
            try:
                answer = await self.take(member, step)
                await savepoint.commit()
            except Refusal as refusal:
                answer = refusal.code, refusal.facts
                await savepoint.rollback()
            balance = await service.read_balance(self.connection, member, now=self.now)
            expiring = await service.list_expiring(self.connection, member, now=self.now)
            assert await service.balance_at(self.connection, member, at=self.now) == balance
            assert await service.list_expiring_at(self.connection, member, at=self.now) == expiring
            told.append((step, answer, balance, expiring))
        assert await self.bank.audit(self.connection, member) == []
        return told

    async def take(self, member: Any, step: tuple[Any, ...]) -> Any:
        connection, partner = self.connection, {"partner_id": self.bank.partner_id, "now": self.now}
        match step:
            case ("earn", points, (ends, waits), funder_id):
                age = self.now - START
                outcome = await self.bank.earn(
                    connection,
                    member,
                    points,
                    expires_in=None if ends is None else age + ends * DAY,
                    activates_in=None if waits is None else age + waits * DAY,
                    funder_id=funder_id,
                    now=self.now,
                )
                self.earned.append((outcome.operation_id, points * 100))
                return outcome.balance
            case ("hold", points):
                hold = await self.bank.hold(connection, member, points, ttl_seconds=604_800, now=self.now)
                self.held.append((hold.id, points))
            case ("capture", which, percent) if self.held:
                hold_id, points = self.held[which % len(self.held)]
                spent = max(1, points * percent // 100)
                await service.capture_hold(connection, hold_id=hold_id, points=spent, **partner)
            case ("release", which) if self.held:
                await service.release_hold(
                    connection, hold_id=self.held[which % len(self.held)][0], **partner
                )
            case ("refund_earning", which, percent) if self.earned:
                operation_id, fen = self.earned[which % len(self.earned)]
                return await self.refund("earn", operation_id, fen * percent // 100)
            case ("refund_spend", which, percent) if self.held:
                operation_id, fen = self.held[which % len(self.held)]
                return await self.refund("spend", operation_id, fen * percent // 100)
            case ("wait", days):
                for _ in range(days):
                    self.now += DAY
                    if self.swept:
                        await service.activate_due(connection, limit=500, now=self.now)
                        await service.expire_due(connection, limit=500, now=self.now)
        return None

    async def refund(self, side: Any, operation_id: UUID, fen: int) -> Any:
        self.refunds += 1
        undone = await service.reverse(
            self.connection,
            operation_id=operation_id,
            partner_id=self.bank.partner_id,
            side=side,
            refund_ref=f"r{self.refunds}",
            refunded_fen=max(1, fen),
            now=self.now,
        )
        return undone.points_clawed_back, undone.points_restored, undone.arrears_added, undone.balance


@given(steps=st.lists(STEPS, min_size=8, max_size=30))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_a_life_is_told_alike_swept_every_day_or_never(
    pool: Pool, make_bank: MakeBank, steps: list[tuple[Any, ...]]
) -> None:
    told = []
    async with pool.acquire() as connection:
        for swept in (True, False):
            outer = connection.transaction()
            await outer.start()
            try:
                told.append(await Life(make_bank(START), connection, swept=swept).tell(steps))
            finally:
                await outer.rollback()
    assert told[0] == told[1]
