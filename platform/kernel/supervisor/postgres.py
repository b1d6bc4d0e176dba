"""The embedded PostgreSQL: started on its cluster, watched, and recovered after a crash."""

import hashlib
from contextlib import suppress
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGQUIT
from urllib.parse import quote

from kernel.supervisor.cluster import SETTINGS, options, provision
from kernel.supervisor.places import DataDirectory
from kernel.supervisor.process import (
    Child,
    Identity,
    SupervisorError,
    end_all,
    free_port,
    last_lines,
    refuse_taken_port,
    spawn,
    titled,
    usable_as_socket,
    wait_until,
)
from kernel.supervisor.programs import find_postgres

#: nominal when the server listens on a unix socket: it names the socket file
SOCKET_PORT = 5432
#: recovery after a crash replays at most max_wal_size (1 GB)
READY_SECONDS = 120.0

#: fast shutdown, immediate shutdown, kill
_PARTING = ((SIGINT, 20.0), (SIGQUIT, 5.0), (SIGKILL, 5.0))
#: backends whose postmaster is gone leave by themselves, except in the middle of a long statement
_ORPHANS_PARTING = ((SIGQUIT, 5.0), (SIGKILL, 5.0))
_ORPHANS_GRACE_SECONDS = 0.5


class Postgres:
    """One cluster in DATA_DIR/postgres."""

    name = "postgres"

    def __init__(self, data: DataDirectory, identity: Identity | None, *, buffers_mb: int) -> None:
        self._data = data
        self._buffers_mb = buffers_mb
        self._identity = identity
        installation = find_postgres().runnable_by(identity)
        self._program = installation.programs / "postgres"
        self._cluster = data.place("postgres", identity)
        provision(self._cluster, data=data, installation=installation, identity=identity)
        self._sockets: Path | None = data.socket_place(identity)
        self._port = SOCKET_PORT
        if not usable_as_socket(self._sockets / f".s.PGSQL.{SOCKET_PORT}"):
            self._sockets, self._port = None, free_port()
        status = self._cluster.stat()
        # the inode, not the path: the same under every name of the directory, another in a copy of it
        inode = hashlib.sha256(f"{status.st_dev}:{status.st_ino}".encode()).hexdigest()[:16]
        self._tag = f"tessera-postgres-{inode}"
        self._child: Child | None = None

    def url(self, role: str, database: str) -> str:
        password = self._data.secret(f"{role}_password", create=False)
        if self._sockets is None:
            return f"postgresql://{role}:{password}@127.0.0.1:{self._port}/{database}"
        return (
            f"postgresql://{role}:{password}@/{database}?host={quote(str(self._sockets))}&port={self._port}"
        )

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child is not None else None

    def alive(self) -> bool:
        return self._child is not None and self._child.alive()

    def launch(self) -> None:
        """Start the server on a cluster that no other server is on."""
        self._end_leftovers()
        if self._sockets is None:
            refuse_taken_port(self._port)
        settings = SETTINGS | {
            "shared_buffers": f"{self._buffers_mb}MB",
            "cluster_name": self._tag,
            "port": str(self._port),
            "listen_addresses": "127.0.0.1" if self._sockets is None else "",
            "unix_socket_directories": f'"{self._sockets}"' if self._sockets else "",
        }
        argv = [str(self._program), "-D", str(self._cluster), *options(settings)]
        with self._data.open_log("postgres") as log:
            process = spawn(argv, identity=self._identity, death_signal=SIGINT, output=log)
        self._child = Child(self.name, process, _PARTING)

    def await_ready(self) -> None:
        """Return when connections are accepted, as postmaster.pid says (pg_ctl waits for the same line)."""
        wait_until(lambda: self._ready() or not self.alive(), READY_SECONDS)
        if self._ready() and self.alive():
            return
        self.stop()
        raise SupervisorError(
            f"PostgreSQL did not start: {last_lines(self._data.log('postgres').read_text(errors='replace'))}"
        )

    def ask_to_stop(self) -> None:
        if self._child is not None:
            self._child.ask_to_stop()

    def stop(self) -> None:
        if self._child is not None:
            self._child.stop()
            self._child = None

    def _ready(self) -> bool:
        lines = self._postmaster_file()
        child = self._child
        return child is not None and lines[:1] == [str(child.pid)] and lines[7:8] == ["ready"]

    def _postmaster_file(self) -> list[str]:
        try:
            text = (self._cluster / "postmaster.pid").read_text()
        except FileNotFoundError:
            return []
        return [line.strip() for line in text.splitlines()]

    def _end_leftovers(self) -> None:
        """Wait for a server whose supervisor was killed, and for the orphans of a server that was killed."""

        def found() -> list[int]:
            return list(titled("postgres", self._tag))

        def postmaster() -> list[int]:
            return [pid for pid in found() if self._postmaster_file()[:1] == [str(pid)]]

        if postmaster():
            end_all(postmaster, _PARTING)
        if not wait_until(lambda: not found(), _ORPHANS_GRACE_SECONDS):
            end_all(found, _ORPHANS_PARTING)
        self._remove_stale_lock()

    def _remove_stale_lock(self) -> None:
        """Remove the lock file of a dead server, whose process id may be another program's by now.

        PostgreSQL would take that program for a server and refuse to start, as after every restart of a container.
        """
        owner = next(iter(self._postmaster_file()), None)
        if owner is None or _is_postgres(owner):
            return
        (self._cluster / "postmaster.pid").unlink(missing_ok=True)
        if self._sockets is not None:
            (self._sockets / f".s.PGSQL.{self._port}.lock").unlink(missing_ok=True)


def _is_postgres(pid: str) -> bool:
    with suppress(OSError):
        first = Path("/proc", pid, "cmdline").read_bytes().split(b"\0", 1)[0]
        return first.endswith(b"/postgres") or first.startswith(b"postgres:")
    return False
