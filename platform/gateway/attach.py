"""How a command finds the system it works on: named by settings, run by a `serve` beside it, or started for the occasion."""

import contextlib
import fcntl
import os
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
from msgspec import structs

from kernel.settings import Secret, Settings
from kernel.supervisor import EmbeddedServers
from kernel.vault import generate_ring

HOST = "127.0.0.1"
_FOUND = ("base_url", "database_url", "migration_url", "redis_url", "master_keys")


@contextmanager
def attached(settings: Settings) -> Generator[Settings, None, None]:
    """Settings that lead to a running database and Redis, for as long as the block runs."""
    running = _read_running(Path(settings.data_dir))
    if running is not None and not settings.database_url:
        yield structs.replace(settings, **{name: _revealed(name, value) for name, value in running.items()})
        return
    with ExitStack() as stack:
        settings, _ = start_servers(settings, stack)
        yield structs.replace(settings, base_url=settings.base_url or f"http://{HOST}:8080")


def start_servers(settings: Settings, stack: ExitStack) -> tuple[Settings, EmbeddedServers | None]:
    """Settings with every address and key; embedded servers, ended with `stack`, for what is not named."""
    data_dir = Path(settings.data_dir).absolute()
    settings = structs.replace(settings, data_dir=str(data_dir))
    if settings.mode == "sandbox" and settings.master_keys is None:
        settings = structs.replace(settings, master_keys=Secret(_sandbox_ring(data_dir)))
    if settings.database_url and settings.redis_url:
        return settings, None
    servers = EmbeddedServers(data_dir)
    stack.callback(servers.stop)
    endpoints = servers.start()
    # The data directory is ours now: whatever a killed `serve` announced there leads nowhere.
    _running_file(data_dir).unlink(missing_ok=True)
    found = {
        "database_url": settings.database_url or Secret(endpoints.database_url),
        "migration_url": settings.migration_url
        or (None if settings.database_url else Secret(endpoints.migration_url)),
        "redis_url": settings.redis_url or Secret(endpoints.redis_url),
    }
    return structs.replace(settings, **found), servers


@contextmanager
def announced(settings: Settings) -> Generator[None, None, None]:
    """Leave word in the data directory of where this system is, for commands run beside it."""
    path = _running_file(Path(settings.data_dir))
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    known = {name: getattr(settings, name) for name in _FOUND}
    words = {name: _plain(value) for name, value in known.items() if value is not None}
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
        file.write(msgspec.json.encode(words))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _read_running(data_dir: Path) -> dict[str, str] | None:
    """What a living `serve` announced; one that was killed leaves its word but not its lock."""
    try:
        with (data_dir / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        return msgspec.json.decode(_running_file(data_dir).read_bytes(), type=dict[str, str])
    except FileNotFoundError:
        return None


def _running_file(data_dir: Path) -> Path:
    return data_dir / "secrets" / "running.json"


def _revealed(name: str, value: str) -> str:
    return value if name == "base_url" else Secret(value)


def _plain(value: str) -> str:
    return value.reveal() if isinstance(value, Secret) else value


def _keep_ring(path: Path) -> None:
    """A ring at `path`, whole and on the disk or not at all: what is sealed under a lost ring is lost."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    with open(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        file.write(generate_ring())
        file.flush()
        os.fsync(file.fileno())
    with contextlib.suppress(FileExistsError):  # another process was first
        os.link(draft, path)
    draft.unlink()


def _sandbox_ring(data_dir: Path) -> str:
    """The sandbox's key ring, made on first use and kept beside the data it opens."""
    path = data_dir / "secrets" / "master_keys"
    if not path.exists():
        if not data_dir.exists():
            data_dir.mkdir(parents=True)
            # As kernel/supervisor/places.py makes it: whatever our umask, the servers' user must be able to pass.
            data_dir.chmod(0o711 if os.geteuid() == 0 else 0o700)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        _keep_ring(path)
    return path.read_text().strip()
