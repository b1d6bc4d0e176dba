"""A `tessera serve` of a test's own, and the processes it is made of: found from outside, and hurt."""

import os
import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from gateway.credentials import Credentials, read_credentials
from kernel.supervisor.process import free_port, spawn, titled, wait_until

READY_SECONDS = 60.0
STOP_SECONDS = 40.0


class Serve:
    """One platform on one data directory and one port, which may be ended and started again."""

    def __init__(
        self, root: Path, *options: str, workers: int = 2, environment: Mapping[str, str] | None = None
    ) -> None:
        self.data_dir = root / "data"
        self.log = root / "serve.log"
        self.port = free_port()
        self.base_url = f"http://127.0.0.1:{self.port}"
        self._workers = workers
        self._options = ("--workers", str(workers), *options)
        self._environment = clean_environment() | dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it and wait for its ready line."""
        self.launch()
        line = self.read_line()
        assert line == f"ready {self.base_url}", self.log.read_text()[-4_000:]

    def launch(self) -> None:
        """Start it and wait for nothing."""
        self.reap()
        words = ["serve", "--port", str(self.port), "--data-dir", str(self.data_dir), *self._options]
        with self.log.open("ab") as log:
            self._process = spawn(
                [sys.executable, "-m", "gateway", *words],
                identity=None,
                death_signal=signal.SIGTERM,
                output=subprocess.PIPE,
                errors=log,
                environment=self._environment,
            )

    def read_line(self) -> str:
        """The next line it prints, or nothing when it prints none in time."""
        assert self._process is not None and self._process.stdout is not None
        readable, _, _ = select.select([self._process.stdout], [], [], READY_SECONDS)
        return self._process.stdout.readline().decode().strip() if readable else ""

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Its exit code, once it has ended by itself."""
        assert self._process is not None
        return self._process.wait(STOP_SECONDS)

    def stop(self) -> int:
        """SIGTERM and the exit code it leads to."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def reap(self) -> None:
        """Make sure that it has ended, however it goes."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_SECONDS)
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._process = None

    def run(self, *arguments: str, seconds: float = 120.0) -> subprocess.CompletedProcess[str]:
        """A command of `tessera` on this platform's data directory, to its end."""
        return run_command(*arguments, "--data-dir", str(self.data_dir), seconds=seconds)

    def partner(self, slug: str) -> Credentials:
        return read_credentials(self.data_dir / "sandbox" / "partners" / f"{slug}.json")

    def announced(self) -> dict[str, str]:
        """Where the running platform says that its database and its Redis are."""
        found = (self.data_dir / "secrets" / "running.json").read_bytes()
        return msgspec.json.decode(found, type=dict[str, str])

    def http_workers(self) -> list[int]:
        return [pid for pid, words in children_of(self.pid).items() if " http --fd" in words]

    def background_worker(self) -> int:
        (found,) = (pid for pid, words in children_of(self.pid).items() if words.endswith(" worker"))
        return found

    def postmaster(self) -> int:
        (found,) = (pid for pid, words in children_of(self.pid).items() if "tessera-postgres-" in words)
        return found

    def sessions(self) -> list[int]:
        """The server processes of PostgreSQL that serve the application, the busy ones first."""
        found = {
            pid: words for pid, words in children_of(self.postmaster()).items() if "tessera_app" in words
        }
        return sorted(found, key=lambda pid: found[pid].endswith("idle"))

    def postgres(self) -> list[int]:
        """The postmaster and all its processes, itself first."""
        postmaster = self.postmaster()
        return [postmaster, *children_of(postmaster)]

    def valkey(self) -> int:
        (found,) = (pid for pid, words in children_of(self.pid).items() if "tessera-valkey-" in words)
        return found

    def tags(self) -> set[str]:
        """What the titles of its servers carry."""
        words = " ".join(children_of(self.pid).values())
        return set(re.findall(r"tessera-(?:postgres|valkey)-[0-9a-f]+", words))

    def is_whole(self) -> bool:
        """Whether it has all the workers it was told to have."""
        words = list(children_of(self.pid).values())
        http = sum(" http --fd" in one for one in words)
        return (http, sum(one.endswith(" worker") for one in words)) == (self._workers, 1)

    def family(self) -> list[int]:
        """It, its children and theirs."""
        return [self.pid, *(pid for child in children_of(self.pid) for pid in (child, *children_of(child)))]


def clean_environment() -> dict[str, str]:
    """Ours without settings that would lead a platform elsewhere."""
    return {name: value for name, value in os.environ.items() if not name.startswith("TESSERA_")}


def run_command(
    *arguments: str, environment: Mapping[str, str] | None = None, seconds: float = 60.0
) -> subprocess.CompletedProcess[str]:
    """A command of `tessera`, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "gateway", *arguments],
        capture_output=True,
        text=True,
        timeout=seconds,
        env=clean_environment() | dict(environment or {}),
        check=False,
    )


def start_command(*arguments: str) -> subprocess.Popen[str]:
    """A command of `tessera` that is left to run; what it draws can be read from its stderr."""
    return subprocess.Popen(
        [sys.executable, "-m", "gateway", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=clean_environment(),
    )


def children_of(parent: int) -> dict[int, str]:
    """The living children of a process, by process id, with their command lines."""
    found: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        with suppress(OSError):
            # after the name, which may hold anything: state, parent
            state, ppid = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            if int(ppid) == parent and state != "Z":
                words = (entry / "cmdline").read_bytes().decode(errors="replace")
                found[int(entry.name)] = words.replace("\0", " ").strip()
    return found


def alive(pids: Iterable[int]) -> list[int]:
    """Those of `pids` that still run; a zombie does not."""
    found = []
    for pid in pids:
        with suppress(OSError):
            if Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[0] != "Z":
                found.append(pid)
    return found


def left_of(tags: Iterable[str]) -> list[int]:
    """The servers that still carry one of `tags`."""
    return [pid for tag in tags for program in ("postgres", "valkey-server") for pid in titled(program, tag)]


def gone(pids: Sequence[int], seconds: float = STOP_SECONDS) -> bool:
    """Whether all of `pids` end within `seconds`."""
    return wait_until(lambda: not alive(pids), seconds)


@contextmanager
def frozen(pids: Sequence[int]) -> Iterator[None]:
    """Processes that stand still while the block runs."""
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        resume_all(pids)


def resume_all(pids: Iterable[int]) -> None:
    for pid in alive(pids):
        os.kill(pid, signal.SIGCONT)


def refused(port: int) -> bool:
    """Whether nobody takes connections on `port`."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) != 0


def rows_of(results: Path) -> list[tuple[Any, ...]]:
    """What a results file says about each line, without the header."""
    rows = [line.split(",") for line in results.read_text().splitlines()[1:]]
    return [(order_id, status, int(points), code) for order_id, status, points, code in rows]
