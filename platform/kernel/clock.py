"""Where time enters: one clock, the database's, read at the edge and handed down as `now`."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    def now(self) -> datetime:
        """The present moment, in UTC, never earlier than the answer before."""
        ...


#: what a monotonic timer may gain or lose: two ten-thousandths
DRIFT = 0.0002
#: differences below this do not matter to anybody
TOLERANCE_SECONDS = 0.005


class DatabaseClock:
    """The database's clock, carried forward by the process's monotonic timer.

    A gateway whose own wall clock is wrong still decides expiry as the database would: `set` is called at start
    and every few seconds with a fresh reading (see kernel.database.tell_time), so all processes agree to within
    half a round trip. A reading that was long on its way is worse than what the timer makes of the last good one, and
    is not taken. The clock never steps back.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._anchor: datetime | None = None
        self._anchored_at = 0.0
        self._doubt = 0.0
        self._latest = datetime.min.replace(tzinfo=UTC)

    def set(self, reading: datetime, *, asked_at: float, answered_at: float) -> None:
        """Anchor to `reading`, taken by the database between two monotonic instants of ours, unless we know better."""
        taken_at, doubt = (asked_at + answered_at) / 2, (answered_at - asked_at) / 2
        known_within = self._doubt + DRIFT * (taken_at - self._anchored_at) + TOLERANCE_SECONDS
        if self._anchor is not None and doubt > known_within:
            return
        self._anchor, self._anchored_at, self._doubt = reading.astimezone(UTC), taken_at, doubt

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
