"""Where time enters: one clock, the database's, read at the edge and handed down as `now`."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    def now(self) -> datetime:
        """The present moment, in UTC, never earlier than the answer before."""
        ...


class DatabaseClock:
    """The database's clock, carried forward by the process's monotonic timer.

    A gateway whose own wall clock is wrong still decides expiry as the database would: `set` is called at start
    and every few seconds with a fresh reading (see kernel.database.read_time), so all processes agree to within
    half a round trip. The clock never steps back.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._anchor: datetime | None = None
        self._anchored_at = 0.0
        self._latest = datetime.min.replace(tzinfo=UTC)

    def set(self, reading: datetime, *, asked_at: float, answered_at: float) -> None:
        """Anchor to `reading`, taken by the database between two monotonic instants of ours."""
        self._anchor = reading.astimezone(UTC)
        self._anchored_at = (asked_at + answered_at) / 2

    def now(self) -> datetime:
        if self._anchor is None:
            raise RuntimeError("the clock was read before the database told the time")
        reading = self._anchor + timedelta(seconds=self._monotonic() - self._anchored_at)
        self._latest = max(self._latest, reading)
        return self._latest


class SystemClock:
    """The process's wall clock, for programs that talk to no database (clients, the supervisor)."""

    def now(self) -> datetime:
        return datetime.now(UTC)
