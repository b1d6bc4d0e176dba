"""How a command finds its system: what an earlier run left behind misleads nobody."""

import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path

import msgspec
import pytest

from gateway.attach import _keep_ring, attached
from kernel.settings import Settings
from kernel.supervisor.places import OUTSIDE


@pytest.fixture
def data_dir() -> Generator[Path, None, None]:
    """Not below pytest's own directory: there an unprivileged server's way is barred."""
    parent = Path(tempfile.mkdtemp(prefix="tessera-attach-", dir=OUTSIDE))
    parent.chmod(0o711)
    yield parent / "data"
    shutil.rmtree(parent)


def test_what_a_killed_serve_announced_is_not_believed(data_dir: Path) -> None:
    announced = data_dir / "secrets" / "running.json"
    announced.parent.mkdir(parents=True)
    data_dir.chmod(0o711)
    announced.write_bytes(msgspec.json.encode({"database_url": "postgresql://nobody@127.0.0.1:1/gone"}))
    settings = Settings(data_dir=str(data_dir))

    with attached(settings) as found:
        assert found.database_url is not None and "gone" not in found.database_url.reveal()
        assert not announced.exists()


def test_of_two_first_starts_one_makes_the_ring(tmp_path: Path) -> None:
    path = tmp_path / "master_keys"

    _keep_ring(path)
    first = path.read_text()
    _keep_ring(path)

    assert path.read_text() == first
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["master_keys"]
