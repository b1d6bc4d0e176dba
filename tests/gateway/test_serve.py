"""`tessera serve` as its operator meets it: when it says it is ready, what it refuses, and what it leaves behind."""

import os
import re
import shutil
import signal
import socket
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from faults import STOP_SECONDS, Serve, alive, children_of, frozen, gone, left_of, refused, run_command

from kernel.supervisor.process import free_port, wait_until

OPS_PORT = free_port()
#: the machine may be busy with something else


@contextmanager
def own_root() -> Generator[Path, None, None]:
    """A directory that the servers' user can pass through."""
    root = Path(tempfile.mkdtemp(prefix="tessera-serve-", dir="/var/tmp"))
    root.chmod(0o711)
    try:
        yield root
    finally:
        shutil.rmtree(root)


@pytest.fixture(scope="module")
def serve() -> Generator[Serve, None, None]:
    """A running platform of two HTTP workers with its own servers."""
    with own_root() as root:
        serve = Serve(root, "--ops-port", str(OPS_PORT))
        try:
            serve.start()
            yield serve
        finally:
            serve.reap()


@pytest.fixture
def root() -> Generator[Path, None, None]:
    with own_root() as root:
        yield root


def test_it_answers_once_it_says_that_it_is_ready(serve: Serve) -> None:
    answer = httpx.get(f"{serve.base_url}/readyz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ready"})


def test_on_existing_data_it_is_ready_again_with_what_it_had(serve: Serve) -> None:
    # How long that takes is measured, not tested: `make bench ONLY=orders` reports serve_ready_seconds.
    credentials = serve.data_dir / "sandbox" / "partners" / "ecommerce.json"
    before = credentials.read_bytes()
    assert serve.stop() == 0

    serve.start()

    assert credentials.read_bytes() == before


def test_a_second_one_on_the_same_data_is_refused(serve: Serve) -> None:
    done = serve.run("serve", "--port", "0")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"is in use by process {serve.pid}: stop that one or choose another" in done.stderr
    assert httpx.get(f"{serve.base_url}/readyz").status_code == 200


def test_a_port_that_is_taken_is_refused(serve: Serve, root: Path) -> None:
    done = run_command("serve", "--port", str(serve.port), "--data-dir", str(root / "data"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"tessera: port {serve.port} of 127.0.0.1 is in use\n"
    assert not (root / "data").exists()


def test_an_ops_port_that_is_taken_is_refused(serve: Serve) -> None:
    serve.stop()
    with socket.socket() as other:
        other.bind(("127.0.0.1", OPS_PORT))
        other.listen()
        serve.launch()
        family = serve.family()
        assert serve.wait() == 2
    assert f"tessera: the ops port {OPS_PORT} of 127.0.0.1 cannot be used" in serve.log.read_text()
    assert gone(family)
    serve.start()


@pytest.mark.parametrize(
    ("variable", "value", "complaint"),
    [
        ("TESSERA_DATABSE_URL", "postgresql://", "TESSERA_DATABSE_URL is not a setting"),
        ("TESSERA_WORKERS", "many", "a TESSERA_… variable is wrong"),
        ("TESSERA_MODE", "live", "TESSERA_BASE_URL is required in live mode"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    root: Path, variable: str, value: str, complaint: str
) -> None:
    done = run_command("serve", "--data-dir", str(root / "data"), environment={variable: value})
    assert (done.returncode, done.stdout) == (2, "")
    assert complaint in done.stderr and "Traceback" not in done.stderr
    assert not (root / "data").exists()


def test_metrics_of_all_workers_are_on_the_ops_port_only(serve: Serve) -> None:
    before = _live_requests()
    first, second = serve.http_workers()
    for silent in (first, second):
        with frozen([silent]):
            for _ in range(10):
                assert httpx.get(f"{serve.base_url}/livez").status_code == 200
    assert _live_requests() - before == 20
    hidden = httpx.get(f"{serve.base_url}/metrics")
    assert (hidden.status_code, hidden.json()["code"]) == (404, "route_unknown")


def _live_requests() -> int:
    text = httpx.get(f"http://127.0.0.1:{OPS_PORT}/metrics").text
    found = re.search(r'tessera_requests_total\{method="GET",route="/livez",status="200"\} ([\d.]+)', text)
    return int(float(found[1])) if found else 0


def test_a_dead_worker_is_replaced(serve: Serve) -> None:
    for pid in (serve.http_workers()[0], serve.background_worker()):
        os.kill(pid, signal.SIGKILL)
        assert gone([pid])
    assert wait_until(serve.is_whole, STOP_SECONDS)
    assert httpx.get(f"{serve.base_url}/readyz").status_code == 200


def test_migrate_tells_what_is_missing_and_applies_it(serve: Serve, empty_owner_url: str) -> None:
    on_serve = {"TESSERA_MIGRATION_URL": serve.announced()["migration_url"]}
    checked = run_command("migrate", "--check", environment=on_serve)
    assert (checked.returncode, checked.stdout) == (0, "up to date\n")

    on_empty = {"TESSERA_MIGRATION_URL": empty_owner_url}
    checked = run_command("migrate", "--check", environment=on_empty)
    assert checked.returncode == 1 and checked.stdout.startswith("pending 0001_kernel")
    applied = run_command("migrate", environment=on_empty)
    assert applied.returncode == 0 and applied.stdout.startswith("applied 0001_kernel")
    assert run_command("migrate", "--check", environment=on_empty).returncode == 0

    without = run_command("migrate", "--check")
    assert (without.returncode, without.stderr) == (
        2,
        "tessera: TESSERA_MIGRATION_URL is required to migrate\n",
    )


def test_servers_that_are_named_are_used_and_not_started(
    root: Path, empty_app_url: str, empty_owner_url: str, redis_url: str
) -> None:
    named = {
        "TESSERA_DATABASE_URL": empty_app_url,
        "TESSERA_MIGRATION_URL": empty_owner_url,
        "TESSERA_REDIS_URL": redis_url,
    }
    serve = Serve(root, workers=1, environment=named)
    try:
        serve.start()
        assert httpx.get(f"{serve.base_url}/readyz").json() == {"status": "ready"}
        assert serve.partner("ecommerce").base_url == serve.base_url
        children = [words.rpartition(" gateway ")[2] for words in children_of(serve.pid).values()]
        assert sorted(words.split()[0] for words in children) == ["http", "worker"]
        assert serve.stop() == 0
    finally:
        serve.reap()
    assert sorted(path.name for path in (root / "data").iterdir()) == ["sandbox", "secrets"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_end_leaves_nothing_running(serve: Serve, number: signal.Signals) -> None:
    family, tags = serve.family(), serve.tags()
    serve.signal(number)
    assert serve.wait() == 0
    assert gone(family), alive(family)
    assert left_of(tags) == []
    serve.start()


def test_an_end_before_it_is_ready_leaves_nothing_running(serve: Serve) -> None:
    serve.stop()
    serve.launch()
    assert wait_until(lambda: not refused(serve.port), STOP_SECONDS)
    serve.signal(signal.SIGTERM)
    assert (serve.wait(), serve.read_line()) == (0, "")
    assert refused(serve.port)
    serve.start()


def test_a_killed_parent_takes_everything_along(serve: Serve) -> None:
    family, tags = serve.family(), serve.tags()
    serve.signal(signal.SIGKILL)
    assert serve.wait() == -signal.SIGKILL
    assert gone(family), alive(family)
    assert left_of(tags) == []
    serve.start()
    assert len(list(serve.data_dir.glob("metrics-*"))) == 1
