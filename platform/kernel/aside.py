"""Work that would hold up the event loop, done by a few threads: so many at once, so many waiting, so long and no longer."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from kernel.errors import Unavailable

T = TypeVar("T")

THREADS = 2
WAITING_MAX = 256
WAIT_SECONDS = 2.0


class TooMuchAside(Unavailable):
    """Too many signatures wait to be checked, or yours did not get its turn in time; nothing happened, repeat."""


class Aside:
    """One per process. What is given up is not done any more, unless a thread has already begun it."""

    def __init__(
        self, *, threads: int = THREADS, waiting_max: int = WAITING_MAX, wait_seconds: float = WAIT_SECONDS
    ) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="aside")
        self._waiting_max = waiting_max
        self._wait_seconds = wait_seconds
        self.waiting = 0

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` gives; TooMuchAside when it cannot be had in time."""
        if self.waiting >= self._waiting_max:
            raise TooMuchAside
        self.waiting += 1
        future = self._executor.submit(work)
        # counted until a thread is through with it, whether or not anybody still waits
        loop = asyncio.get_running_loop()
        done = asyncio.wrap_future(future, loop=loop)
        future.add_done_callback(lambda _: _tell(loop, self._done))
        try:
            return await asyncio.wait_for(done, self._wait_seconds)
        except TimeoutError:
            raise TooMuchAside from None

    def _done(self) -> None:
        self.waiting -= 1

    def close(self) -> None:
        """Begin nothing more."""
        self._executor.shutdown(wait=False, cancel_futures=True)


def _tell(loop: asyncio.AbstractEventLoop, what: Callable[[], None]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(what)
