"""PostgreSQL: the pool, the transaction, and records read into structs.

Nothing below the edge commits. Every wait has a deadline: for a connection, for a lock, for a statement.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

import asyncpg
import msgspec
from asyncpg.transaction import Transaction

from kernel.clock import DatabaseClock
from kernel.errors import Unavailable

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]
    Pool = asyncpg.Pool[asyncpg.Record]
else:
    Connection = asyncpg.Connection
    Pool = asyncpg.Pool

T = TypeVar("T")

ACQUIRE_SECONDS = 2.0
CONNECT_SECONDS = 5.0
#: a live server ends a statement by itself; what exceeds its timeout by so much is not answered any more
SILENCE_SECONDS = 2.0
ROLL_BACK_SECONDS = 2.0
RELEASE_SECONDS = 1.0
READINGS = 3

#: the server is away, going, coming, full or silent (TimeoutError is an OSError): what was not committed did not happen
AWAY = (
    OSError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a statement sent between the server's farewell and the end of the connection
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.IdleInTransactionSessionTimeoutError,
)
#: besides: a lock that did not come in time, a deadlock that was ended at our cost
BUSY = (asyncpg.LockNotAvailableError, asyncpg.TransactionRollbackError, *AWAY)


class DatabaseBusy(Unavailable):
    """The service is at its limit of parallel work; nothing happened, try again in a moment."""


class OutcomeUnknown(Unavailable):
    """The connection was lost at the moment of commit, so the outcome is unknown. Repeat with the same Idempotency-Key."""


async def open_pool(
    url: str,
    *,
    size: int = 8,
    statement_timeout_ms: int = 5_000,
    lock_timeout_ms: int = 2_000,
    application: str = "tessera",
) -> Pool:
    """A pool whose connections time out by themselves and speak jsonb as Python values."""
    return await asyncpg.create_pool(
        url,
        min_size=min(2, size),
        max_size=size,
        init=_teach_json,
        reset=_keep_session,
        command_timeout=statement_timeout_ms / 1_000 + SILENCE_SECONDS,
        timeout=CONNECT_SECONDS,
        server_settings={
            "application_name": application,
            "timezone": "UTC",
            "statement_timeout": str(statement_timeout_ms),
            "lock_timeout": str(lock_timeout_ms),
            "idle_in_transaction_session_timeout": "10000",
            "default_transaction_isolation": "read committed",
        },
    )


async def _teach_json(connection: Connection) -> None:
    """In jsonb's binary form, a version byte and the text: only so may it be a field of a composite type."""
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        encoder=lambda value: b"\x01" + msgspec.json.encode(value),
        decoder=lambda sent: msgspec.json.decode(sent[1:]),
        format="binary",
    )


async def _keep_session(_connection: Connection) -> None:
    """Nothing to reset: no statement of ours changes a session, so a release costs no round trip."""


@asynccontextmanager
async def acquire(pool: Pool) -> AsyncGenerator[Connection, None]:
    """A connection for as long as the block runs, or DatabaseBusy when none comes free in time."""
    try:
        connection = await pool.acquire(timeout=ACQUIRE_SECONDS)
    except AWAY:
        raise DatabaseBusy from None
    try:
        yield connection
    except (TimeoutError, asyncio.CancelledError):
        # A statement may be under way. To see it cancelled means waiting for a server that may be silent for ever.
        drop(connection)
        raise
    finally:
        with suppress(asyncpg.PostgresError, *AWAY):  # what cannot be given back, the pool has closed
            await pool.release(connection, timeout=RELEASE_SECONDS)


@asynccontextmanager
async def transaction(pool: Pool) -> AsyncGenerator[Connection, None]:
    """One transaction on one connection: commits when the block ends, rolls back when it raises."""
    async with acquire(pool) as connection:
        begun = connection.transaction()
        await begun.start()
        try:
            yield connection
        except (TimeoutError, asyncio.CancelledError):
            raise  # the connection is dropped, and with it what it began
        except BaseException:
            await roll_back(connection, begun)
            raise
        await commit(connection, begun)


async def commit(connection: Connection, begun: Transaction) -> None:
    """Make it true. An unanswered COMMIT is OutcomeUnknown, and its connection is of no use any more."""
    try:
        await begun.commit()
    except AWAY:
        drop(connection)
        raise OutcomeUnknown from None


async def roll_back(connection: Connection, begun: Transaction) -> None:
    """Undo, or drop the connection: what a lost session began, the server undoes."""
    try:
        async with asyncio.timeout(ROLL_BACK_SECONDS):
            await begun.rollback()
    except (asyncpg.PostgresError, *AWAY):
        drop(connection)


def drop(connection: Connection) -> None:
    """Close the connection at once, without a word to the server."""
    with suppress(asyncpg.InterfaceError):  # it went by itself
        connection.terminate()


async def tell_time(clock: DatabaseClock, connection: Connection) -> None:
    """Set `clock` from the database, by the quickest of a few readings: a busy moment of ours must not blur it."""
    readings: list[tuple[float, datetime, float]] = []
    for _ in range(READINGS):
        asked_at = time.monotonic()
        reading: datetime = await connection.fetchval("SELECT clock_timestamp()")
        readings.append((time.monotonic() - asked_at, reading, asked_at))
    seconds, reading, asked_at = min(readings)
    clock.set(reading, asked_at=asked_at, answered_at=asked_at + seconds)


def read(record: asyncpg.Record | None, kind: type[T]) -> T:
    """The record as a struct of `kind`; the statement promised that there is one."""
    assert record is not None, f"a statement that must return a {kind.__name__} returned nothing"
    return msgspec.convert(dict(record), kind)


def read_if_any(record: asyncpg.Record | None, kind: type[T]) -> T | None:
    """The record as a struct of `kind`, or None when there is no record."""
    return None if record is None else msgspec.convert(dict(record), kind)
