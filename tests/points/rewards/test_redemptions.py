"""Redemptions: a piece and its price are kept together or given back together, in every state and by every act."""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest

from kernel.caller import MemberRef, MemberUnknown
from kernel.database import Connection
from kernel.errors import Refusal
from kernel.ids import to_wire
from points.ledger import service as ledger
from points.ledger.rules import InsufficientPoints, ManagedByRedemption, PointTypeUnknown
from points.rewards import service
from points.rewards.model import BANK, Cancellation, Limit, Redemption
from points.rewards.rules import (
    CodeNotShown,
    FulfilmentOverdue,
    OffsetContradicted,
    RedemptionNotCancellable,
    RedemptionNotOpen,
    RedemptionRefUsed,
    RedemptionUnknown,
    RewardLimitReached,
    RewardOutOfStock,
)

Shelf = Any
WEEK = Cancellation(policy="within_days", days=7)


async def events(connection: Connection, redemption: Redemption) -> list[tuple[UUID, str]]:
    records = await connection.fetch(
        "SELECT partner_id, type FROM outbox_event WHERE aggregate = $1 ORDER BY ordinal",
        to_wire("rdm", redemption.id),
    )
    return [(record[0], record[1]) for record in records]


async def sweep(connection: Connection, moment: datetime) -> None:
    """Every redemption that is overdue, other tests' too."""
    while await service.fail_overdue(connection, now=moment):
        pass


async def test_a_gift_card_is_the_members_at_once(shelf: Shelf, connection: Connection) -> None:
    reward_id = await shelf.put(connection, "gift_card", codes=2)
    member = await shelf.member(connection)
    redemption = await shelf.redeem(connection, member, reward_id)
    assert (redemption.state, redemption.fulfilled_at, redemption.shown_at) == ("fulfilled", shelf.now, None)
    assert await shelf.balance(connection, member) == (900, 0)
    code = await service.show_code(
        connection, redemption_id=redemption.id, asking=member, vault=shelf.vault, now=shelf.now
    )
    assert code == f"{reward_id}-0"
    again = await service.show_code(
        connection,
        redemption_id=redemption.id,
        asking=shelf.partner_id,
        vault=shelf.vault,
        now=shelf.now + timedelta(hours=1),
    )
    shown = await service.find_redemption(connection, redemption_id=redemption.id, asking=member)
    assert (again, shown.shown_at) == (code, shelf.now)
    assert await events(connection, redemption) == [
        (shelf.partner_id, "redemption.requested"),
        (shelf.partner_id, "redemption.fulfilled"),
    ]
    assert await shelf.contradictions(connection) == []


async def test_no_code_is_in_any_table_but_sealed(shelf: Shelf, connection: Connection) -> None:
    reward_id = await shelf.put(connection, "gift_card", codes=1)
    member = await shelf.member(connection)
    redemption = await shelf.redeem(connection, member, reward_id)
    code = await service.show_code(
        connection, redemption_id=redemption.id, asking=member, vault=shelf.vault, now=shelf.now
    )
    for table in ("rewards_code", "rewards_redemption", "outbox_event", "audit_record", "ledger_operation"):
        found = await connection.fetchval(
            f"SELECT count(*) FROM {table} AS t WHERE position($1 IN t::text) > 0", code
        )
        assert found == 0, table
    sealed = await connection.fetchval("SELECT code_sealed FROM rewards_code WHERE reward_id = $1", reward_id)
    assert code.encode() not in sealed


async def test_a_service_is_held_until_its_provider_gives_it(shelf: Shelf, connection: Connection) -> None:
    reward_id = await shelf.put(connection, "service", pieces=3)
    member = await shelf.member(connection)
    redemption = await shelf.redeem(connection, member, reward_id)
    assert redemption.state == "requested"
    assert redemption.fulfil_by == shelf.now + timedelta(hours=1)
    assert await shelf.balance(connection, member) == (900, 100)
    assert await shelf.taken(connection, reward_id) == 1
    fulfilled = await service.fulfil(
        connection, redemption_id=redemption.id, provider_id=shelf.provider_id, now=shelf.now
    )
    assert fulfilled.state == "fulfilled"
    assert await shelf.balance(connection, member) == (900, 0)
    assert await events(connection, redemption) == [
        (shelf.partner_id, "redemption.requested"),
        (shelf.provider_id, "redemption.requested"),
        (shelf.partner_id, "redemption.fulfilled"),
        (shelf.provider_id, "redemption.fulfilled"),
    ]
    assert await shelf.contradictions(connection) == []


async def test_the_provider_learns_nothing_of_the_member_or_of_the_other_partner(
    shelf: Shelf, connection: Connection
) -> None:
    member = await shelf.member(connection)
    redemption = await shelf.redeem(
        connection, member, await shelf.put(connection, "service"), ref="secret-7"
    )
    told = await connection.fetch("SELECT payload FROM outbox_event WHERE partner_id = $1", shelf.provider_id)
    assert [set(record["payload"]) for record in told] == [
        {"id", "reward", "state", "price_points", "reason"}
    ]
    hold = await ledger.find_hold(connection, hold_id=redemption.hold_id, partner_id=shelf.provider_id)
    assert hold.order_ref == to_wire("rdm", redemption.id)


async def test_who_gives_the_reward_is_paid_for_it(shelf: Shelf, connection: Connection) -> None:
    """The shop through which a bank's card or another's service is redeemed has given nothing."""
    member = await shelf.member(connection)
    card = await shelf.redeem(connection, member, await shelf.put(connection, "gift_card", codes=1))
    visit = await shelf.redeem(connection, member, await shelf.put(connection, "service"))
    await service.fulfil(connection, redemption_id=visit.id, provider_id=shelf.provider_id, now=shelf.now)
    owed = await connection.fetch(
        "SELECT partner_id, sum(amount_fen)::int AS fen FROM ledger_settlement_source"
        " WHERE kind = 'points_redeemed' AND partner_id = ANY($1) GROUP BY partner_id",
        [shelf.partner_id, shelf.provider_id],
    )
    assert [(record[0], record[1]) for record in owed] == [(shelf.provider_id, 100)]
    assert card.supplier_id == BANK


async def test_a_service_that_is_not_given_gives_everything_back(
    shelf: Shelf, connection: Connection
) -> None:
    reward_id = await shelf.put(connection, "service", pieces=1, limit=Limit(count=1, period="day"))
    member = await shelf.member(connection)
    redemption = await shelf.redeem(connection, member, reward_id)
    failed = await service.fail(
        connection,
        redemption_id=redemption.id,
        provider_id=shelf.provider_id,
        reason="no_doctor",
        now=shelf.now,
    )
    assert (failed.state, failed.reason, failed.has_piece, failed.counts) == (
        "failed",
        "no_doctor",
        False,
        False,
    )
    assert await shelf.balance(connection, member) == (1_000, 0)
    assert await shelf.taken(connection, reward_id) == 0
    assert await shelf.contradictions(connection) == []
    await shelf.redeem(connection, member, reward_id)


async def test_what_nobody_fulfils_in_time_fails_by_itself(shelf: Shelf, connection: Connection) -> None:
    reward_id = await shelf.put(connection, "service", pieces=1)
    member = await shelf.member(connection)
    redemption = await shelf.redeem(connection, member, reward_id)
    late = shelf.now + timedelta(hours=1)
    with pytest.raises(FulfilmentOverdue):
        await service.fulfil(connection, redemption_id=redemption.id, provider_id=shelf.provider_id, now=late)
    states = []
    for moment in (late - timedelta(microseconds=1), late):
        await sweep(connection, moment)
        found = await service.find_redemption(connection, redemption_id=redemption.id, asking=member)
        states.append((found.state, found.reason))
    assert states == [("requested", None), ("failed", "overdue")]
    assert await shelf.balance(connection, member) == (1_000, 0)
    assert await shelf.contradictions(connection) == []


@pytest.mark.parametrize("act", ["overdue", "cancel", "fail"])
async def test_a_hold_that_lapsed_first_changes_nothing(
    shelf: Shelf, connection: Connection, act: str
) -> None:
    reward_id = await shelf.put(connection, "service", pieces=1, cancellation=WEEK)
    member = await shelf.member(connection)
    redemption = await shelf.redeem(connection, member, reward_id)
    late = shelf.now + timedelta(hours=1)
    assert await ledger.lapse_due(connection, limit=10_000, now=late) > 0
    assert await shelf.contradictions(connection) == []
    # one whose request began in time and waited for the wallet until the sweep had been there
    with pytest.raises(FulfilmentOverdue):
        await service.fulfil(
            connection,
            redemption_id=redemption.id,
            provider_id=shelf.provider_id,
            now=late - timedelta(microseconds=1),
        )
    acts: dict[str, Callable[[], Awaitable[object]]] = {
        "overdue": lambda: sweep(connection, late),
        "cancel": lambda: service.cancel(connection, redemption_id=redemption.id, asking=member, now=late),
        "fail": lambda: service.fail(
            connection, redemption_id=redemption.id, provider_id=shelf.provider_id, reason="x", now=late
        ),
    }
    await acts[act]()
    assert await shelf.balance(connection, member) == (1_000, 0)
    assert await shelf.taken(connection, reward_id) == 0
    assert await shelf.contradictions(connection) == []
    assert await shelf.bank.audit(connection, member) == []


async def test_a_fee_offset_is_spent_before_anybody_hears_of_it(shelf: Shelf, connection: Connection) -> None:
    """From the event on the fee may have been reduced: no deadline can give the points back under it."""
    member = await shelf.member(connection)
    redemption = await shelf.redeem(connection, member, await shelf.put(connection, "fee_offset"))
    assert redemption.state == "fulfilling"
    assert await shelf.balance(connection, member) == (900, 0)
    assert await events(connection, redemption) == [
        (shelf.partner_id, "redemption.requested"),
        (shelf.partner_id, "redemption.fulfilling"),
        (BANK, "rewards.fee_offset.requested"),
    ]
    months = shelf.now + timedelta(days=90)
    await ledger.lapse_due(connection, limit=10_000, now=months)
    await sweep(connection, months)
    unknown = await service.record_outcome(
        connection, redemption_id=redemption.id, outcome="unknown", now=months
    )
    assert unknown.state == "fulfilling"
    assert await shelf.contradictions(connection) == []


async def test_offsets_are_asked_about_by_one_and_again_after_a_minute(
    shelf: Shelf, connection: Connection
) -> None:
    member = await shelf.member(connection)
    redemption = await shelf.redeem(connection, member, await shelf.put(connection, "fee_offset"))
    moments = [shelf.now, shelf.now + timedelta(seconds=59), shelf.now + timedelta(seconds=60)]
    claimed = [await service.claim_offsets(connection, limit=10_000, now=moment) for moment in moments]
    assert [
        [offset.offset_fen for offset in each if offset.redemption_id == redemption.id] for each in claimed
    ] == [[100], [], [100]]


async def test_an_outcome_counts_once_and_is_never_turned_round(shelf: Shelf, connection: Connection) -> None:
    reward_id = await shelf.put(connection, "fee_offset", limit=Limit(count=2, period="day"))
    member = await shelf.member(connection)
    done, refused = [await shelf.redeem(connection, member, reward_id) for _ in range(2)]
    for _ in range(2):
        one = await service.record_outcome(connection, redemption_id=done.id, outcome="done", now=shelf.now)
        other = await service.record_outcome(
            connection, redemption_id=refused.id, outcome="refused", now=shelf.now
        )
        assert (one.state, other.state, other.reason) == ("fulfilled", "failed", "refused")
        assert await shelf.balance(connection, member) == (900, 0)
    with pytest.raises(OffsetContradicted):
        await service.refuse_offset(connection, redemption_id=done.id, reason="x", now=shelf.now)
    with pytest.raises(OffsetContradicted):
        await service.confirm_offset(connection, redemption_id=refused.id, now=shelf.now)
    with pytest.raises(RedemptionUnknown):
        await service.confirm_offset(connection, redemption_id=uuid4(), now=shelf.now)
    assert await shelf.contradictions(connection) == []
    assert await shelf.bank.audit(connection, member) == []
    await shelf.redeem(connection, member, reward_id)


async def test_a_refused_offset_gives_points_back_even_when_their_lot_has_ended(
    shelf: Shelf, connection: Connection
) -> None:
    member = await shelf.member(connection, points=0)
    await shelf.bank.earn(connection, member, 100, expires_in=timedelta(days=1))
    redemption = await shelf.redeem(connection, member, await shelf.put(connection, "fee_offset"))
    later = shelf.now + timedelta(days=30)
    await service.refuse_offset(connection, redemption_id=redemption.id, reason="refused", now=later)
    assert await shelf.bank.available(connection, member, later) == 100
    assert await shelf.contradictions(connection) == []


async def test_a_cancelled_service_gives_back_points_piece_and_time(
    shelf: Shelf, connection: Connection
) -> None:
    reward_id = await shelf.put(
        connection, "service", pieces=1, cancellation=WEEK, limit=Limit(count=1, period="ever")
    )
    member = await shelf.member(connection)
    for fulfilled in (False, True):
        redemption = await shelf.redeem(connection, member, reward_id)
        if fulfilled:
            await service.fulfil(
                connection, redemption_id=redemption.id, provider_id=shelf.provider_id, now=shelf.now
            )
        cancelled = await service.cancel(
            connection, redemption_id=redemption.id, asking=shelf.partner_id, now=shelf.now
        )
        assert (cancelled.state, cancelled.closed_at) == ("cancelled", shelf.now)
        assert await shelf.balance(connection, member) == (1_000, 0)
        assert await shelf.taken(connection, reward_id) == 0
    assert await shelf.bank.lots(connection, member) == [(1_000, 1_000, 0)]
    assert await shelf.contradictions(connection) == []
    assert await shelf.bank.audit(connection, member) == []


async def test_without_restock_a_fulfilled_piece_stays_used(shelf: Shelf, connection: Connection) -> None:
    policy = Cancellation(policy="within_days", days=7, restocks=False)
    limit = Limit(count=1, period="ever")
    reward_id = await shelf.put(connection, "service", pieces=2, cancellation=policy, limit=limit)
    member = await shelf.member(connection)
    redemption = await shelf.redeem(connection, member, reward_id)
    await service.fulfil(
        connection, redemption_id=redemption.id, provider_id=shelf.provider_id, now=shelf.now
    )
    await service.cancel(connection, redemption_id=redemption.id, asking=member, now=shelf.now)
    assert await shelf.balance(connection, member) == (1_000, 0)
    assert await shelf.taken(connection, reward_id) == 1
    with pytest.raises(RewardLimitReached):
        await shelf.redeem(connection, member, reward_id)
    assert await shelf.contradictions(connection) == []


async def test_the_code_of_a_cancelled_card_is_void_for_ever(shelf: Shelf, connection: Connection) -> None:
    reward_id = await shelf.put(connection, "gift_card", codes=1, cancellation=WEEK)
    member = await shelf.member(connection)
    redemption = await shelf.redeem(connection, member, reward_id)
    await service.cancel(connection, redemption_id=redemption.id, asking=member, now=shelf.now)
    assert await shelf.balance(connection, member) == (1_000, 0)
    with pytest.raises(RewardOutOfStock):
        await shelf.redeem(connection, member, reward_id)
    with pytest.raises(CodeNotShown):
        await service.show_code(
            connection, redemption_id=redemption.id, asking=member, vault=shelf.vault, now=shelf.now
        )
    assert await shelf.contradictions(connection) == []


async def test_a_card_whose_code_was_shown_stays(shelf: Shelf, connection: Connection) -> None:
    reward_id = await shelf.put(connection, "gift_card", codes=1, cancellation=WEEK)
    member = await shelf.member(connection)
    redemption = await shelf.redeem(connection, member, reward_id)
    await service.show_code(
        connection, redemption_id=redemption.id, asking=member, vault=shelf.vault, now=shelf.now
    )
    with pytest.raises(RedemptionNotCancellable) as refusal:
        await service.cancel(connection, redemption_id=redemption.id, asking=member, now=shelf.now)
    assert refusal.value.facts["reason"] == "code_shown"
    assert await shelf.balance(connection, member) == (900, 0)


async def in_state(shelf: Shelf, connection: Connection, member: MemberRef, state: str) -> Redemption:
    """A service's redemption in this state, or a fee offset's for `fulfilling`."""
    kind = "fee_offset" if state == "fulfilling" else "service"
    policy = {} if state == "fulfilling" else {"cancellation": WEEK}
    redemption: Redemption = await shelf.redeem(
        connection, member, await shelf.put(connection, kind, **policy)
    )
    provider = {"redemption_id": redemption.id, "provider_id": shelf.provider_id, "now": shelf.now}
    if state == "fulfilled":
        redemption = await service.fulfil(connection, **provider)
    if state == "failed":
        redemption = await service.fail(connection, reason="x", **provider)
    if state == "cancelled":
        redemption = await service.cancel(
            connection, redemption_id=redemption.id, asking=member, now=shelf.now
        )
    assert redemption.state == state
    return redemption


@pytest.mark.parametrize(
    ("state", "fulfil", "fail", "cancel", "show"),
    [
        ("requested", "fulfilled", "failed", "cancelled", "code_not_shown"),
        ("fulfilling", "not_the_provider", "not_the_provider", "redemption_not_cancellable", "code_not_shown"),
        ("fulfilled", "redemption_not_open", "redemption_not_open", "cancelled", "code_not_shown"),
        ("failed", "redemption_not_open", "redemption_not_open", "redemption_not_cancellable", "code_not_shown"),
        ("cancelled", "redemption_not_open", "redemption_not_open", "redemption_not_cancellable", "code_not_shown"),
    ],
)  # fmt: skip
async def test_every_act_in_every_state(
    shelf: Shelf, connection: Connection, state: str, fulfil: str, fail: str, cancel: str, show: str
) -> None:
    expected = {"fulfil": fulfil, "fail": fail, "cancel": cancel, "show": show}
    happened = {}
    for act in expected:
        member = await shelf.member(connection)
        redemption = await in_state(shelf, connection, member, state)
        # whoever redeemed a bank's own reward asks in the provider's place
        provider_id = shelf.partner_id if state == "fulfilling" else shelf.provider_id
        deed = partial(getattr(service, "show_code" if act == "show" else act), connection)
        asking = {
            "fulfil": {"provider_id": provider_id},
            "fail": {"provider_id": provider_id, "reason": "x"},
            "cancel": {"asking": member},
            "show": {"asking": member, "vault": shelf.vault},
        }[act]
        before = await shelf.balance(connection, member)
        try:
            happened[act] = (await deed(redemption_id=redemption.id, now=shelf.now, **asking)).state
        except Refusal as refusal:
            happened[act] = refusal.code
            assert await shelf.balance(connection, member) == before
    assert happened == expected
    assert await shelf.contradictions(connection) == []


async def test_nobody_else_moves_the_points_of_a_redemption(shelf: Shelf, connection: Connection) -> None:
    shelf.provider_id = shelf.partner_id
    member = await shelf.member(connection)
    reward_id = await shelf.put(connection, "service", cancellation=WEEK)
    redemption = await shelf.redeem(connection, member, reward_id)
    key = {"hold_id": redemption.hold_id, "partner_id": shelf.partner_id, "now": shelf.now}
    with pytest.raises(ManagedByRedemption):
        await ledger.capture_hold(connection, **key)
    with pytest.raises(ManagedByRedemption):
        await ledger.release_hold(connection, **key)
    await service.fulfil(connection, redemption_id=redemption.id, provider_id=shelf.partner_id, now=shelf.now)
    with pytest.raises(ManagedByRedemption):
        await ledger.reverse(
            connection,
            operation_id=redemption.hold_id,
            partner_id=shelf.partner_id,
            side="spend",
            refund_ref="mine",
            refunded_fen=100,
            now=shelf.now,
        )


async def test_a_reference_redeems_once(shelf: Shelf, connection: Connection) -> None:
    reward_id = await shelf.put(connection, "gift_card", codes=1)
    member = await shelf.member(connection)
    first = await shelf.redeem(connection, member, reward_id, ref="once")
    with pytest.raises(RedemptionRefUsed) as refusal:
        await shelf.redeem(connection, member, reward_id, ref="once")
    assert refusal.value.facts == {"redemption_id": to_wire("rdm", first.id)}


async def test_a_redemption_keeps_the_price_it_saw(shelf: Shelf, connection: Connection) -> None:
    reward_id = await shelf.put(connection, "service", cancellation=WEEK)
    member = await shelf.member(connection)
    cheap = await shelf.redeem(connection, member, reward_id)
    version = await service.set_price(
        connection, reward_id=reward_id, price_points=300, actor="test", now=shelf.now
    )
    dear = await shelf.redeem(connection, member, reward_id)
    assert [(r.price_version, r.price_points) for r in (cheap, dear)] == [(1, 100), (version, 300)]
    assert await shelf.balance(connection, member) == (600, 400)
    await service.fulfil(connection, redemption_id=cheap.id, provider_id=shelf.provider_id, now=shelf.now)
    await service.cancel(connection, redemption_id=cheap.id, asking=member, now=shelf.now)
    assert await shelf.balance(connection, member) == (700, 300)
    assert await shelf.contradictions(connection) == []


async def test_a_reward_may_cost_points_of_another_type(shelf: Shelf, connection: Connection) -> None:
    """Here a point pays for a hundredth of a fen: what comes back is reckoned in points, not in fen."""
    stamps = await ledger.register_point_type(
        connection, name=f"stamps_{uuid4().hex[:8]}", value_fen_e6=10_000, by="test", now=shelf.now
    )
    reward_id = await shelf.put(
        connection, "service", price_points=7, point_type=stamps.name, cancellation=WEEK
    )
    member = await shelf.member(connection)
    with pytest.raises(InsufficientPoints):
        await shelf.redeem(connection, member, reward_id)
    assert await shelf.balance(connection, member) == (1_000, 0)
    offered = await service.list_offered(
        connection, member=member, partner_id=shelf.partner_id, limit=100, now=shelf.now
    )
    assert {each.point_type for each in offered if each.reward.id == reward_id} == {stamps.name}
    given = await ledger.propose_adjustment(
        connection,
        member=member,
        point_type=stamps,
        points=10,
        reason_code="goodwill",
        reason="a present",
        by="a",
        now=shelf.now,
    )
    await ledger.approve_adjustment(connection, adjustment_id=given.id, by="b", now=shelf.now)
    redemption = await shelf.redeem(connection, member, reward_id)
    key = {"redemption_id": redemption.id, "now": shelf.now}
    balances = (
        "SELECT available_points, held_points FROM ledger_wallet WHERE member_id = $1 AND point_type = $2"
    )
    seen = []
    for act in (
        None,
        partial(service.fulfil, provider_id=shelf.provider_id),
        partial(service.cancel, asking=member),
    ):
        if act is not None:
            await act(connection, **key)
        seen += [tuple(row) for row in await connection.fetch(balances, member.member_id, stamps.code)]
    assert seen == [(3, 7), (3, 0), (10, 0)]
    assert await shelf.balance(connection, member) == (1_000, 0)
    assert await shelf.contradictions(connection) == []
    with pytest.raises(PointTypeUnknown):
        await shelf.put(connection, "service", point_type="shells")


async def test_a_limit_counts_by_period(shelf: Shelf, connection: Connection) -> None:
    reward_id = await shelf.put(connection, "gift_card", codes=9, limit=Limit(count=2, period="day"))
    member, other = [await shelf.member(connection) for _ in range(2)]
    for _ in range(2):
        await shelf.redeem(connection, member, reward_id)
    with pytest.raises(RewardLimitReached):
        await shelf.redeem(connection, member, reward_id)
    await shelf.redeem(connection, other, reward_id)
    shelf.now += timedelta(days=1)
    await shelf.redeem(connection, member, reward_id)
    assert await shelf.contradictions(connection) == []


async def test_what_ends_its_reward_goes_on(shelf: Shelf, connection: Connection) -> None:
    reward_id = await shelf.put(connection, "service", cancellation=WEEK)
    member = await shelf.member(connection)
    redemption = await shelf.redeem(connection, member, reward_id)
    await service.move_reward(connection, reward_id=reward_id, state="ended", actor="test", now=shelf.now)
    await service.fulfil(
        connection, redemption_id=redemption.id, provider_id=shelf.provider_id, now=shelf.now
    )
    await service.cancel(connection, redemption_id=redemption.id, asking=member, now=shelf.now)
    assert await shelf.balance(connection, member) == (1_000, 0)


async def test_an_unknown_member_redeems_nothing(shelf: Shelf, connection: Connection) -> None:
    reward_id = await shelf.put(connection, "gift_card", codes=1)
    with pytest.raises(MemberUnknown):
        await shelf.redeem(connection, MemberRef(member_id=2**40, bucket=0), reward_id)


async def test_a_provider_asks_too_late_or_twice(shelf: Shelf, connection: Connection) -> None:
    member = await shelf.member(connection)
    redemption = await shelf.redeem(connection, member, await shelf.put(connection, "service"))
    key = {"redemption_id": redemption.id, "provider_id": shelf.provider_id, "now": shelf.now}
    await service.fulfil(connection, **key)
    with pytest.raises(RedemptionNotOpen) as refusal:
        await service.fulfil(connection, **key)
    assert refusal.value.facts == {"state": "fulfilled"}
