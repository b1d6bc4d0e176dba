"""A hundred copies of one request at once: one effect, and a hundred equal answers."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest

from exactness.checkout import Checkout
from exactness.house import Answer, House

COPIES = 100


Ask = tuple[str, Any]


async def _earn(at: Checkout) -> Ask:
    return "/v1/points/earnings", at.activity()


async def _batch(at: Checkout) -> Ask:
    return "/v1/points/earnings/batch", {"items": [at.activity(), at.activity(), {"member": "x"}]}


async def _hold(at: Checkout) -> Ask:
    return "/v1/points/holds", {"member": at.customer.sub, "points": 60, "order_ref": "o-1"}


async def _capture(at: Checkout) -> Ask:
    return f"/v1/points/holds/{await at.hold(50)}/capture", {"points": 30}


async def _release(at: Checkout) -> Ask:
    return f"/v1/points/holds/{await at.hold(50)}/release", None


async def _refund_earning(at: Checkout) -> Ask:
    refund = {"refund_ref": "r-1", "refunded_fen": 3_333}
    return "/v1/points/reversals", {"operation_id": await at.earn(), **refund}


async def _refund_spend(at: Checkout) -> Ask:
    hold_id = await at.hold(50)
    await at.ask(f"/v1/points/holds/{hold_id}/capture", {})
    return "/v1/points/reversals", {"operation_id": hold_id, "refund_ref": "r-1", "refunded_fen": 33}


async def _spend(at: Checkout) -> Ask:
    return "/v1/points/spends", {"member": at.customer.sub, "points": 60, "order_ref": "o-1"}


async def _spend_batch(at: Checkout) -> Ask:
    item = {"member": at.customer.sub, "points": 60, "order_ref": "o-1"}
    return "/v1/points/spends/batch", {"items": [item, item, item, item, {}]}


async def _refund_both(at: Checkout) -> Ask:
    _, body = await _spend(at)
    spent = (await at.ask("/v1/points/spends", body)).body["id"]
    sides = {"spend": {"id": spent}, "earning": {"operation_id": await at.earn(), "refunded_fen": 100}}
    return "/v1/points/refunds", {"refund_ref": "r-1", "refunded_fen": 60} | sides


async def _transfer(at: Checkout) -> Ask:
    [friend] = await at.house.enrol(at.partner)
    return "/v1/points/transfers", {
        "from": at.customer.sub,
        "to": friend.sub,
        "points": 60,
        "transfer_ref": "t-1",
    }


async def _exchange(at: Checkout) -> Ask:
    return "/v1/points/exchanges", await at.exchange()


#: what is asked, and the operations that one effect of it leaves
ROUTES: list[tuple[str, Callable[[Checkout], Awaitable[Ask]], dict[str, int]]] = [
    ("earn", _earn, {"earn": 1, "entries": 1, "lots": 1}),
    ("batch", _batch, {"earn": 2, "entries": 2, "lots": 2}),
    ("hold", _hold, {"hold": 1, "entries": 1}),
    ("capture", _capture, {"capture": 1, "entries": 2}),
    ("release", _release, {"release": 1, "entries": 1}),
    ("refund of an earning", _refund_earning, {"reverse_earn": 1, "entries": 1}),
    ("refund of a spend", _refund_spend, {"reverse_spend": 1, "entries": 1}),
    ("spend at once", _spend, {"spend": 1, "entries": 1}),
    ("batch of spends", _spend_batch, {"spend": 3, "entries": 3}),
    ("refund of both sides", _refund_both, {"reverse_spend": 1, "reverse_earn": 1, "entries": 2}),
    ("transfer", _transfer, {"transfer_out": 1, "entries": 1}),
    ("exchange", _exchange, {"exchange": 1, "entries": 2, "lots": 1}),
]


@pytest.mark.parametrize(
    ("make", "effect"), [(m, e) for _, m, e in ROUTES], ids=[name for name, _, _ in ROUTES]
)
async def test_a_hundred_copies_have_one_effect_and_equal_answers(
    at: Checkout, make: Callable[[Checkout], Awaitable[Ask]], effect: dict[str, int]
) -> None:
    path, body = await make(at)
    before = await at.books()
    key = uuid4().hex

    async def copy() -> Answer:
        return await at.house.post_until_known(at.partner, path, body, key=key)

    answers = await asyncio.gather(*(copy() for _ in range(COPIES)))
    after = await at.books()

    assert len({(answer.status, answer.content) for answer in answers}) == 1
    assert answers[0].status < 300, answers[0].content
    assert Counter(answer.replayed for answer in answers) == {False: 1, True: COPIES - 1}
    assert {
        kind: after[kind] - before.get(kind, 0) for kind in after if after[kind] != before.get(kind, 0)
    } == effect


@pytest.mark.parametrize("make", [m for _, m, _ in ROUTES], ids=[name for name, _, _ in ROUTES])
async def test_of_copies_in_flight_each_is_answered_or_told_to_come_back(
    at: Checkout, make: Callable[[Checkout], Awaitable[Ask]]
) -> None:
    """Without coming back: nothing but the one answer, 409 in progress, and 503 that says nothing happened."""
    path, body = await make(at)
    key = uuid4().hex
    answers = await asyncio.gather(*(at.ask(path, body, key) for _ in range(COPIES)))
    told = {answer.content for answer in answers if not answer.is_open}
    assert len(told) == 1
    assert {answer.code for answer in answers if answer.is_open} <= {
        "idempotency_in_progress",
        "database_busy",
    }
    again = await at.ask(path, body, key)
    assert (again.content, again.replayed) == (told.pop(), True)


async def test_the_same_hold_under_a_hundred_keys_is_captured_once(at: Checkout) -> None:
    """Whoever comes second learns what the first did."""
    hold_id = await at.hold(50)
    deeds: list[tuple[str, Any]] = [("capture", {}), ("release", None)] * (COPIES // 2)
    answers = await asyncio.gather(
        *(
            at.house.post_until_known(at.partner, f"/v1/points/holds/{hold_id}/{verb}", body, key=uuid4().hex)
            for verb, body in deeds
        )
    )
    told = Counter((answer.status, answer.code) for answer in answers)
    assert told == {(200, None): 1, (409, "hold_not_open"): COPIES - 1}
    [won] = [answer.body["state"] for answer in answers if answer.status == 200]
    assert {answer.body["state"] for answer in answers} == {won}


async def test_the_same_refund_under_a_hundred_keys_is_posted_once(at: Checkout) -> None:
    earned = await at.earn()
    refund = {"operation_id": earned, "refund_ref": "r-1", "refunded_fen": 100}
    answers = await asyncio.gather(
        *(
            at.house.post_until_known(at.partner, "/v1/points/reversals", refund, key=uuid4().hex)
            for _ in range(COPIES)
        )
    )
    told = Counter((answer.status, answer.code) for answer in answers)
    assert told == {(201, None): 1, (409, "refund_already_posted"): COPIES - 1}


async def test_the_books_of_all_the_copies_are_in_order(house: House) -> None:
    assert await house.broken_sentences() == {}
