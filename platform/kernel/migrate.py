"""Migrations: plain SQL files applied in order, once, by the owner role, and never edited afterwards."""

import asyncio
import hashlib
import re
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
from msgspec import Struct

from kernel.database import Connection

NO_TRANSACTION = "-- migrate:no-transaction"
APPLICATION_ROLE = "tessera_app"

#: any number, as long as nobody else takes advisory locks on it
LOCK_KEY = 7_305_921_846_113_902
LOCK_WAIT_SECONDS = 60.0
LOCK_POLL_SECONDS = 0.1
CONNECT_SECONDS = 10.0
#: a migration that waits for a table makes every request queue behind it: rather fail and be repeated
LOCK_TIMEOUT_MS = 5_000
STATEMENT_TIMEOUT_MS = 600_000

_FILE_NAME = re.compile(r"(?P<number>[0-9]{4})_[a-z0-9]+(_[a-z0-9]+)*\.sql")


class MigrationError(Exception):
    """The schema cannot be brought up to date; the message tells the operator why."""


class Migration(Struct, frozen=True, kw_only=True):
    """One file of the migrations directory."""

    number: int
    #: the file's name
    name: str
    sql: str
    #: of the text with Unix line ends, so that a checkout on another system is not an edit
    sha256: str

    @property
    def in_transaction(self) -> bool:
        return self.sql.split("\n", 1)[0].strip() != NO_TRANSACTION


class Applied(Struct, frozen=True, kw_only=True):
    """One row of kernel_migration."""

    number: int
    name: str
    sha256: str


def find_directory(override: Path | None = None) -> Path:
    """`override`, else the checkout's `migrations/`: an installed wheel carries no migrations."""
    directory = override or Path(__file__).resolve().parents[2] / "migrations"
    if not directory.is_dir():
        raise MigrationError(f"there is no migrations directory at {directory}")
    return directory


def read_directory(directory: Path) -> list[Migration]:
    """The migrations in order; numbered from 0001 without a gap."""
    migrations: list[Migration] = []
    for file in sorted(find_directory(directory).glob("*.sql")):
        match = _FILE_NAME.fullmatch(file.name)
        if match is None:
            raise MigrationError(f"{file.name} is not named like 0001_some_words.sql")
        number, due = int(match["number"]), len(migrations) + 1
        if number < due and number > 0:
            raise MigrationError(f"{migrations[-1].name} and {file.name} have the same number")
        if number != due:
            raise MigrationError(f"{file.name} leaves a gap: the next number is {due:04}")
        try:
            sql = file.read_bytes().decode().replace("\r\n", "\n")
        except UnicodeDecodeError:
            raise MigrationError(f"{file.name} is not UTF-8 text") from None
        sha256 = hashlib.sha256(sql.encode()).hexdigest()
        migrations.append(Migration(number=number, name=file.name, sql=sql, sha256=sha256))
    return migrations


def still_to_apply(migrations: Sequence[Migration], applied: Sequence[Applied]) -> list[Migration]:
    """The migrations that are due, if the history in the database is the beginning of the directory."""
    files = {migration.number: migration for migration in migrations}
    for row in applied:
        file = files.get(row.number)
        if file is None:
            raise MigrationError(f"{row.name} was applied, but the file is missing")
        if file.name != row.name:
            raise MigrationError(f"{row.name} was applied, but is now named {file.name}")
        if file.sha256 != row.sha256:
            raise MigrationError(
                f"{row.name} was edited after it was applied: undo that and add a new migration"
            )
    done = {row.number for row in applied}
    due = [migration for migration in migrations if migration.number not in done]
    latest = max(done, default=0)
    if due and due[0].number < latest:
        raise MigrationError(f"{due[0].name} is out of order: {files[latest].name} has been applied already")
    return due


async def apply(url: str, directory: Path) -> list[str]:
    """Apply what is due, as the owner role; the names of what was applied."""
    migrations = read_directory(directory)
    async with _connect(url) as connection, _lock(connection):
        await _prepare(connection)
        due = still_to_apply(migrations, await list_applied(connection))
        for migration in due:
            await _apply_one(connection, migration)
    return [migration.name for migration in due]


async def pending(url: str, directory: Path) -> list[str]:
    """The names of what `apply` would apply; writes nothing, so the application role may ask."""
    migrations = read_directory(directory)
    async with _connect(url) as connection:
        return [migration.name for migration in still_to_apply(migrations, await list_applied(connection))]


async def check(url: str, directory: Path) -> list[str]:
    """A sentence for everything that keeps the schema from being up to date; empty when it is."""
    try:
        return [f"{name} is not applied" for name in await pending(url, directory)]
    except MigrationError as wrong:
        return [str(wrong)]


TABLE_EXISTS = "SELECT to_regclass('public.kernel_migration') IS NOT NULL"

ROLE_EXISTS = "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)"

CREATE_TABLE = """
CREATE TABLE IF NOT EXISTS public.kernel_migration (
    number integer PRIMARY KEY,
    name text NOT NULL UNIQUE,
    sha256 text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    took_ms integer NOT NULL
)
"""

GRANT_READING = f"GRANT SELECT ON public.kernel_migration TO {APPLICATION_ROLE}"

#: ordered, because the first difference is the one that is reported
LIST_APPLIED = "SELECT number, name, sha256 FROM public.kernel_migration ORDER BY number"

INSERT_APPLIED = "INSERT INTO public.kernel_migration (number, name, sha256, took_ms) VALUES ($1, $2, $3, $4)"

TRY_LOCK = "SELECT pg_try_advisory_lock($1)"

UNLOCK = "SELECT pg_advisory_unlock($1)"


async def list_applied(connection: Connection) -> list[Applied]:
    """The history; empty before the first migration."""
    if not await connection.fetchval(TABLE_EXISTS):
        return []
    return [Applied(**row) for row in await connection.fetch(LIST_APPLIED)]


@asynccontextmanager
async def _connect(url: str) -> AsyncGenerator[Connection, None]:
    try:
        connection = await asyncpg.connect(
            url, timeout=CONNECT_SECONDS, server_settings={"application_name": "tessera-migrate"}
        )
    except (OSError, TimeoutError, asyncpg.PostgresError) as failure:
        raise MigrationError(f"the database cannot be reached: {_message(failure)}") from None
    try:
        yield connection
    finally:
        await connection.close(timeout=5)


@asynccontextmanager
async def _lock(connection: Connection) -> AsyncGenerator[None, None]:
    """Be the only runner on this database.

    The lock is tried again and again rather than waited for: a waiting statement holds a snapshot, for whose end
    CREATE INDEX CONCURRENTLY of the other runner would wait in turn.
    """
    deadline = time.monotonic() + LOCK_WAIT_SECONDS
    while not await connection.fetchval(TRY_LOCK, LOCK_KEY):
        if time.monotonic() > deadline:
            raise MigrationError(
                f"another migration has been running for {LOCK_WAIT_SECONDS:.0f} s: look at it"
            )
        await asyncio.sleep(LOCK_POLL_SECONDS)
    try:
        yield
    finally:
        if not connection.is_closed():
            await connection.fetchval(UNLOCK, LOCK_KEY)


async def _prepare(connection: Connection) -> None:
    if not await connection.fetchval(ROLE_EXISTS, APPLICATION_ROLE):
        raise MigrationError(f"the role {APPLICATION_ROLE} does not exist: create it before migrating")
    if await connection.fetchval(TABLE_EXISTS):
        return
    try:
        async with connection.transaction():
            await connection.execute(CREATE_TABLE)
            await connection.execute(GRANT_READING)
    except asyncpg.InsufficientPrivilegeError:
        raise MigrationError("the migration role may not create tables: migrate as the owner role") from None


async def _apply_one(connection: Connection, migration: Migration) -> None:
    started = time.monotonic()
    try:
        if migration.in_transaction:
            async with connection.transaction():
                await _limit_waiting(connection, scope="LOCAL")
                await connection.execute(migration.sql)
                await _record(connection, migration, started)
        else:
            await _limit_waiting(connection, scope="SESSION")
            await connection.execute(migration.sql)
            await _record(connection, migration, started)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as failure:
        raise MigrationError(
            f"{migration.name} failed{_line(failure, migration.sql)}: {_message(failure)}"
        ) from None


async def _limit_waiting(connection: Connection, *, scope: str) -> None:
    await connection.execute(f"SET {scope} lock_timeout = {LOCK_TIMEOUT_MS}")
    await connection.execute(f"SET {scope} statement_timeout = {STATEMENT_TIMEOUT_MS}")


async def _record(connection: Connection, migration: Migration, started: float) -> None:
    took_ms = round((time.monotonic() - started) * 1000)
    await connection.execute(INSERT_APPLIED, migration.number, migration.name, migration.sha256, took_ms)


def _message(failure: BaseException) -> str:
    """What went wrong, without the DETAIL, which quotes rows."""
    if isinstance(failure, asyncpg.PostgresError):
        return f"{failure.args[0] if failure.args else type(failure).__name__} ({failure.sqlstate})"
    return str(failure) or type(failure).__name__


def _line(failure: BaseException, sql: str) -> str:
    position = getattr(failure, "position", None)
    if position is None:
        return ""
    return f" in line {sql.count(chr(10), 0, int(position) - 1) + 1}"
