"""The batcher by itself: what forms a batch, and that everyone gets an answer in every failure."""

import asyncio
from collections.abc import Sequence

import asyncpg
import pytest

from gateway.batching import Batcher, GoAlone
from kernel.database import DatabaseBusy, OutcomeUnknown
from kernel.errors import Conflict


class ItemRefused(Conflict):
    """This item is refused."""


class Poisoned(Exception):
    """Any batch with this item fails."""


class Books:
    """Posts numbers; a gate holds back what is in flight, and some numbers are trouble."""

    def __init__(self) -> None:
        self.batches: list[tuple[list[int], bool]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = asyncio.Event()
        self.failure: Exception | None = None

    async def post(self, items: Sequence[int], alone: bool) -> list[int | Exception]:
        self.batches.append((list(items), alone))
        self.entered.set()
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        if 13 in items:
            raise Poisoned
        return [self._answer(item, alone) for item in items]

    def _answer(self, item: int, alone: bool) -> int | Exception:
        if item == 7:
            return ItemRefused()
        if item == 21 and not alone:
            return GoAlone(22)
        return item * 10

    @property
    def sizes(self) -> list[int]:
        return [len(items) for items, _ in self.batches]


@pytest.fixture
def books() -> Books:
    return Books()


async def gather(batcher: Batcher[int, int], items: Sequence[int]) -> list[int | BaseException]:
    return await asyncio.gather(*(batcher.submit(item) for item in items), return_exceptions=True)


async def settled() -> None:
    """Let the others run until none of them can go on."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_what_arrives_together_is_one_batch(books: Books) -> None:
    answers = await gather(Batcher(books.post), [1, 2, 3])

    assert answers == [10, 20, 30]
    assert books.sizes == [3]


async def test_what_arrives_while_a_batch_is_in_flight_is_the_next_one(books: Books) -> None:
    batcher = Batcher(books.post)
    books.gate.clear()
    first = asyncio.create_task(batcher.submit(1))
    await books.entered.wait()
    others = asyncio.create_task(gather(batcher, [2, 3, 4]))
    await settled()
    books.gate.set()

    assert (await first, await others) == (10, [20, 30, 40])
    assert books.sizes == [1, 3]


async def test_a_batch_has_a_bound(books: Books) -> None:
    await gather(Batcher(books.post, batch_max=4), list(range(30, 40)))

    assert books.sizes == [4, 4, 2]


async def test_only_a_deep_crowd_gets_a_second_batch_beside_the_first(books: Books) -> None:
    batcher = Batcher(books.post, batch_max=4, deep=6)
    books.gate.clear()
    crowd = asyncio.create_task(gather(batcher, list(range(30, 42))))
    await settled()

    assert books.sizes == [4, 4], "and the other four wait"
    books.gate.set()
    assert await crowd == [number * 10 for number in range(30, 42)]


async def test_a_refusal_is_the_items_own(books: Books) -> None:
    first, refused, last = await gather(Batcher(books.post), [1, 7, 3])

    assert (first, last) == (10, 30) and isinstance(refused, ItemRefused)


async def test_one_poisoned_item_fails_none_of_its_neighbours(books: Books) -> None:
    answers = await gather(Batcher(books.post), [1, 13, 7, 3])

    assert (answers[0], answers[3]) == (10, 30)
    assert isinstance(answers[1], Poisoned) and isinstance(answers[2], ItemRefused)
    assert books.sizes == [4, 1, 1, 1, 1]


async def test_an_item_may_be_sent_to_go_alone(books: Books) -> None:
    assert await gather(Batcher(books.post), [1, 21]) == [10, 220]
    assert books.batches == [([1, 21], False), ([22], True)]


async def test_a_lost_commit_is_unknown_to_each(books: Books) -> None:
    books.failure = OutcomeUnknown()

    answers = await gather(Batcher(books.post), [1, 2])

    assert [type(answer) for answer in answers] == [OutcomeUnknown, OutcomeUnknown]
    assert books.sizes == [2], "and nothing is tried again"


@pytest.mark.parametrize("failure", [asyncpg.AdminShutdownError("x"), ConnectionResetError(), DatabaseBusy()])
async def test_a_server_gone_before_the_commit_is_busy_to_each(books: Books, failure: Exception) -> None:
    books.failure = failure

    answers = await gather(Batcher(books.post), [1, 2])

    assert [type(answer) for answer in answers] == [DatabaseBusy, DatabaseBusy]
    assert answers[0] is not answers[1]


async def test_a_full_queue_refuses_at_once(books: Books) -> None:
    batcher = Batcher(books.post, waiting_max=2)
    books.gate.clear()
    first = asyncio.create_task(batcher.submit(1))
    await books.entered.wait()
    waiting = asyncio.create_task(gather(batcher, [2, 3]))
    await settled()

    with pytest.raises(DatabaseBusy):
        await batcher.submit(4)

    books.gate.set()
    assert (await first, await waiting) == (10, [20, 30])


async def test_who_waits_too_long_is_told_that_nothing_happened(books: Books) -> None:
    batcher = Batcher(books.post, wait_seconds=0.02)
    books.gate.clear()
    first = asyncio.create_task(batcher.submit(1))
    await books.entered.wait()

    with pytest.raises(DatabaseBusy):
        await batcher.submit(2)

    books.gate.set()
    assert await first == 10, "what is in flight is waited for"
    assert books.sizes == [1]


async def test_who_leaves_the_queue_is_not_posted(books: Books) -> None:
    batcher = Batcher(books.post)
    books.gate.clear()
    first = asyncio.create_task(batcher.submit(1))
    await books.entered.wait()
    leaving, staying = (asyncio.create_task(batcher.submit(number)) for number in (2, 3))
    await settled()
    leaving.cancel()
    books.gate.set()

    assert (await first, await staying) == (10, 30)
    assert [items for items, _ in books.batches] == [[1], [3]]


async def test_who_leaves_in_flight_does_not_disturb_the_others(books: Books) -> None:
    batcher = Batcher(books.post)
    books.gate.clear()
    leaving, staying = (asyncio.create_task(batcher.submit(number)) for number in (2, 3))
    await books.entered.wait()
    leaving.cancel()
    books.gate.set()

    assert await staying == 30
    assert books.sizes == [2]


async def test_closing_waits_for_what_is_in_flight(books: Books) -> None:
    batcher = Batcher(books.post)
    books.gate.clear()
    waiting = asyncio.create_task(gather(batcher, [1, 13]))
    await books.entered.wait()
    books.gate.set()

    await batcher.close()

    assert len(books.batches) == 3
    await waiting
