"""What a funder owes reaches its own settlement, to the fen, once, and nobody else's."""

from datetime import date, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from kernel.caller import MemberRef
from kernel.database import Connection
from kernel.ids import new_id, to_wire
from partners.settlement import service
from partners.settlement.model import Batch, Line
from partners.settlement.rules import wire_operation
from points.ledger import service as ledger
from points.ledger.funder_model import Billed, Billing, Funder, Terms
from points.ledger.funder_rules import FunderExhausted
from points.ledger.model import BANK_FUNDER_ID, POINTS, EarnPosting, Grant
from points.membership.service import enrol_members

from .conftest import Shop

DAY = date(2026, 11, 20)


class Scene:
    """A shop in which a funder that is another partner pays for points."""

    def __init__(self, connection: Connection, shop: Shop, owner: Funder) -> None:
        self.connection = connection
        self.shop = shop
        self.owner = owner
        self.now = shop.now

    async def earn(
        self,
        points: int,
        *,
        member: MemberRef | None = None,
        days: int | None = None,
        funder_id: int | None = None,
        bank_points: int = 0,
        bank_days: int | None = None,
    ) -> UUID:
        grant = Grant(
            rule="campaign",
            multiplier_pct=100,
            points=points,
            lot_id=new_id(self.now),
            funder_id=self.owner.id if funder_id is None else funder_id,
            expires_at=None if days is None else self.now + timedelta(days=days),
        )
        base = Grant(
            rule="base",
            multiplier_pct=100,
            points=bank_points,
            lot_id=new_id(self.now),
            funder_id=BANK_FUNDER_ID,
            expires_at=None if bank_days is None else self.now + timedelta(days=bank_days),
        )
        posting = EarnPosting(
            operation_id=new_id(self.now),
            member=member or self.shop.member,
            partner_id=self.shop.partner_id,
            source_kind="purchase",
            source_ref=str(uuid4()),
            amount_fen=(points + bank_points) * 100,
            occurred_at=self.now,
            rule_version=1,
            tier="start",
            multiplier_pct=100,
            own_card=True,
            category=None,
            grants=(base, grant) if bank_points else (grant,),
        )
        [answer] = await ledger.post_funded_earnings(self.connection, [posting], now=self.now)
        assert not isinstance(answer, FunderExhausted)
        return answer[1].operation_id

    async def refund(self, operation_id: UUID, fen: int) -> None:
        self.shop.now = self.now
        await self.shop.refund("earn", operation_id, fen)

    async def close(
        self, partner_id: UUID | None = None, *, on: date | None = None
    ) -> tuple[Batch, list[Line]]:
        owner_id = self.owner.partner_id
        assert owner_id is not None
        partner = partner_id or owner_id
        batch = await service.close_batch(
            self.connection,
            partner_id=partner,
            business_on=on or self.today,
            now=self.now + timedelta(minutes=1),
        )
        lines = await service.list_lines(self.connection, batch_id=batch.id, partner_id=partner, limit=1_000)
        return batch, lines

    @property
    def today(self) -> date:
        return (self.now + timedelta(hours=8)).date()

    async def contradictions(self) -> dict[str, int]:
        rows = await self.connection.fetch(
            "SELECT viewname FROM pg_views WHERE viewname ~ '^books_i(29|3[0-2]|5[0-6])' ORDER BY viewname"
        )
        found = {row[0]: len(await self.connection.fetch(f"SELECT * FROM {row[0]}")) for row in rows}
        assert len(found) == 11
        return {name: count for name, count in found.items() if count}


async def scene(
    connection: Connection,
    shop: Shop,
    billing: Billing,
    *,
    price_fen_e6: int = 0,
    breakage_ppm: int = 0,
    billed: Billed = "daily",
) -> Scene:
    owner = await ledger.register_funder(
        connection,
        code=f"partner:p{uuid4().hex[:12]}",
        kind="partner",
        partner_id=uuid4(),
        terms=Terms(
            effective_on=DAY,
            billing=billing,
            price_fen_e6=price_fen_e6,
            breakage_ppm=breakage_ppm,
            billed=billed,
        ),
        actor="test",
        now=shop.now,
    )
    return Scene(connection, shop, owner)


def told(lines: list[Line]) -> list[tuple[str, str, int, int]]:
    return [(line.kind, line.direction, line.points, line.amount_fen) for line in lines]


async def test_a_funder_pays_for_points_issued_elsewhere_and_the_shop_does_not_learn_of_it(
    connection: Connection, shop: Shop
) -> None:
    play = await scene(connection, shop, "postpaid", price_fen_e6=800_000)
    earned = await play.earn(1_000)
    await shop.spend(300)
    await play.refund(earned, 10_000)
    batch, lines = await play.close()
    assert sorted(told(lines)) == [  # all of one moment
        ("points_clawed_back", "bank_owes_partner", 100, 80),
        ("points_issued", "partner_owes_bank", 1_000, 800),
    ]
    assert (batch.partner_owes_fen, batch.bank_owes_fen) == (800, 80)
    _, seen = await play.close(shop.partner_id)
    assert told(seen) == [("points_redeemed", "bank_owes_partner", 300, 300)]
    assert {line.funder for line in seen} == {"bank"}
    assert await play.contradictions() == {}


async def test_lines_add_up_to_the_whole_fen_of_what_is_owed_exactly(
    connection: Connection, shop: Shop
) -> None:
    """A point costs 0.3 fen: ten single points are three fen over two batches, not ten times nothing."""
    play = await scene(connection, shop, "postpaid", price_fen_e6=300_000)
    for _ in range(5):
        await play.earn(1)
    _, first = await play.close()
    for _ in range(5):
        await play.earn(1)
    play.now += timedelta(minutes=10)
    _, second = await play.close()
    assert [line.amount_fen for line in first] == [0, 0, 0, 1, 0]
    assert [line.amount_fen for line in second] == [0, 1, 0, 0, 1]
    assert await play.contradictions() == {}


async def test_each_entry_is_billed_once_and_a_late_refund_goes_into_the_next_batch(
    connection: Connection, shop: Shop
) -> None:
    play = await scene(connection, shop, "postpaid", price_fen_e6=1_000_000)
    earned = await play.earn(500)
    closed, lines = await play.close()
    assert (len(lines), closed.partner_owes_fen) == (1, 500)
    again, _ = await play.close()
    assert again.id == closed.id
    play.now += timedelta(days=1)
    await play.refund(earned, 20_000)
    late, late_lines = await play.close()
    assert told(late_lines) == [("points_clawed_back", "bank_owes_partner", 200, 200)]
    assert (late.sequence, late.bank_owes_fen) == (1, 200)
    unchanged, _ = await service.find_batch(connection, batch_id=closed.id, partner_id=closed.partner_id)
    assert unchanged == closed
    assert await play.contradictions() == {}


async def test_a_monthly_funder_is_billed_with_the_months_last_day(
    connection: Connection, shop: Shop
) -> None:
    play = await scene(connection, shop, "postpaid", price_fen_e6=1_000_000, billed="monthly")
    earned = await play.earn(100)
    _, lines = await play.close()
    assert lines == []
    play.now = datetime.fromisoformat("2026-11-30T04:00:00+00:00")
    await play.refund(earned, 1_000)
    _, lines = await play.close()
    assert told(lines) == [
        ("points_issued", "partner_owes_bank", 100, 100),
        ("points_clawed_back", "bank_owes_partner", 10, 10),
    ]
    play.now += timedelta(days=1)
    await play.refund(earned, 1_000)
    _, lines = await play.close()
    assert lines == []
    play.now = datetime.fromisoformat("2026-12-31T04:00:00+00:00")
    _, lines = await play.close()
    assert told(lines) == [("points_clawed_back", "bank_owes_partner", 10, 10)]
    assert await play.contradictions() == {}


async def test_a_block_is_paid_for_when_bought_and_its_points_are_not_billed_again(
    connection: Connection, shop: Shop
) -> None:
    play = await scene(connection, shop, "prepaid", breakage_ppm=500_000)
    bought = await ledger.buy_block(
        connection,
        code=play.owner.code,
        points=1_000,
        paid_fen=700,
        starts_on=DAY,
        purchase_ref="po-1",
        actor="test",
        now=play.now,
    )
    earned = await play.earn(400, days=1)
    await play.refund(earned, 10_000)
    batch, lines = await play.close()
    assert sorted(told(lines)) == [  # all of one moment
        ("prepaid_bought", "partner_owes_bank", 1_000, 700),
        ("prepaid_returned", "none", 100, 70),
        ("prepaid_used", "none", 400, 280),
    ]
    assert batch.partner_owes_fen == 700
    [purchase] = [line for line in lines if line.kind == "prepaid_bought"]
    assert wire_operation(purchase) == to_wire("blk", bought.id)
    play.now += timedelta(days=1)
    assert await ledger.expire_due(connection, limit=10, now=play.now) == 1
    _, lines = await play.close()
    assert told(lines) == [("breakage_share", "bank_owes_partner", 300, 105)]
    assert await play.contradictions() == {}


@pytest.mark.parametrize(("breakage_ppm", "shared"), [(0, None), (333_333, 33), (1_000_000, 100)])
async def test_the_funder_gets_its_share_of_points_that_end_unused(
    connection: Connection, shop: Shop, breakage_ppm: int, shared: int | None
) -> None:
    play = await scene(connection, shop, "postpaid", price_fen_e6=500_000, breakage_ppm=breakage_ppm)
    await play.earn(200, days=1)
    play.now += timedelta(days=1)
    await ledger.expire_due(connection, limit=10, now=play.now)
    _, lines = await play.close()
    shares = [line.amount_fen for line in lines if line.kind == "breakage_share"]
    assert shares == ([] if shared is None else [shared])
    assert await play.contradictions() == {}


async def test_what_the_bank_pays_for_a_partner_is_billed_at_nothing(
    connection: Connection, shop: Shop
) -> None:
    play = await scene(connection, shop, "bank")
    await play.earn(100)
    batch, lines = await play.close()
    assert told(lines) == [("points_issued", "partner_owes_bank", 100, 0)]
    assert batch.net_fen == 0


async def test_claw_backs_of_several_costs_are_credited_to_the_fen(
    connection: Connection, shop: Shop
) -> None:
    """Points taken from lots bought at different prices, some of them owed: all credits are what was charged."""
    play = await scene(connection, shop, "postpaid", price_fen_e6=333_333)
    [other] = await enrol_members(connection, count=1, now=shop.now)
    first = await play.earn(101)
    dearer = Terms(effective_on=DAY + timedelta(days=1), billing="postpaid", price_fen_e6=999_999)
    await ledger.change_terms(connection, code=play.owner.code, terms=dearer, actor="test", now=play.now)
    play.now += timedelta(days=1)
    second = await play.earn(53)
    await play.earn(7, member=other)
    await play.refund(second, 1_700)
    await play.refund(first, 10_100)
    _, lines = await play.close()
    charged = 101 * 333_333 + 60 * 999_999
    credited = 101 * 333_333 + 17 * 999_999
    by_kind: dict[str, int] = {}
    for line in lines:
        by_kind[line.kind] = by_kind.get(line.kind, 0) + line.amount_fen
    assert by_kind == {"points_issued": charged // 10**6, "points_clawed_back": credited // 10**6}
    assert await play.contradictions() == {}


async def _credited(play: Scene) -> tuple[int, int]:
    """(points, fen) that the funder got back so far, over all its batches."""
    await play.close()
    record = await play.connection.fetchrow(
        "SELECT coalesce(sum(points), 0)::bigint, coalesce(sum(amount_fen), 0)::bigint FROM settlement_line"
        " WHERE partner_id = $1 AND kind = 'points_clawed_back'",
        play.owner.partner_id,
    )
    assert record is not None
    return record[0], record[1]


@pytest.mark.parametrize("days", [(1, None), (None, 1)], ids=["its points end first", "the bank's end first"])
async def test_a_funder_is_credited_what_the_refunded_earning_cost_it_and_no_more(
    connection: Connection, shop: Shop, days: tuple[int | None, int | None]
) -> None:
    """Bank and funder paid for an earning that was spent: the refund is not at the cost of the one whose points end first."""
    play = await scene(connection, shop, "postpaid", price_fen_e6=1_000_000)
    earned = await play.earn(40, days=days[0], bank_points=60, bank_days=days[1])
    await shop.spend(100)
    await play.refund(earned, 5_000)
    await play.refund(earned, 5_000)
    assert await _credited(play) == (40, 40)
    assert await play.contradictions() == {}


async def test_another_earnings_points_do_not_change_what_a_refund_credits(
    connection: Connection, shop: Shop
) -> None:
    """The price has gone up since: the refund of the cheap earning takes dear points, and credits cheap ones."""
    play = await scene(connection, shop, "postpaid", price_fen_e6=1_000_000)
    cheap = await play.earn(100)
    await shop.spend(100)
    dearer = Terms(effective_on=DAY + timedelta(days=1), billing="postpaid", price_fen_e6=3_000_000)
    await ledger.change_terms(connection, code=play.owner.code, terms=dearer, actor="test", now=play.now)
    play.now += timedelta(days=1)
    dear = await play.earn(100)
    await play.refund(cheap, 3_333)
    await play.refund(cheap, 6_667)
    assert await _credited(play) == (100, 100)
    play.now += timedelta(minutes=5)
    await play.refund(dear, 10_000)
    assert await _credited(play) == (200, 400)
    assert await play.contradictions() == {}


async def test_points_the_bank_gives_in_a_funders_name_earn_the_funder_nothing_when_they_end(
    connection: Connection, shop: Shop
) -> None:
    """Nobody bills an adjustment, so there is no cost of which the funder could get a share back."""
    play = await scene(connection, shop, "postpaid", price_fen_e6=1_000_000, breakage_ppm=500_000)
    given = await ledger.propose_adjustment(
        connection,
        member=shop.member,
        point_type=POINTS,
        points=100,
        reason_code="goodwill",
        reason="A parcel was late.",
        funder=play.owner.code,
        by="ann",
        now=play.now,
    )
    await ledger.approve_adjustment(connection, adjustment_id=given.id, by="bob", now=play.now)
    play.now += timedelta(days=800)
    assert await ledger.expire_due(connection, limit=10, now=play.now) == 1
    batch, lines = await play.close()
    assert [(line.kind, line.amount_fen) for line in lines] == [("breakage_share", 0)]
    assert batch.net_fen == 0
    assert await play.contradictions() == {}
