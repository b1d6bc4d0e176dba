"""The revocation list each process keeps: never older than its time to live, one reading in flight.

It is read lazily, like the directory of clients: by the request that finds it too old, with everybody else waiting for
the same reading. When it cannot be read it stays good for a few seconds; after that nobody is let in.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import datetime

import asyncpg
import structlog

from kernel.database import AWAY, DatabaseBusy, Pool, acquire
from kernel.errors import Refusal
from kernel.ids import from_wire
from partners.oauth import flow_queries
from partners.oauth.model import AccessClaims

log = structlog.get_logger("revocations")

LIFE_SECONDS = 0.5
PATIENCE_SECONDS = 5.0
#: beyond so many the database is asked about each token
ENTRIES_MAX = 100_000


class RevocationList:
    """What was revoked and could still be alive, by name."""

    def __init__(
        self,
        pool: Pool,
        *,
        life_seconds: float = LIFE_SECONDS,
        patience_seconds: float = PATIENCE_SECONDS,
        entries_max: int = ENTRIES_MAX,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool = pool
        self._life_seconds = life_seconds
        self._patience_seconds = patience_seconds
        self._entries_max = entries_max
        self._monotonic = monotonic
        self._ends: dict[str, datetime] = {}
        self._mark = "0"
        self._full = False
        #: when the present reading was asked for
        self._read_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None

    async def includes(self, subjects: Sequence[str], *, now: datetime) -> bool:
        """Whether one of these names was revoked more than a lifetime ago, or DatabaseBusy when nobody can know."""
        if self._monotonic() - self._read_at >= self._life_seconds:
            await self._refresh()
        if self._full:
            async with acquire(self._pool) as connection:
                return bool(await flow_queries.list_revoked(connection, subjects, now=now))
        return any(subject in self._ends for subject in subjects)

    async def _refresh(self) -> None:
        if self._reading is None:
            self._reading = asyncio.create_task(self._read())
            self._reading.add_done_callback(_seen)
        try:
            # A caller that hangs up must not take the reading away from the others.
            await asyncio.shield(self._reading)
        except (Refusal, asyncpg.PostgresError, *AWAY) as failure:
            if self._monotonic() - self._read_at > self._patience_seconds:
                raise DatabaseBusy from None
            log.warning("revocations_not_read", error=type(failure).__name__)

    async def _read(self) -> None:
        try:
            asked_at = self._monotonic()
            async with acquire(self._pool) as connection:
                found = await flow_queries.list_revocations(
                    connection, mark="0" if self._full else self._mark, limit=self._entries_max + 1
                )
            kept = {} if self._full else {s: end for s, end in self._ends.items() if end > found.now}
            self._ends = kept | dict(zip(found.subjects, found.ends, strict=True))
            self._mark = found.mark
            self._full = max(len(self._ends), len(found.subjects)) > self._entries_max
            self._read_at = asked_at
        finally:
            self._reading = None


def _seen(reading: asyncio.Task[None]) -> None:
    """A failure is seen here even if everybody who waited has hung up."""
    if not reading.cancelled():
        reading.exception()


def revocation_subjects(claims: AccessClaims) -> list[str]:
    """The names under which a token may have been revoked."""
    subjects = [f"token:{claims.jti}"]
    if claims.origin is not None:
        subjects.append(f"origin:{claims.origin}")
    if claims.grant_id is not None:
        subjects.append(f"grant:{from_wire('grt', claims.grant_id)}")
    return subjects
