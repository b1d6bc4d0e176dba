"""Micro-batches: what arrived while the last batch was in flight becomes the next one. It knows nothing of what is in them.

There is no timer that waits for more: alone, a request goes at once; in a crowd, batches form by themselves. A second
batch is in flight beside the first only while the crowd is deep.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

import structlog

from kernel.database import AWAY, DatabaseBusy, OutcomeUnknown
from kernel.errors import Refusal

log = structlog.get_logger("batching")

BATCH_MAX = 512
WAITING_MAX = 2_048
WAIT_SECONDS = 5.0
LANES = 2
#: from so many waiting on, a second batch beside the first earns its connection
DEEP = 128

I = TypeVar("I")  # what waits
O = TypeVar("O")  # what it waits for


class GoAlone(Exception):
    """An item that could not be decided together with the others; as it is now, it is to be posted by itself."""

    def __init__(self, item: Any) -> None:
        super().__init__("go alone")
        self.item = item


#: posts items in one transaction, with an answer or an exception for each; the flag says that there is only one and
#: that it may wait for what is locked
Post = Callable[[Sequence[I], bool], Awaitable[Sequence[O | Exception]]]


class _Waiting(Generic[I, O]):
    """An item, and who waits for its answer until when."""

    __slots__ = ("answer", "deadline", "item")

    def __init__(self, item: I, loop: asyncio.AbstractEventLoop, deadline: float) -> None:
        self.item = item
        self.answer: asyncio.Future[O] = loop.create_future()
        self.deadline = deadline

    def give(self, answer: O | Exception) -> None:
        if self.answer.done():  # who waited has gone
            return
        if isinstance(answer, Exception):
            self.answer.set_exception(answer)
        else:
            self.answer.set_result(answer)


class Batcher(Generic[I, O]):
    """Gathers items and posts them together; everyone gets the answer to the own item, in every failure too."""

    def __init__(
        self,
        post: Post[I, O],
        *,
        batch_max: int = BATCH_MAX,
        waiting_max: int = WAITING_MAX,
        wait_seconds: float = WAIT_SECONDS,
        lanes: int = LANES,
        deep: int = DEEP,
    ) -> None:
        self._post = post
        self._batch_max = batch_max
        self._waiting_max = waiting_max
        self._wait_seconds = wait_seconds
        self._lanes_max = lanes
        self._deep = deep
        self._waiting: deque[_Waiting[I, O]] = deque()
        self._alone: deque[_Waiting[I, O]] = deque()
        self._lanes = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._alone_task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """How many are not in flight yet."""
        return len(self._waiting) + len(self._alone)

    async def submit(self, item: I) -> O:
        """The answer to `item`; DatabaseBusy when too many wait, or when its turn does not come in time."""
        if self.waiting >= self._waiting_max:
            raise DatabaseBusy
        loop = asyncio.get_running_loop()
        waiting: _Waiting[I, O] = _Waiting(item, loop, loop.time() + self._wait_seconds)
        self._waiting.append(waiting)
        if self._lanes == 0 or (self._lanes < self._lanes_max and len(self._waiting) >= self._deep):
            self._lanes += 1
            self._begin(self._run_lane())
        if self._timer is None:
            self._timer = loop.call_at(waiting.deadline, self._let_go)
        return await waiting.answer

    async def close(self) -> None:
        """Return when nothing is in flight any more."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _begin(self, work: "asyncio._CoroutineLike[None]") -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _run_lane(self) -> None:
        """One batch after the other until nobody waits; a lane beside the first only while the crowd is deep."""
        try:
            while self._waiting and (self._lanes == 1 or len(self._waiting) >= self._deep):
                await self._settle(self._take())
        finally:
            self._lanes -= 1

    def _take(self) -> list[_Waiting[I, O]]:
        batch: list[_Waiting[I, O]] = []
        while self._waiting and len(batch) < self._batch_max:
            waiting = self._waiting.popleft()
            if not waiting.answer.done():
                batch.append(waiting)
        return batch

    async def _settle(self, batch: list[_Waiting[I, O]]) -> None:
        """Post a batch and give everyone an answer; if it fails before its commit, each goes alone."""
        if not batch:
            return
        try:
            answers = await self._post([waiting.item for waiting in batch], False)
        except OutcomeUnknown:
            _give_each(batch, OutcomeUnknown)
        except (DatabaseBusy, *AWAY) as failure:
            # The server is away, not one of the items at fault; nothing of them happened.
            log.warning("batch_lost", items=len(batch), error=type(failure).__name__)
            _give_each(batch, DatabaseBusy)
        except Exception as failure:
            log.warning("batch_failed", items=len(batch), exc_info=failure)
            self._send_alone(batch)
        except BaseException:
            _give_each(batch, OutcomeUnknown)  # the process is ending
            raise
        else:
            for waiting, answer in zip(batch, answers, strict=True):
                if isinstance(answer, GoAlone):
                    waiting.item = answer.item
                    self._send_alone([waiting])
                else:
                    waiting.give(answer)

    def _send_alone(self, batch: list[_Waiting[I, O]]) -> None:
        self._alone.extend(batch)
        if self._alone_task is None or self._alone_task.done():
            self._alone_task = self._begin(self._run_alone())

    async def _run_alone(self) -> None:
        """Post by itself, in turn, whatever could not be posted together; beside the lanes, so that nobody waits for it."""
        clock = asyncio.get_running_loop()
        while self._alone:
            waiting = self._alone.popleft()
            if waiting.answer.done():
                continue
            if clock.time() >= waiting.deadline:
                waiting.give(DatabaseBusy())
                continue
            try:
                (answer,) = await self._post([waiting.item], True)
            except Exception as failure:  # noqa: BLE001  # whoever waits for it raises it
                waiting.give(failure)
            except BaseException:
                _give_each([waiting, *self._alone], OutcomeUnknown)  # the process is ending
                raise
            else:
                waiting.give(answer)

    def _let_go(self) -> None:
        """Tell those whose turn did not come in time that nothing happened; the oldest stand in front."""
        self._timer = None
        loop = asyncio.get_running_loop()
        while self._waiting and (self._waiting[0].answer.done() or self._waiting[0].deadline <= loop.time()):
            self._waiting.popleft().give(DatabaseBusy())
        if self._waiting:
            self._timer = loop.call_at(self._waiting[0].deadline, self._let_go)


def _give_each(batch: Sequence[_Waiting[I, O]], refusal: type[Refusal]) -> None:
    for waiting in batch:
        waiting.give(refusal())
