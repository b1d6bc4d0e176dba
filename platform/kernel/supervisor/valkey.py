"""The embedded Valkey: started, watched, and restarted on its append-only file."""

import hashlib
import socket
import subprocess
from pathlib import Path
from signal import SIGKILL, SIGTERM
from urllib.parse import quote

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
from kernel.supervisor.programs import find_valkey

READY_SECONDS = 30.0
#: logical databases: the tests give one to each of their workers
DATABASES = 64

_PARTING = ((SIGTERM, 10.0), (SIGKILL, 5.0))


class Valkey:
    """One server with its append-only file in DATA_DIR/valkey."""

    name = "valkey"

    def __init__(self, data: DataDirectory, identity: Identity | None) -> None:
        self._data = data
        self._identity = identity
        self._program = find_valkey(identity)
        self._directory = data.place("valkey", identity)
        self._password = data.secret("valkey_password", create=True)
        self._socket: Path | None = data.socket_place(identity) / "valkey.sock"
        self._port = 0
        if not usable_as_socket(self._socket):
            self._socket, self._port = None, free_port()
        status = self._directory.stat()
        inode = hashlib.sha256(f"{status.st_dev}:{status.st_ino}".encode()).hexdigest()[:16]
        self._tag = f"tessera-valkey-{inode}"
        self._child: Child | None = None

    def url(self) -> str:
        if self._socket is None:
            return f"redis://:{self._password}@127.0.0.1:{self._port}"
        return f"unix://:{self._password}@{quote(str(self._socket))}"

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child is not None else None

    def alive(self) -> bool:
        return self._child is not None and self._child.alive()

    def launch(self) -> None:
        """Start the server; its configuration goes through a pipe, for it holds the password."""
        end_all(lambda: titled("valkey-server", self._tag), _PARTING)
        if self._socket is None:
            refuse_taken_port(self._port)
        argv = [str(self._program), "-", "--proc-title-template", f"valkey-server {self._tag}"]
        with self._data.open_log("valkey") as log:
            process = spawn(
                argv, identity=self._identity, death_signal=SIGTERM, output=log, stdin=subprocess.PIPE
            )
        self._child = Child(self.name, process, _PARTING)
        assert process.stdin is not None
        try:
            with process.stdin as pipe:
                pipe.write(self._configuration().encode())
        except BrokenPipeError:
            pass  # it ended at once; await_ready tells why

    def await_ready(self) -> None:
        """Return when it answers, its append-only file loaded."""
        wait_until(lambda: self._answers() or not self.alive(), READY_SECONDS)
        if self.alive() and self._answers():
            return
        self.stop()
        raise SupervisorError(
            f"Valkey did not start: {last_lines(self._data.log('valkey').read_text(errors='replace'))}"
        )

    def ask_to_stop(self) -> None:
        if self._child is not None:
            self._child.ask_to_stop()

    def stop(self) -> None:
        if self._child is not None:
            self._child.stop()
            self._child = None

    def _configuration(self) -> str:
        listening = (
            ["bind 127.0.0.1", f"port {self._port}"]
            if self._socket is None
            else ["port 0", f'unixsocket "{self._socket}"', "unixsocketperm 700"]
        )
        lines = [
            *listening,
            f"requirepass {self._password}",
            f'dir "{self._directory}"',
            "appendonly yes",
            'save ""',
            "maxmemory 256mb",
            "maxmemory-policy noeviction",
            f"databases {DATABASES}",
            "daemonize no",
            'logfile ""',
        ]
        return "\n".join(lines) + "\n"

    def _answers(self) -> bool:
        """Whether PING is answered with PONG, and not with LOADING or by nobody."""
        family = socket.AF_INET if self._socket is None else socket.AF_UNIX
        address = ("127.0.0.1", self._port) if self._socket is None else str(self._socket)
        try:
            with socket.socket(family) as client:
                client.settimeout(1.0)
                client.connect(address)
                client.sendall(f"AUTH {self._password}\r\nPING\r\n".encode())
                answer = b""
                while answer.count(b"\r\n") < 2 and (part := client.recv(4096)):
                    answer += part
        except OSError:
            return False
        return answer == b"+OK\r\n+PONG\r\n"
