"""Where the servers' files live: in the data directory, or outside it where the unprivileged user can reach them."""

import fcntl
import hashlib
import os
import pwd
import secrets
import shutil
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import structlog

from kernel.supervisor.process import Identity, SupervisorError

#: the fallback for what an unprivileged user must reach; survives a reboot
OUTSIDE = Path("/var/tmp")

LOG_BYTES_MAX = 10_000_000

_IGNORED = shutil.ignore_patterns("include", "pgxs", "pkgconfig", "*.a", "__pycache__")

_log = structlog.get_logger("kernel.supervisor")


class DataDirectory:
    """DATA_DIR: its one owner, its secrets, its logs, and the directories of the servers."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._lock: IO[str] | None = None

    def open(self) -> None:
        """Create what is missing and become the one owner until `close` (or our end)."""
        try:
            if not self.root.exists():
                self.root.mkdir(parents=True)
                # ours from birth: passable for the servers' user, but not listable
                self.root.chmod(0o711 if os.geteuid() == 0 else 0o700)
            for private in ("secrets", "log"):
                (self.root / private).mkdir(mode=0o700, exist_ok=True)
            lock = (self.root / "lock").open("a+")
        except OSError as failure:
            raise SupervisorError(f"the data directory {self.root} cannot be used: {failure}") from failure
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            owner = lock.read().strip() or "unknown"
            lock.close()
            raise SupervisorError(
                f"the data directory {self.root} is in use by process {owner}: stop that one or choose another"
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        self._lock = lock

    def close(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def secret(self, name: str, *, create: bool) -> str:
        """The password kept under `name`; a lost one cannot be made anew for a server that has the old one."""
        file = self.root / "secrets" / name
        if file.exists():
            return file.read_text().strip()
        if not create:
            raise SupervisorError(
                f"{file} is missing, and without it the server cannot be entered: restore it"
            )
        draft = file.with_name(name + ".new")
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w") as out:
            out.write(secrets.token_hex(24) + "\n")
            out.flush()
            os.fsync(out.fileno())
        draft.rename(file)
        return file.read_text().strip()

    def log(self, name: str) -> Path:
        return self.root / "log" / f"{name}.log"

    def open_log(self, name: str) -> IO[bytes]:
        """The log to append to; opened by us, so that the server needs no way into the directory."""
        file = self.log(name)
        if file.exists() and file.stat().st_size > LOG_BYTES_MAX:
            file.replace(file.with_suffix(".log.1"))
        return open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")

    def identity(self) -> Identity | None:
        """Whom the servers run as: us, or (as root) the owner of the cluster, at first `nobody`."""
        if os.geteuid() != 0:
            return None
        cluster = self.root / "postgres"
        owner = cluster.stat().st_uid if cluster.exists() else 0
        return _identity_of(owner) if owner != 0 else _nobody()

    def home(self, identity: Identity | None) -> Path:
        """The directory the servers' own directories are made in."""
        if identity is None or reachable(self.root, identity):
            return self.root
        name = hashlib.sha256(str(self.root.resolve()).encode()).hexdigest()[:16]
        return _root_owned(OUTSIDE / f"tessera-data-{name}", mode=0o711)

    def place(self, name: str, identity: Identity | None) -> Path:
        """The directory of server `name`: below the data directory, or where its link points."""
        entry = self.root / name
        if entry.is_symlink() and not entry.exists():
            raise SupervisorError(
                f"{entry} points to {entry.readlink()}, which is gone: restore it, or remove the link to begin anew"
            )
        if not entry.exists():
            home = self.home(identity)
            if home != self.root:
                _own(home / name, identity)
                entry.symlink_to(home / name)
                _log.warning(
                    "server files kept outside the data directory",
                    link=str(entry),
                    place=str(home / name),
                    because=f"user {identity.name if identity else ''} cannot enter {self.root}",
                )
        place = entry.resolve()
        _own(place, identity)
        if identity is not None and not reachable(place, identity):
            raise SupervisorError(
                f"user {identity.name} cannot enter {place}: move the data directory elsewhere"
            )
        return place

    def socket_place(self, identity: Identity | None) -> Path:
        """The private directory of the unix sockets; nothing in it outlives the servers."""
        place = self.home(identity) / "run"
        _own(place, identity)
        return place


def reachable(path: Path, identity: Identity) -> bool:
    """Whether the mode bits let `identity` pass through every directory on the way and enter (or execute) `path`."""
    resolved = path.resolve()
    return all(_passable(step.stat(), identity) for step in (resolved, *resolved.parents))


def _passable(status: os.stat_result, identity: Identity) -> bool:
    if status.st_uid == identity.uid:
        return bool(status.st_mode & stat.S_IXUSR)
    if status.st_gid == identity.gid:
        return bool(status.st_mode & stat.S_IXGRP)
    return bool(status.st_mode & stat.S_IXOTH)


def shared_copy(name: str, trees: Mapping[str, Path]) -> Path:
    """A copy of `trees` that everybody can read and only root can change; made once, whole or not at all."""
    target = OUTSIDE / f"{name}-{os.geteuid()}"
    wanted = {below: _sizes(source) for below, source in trees.items()}
    if target.exists() or target.is_symlink():
        _root_owned(target, mode=0o755)
        if all(_sizes(target / below) == sizes for below, sizes in wanted.items()):
            return target
        # somebody tidied /var/tmp, or the package changed without changing its version
        shutil.rmtree(target)
    draft = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=OUTSIDE))
    try:
        for below, source in trees.items():
            shutil.copytree(source, draft / below, symlinks=True, ignore=_IGNORED)
        _open_to_readers(draft)
        draft.rename(target)
    except OSError as failure:
        shutil.rmtree(draft, ignore_errors=True)
        if not target.is_dir():
            raise SupervisorError(f"the server binaries cannot be copied to {target}: {failure}") from failure
        _root_owned(target, mode=0o755)  # another process was first
    return target


def _sizes(tree: Path) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for folder, folders, files in os.walk(tree):
        left_out = _IGNORED(folder, [*folders, *files])
        folders[:] = [name for name in folders if name not in left_out]
        for name in files:
            if name not in left_out:
                path = Path(folder, name)
                sizes[str(path.relative_to(tree))] = path.lstat().st_size
    return sizes


def _open_to_readers(tree: Path) -> None:
    tree.chmod(0o755)
    for folder, folders, files in os.walk(tree):
        for name in folders:
            Path(folder, name).chmod(0o755)
        for name in files:
            path = Path(folder, name)
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)


def _root_owned(path: Path, *, mode: int) -> Path:
    """`path` as a directory only we can change; what somebody else put under the name is not trusted."""
    if not path.is_symlink() and not path.exists():
        path.mkdir()
        path.chmod(mode)
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise SupervisorError(f"{path} was made by somebody else: remove it")
    return path


def _own(path: Path, identity: Identity | None) -> None:
    """Make `path` a private directory of the servers' user."""
    if not path.exists():
        path.mkdir(mode=0o700)
        if identity is not None:
            os.chown(path, identity.uid, identity.gid)
    owner = path.stat().st_uid
    if owner != (identity.uid if identity else os.geteuid()):
        raise SupervisorError(
            f"{path} belongs to user {owner}: run as that user, or choose another data directory"
        )


def _nobody() -> Identity:
    return _identity_of(65534)


def _identity_of(uid: int) -> Identity:
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return Identity(uid=uid, gid=uid, name=str(uid))
    return Identity(uid=uid, gid=entry.pw_gid, name=entry.pw_name)
