"""One `tessera serve` for all journeys, as an operator would start it, and partners who know nothing but their file."""

import os
import select
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import AsyncGenerator, Callable, Generator
from datetime import UTC, datetime
from pathlib import Path
from signal import SIGTERM
from typing import Any

import httpx
import pytest
from msgspec import Struct

from gateway.client import PartnerClient
from gateway.credentials import Credentials, read_credentials
from kernel.calendar import rfc3339
from kernel.supervisor.process import spawn

READY_SECONDS = 120.0
STOP_SECONDS = 40.0


class Platform(Struct, frozen=True, kw_only=True):
    """A running platform, seen from outside."""

    base_url: str
    data_dir: Path

    def partner(self, slug: str) -> Credentials:
        return read_credentials(self.data_dir / "sandbox" / "partners" / f"{slug}.json")

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


@pytest.fixture(scope="session")
def platform() -> Generator[Platform, None, None]:
    """A platform on a fresh data directory."""
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


@pytest.fixture
async def http(platform: Platform) -> AsyncGenerator[httpx.AsyncClient, None]:
    """Somebody without any credentials."""
    async with httpx.AsyncClient(base_url=platform.base_url, timeout=30.0) as client:
        yield client


async def _connect(platform: Platform, slug: str) -> AsyncGenerator[PartnerClient, None]:
    async with PartnerClient(platform.partner(slug), deadline_seconds=20.0) as client:
        yield client


@pytest.fixture
async def ecommerce(platform: Platform) -> AsyncGenerator[PartnerClient, None]:
    """The mall."""
    async for client in _connect(platform, "ecommerce"):
        yield client


@pytest.fixture
async def hospital(platform: Platform) -> AsyncGenerator[PartnerClient, None]:
    """The hospital."""
    async for client in _connect(platform, "hospital"):
        yield client


@pytest.fixture
async def education(platform: Platform) -> AsyncGenerator[PartnerClient, None]:
    """The academy."""
    async for client in _connect(platform, "education"):
        yield client


@pytest.fixture
async def tax(platform: Platform) -> AsyncGenerator[PartnerClient, None]:
    """The tax service."""
    async for client in _connect(platform, "tax"):
        yield client


@pytest.fixture
def ref() -> Callable[[], str]:
    """Order numbers nobody used before."""
    return lambda: f"t-{uuid.uuid4().hex[:16]}"


@pytest.fixture
def earning(ref: Callable[[], str]) -> Callable[..., dict[str, Any]]:
    """The body of an earning, good unless a test changes something."""

    def make(member: str, **changes: Any) -> dict[str, Any]:
        body = {
            "member": member,
            "source_ref": ref(),
            "kind": "purchase",
            "occurred_at": rfc3339(datetime.now(UTC)),
            "amount_fen": 129_900,
        }
        return body | changes

    return make
