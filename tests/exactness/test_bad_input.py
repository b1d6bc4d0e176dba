"""Everything a partner can ask wrongly of the points: refused with its own word, and not one row has changed."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from exactness.checkout import Checkout, digest
from exactness.house import NOW, House
from kernel.calendar import rfc3339

EARNINGS = "/v1/points/earnings"
HOLDS = "/v1/points/holds"
REVERSALS = "/v1/points/reversals"
SPENDS = "/v1/points/spends"
REFUNDS = "/v1/points/refunds"
TRANSFERS = "/v1/points/transfers"
EXCHANGES = "/v1/points/exchanges"
NOBODY = "x" * 43
#: the request to be refused; what it takes to get there is asked on the way
Ask = tuple[str, Any]
Make = Callable[[Checkout], Awaitable[Ask]]


def earning(**changed: Any) -> Make:
    async def make(at: Checkout) -> Ask:
        return EARNINGS, at.activity(**changed)

    return make


def holding(**changed: Any) -> Make:
    async def make(at: Checkout) -> Ask:
        return HOLDS, {"member": at.customer.sub, "points": 10, "order_ref": "o-1"} | changed

    return make


def capturing(**body: Any) -> Make:
    async def make(at: Checkout) -> Ask:
        return f"{HOLDS}/{await at.hold(50)}/capture", body

    return make


def refunding(*, held: bool = False, **changed: Any) -> Make:
    async def make(at: Checkout) -> Ask:
        operation_id = await captured(at) if held else await at.earn()
        refund = {"operation_id": operation_id, "refund_ref": "r-1", "refunded_fen": 100}
        return REVERSALS, refund | changed

    return make


async def captured(at: Checkout) -> str:
    hold_id = await at.hold(50)
    assert (await at.ask(f"{HOLDS}/{hold_id}/capture", {})).status == 200
    return hold_id


async def refunded(at: Checkout, operation_id: str, fen: int = 100) -> str:
    """The refund's own id."""
    body = {"operation_id": operation_id, "refund_ref": "r-1", "refunded_fen": fen}
    answer = await at.ask(REVERSALS, body)
    assert answer.status == 201, answer.content
    return str(answer.body["id"])


async def an_event_that_has_earned(at: Checkout) -> Ask:
    activity = at.activity()
    assert (await at.ask(EARNINGS, activity)).status == 201
    return EARNINGS, activity | {"amount_fen": 5}


async def a_hold_that_was_released(at: Checkout) -> Ask:
    hold_id = await at.hold(50)
    assert (await at.ask(f"{HOLDS}/{hold_id}/release", None)).status == 200
    return f"{HOLDS}/{hold_id}/capture", {}


async def a_capture_of_the_captured(at: Checkout) -> Ask:
    return f"{HOLDS}/{await captured(at)}/capture", {}


async def a_release_of_the_captured(at: Checkout) -> Ask:
    return f"{HOLDS}/{await captured(at)}/release", None


async def a_hold_whose_time_ran_out(at: Checkout) -> Ask:
    body = {"member": at.customer.sub, "points": 10, "order_ref": "o-1", "ttl_seconds": 60}
    hold_id = (await at.ask(HOLDS, body)).body["id"]
    at.house.clock.at = NOW + timedelta(seconds=60)
    return f"{HOLDS}/{hold_id}/capture", {}


async def anothers_hold(at: Checkout) -> Ask:
    hold_id = await at.hold(50)
    at.partner = await at.house.register()
    return f"{HOLDS}/{hold_id}/capture", {}


async def anothers_member(at: Checkout) -> Ask:
    at.partner = await at.house.register()
    return EARNINGS, at.activity()


async def anothers_earning(at: Checkout) -> Ask:
    operation_id = await at.earn()
    at.partner = await at.house.register()
    return REVERSALS, {"operation_id": operation_id, "refund_ref": "r-1", "refunded_fen": 1}


async def a_reversal_of_a_claw_back(at: Checkout) -> Ask:
    undone = await refunded(at, await at.earn())
    return REVERSALS, {"operation_id": undone, "refund_ref": "r-2", "refunded_fen": 1}


async def a_reversal_of_a_restoration(at: Checkout) -> Ask:
    undone = await refunded(at, await captured(at), fen=10)
    return REVERSALS, {"operation_id": undone, "refund_ref": "r-2", "refunded_fen": 1}


async def a_refund_of_an_open_hold(at: Checkout) -> Ask:
    return REVERSALS, {"operation_id": await at.hold(5), "refund_ref": "r-1", "refunded_fen": 1}


async def refunds_that_exceed_the_order_together(at: Checkout) -> Ask:
    operation_id = await at.earn(10_000)
    await refunded(at, operation_id, fen=9_999)
    return REVERSALS, {"operation_id": operation_id, "refund_ref": "r-2", "refunded_fen": 2}


async def a_refund_that_was_posted(at: Checkout) -> Ask:
    operation_id = await at.earn()
    await refunded(at, operation_id)
    return REVERSALS, {"operation_id": operation_id, "refund_ref": "r-1", "refunded_fen": 1}


async def a_refund_of_nothing_earned(at: Checkout) -> Ask:
    operation_id = await at.earn(0)
    return REVERSALS, {"operation_id": operation_id, "refund_ref": "r-1", "refunded_fen": 1}


def spending(**changed: Any) -> Make:
    async def make(at: Checkout) -> Ask:
        return SPENDS, {"member": at.customer.sub, "points": 10, "order_ref": "o-1"} | changed

    return make


def sending(**changed: Any) -> Make:
    async def make(at: Checkout) -> Ask:
        [friend] = await at.house.enrol(at.partner)
        body = {"from": at.customer.sub, "to": friend.sub, "points": 10, "transfer_ref": "t-1"}
        return TRANSFERS, body | changed

    return make


def exchanging(**changed: Any) -> Make:
    async def make(at: Checkout) -> Ask:
        return EXCHANGES, await at.exchange() | changed

    return make


def refunding_both(**changed: Any) -> Make:
    async def make(at: Checkout) -> Ask:
        _, body = await spending()(at)
        sides = {
            "spend": {"id": (await at.ask(SPENDS, body)).body["id"]},
            "earning": {"operation_id": await at.earn()},
        }
        return REFUNDS, {"refund_ref": "r-1", "refunded_fen": 10} | sides | changed

    return make


async def a_gift_to_oneself(at: Checkout) -> Ask:
    sub = at.customer.sub
    return TRANSFERS, {"from": sub, "to": sub, "points": 10, "transfer_ref": "t-1"}


async def a_transfer_that_was_sent(at: Checkout) -> Ask:
    path, body = await sending()(at)
    assert (await at.ask(path, body)).status == 201
    return path, body


async def an_exchange_that_was_posted(at: Checkout) -> Ask:
    path, body = await exchanging()(at)
    assert (await at.ask(path, body)).status == 201
    return path, body


async def a_refund_of_two_members(at: Checkout) -> Ask:
    _, body = await refunding_both()(at)
    [friend] = await at.house.enrol(at.partner)
    answer = await at.ask(EARNINGS, at.activity(member=friend.sub))
    return REFUNDS, body | {"earning": {"operation_id": answer.body["id"]}}


async def a_refund_whose_other_side_is_too_much(at: Checkout) -> Ask:
    _, body = await refunding_both()(at)
    return REFUNDS, body | {"earning": body["earning"] | {"refunded_fen": 10_001}}


async def a_capture_of_a_spend(at: Checkout) -> Ask:
    path, body = await spending()(at)
    return f"{HOLDS}/{(await at.ask(path, body)).body['id']}/capture", {}


#: what is wrong, the request, the status, the word
TABLE: list[tuple[str, Make, int, str]] = [
    ("unknown member earns", earning(member=NOBODY), 404, "member_not_found"),
    ("unknown member spends", holding(member=NOBODY), 404, "member_not_found"),
    ("another's member", anothers_member, 404, "member_not_found"),
    ("member without a name", earning(member=""), 404, "member_not_found"),
    ("negative amount", earning(amount_fen=-1), 422, "validation_failed"),
    ("amount over the limit", earning(amount_fen=10**13 + 1), 422, "validation_failed"),
    ("amount over 64 bits", earning(amount_fen=2**63), 422, "validation_failed"),
    ("amount over all bounds", earning(amount_fen=10**30), 422, "validation_failed"),
    ("amount with a fraction", earning(amount_fen=0.5), 422, "validation_failed"),
    ("no points", holding(points=0), 422, "validation_failed"),
    ("negative points", holding(points=-1), 422, "validation_failed"),
    ("points over 64 bits", holding(points=2**63), 422, "validation_failed"),
    ("more points than there are", holding(points=201), 409, "insufficient_points"),
    ("far more points than there are", holding(points=10**13), 409, "insufficient_points"),
    ("no time to live", holding(ttl_seconds=0), 422, "validation_failed"),
    ("too long a life", holding(ttl_seconds=7 * 86_400 + 1), 422, "validation_failed"),
    ("text with a NUL", holding(order_ref="a\0b"), 422, "value_not_storable"),
    ("field nobody knows", holding(point_kind="gold"), 422, "validation_failed"),
    ("in the future", earning(occurred_at=rfc3339(NOW + timedelta(minutes=6))), 422, "occurred_in_future"),
    ("too old", earning(occurred_at=rfc3339(NOW - timedelta(days=731))), 422, "occurred_too_long_ago"),
    ("without a time zone", earning(occurred_at="2026-11-20T12:00:00"), 422, "validation_failed"),
    ("kind nobody earns for", earning(kind="gift"), 422, "validation_failed"),
    ("event that has earned", an_event_that_has_earned, 409, "source_already_earned"),
    ("capture of more than held", capturing(points=51), 422, "capture_exceeds_hold"),
    ("capture of nothing", capturing(points=0), 422, "validation_failed"),
    ("capture of less than nothing", capturing(points=-1), 422, "validation_failed"),
    ("capture for an order of nothing", capturing(order_fen=0), 422, "validation_failed"),
    ("capture of the released", a_hold_that_was_released, 409, "hold_not_open"),
    ("capture of the captured", a_capture_of_the_captured, 409, "hold_not_open"),
    ("release of the captured", a_release_of_the_captured, 409, "hold_not_open"),
    ("capture after the deadline", a_hold_whose_time_ran_out, 409, "hold_lapsed"),
    ("another's hold", anothers_hold, 404, "hold_not_found"),
    ("over-refund", refunding(refunded_fen=10_001), 422, "refund_exceeds_order"),
    ("over-refund of a spend", refunding(held=True, refunded_fen=51), 422, "refund_exceeds_order"),
    ("over-refund in parts", refunds_that_exceed_the_order_together, 422, "refund_exceeds_order"),
    ("refund of nothing", refunding(refunded_fen=0), 422, "validation_failed"),
    ("negative refund", refunding(refunded_fen=-1), 422, "validation_failed"),
    ("refund over 64 bits", refunding(refunded_fen=2**63), 422, "validation_failed"),
    ("refund twice", a_refund_that_was_posted, 409, "refund_already_posted"),
    ("refund of an order of nothing", a_refund_of_nothing_earned, 422, "refund_exceeds_order"),
    ("reversal of a claw-back", a_reversal_of_a_claw_back, 409, "operation_not_reversible"),
    ("reversal of a restoration", a_reversal_of_a_restoration, 409, "operation_not_reversible"),
    ("refund of an open hold", a_refund_of_an_open_hold, 409, "operation_not_reversible"),
    ("another's earning", anothers_earning, 404, "operation_not_found"),
    ("earning nobody posted", refunding(operation_id=f"ent_{'0' * 26}"), 404, "operation_not_found"),
    ("id of another kind", refunding(operation_id=f"pln_{'0' * 26}"), 404, "not_found"),
    ("target named twice", refunding(source_ref="o"), 422, "reversal_target_unclear"),
    ("unknown member spends at once", spending(member=NOBODY), 404, "member_not_found"),
    ("more spent than there is", spending(points=201), 409, "insufficient_points"),
    ("nothing spent", spending(points=0), 422, "validation_failed"),
    ("more spent than 64 bits hold", spending(points=2**63), 422, "validation_failed"),
    ("wrong point type", spending(point_type="gold"), 422, "point_type_unknown"),
    ("wrong point type held", holding(point_type="gold"), 422, "point_type_unknown"),
    ("wrong point type sent", sending(point_type="gold"), 422, "point_type_unknown"),
    ("wrong point type exchanged", exchanging(from_type="gold"), 422, "point_type_unknown"),
    ("point type of no shape", spending(point_type="; DROP"), 422, "point_type_unknown"),
    ("capture of a spend", a_capture_of_a_spend, 409, "hold_not_open"),
    ("gift to oneself", a_gift_to_oneself, 422, "transfer_to_oneself"),
    ("gift to nobody", sending(to=NOBODY), 404, "member_not_found"),
    ("gift of more than there is", sending(points=201), 409, "insufficient_points"),
    ("gift too large", sending(points=1_000_001), 422, "transfer_too_large"),
    ("gift of nothing", sending(points=0), 422, "validation_failed"),
    ("gift twice", a_transfer_that_was_sent, 409, "transfer_already_sent"),
    ("exchange without a rate", exchanging(to_type="tessera"), 409, "exchange_rate_missing"),
    ("exchange of too little", exchanging(points=1), 422, "exchange_too_small"),
    ("exchange of more than there is", exchanging(points=400), 409, "insufficient_points"),
    ("exchange twice", an_exchange_that_was_posted, 409, "exchange_already_posted"),
    ("refund of two members", a_refund_of_two_members, 422, "refund_targets_differ"),
    ("refund of one side too much", a_refund_whose_other_side_is_too_much, 422, "refund_exceeds_order"),
    ("refund of both too much", refunding_both(refunded_fen=11), 422, "refund_exceeds_order"),
    ("target not named", refunding(operation_id=None), 422, "reversal_target_unclear"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "status", "code"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
async def test_what_is_asked_wrongly_is_refused_with_its_own_word_and_changes_nothing(
    at: Checkout, make: Make, status: int, code: str
) -> None:
    try:
        path, body = await make(at)
        before = await digest(at.house)
        answer = await at.ask(path, body)
        after = await digest(at.house)
    finally:
        at.house.clock.at = NOW
    assert (answer.status, answer.code) == (status, code), answer.content
    assert {table for table in after if after[table] != before[table]} == set()


async def test_wrong_items_of_a_batch_change_nothing_and_the_good_ones_are_posted(at: Checkout) -> None:
    good = at.activity()
    items = [
        at.activity(member=NOBODY),
        at.activity(amount_fen=-1),
        at.activity(amount_fen=10**30),
        at.activity(occurred_at=rfc3339(NOW + timedelta(minutes=6))),
        at.activity(occurred_at=rfc3339(NOW - timedelta(days=731))),
        at.activity(source_ref="a\0b"),
        {},
        good,
        good,
    ]
    before = await at.books()
    answer = await at.ask(f"{EARNINGS}/batch", {"items": items})
    after = await at.books()
    told = [(result["status"], result.get("problem", {}).get("code")) for result in answer.body["results"]]
    assert told == [
        (404, "member_not_found"),
        (422, "item_invalid"),
        (422, "item_invalid"),
        (422, "occurred_in_future"),
        (422, "occurred_too_long_ago"),
        (422, "item_invalid"),
        (422, "item_invalid"),
        (201, None),
        (409, "source_already_earned"),
    ]
    assert {kind: after[kind] - before[kind] for kind in after} == {"earn": 1, "entries": 1, "lots": 1}


async def test_a_refused_request_leaves_its_key_free(at: Checkout) -> None:
    """Nothing happened, so the same key may be used for the request as it was meant."""
    key = uuid4().hex
    assert (await at.ask(HOLDS, {"member": at.customer.sub, "points": 999, "order_ref": "o"}, key)).code == (
        "insufficient_points"
    )
    answer = await at.ask(HOLDS, {"member": at.customer.sub, "points": 9, "order_ref": "o"}, key)
    assert (answer.status, answer.replayed) == (201, False)


async def test_the_books_are_in_order_after_all_of_it(house: House) -> None:
    assert await house.broken_sentences() == {}
