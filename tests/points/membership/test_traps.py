"""The known traps of tiers, a test each, under the numbers they have among all traps of points ledgers."""

from datetime import date, timedelta
from itertools import permutations
from typing import Any
from uuid import uuid4

import pytest

from points.ledger import service as ledger
from points.ledger.model import EarnPosting, Grant
from points.membership import service
from points.membership.model import FedLevel

Club = Any

#: the validity of a tier of 20 November 2026 is over, and the grace
GRACE_OVER = date(2027, 12, 20)


async def test_trap_10_tier_requalification_windows(club: Club) -> None:
    """A tier is earned by deeds, never by the balance: who spends or loses points keeps it; periods never overlap."""
    await club.use_scheme()
    member = await club.enrol("comm")
    await club.record(*(club.deed(member, 1_000) for _ in range(4)))
    assert await club.tier(member) == "silver"
    grant = Grant(rule="base", multiplier_pct=100, points=500, lot_id=uuid4(), expires_at=club.after(1))
    posting = EarnPosting(
        operation_id=uuid4(),
        member=member,
        partner_id=club.partner_id,
        source_kind="purchase",
        source_ref="order-1",
        amount_fen=50_000,
        occurred_at=club.now,
        rule_version=1,
        tier="silver",
        multiplier_pct=100,
        own_card=False,
        category=None,
        grants=(grant,),
    )
    await ledger.post_earnings(club.connection, [posting], now=club.now)
    held = await ledger.place_hold(
        club.connection,
        member=member,
        partner_id=club.partner_id,
        points=400,
        order_ref="o",
        ttl_seconds=60,
        now=club.now,
    )
    await ledger.capture_hold(club.connection, hold_id=held.id, partner_id=club.partner_id, now=club.now)
    await ledger.expire_due(club.connection, limit=1_000, now=club.after(1))
    assert await club.evaluate(member, on=date(2026, 12, 1), now=club.after(11)) == []
    assert await club.tier(member) == "silver"
    assert [fen for _, fen, _ in await club.counted(member)] == [4_000], (
        "spending and expiry count nothing back"
    )

    newest, oldest = await service.list_periods(club.connection, member, limit=10)
    assert oldest.ends_at == newest.starts_at and newest.ends_at is None
    # The window is half-open: what lies before its first month counts no more, what lies in it does.
    assert (newest.window_from, newest.window_to) == (date(2025, 12, 1), date(2026, 12, 1))
    other = await club.enrol("comm")
    for month, counts in ((date(2025, 11, 30), False), (date(2025, 12, 1), True)):
        moment = club.now.replace(year=month.year, month=month.month, day=month.day)
        await club.record(*(club.deed(other, 1_000, occurred_at=moment) for _ in range(4)))
        assert await club.tier(other) == ("silver" if counts else "bronze")
    assert await club.contradictions([member, other]) == []


async def test_trap_11_downgrade_protection(club: Club) -> None:
    """Less takes effect after validity and grace, at an evaluation, by one tier; a refund or the bank's news never at once."""
    await club.use_scheme()
    member = await club.enrol("comm")
    deeds = [club.deed(member, 1_000) for _ in range(6)]
    await club.record(*deeds)
    assert await club.tier(member) == "gold"
    for deed in deeds:
        await service.undo_activity(
            club.connection,
            deed.member,
            partner_id=club.partner_id,
            kind=deed.kind,
            source_ref=deed.source_ref,
            fen=deed.amount_fen,
        )
    assert await club.tier(member) == "gold", "the counter fell, the tier waits"
    for day in (date(2026, 12, 1), date(2027, 11, 20), GRACE_OVER - timedelta(days=1)):
        await club.evaluate(member, on=day, now=club.after(1))
        assert await club.tier(member) == "gold"
    (verdict,) = await club.evaluate(member, on=GRACE_OVER, now=club.after(396))
    assert (verdict.reason, verdict.tier, verdict.judged_tier) == ("downgraded", "silver", "bronze")
    assert await club.evaluate(member, on=GRACE_OVER + timedelta(days=1), now=club.after(397)) == []


@pytest.mark.parametrize("order", list(permutations(range(3))))
async def test_trap_12_two_inputs_arrive_out_of_order(club: Club, order: tuple[int, ...]) -> None:
    """The bank's feed and the partners' deeds come in any order: the tier is the same, and its row tells both inputs."""
    await club.use_scheme()
    member = await club.enrol("express")

    async def feed(level: Any, on: date) -> None:
        fed = FedLevel(member=member, bank_level=level, valid_from=on)
        await service.feed_bank_levels(club.connection, [fed], fed_ref=f"levels-{on}", now=club.now)

    async def deeds() -> None:
        await club.record(*(club.deed(member, 1_000) for _ in range(4)))

    inputs = [lambda: feed("comm", date(2026, 11, 1)), lambda: feed("wode", date(2026, 11, 10)), deeds]
    for place in order:
        await inputs[place]()
    assert await club.tier(member) == "gold", "wode since the tenth, silver by four deeds"
    newest = (await service.list_periods(club.connection, member, limit=1))[0]
    assert (newest.bank_level, newest.shop_level) == ("wode", "silver")
    assert (newest.qualifying_fen, newest.qualifying_count) == (4_000, 4)
    assert newest.matrix_version >= 1 and newest.scheme_version >= 1
    assert await club.contradictions([member]) == []
