"""Whatever becomes of points that several pay for, a funder whose earnings are all refunded has everything back, to the fen."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernel import jobs
from kernel.calendar import business_date
from kernel.caller import MemberRef
from kernel.database import Connection, Pool
from kernel.errors import Refusal
from kernel.ids import new_id
from partners.settlement import service as settlement
from points.ledger import service as ledger
from points.ledger.deeds import ExchangeRequest, TransferRequest
from points.ledger.funder_model import Billing, Funder, Terms
from points.ledger.funder_rules import FunderExhausted
from points.ledger.model import BANK_FUNDER_ID, POINTS, EarnPosting, Grant, PointType, Side, SpendRequest
from points.membership.service import enrol_members

START = datetime(2026, 11, 20, 4, 0, tzinfo=UTC)
SHARE = st.tuples(st.integers(0, 60), st.sampled_from([1, 5, 40, None]), st.sampled_from([None, None, 2]))
WHICH, PART = st.integers(0, 9), st.integers(1, 100)
STEPS = st.one_of(
    st.tuples(st.just("earn"), SHARE, SHARE, SHARE),
    st.tuples(st.just("earn"), SHARE, SHARE, SHARE),
    st.tuples(st.just("spend"), st.integers(1, 150)),
    st.tuples(st.just("refund"), WHICH, PART),
    st.tuples(st.just("unspend"), WHICH, PART),
    st.tuples(st.just("give"), st.integers(1, 80), st.booleans()),
    st.tuples(st.just("exchange"), st.integers(2, 80)),
    st.tuples(st.just("adjust"), st.integers(-60, 60).filter(bool)),
    st.tuples(st.just("wait"), st.sampled_from([1, 90, 3_600, 86_400 * 3, 86_400 * 20])),
    st.tuples(st.just("sweep")),
    st.tuples(st.just("dearer"), st.integers(0, 3_000_000)),
    st.tuples(st.just("close")),
)
VIEWS = "^books_i(0[2-9]|1[0-5]|17|18|29|3[0-3]|4[01]|5[1-6]|6[3-9])_"


class Everybody:
    """The consents of members who all do, or none of whom does."""

    def __init__(self, willing: bool) -> None:
        self.willing = willing

    async def names(self, connection: Connection, *, partner_id: UUID, member_ids: Any) -> dict[int, str]:
        return {member_id: str(member_id) for member_id in member_ids if self.willing}

    async def resolve_each(self, connection: Connection, asked: Any, *, scope: str, now: datetime) -> Any:
        return [MemberRef(member_id=int(sub), bucket=0) for _, sub in asked]


class Life:
    """One member at one shop, whose points the bank, a prepaid and a postpaid funder pay for together."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.now = START
        self.partner_id = uuid4()
        self.done = 0
        #: what refunds may still take of each earning and spend
        self.earnings: dict[UUID, int] = {}
        self.spends: dict[UUID, int] = {}

    async def begin(self) -> None:
        self.member, self.friend = await enrol_members(self.connection, count=2, now=self.now)
        self.prepaid = await self._funder("prepaid", 0)
        self.postpaid = await self._funder("postpaid", 333_333)
        for points, paid_fen in ((70, 31), (5_000, 3_777)):
            await ledger.buy_block(
                self.connection,
                code=self.prepaid.code,
                points=points,
                paid_fen=paid_fen,
                starts_on=business_date(self.now),
                purchase_ref=uuid4().hex,
                actor="test",
                now=self.now,
            )
        self.miles = await ledger.register_point_type(
            self.connection, name=f"miles_{uuid4().hex[:8]}", value_fen_e6=1_500_000, by="a", now=self.now
        )
        for source, target, numerator, denominator in (
            (POINTS, self.miles, 2, 3),
            (self.miles, POINTS, 3, 2),
        ):
            await ledger.set_rate(
                self.connection,
                from_type=source,
                to_type=target,
                numerator=numerator,
                denominator=denominator,
                valid_from=self.now,
                by="a",
                now=self.now,
            )

    async def _funder(self, billing: Billing, price_fen_e6: int) -> Funder:
        return await ledger.register_funder(
            self.connection,
            code=f"partner:p{uuid4().hex[:12]}",
            kind="partner",
            partner_id=uuid4(),
            terms=Terms(effective_on=business_date(self.now), billing=billing, price_fen_e6=price_fen_e6),
            actor="test",
            now=self.now,
        )

    async def take(self, step: tuple[Any, ...]) -> None:
        self.done += 1
        match step:
            case ("earn", *shares):
                await self.earn(shares)
            case ("spend", points):
                await self.spend(points)
            case ("refund", which, part) if self.earnings:
                await self.refund("earn", self.earnings, which, part)
            case ("unspend", which, part) if self.spends:
                await self.refund("spend", self.spends, which, part)
            case ("give", points, arrives):
                await self.give(self.member, self.friend, points, arrives)
                await self.give(self.friend, self.member, points // 2 or 1, True)
            case ("exchange", points):
                await self.exchange(POINTS, self.miles, points)
                await self.exchange(self.miles, POINTS, points // 3 or 1)
            case ("adjust", points):
                await self.adjust(points)
            case ("wait", seconds):
                self.now += timedelta(seconds=seconds)
            case ("sweep",):
                await ledger.expire_due(self.connection, limit=50, now=self.now)
                await ledger.activate_due(self.connection, limit=50, now=self.now)
            case ("dearer", price):
                tomorrow = business_date(self.now) + timedelta(days=1)
                terms = Terms(effective_on=tomorrow, billing="postpaid", price_fen_e6=price)
                await ledger.change_terms(
                    self.connection, code=self.postpaid.code, terms=terms, actor="test", now=self.now
                )
            case ("close",):
                await self.close()

    async def earn(self, shares: list[tuple[int, int | None, int | None]]) -> None:
        funders = (BANK_FUNDER_ID, self.prepaid.id, self.postpaid.id)
        grants = tuple(
            Grant(
                rule="base",
                multiplier_pct=100,
                points=points,
                lot_id=new_id(self.now),
                funder_id=funder_id,
                expires_at=None if days is None else self.now + timedelta(days=days),
                activates_at=None if waits is None or days == 1 else self.now + timedelta(days=waits),
            )
            for funder_id, (points, days, waits) in zip(funders, shares, strict=True)
            if points
        )
        total = sum(grant.points for grant in grants)
        if not total:
            return
        posting = EarnPosting(
            operation_id=new_id(self.now),
            member=self.member,
            partner_id=self.partner_id,
            source_kind="purchase",
            source_ref=f"s{self.done}",
            amount_fen=total * 97,
            occurred_at=self.now,
            rule_version=1,
            tier="start",
            multiplier_pct=100,
            own_card=True,
            category=None,
            grants=grants,
        )
        [answer] = await ledger.post_funded_earnings(self.connection, [posting], now=self.now)
        assert not isinstance(answer, FunderExhausted)
        self.earnings[answer[1].operation_id] = total * 97

    async def spend(self, points: int) -> None:
        request = SpendRequest(
            member=self.member, partner_id=self.partner_id, points=points, order_ref="o", point_type=POINTS
        )
        [spent] = await ledger.spend_points(self.connection, [request], now=self.now)
        if not isinstance(spent, Refusal):
            self.spends[spent.id] = points

    async def refund(self, side: Side, left: dict[UUID, int], which: int, part: int) -> None:
        operation_id = list(left)[which % len(left)]
        fen = -(-left[operation_id] * part // 100)
        if fen:
            await ledger.reverse(
                self.connection,
                operation_id=operation_id,
                partner_id=self.partner_id,
                side=side,
                refund_ref=f"r{self.done}",
                refunded_fen=fen,
                now=self.now,
            )
            left[operation_id] -= fen

    async def give(self, sender: MemberRef, receiver: MemberRef, points: int, arrives: bool) -> None:
        request = TransferRequest(
            sender=sender,
            receiver=receiver,
            partner_id=self.partner_id,
            points=points,
            transfer_ref=f"t{self.done}",
            point_type=POINTS,
        )
        await ledger.send_points(self.connection, request, now=self.now)
        self.now += timedelta(hours=3)
        assert await ledger.end_transfers(self.connection, Everybody(arrives), limit=9, now=self.now) == 1

    async def exchange(self, source: PointType, target: PointType, points: int) -> None:
        request = ExchangeRequest(
            member=self.member,
            partner_id=self.partner_id,
            from_type=source,
            to_type=target,
            points=points,
            exchange_ref=f"{source.name}{self.done}",
        )
        await ledger.exchange_points(self.connection, request, now=self.now)

    async def adjust(self, points: int) -> None:
        proposed = await ledger.propose_adjustment(
            self.connection,
            member=self.member,
            point_type=POINTS,
            points=points,
            reason_code="goodwill",
            reason="A test.",
            by="a",
            now=self.now,
        )
        await ledger.approve_adjustment(self.connection, adjustment_id=proposed.id, by="b", now=self.now)

    async def close(self) -> None:
        """Every partner's day; nothing that was recorded by then is left out."""
        self.now += timedelta(minutes=10)
        for partner_id in (self.partner_id, self.prepaid.partner_id, self.postpaid.partner_id):
            assert partner_id is not None
            await settlement.close_batch(
                self.connection, partner_id=partner_id, business_on=business_date(self.now), now=self.now
            )

    async def refund_everything(self) -> None:
        for operation_id in list(self.earnings):
            self.done += 1
            await self.refund("earn", {operation_id: self.earnings[operation_id]}, 0, 100)

    async def settled(self, funder: Funder) -> dict[str, tuple[int, int]]:
        """(points, fen) by kind of line, over all batches."""
        records = await self.connection.fetch(
            "SELECT kind, sum(points)::bigint, sum(amount_fen)::bigint FROM settlement_line"
            " WHERE partner_id = $1 GROUP BY kind",
            funder.partner_id,
        )
        return {record[0]: (record[1], record[2]) for record in records}

    async def state_months(self) -> None:
        """A statement of every month of every wallet."""
        later = self.now + timedelta(days=40)
        until = business_date(later - timedelta(days=31))
        for period in await ledger.list_open_months(self.connection, until=until):
            while await jobs.advance(self.connection, ledger.STATEMENTS, business_on=period, now=later):
                pass

    async def contradictions(self) -> list[str]:
        views = await self.connection.fetch(
            "SELECT viewname FROM pg_views WHERE viewname ~ $1 ORDER BY viewname", VIEWS
        )
        return [view[0] for view in views if await self.connection.fetch(f"SELECT FROM {view[0]}")]


@given(steps=st.lists(STEPS, min_size=4, max_size=25))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_a_funder_whose_earnings_are_all_refunded_has_everything_back(
    pool: Pool, steps: list[tuple[Any, ...]]
) -> None:
    async with pool.acquire() as connection:
        outer = connection.transaction()
        await outer.start()
        try:
            life = Life(connection)
            await life.begin()
            for step in steps:
                savepoint = connection.transaction()
                await savepoint.start()
                try:
                    await life.take(step)
                    await savepoint.commit()
                except Refusal:
                    await savepoint.rollback()
            await life.close()
            assert await life.contradictions() == []
            await life.refund_everything()
            await life.close()
            await life.state_months()
            assert await life.contradictions() == []
            blocks = await ledger.list_blocks(connection, code=life.prepaid.code)
            assert [block.used_points for block in blocks] == [0, 0]
            nothing = (0, 0)
            for funder, out, back in (
                (life.postpaid, "points_issued", "points_clawed_back"),
                (life.prepaid, "prepaid_used", "prepaid_returned"),
            ):
                settled = await life.settled(funder)
                assert settled.get(out, nothing) == settled.get(back, nothing)
        finally:
            await outer.rollback()
