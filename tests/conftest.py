"""Real servers for every test: one cluster and one Valkey per run, one database per worker, migrated once."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import msgspec
import pytest
import redis.asyncio
from hypothesis import settings

from kernel import migrate
from kernel.database import Connection, Pool, open_pool
from kernel.supervisor import EmbeddedServers, Endpoints

TEMPLATE = "tessera_template"

# No test is about time: a machine may stand still for as long as it likes.
settings.register_profile("tessera", deadline=None)
settings.load_profile("tessera")

_RUN = pytest.StashKey["TestServers"]()


class TestServers:
    """The servers of one test run, in a directory that is gone afterwards."""

    __test__ = False

    def __init__(self, migrations: Path | None) -> None:
        # not pytest's own directory: below it an unprivileged server's way is barred
        self._directory = Path(tempfile.mkdtemp(prefix="tessera-tests-", dir="/var/tmp"))
        self._directory.chmod(0o711)
        self._servers = EmbeddedServers(self._directory / "data")
        try:
            self.endpoints = self._servers.start()
            self.template_fault = asyncio.run(_make_template(self.endpoints, migrations))
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        self._servers.stop()
        shutil.rmtree(self._directory)


async def _make_template(endpoints: Endpoints, migrations: Path | None) -> str | None:
    """Migrate the template; what is wrong with the migrations fails the tests that need them, and only those."""
    await _make_database(endpoints, TEMPLATE, template="tessera")
    try:
        directory = migrate.find_directory(migrations)
        await migrate.apply(on_database(endpoints.migration_url, TEMPLATE), directory)
    except migrate.MigrationError as fault:
        return str(fault)
    return None


async def _make_database(endpoints: Endpoints, name: str, *, template: str) -> None:
    # a template carries over schemas and their grants, but not the grants on the database itself
    connection = await asyncpg.connect(endpoints.superuser_url)
    try:
        await connection.execute(f"CREATE DATABASE {name} OWNER tessera_owner TEMPLATE {template}")
        await connection.execute(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC")
        await connection.execute(f"GRANT CONNECT ON DATABASE {name} TO tessera_app")
    finally:
        await connection.close()


def on_database(url: str, name: str) -> str:
    """`url` with another database."""
    return urlsplit(url)._replace(path=f"/{name}").geturl()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--migrations", type=Path, help="migrate the tests' databases from another directory")


def _test_servers(config: pytest.Config) -> TestServers:
    if _RUN not in config.stash:
        config.stash[_RUN] = TestServers(config.getoption("--migrations"))
    return config.stash[_RUN]


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node) -> None:  # type: ignore[no-untyped-def]  # pytest-xdist has no types
    """The process that spawns the workers owns the servers and tells each worker where they are."""
    run = _test_servers(node.config)
    node.workerinput["endpoints"] = msgspec.to_builtins(run.endpoints)
    node.workerinput["template_fault"] = run.template_fault


def pytest_unconfigure(config: pytest.Config) -> None:
    run = config.stash.get(_RUN, None)
    if run is not None:
        run.end()


@pytest.fixture(scope="session")
def servers(request: pytest.FixtureRequest) -> Endpoints:
    """Where this run's PostgreSQL and Valkey are."""
    given = getattr(request.config, "workerinput", None)
    if given is not None:
        return msgspec.convert(given["endpoints"], Endpoints)
    return _test_servers(request.config).endpoints


@pytest.fixture(scope="session")
def template(request: pytest.FixtureRequest, servers: Endpoints) -> str:
    """The name of the migrated database that others are copied from; nobody connects to it."""
    given = getattr(request.config, "workerinput", None)
    fault = given["template_fault"] if given is not None else _test_servers(request.config).template_fault
    if fault is not None:
        pytest.fail(f"the migrations are at fault: {fault}", pytrace=False)
    return TEMPLATE


@pytest.fixture(scope="session")
def worker(request: pytest.FixtureRequest) -> int:
    """Which of the parallel workers this is; 0 when there is only one process."""
    name: str = getattr(request.config, "workerinput", {}).get("workerid", "gw-1")
    return int(name.removeprefix("gw")) + 1


@pytest.fixture(scope="session")
async def database_name(servers: Endpoints, template: str, worker: int) -> str:
    """This worker's own migrated database."""
    name = f"tessera_worker_{worker}"
    await _make_database(servers, name, template=template)
    return name


@pytest.fixture
async def empty_database(servers: Endpoints, worker: int) -> AsyncGenerator[str, None]:
    """The name of a database without any migration, for one test."""
    name = f"tessera_empty_{worker}"
    await _make_database(servers, name, template="tessera")
    yield name
    connection = await asyncpg.connect(servers.superuser_url)
    try:
        await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await connection.close()


@pytest.fixture
def empty_owner_url(servers: Endpoints, empty_database: str) -> str:
    """A database without any migration, as the role that owns the schema."""
    return on_database(servers.migration_url, empty_database)


@pytest.fixture
def empty_app_url(servers: Endpoints, empty_database: str) -> str:
    """A database without any migration, as the application role."""
    return on_database(servers.database_url, empty_database)


@pytest.fixture(scope="session")
def database_url(servers: Endpoints, database_name: str) -> str:
    """This worker's database as the application role."""
    return on_database(servers.database_url, database_name)


@pytest.fixture(scope="session")
def owner_url(servers: Endpoints, database_name: str) -> str:
    """This worker's database as the role that owns the schema."""
    return on_database(servers.migration_url, database_name)


@pytest.fixture(scope="session")
async def pool(database_url: str) -> AsyncGenerator[Pool, None]:
    """Connections as the application role; what is committed through them stays for the whole run."""
    async with await open_pool(database_url, application="tessera-tests") as opened:
        yield opened


@pytest.fixture
async def connection(pool: Pool) -> AsyncGenerator[Connection, None]:
    """A connection as the application role, in a transaction that is rolled back after the test."""
    async with pool.acquire() as acquired:
        transaction = acquired.transaction()
        await transaction.start()
        yield acquired
        await transaction.rollback()


@pytest.fixture
async def owner_connection(owner_url: str) -> AsyncGenerator[Connection, None]:
    """A connection as the owner role, not in a transaction."""
    connection = await asyncpg.connect(owner_url)
    yield connection
    await connection.close()


@pytest.fixture(scope="session")
def redis_url(servers: Endpoints, worker: int) -> str:
    """This worker's own logical database."""
    separator = "?db=" if servers.redis_url.startswith("unix") else "/"
    return f"{servers.redis_url}{separator}{worker}"


@pytest.fixture(scope="session", name="redis")
async def redis_client(redis_url: str) -> AsyncGenerator[redis.asyncio.Redis, None]:
    """A client on this worker's own logical database."""
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def now() -> datetime:
    """A fixed moment: noon in Shanghai."""
    return datetime(2026, 11, 20, 4, 0, tzinfo=UTC)
