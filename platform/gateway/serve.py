"""`tessera serve`: one parent that owns the embedded servers, the listening socket and the worker processes.

The parent answers no request: it starts what is missing, restarts what has died, and ends what it started. Every
child dies with it, even when it is killed (kernel/supervisor/process.py).
"""

import asyncio
import errno
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import structlog
from msgspec import structs
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.multiprocess import MultiProcessCollector

from gateway import sandbox
from gateway.attach import HOST, announced, start_servers
from gateway.runtime import Runtime
from kernel import migrate
from kernel.database import transaction
from kernel.settings import PREFIX, Secret, Settings, SettingsError
from kernel.supervisor.process import Child, spawn, wait_until

log = structlog.get_logger("serve")

BIND_SECONDS = 2.0
READY_SECONDS = 30.0
TICK_SECONDS = 0.2
RESPAWN_PAUSE_SECONDS = 1.0
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "VIRTUAL_ENV")


class Stopped(Exception):
    """The operator asked for the end before the start was complete."""


def serve(settings: Settings, *, port: int, ops_port: int | None) -> int:
    """Run until SIGTERM or SIGINT; returns the exit code."""
    ending = _listen_for_the_end()
    with ExitStack() as stack:
        listener = stack.enter_context(_listen(port))
        private = (
            None if settings.private_port is None else stack.enter_context(_listen(settings.private_port))
        )
        base_url = settings.base_url or f"http://{HOST}:{listener.getsockname()[1]}"
        settings = structs.replace(settings, base_url=base_url)
        settings, servers = start_servers(settings, stack)
        asyncio.run(prepare(settings))
        stack.enter_context(announced(settings))
        metrics = stack.enter_context(_metrics_directory(Path(settings.data_dir), alone=servers is not None))
        crew = _Crew(settings, [one for one in (listener, private) if one is not None], metrics)
        stack.callback(crew.stop)
        # Before the workers finish: a connection nobody will accept is refused rather than left waiting.
        stack.callback(listener.close)
        if private is not None:
            stack.callback(private.close)
        crew.fill()
        if ops_port is not None:
            _serve_metrics(ops_port, metrics)
        _await_ready(f"http://{HOST}:{listener.getsockname()[1]}", ending)
        sys.stdout.write(f"ready {base_url}\n")
        sys.stdout.flush()
        while not ending.wait(TICK_SECONDS):
            if servers is not None:
                servers.check()
            crew.fill()
    return 0


async def prepare(settings: Settings) -> None:
    """Migrate where this process may, and seed the sandbox."""
    if settings.migration_url is not None:
        await migrate.apply(settings.migration_url.reveal(), migrate.find_directory())
    if settings.mode != "sandbox":
        return
    runtime = Runtime(structs.replace(settings, pool_size=2))
    async with runtime.open(), transaction(runtime.pool) as connection:
        await sandbox.seed(
            connection,
            settings=settings,
            vault=runtime.vault,
            signer=runtime.signer,
            data_dir=Path(settings.data_dir),
            base_url=runtime.base_url,
            now=runtime.clock.now(),
        )


def environment_of(settings: Settings) -> dict[str, str]:
    """`settings` as the environment of a child, with the little else a child needs."""
    environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
    for name in Settings.__struct_fields__:
        value = getattr(settings, name)
        if value is not None:
            environment[PREFIX + name.upper()] = value.reveal() if isinstance(value, Secret) else str(value)
    return environment


class _Crew:
    """The worker processes: `workers` that answer HTTP, one that does the work after the answer."""

    def __init__(self, settings: Settings, listeners: Sequence[socket.socket], metrics: Path) -> None:
        self._settings = settings
        self._listeners = listeners
        self._environment = environment_of(settings) | {"PROMETHEUS_MULTIPROC_DIR": str(metrics)}
        self._members: dict[str, Child | None] = {f"http-{n}": None for n in range(settings.workers)}
        self._members["background"] = None
        self._born: dict[str, float] = {}

    def fill(self) -> None:
        """Start whoever is missing; one that dies young is given a second."""
        for name, member in self._members.items():
            if member is not None and member.alive():
                continue
            if time.monotonic() - self._born.get(name, 0.0) < RESPAWN_PAUSE_SECONDS:
                continue
            if member is not None:
                log.error("worker_died", worker=name)
            self._members[name] = self._start(name)
            self._born[name] = time.monotonic()

    def stop(self) -> None:
        """Ask all at once to finish what they are at, then wait for each."""
        members = [member for member in self._members.values() if member is not None]
        for member in members:
            member.ask_to_stop()
        for member in members:
            member.stop()

    def _start(self, name: str) -> Child:
        places = tuple(listener.fileno() for listener in self._listeners)
        named = [word for place in places for word in ("--fd", str(place))]
        role = ["worker"] if name == "background" else ["http", *named]
        process = spawn(
            [sys.executable, "-m", "gateway", *role],
            identity=None,
            death_signal=signal.SIGTERM,
            output=sys.stderr.fileno(),
            environment=self._environment,
            pass_fds=places if name != "background" else (),
        )
        patience = float(self._settings.drain_seconds + 5)
        return Child(name, process, ((signal.SIGTERM, patience), (signal.SIGKILL, 5.0)))


def _listen_for_the_end() -> threading.Event:
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    return ending


@contextmanager
def _listen(port: int) -> Generator[socket.socket, None, None]:
    """The socket all workers accept from, so that a worker may die without a connection being refused."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # The workers of a `serve` that was killed let go of the port within moments.
        if not wait_until(lambda: _bound(listener, port), BIND_SECONDS):
            raise SettingsError(f"port {port} of {HOST} is in use")
        listener.listen(2_048)
        listener.set_inheritable(True)
        yield listener


def _bound(listener: socket.socket, port: int) -> bool:
    try:
        listener.bind((HOST, port))
    except OverflowError:
        raise SettingsError(f"{port} is not a port") from None
    except OSError as fault:
        if fault.errno != errno.EADDRINUSE:
            raise SettingsError(f"port {port} of {HOST} cannot be used: {fault.strerror}") from None
        return False
    return True


def _await_ready(address: str, ending: threading.Event) -> None:
    deadline = time.monotonic() + READY_SECONDS
    with httpx.Client(timeout=2.0) as client:
        while time.monotonic() < deadline:
            answered = False
            with suppress(httpx.HTTPError):  # not up yet: that is what we are waiting for
                answered = client.get(f"{address}/readyz").status_code == 200
            if ending.is_set():
                raise Stopped
            if answered:
                return
            ending.wait(0.05)
    raise SettingsError(f"the workers did not become ready within {READY_SECONDS:.0f} s; their log says why")


@contextmanager
def _metrics_directory(data_dir: Path, *, alone: bool) -> Generator[Path, None, None]:
    """Where the workers leave their numbers; `alone` on the data, we clear away what a killed one left."""
    for abandoned in data_dir.glob("metrics-*") if alone else ():
        shutil.rmtree(abandoned, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="metrics-", dir=data_dir) as directory:
        yield Path(directory)


def _serve_metrics(port: int, directory: Path) -> None:
    """All workers' numbers added up, on the loopback address only."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(directory))  # type: ignore[no-untyped-call]  # the library is untyped here
    try:
        start_http_server(port, addr=HOST, registry=registry)
    except OSError as fault:
        raise SettingsError(f"the ops port {port} of {HOST} cannot be used: {fault.strerror}") from None
