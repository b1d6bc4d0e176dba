"""The embedded servers: PostgreSQL and Valkey as our own children, so that nothing has to be installed."""

import sys
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog
from msgspec import Struct

from kernel.supervisor.cluster import APPLICATION, DATABASE, OWNER, SUPERUSER
from kernel.supervisor.places import DataDirectory
from kernel.supervisor.postgres import Postgres
from kernel.supervisor.process import SupervisorError
from kernel.supervisor.valkey import Valkey

__all__ = ["EmbeddedServers", "Endpoints", "SupervisorError"]

#: of memory for PostgreSQL's own cache: enough to try things out; a database that is to grow gets a quarter of the memory
BUFFERS_MB = 256

_log = structlog.get_logger("kernel.supervisor")


class Endpoints(Struct, frozen=True, kw_only=True):
    """Where the servers are; every address carries a password."""

    #: as the application role, which owns nothing
    database_url: str
    #: as the role that owns the schema
    migration_url: str
    #: as the superuser, on the maintenance database; for tests, which make databases
    superuser_url: str
    #: without a database number
    redis_url: str

    def __repr__(self) -> str:
        return "Endpoints(***)"


class EmbeddedServers:
    """PostgreSQL and Valkey on one data directory, ended with us however we end.

    Call from the main thread, outside any event loop: the kernel ties a child to the thread that made it.
    """

    def __init__(self, data_dir: Path, *, buffers_mb: int = BUFFERS_MB) -> None:
        self._data = DataDirectory(data_dir)
        self._buffers_mb = buffers_mb
        self._servers: tuple[Postgres | Valkey, ...] = ()
        self._endpoints: Endpoints | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def endpoints(self) -> Endpoints:
        """Where the servers are, once started; the same until `stop`."""
        if self._endpoints is None:
            raise SupervisorError("the embedded servers are not running")
        return self._endpoints

    def start(self) -> Endpoints:
        """Start both servers and return when both accept connections."""
        if sys.platform != "linux":
            raise SupervisorError(
                "the embedded servers need Linux: set TESSERA_DATABASE_URL and TESSERA_REDIS_URL"
            )
        self._data.open()
        try:
            identity = self._data.identity()
            postgres = Postgres(self._data, identity, buffers_mb=self._buffers_mb)
            valkey = Valkey(self._data, identity)
            self._servers = (postgres, valkey)
            for server in self._servers:
                server.launch()
            for server in self._servers:
                server.await_ready()
            self._endpoints = Endpoints(
                database_url=postgres.url(APPLICATION, DATABASE),
                migration_url=postgres.url(OWNER, DATABASE),
                superuser_url=postgres.url(SUPERUSER, "postgres"),
                redis_url=valkey.url(),
            )
        except BaseException:
            self.stop()
            raise
        return self._endpoints

    def pids(self) -> dict[str, int]:
        """The process ids of the running servers, by name."""
        return {server.name: server.pid for server in self._servers if server.pid is not None}

    def check(self) -> list[str]:
        """Restart what has died, on its data and at its old address; the names of what was restarted."""
        dead = [server for server in self._servers if not server.alive()]
        for server in dead:
            _log.error("server died, restarting it", server=server.name)
            server.launch()
        for server in dead:
            server.await_ready()
        return [server.name for server in dead]

    def stop(self) -> None:
        """End both servers and give up the data directory; harmless when nothing runs."""
        try:
            for server in self._servers:
                server.ask_to_stop()
            for server in self._servers:
                server.stop()
        finally:
            self._servers, self._endpoints = (), None
            self._data.close()
