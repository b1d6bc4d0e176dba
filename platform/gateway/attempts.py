"""The gate of the OAuth endpoints: what an address has done this minute, counted in PostgreSQL and leased in slices.

Every address has so many requests and so many failed authentications a minute, over all processes. A process takes a slice
of requests in one trip and learns the failures on the way, at least once a second. Without the database nobody gets in.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime

from kernel import attempts
from kernel.attempts import address_subject
from kernel.database import Pool, acquire
from kernel.errors import Exhausted
from kernel.sender import Sender

SLICE_MAX = 50
LOOK_AGAIN_SECONDS = 1.0
ADDRESSES_MAX = 10_000


class TooManyAttempts(Exhausted):
    """Too many requests or failed authentications from this address; Retry-After says when its next minute begins."""


class _Slice:
    __slots__ = ("asking", "cells", "refused", "until", "window")

    def __init__(self) -> None:
        self.asking = asyncio.Lock()
        self.window: datetime | None = None
        self.cells = 0
        self.until = 0.0
        self.refused = False


class AttemptGate:
    """One per process."""

    def __init__(
        self,
        pool: Pool,
        *,
        requests_per_minute: int,
        failures_per_minute: int,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool = pool
        self._requests = requests_per_minute
        self._failures = failures_per_minute
        self._monotonic = monotonic
        self._slices: OrderedDict[str, _Slice] = OrderedDict()

    async def enter(self, sender: Sender, *, now: datetime) -> None:
        """One request of the sender's address; TooManyAttempts when its minute is used up."""
        network = sender.network()
        taken = self._slice(network)
        if not self._spend(taken, now):
            # One trip at a time for each address: a crowd would lease more than it needs.
            async with taken.asking:
                if not self._spend(taken, now):
                    await self._lease(taken, network, now)
        if taken.refused:
            raise TooManyAttempts(retry_after_seconds=attempts.seconds_left(now))

    def _spend(self, taken: _Slice, now: datetime) -> bool:
        """Whether what is known suffices: a cell in hand, or that there is none this minute."""
        if taken.window != attempts.window_of(now):
            return False
        if taken.refused:
            return True
        if taken.cells == 0 or self._monotonic() >= taken.until:
            return False
        taken.cells -= 1
        return True

    async def _lease(self, taken: _Slice, network: str, now: datetime) -> None:
        wanted = max(1, min(SLICE_MAX, self._requests // 20))
        asked_at = self._monotonic()
        async with acquire(self._pool) as connection:
            counted = await attempts.count(connection, address_subject(network), requests=wanted, now=now)
        over = counted.requests - self._requests
        taken.window = attempts.window_of(now)
        taken.cells = max(0, wanted - max(0, over)) - 1
        taken.refused = taken.cells < 0 or counted.failures >= self._failures
        taken.until = asked_at + LOOK_AGAIN_SECONDS

    def _slice(self, network: str) -> _Slice:
        taken = self._slices.get(network)
        if taken is None:
            taken = self._slices[network] = _Slice()
            if len(self._slices) > ADDRESSES_MAX:
                self._slices.popitem(last=False)
        else:
            self._slices.move_to_end(network)
        return taken
