"""Server processes: born with the order to die with us, run without privileges, ended within bounds."""

import ctypes
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from signal import SIGKILL, Signals
from typing import IO

from msgspec import Struct

_PR_SET_PDEATHSIG = 1
_LC_ALL_MASK = 0x1FBF
_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.newlocale.restype = ctypes.c_void_p

#: code-point order either way; C.UTF-8 also knows which characters are letters
LOCALE = "C.UTF-8" if _LIBC.newlocale(_LC_ALL_MASK, b"C.UTF-8", None) else "C"

#: all that a server sees of our environment: none of our secrets is in it
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": LOCALE, "TZ": "UTC"}

TOOL_SECONDS = 120.0

#: the kernel's limit is 107; beyond ours a server listens on the loopback address instead
SOCKET_PATH_BYTES_MAX = 100

#: signals to send in turn, each with the seconds it is given to work
Parting = Sequence[tuple[Signals, float]]


class SupervisorError(Exception):
    """The embedded servers cannot run; the message tells the operator why and what to do."""


class Identity(Struct, frozen=True, kw_only=True):
    """The unprivileged user that root hands the servers to."""

    uid: int
    gid: int
    name: str


class Child:
    """One running server and the signals that end it, the gentlest first."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], parting: Parting) -> None:
        self.name = name
        self.pid = process.pid
        self._process = process
        self._parting = parting

    def alive(self) -> bool:
        """Whether it still runs; a dead one is reaped by asking."""
        return self._process.poll() is None

    def ask_to_stop(self) -> None:
        if self.alive():
            self._process.send_signal(self._parting[0][0])

    def stop(self) -> None:
        """End it and reap it; the last signal cannot be refused."""
        for signal, seconds in self._parting:
            if not self.alive():
                return
            self._process.send_signal(signal)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)
        if self.alive():
            raise SupervisorError(f"{self.name} (process {self.pid}) does not end, not even when killed")


def spawn(
    argv: Sequence[str],
    *,
    identity: Identity | None,
    death_signal: Signals,
    output: IO[bytes] | int,
    errors: IO[bytes] | int = subprocess.STDOUT,
    stdin: int = subprocess.DEVNULL,
    environment: Mapping[str, str] = ENVIRONMENT,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start `argv` as a direct child that gets `death_signal` when this process ends, however it ends."""
    # the kernel sends the signal when the *thread* that forked ends
    assert threading.current_thread() is threading.main_thread(), "servers are started from the main thread"
    parent = os.getpid()

    def die_with_parent() -> None:
        # runs after the change of user, which would clear the request
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    try:
        return subprocess.Popen(
            argv,
            stdin=stdin,
            stdout=output,
            stderr=errors,
            cwd="/",
            env=environment,
            pass_fds=pass_fds,
            umask=0o077,
            start_new_session=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - asserted above: from the main thread
            user=identity.uid if identity else None,
            group=identity.gid if identity else None,
            extra_groups=[] if identity else None,
        )
    except (OSError, subprocess.SubprocessError) as failure:
        raise SupervisorError(f"{argv[0]} cannot be started: {failure}") from failure


def run_tool(argv: Sequence[str], *, identity: Identity | None, text: str = "") -> str:
    """Run a short-lived program to its end, `text` as its standard input, and return what it printed.

    The input is a file in memory: secrets in it touch neither the disk nor the list of processes, and the program
    can open it by name as /dev/stdin, which a pipe of another user's would refuse.
    """
    with open(os.memfd_create("input"), "w+b") as given:
        given.write(text.encode())
        given.seek(0)
        process = spawn(
            argv, identity=identity, death_signal=SIGKILL, output=subprocess.PIPE, stdin=given.fileno()
        )
    try:
        printed, _ = process.communicate(timeout=TOOL_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise SupervisorError(f"{argv[0]} did not finish in {TOOL_SECONDS:.0f} s") from None
    except BaseException:  # an interrupt: leave nothing running
        process.kill()
        process.wait()
        raise
    output = printed.decode(errors="replace")
    if process.returncode != 0:
        raise SupervisorError(f"{argv[0]} failed: {last_lines(output)}")
    return output


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether `condition` came true within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def titled(program: str, tag: str) -> Mapping[int, str]:
    """The living processes of `program` that carry `tag` in their title, by process id.

    Titles, not /proc/N/exe or cwd: those are closed to a root without CAP_SYS_PTRACE, as in most containers.
    """
    found: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            title = (entry / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        first = title.split("\0", 1)[0]
        of_program = first.endswith("/" + program) or first.startswith((program + ":", program + " "))
        if of_program and tag in title:
            found[int(entry.name)] = title
    return found


def end_all(find: Callable[[], Iterable[int]], parting: Parting) -> None:
    """End the processes that `find` finds, which are not our children (any more)."""
    for signal, seconds in parting:
        for pid in find():
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal)
        if wait_until(lambda: not any(find()), seconds):
            return
    raise SupervisorError(f"a server of an earlier run does not end: process {', '.join(map(str, find()))}")


def usable_as_socket(path: Path) -> bool:
    """Whether servers and clients can take `path` for a unix socket; a comma separates hosts in an address."""
    return len(os.fsencode(path)) < SOCKET_PATH_BYTES_MAX and "," not in str(path)


def free_port() -> int:
    """A port of the loopback address that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def refuse_taken_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as failure:
            raise SupervisorError(f"port {port} of 127.0.0.1 is in use by another program") from failure


def last_lines(output: str, count: int = 4) -> str:
    """The end of what a program printed, on one line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return " / ".join(lines[-count:]) or "it printed nothing"
