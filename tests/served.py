"""A running `tessera serve` for tests that know the platform from outside only."""

import os
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGTERM

from msgspec import Struct

from gateway.credentials import Credentials, read_credentials
from kernel.supervisor.process import spawn

READY_SECONDS = 120.0
STOP_SECONDS = 40.0


class Platform(Struct, frozen=True, kw_only=True):
    """A running platform, seen from outside."""

    base_url: str
    data_dir: Path

    def partner(self, slug: str) -> Credentials:
        return read_credentials(self.data_dir / "sandbox" / "partners" / f"{slug}.json")

    def strict_app(self) -> Credentials:
        """The mall's second app, which is held to everything an app that goes live is held to."""
        return read_credentials(self.data_dir / "sandbox" / "strict" / "ecommerce.json")

    def mobile_app(self) -> bytes:
        """The file of the bank's own app."""
        return (self.data_dir / "sandbox" / "mobile.json").read_bytes()

    def run(self, *arguments: str, seconds: float = 120.0) -> subprocess.CompletedProcess[str]:
        """A command of `tessera` on this platform's data directory."""
        return subprocess.run(
            [sys.executable, "-m", "gateway", *arguments, "--data-dir", str(self.data_dir)],
            capture_output=True,
            text=True,
            timeout=seconds,
            env=_environment(),
            check=False,
        )


def _environment() -> dict[str, str]:
    """Ours without settings that would lead the platform elsewhere."""
    return {name: value for name, value in os.environ.items() if not name.startswith("TESSERA_")}


@contextmanager
def serve() -> Generator[Platform, None, None]:
    """A platform on a fresh data directory, for as long as the block runs."""
    root = Path(tempfile.mkdtemp(prefix="tessera-journeys-", dir="/var/tmp"))
    root.chmod(0o711)
    data_dir = root / "data"
    with (root / "serve.log").open("wb") as log:
        process = spawn(
            [sys.executable, "-m", "gateway", "serve", "--port", "0", "--data-dir", str(data_dir)],
            identity=None,
            death_signal=SIGTERM,
            output=subprocess.PIPE,
            errors=log,
            environment=_environment(),
        )
    assert process.stdout is not None
    try:
        readable, _, _ = select.select([process.stdout], [], [], READY_SECONDS)
        line = process.stdout.readline().decode() if readable else ""
        assert line.startswith("ready "), (root / "serve.log").read_text()[-4000:]
        yield Platform(base_url=line.removeprefix("ready ").strip(), data_dir=data_dir)
    finally:
        process.terminate()
        try:
            code = process.wait(STOP_SECONDS)
        finally:
            process.stdout.close()
            process.kill()
            shutil.rmtree(root)
    assert code == 0, "SIGTERM drains and ends with 0"
