"""How fast the platform answers over HTTP: a real `serve` with two workers, a load of its own process, pgbench beside it.

Every earning has a proof of its own (`http_earn_dpop`) or comes with the certificate its token is bound to
(`http_earn_hot`), is counted, deduplicated, posted and told. CPU of server and PostgreSQL is read from /proc around each run.
"""

import asyncio
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from signal import SIGTERM
from typing import Any

import asyncpg
import httpx
import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from bench import floor
from bench.bare import OPEN_PATH, PATH
from bench.load import Loaded, Spec
from bench.measure import Figure, Run, best, cpu_seconds, entry, family, quarter_of_memory_mb
from gateway.attach import HOST
from gateway.client import PartnerClient
from gateway.credentials import read_credentials
from kernel import migrate
from kernel.supervisor import EmbeddedServers, Endpoints
from kernel.supervisor.process import spawn
from kernel.supervisor.programs import find_postgres

ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
SECONDS = float(os.environ.get("BENCH_SECONDS", "3"))
MEMBERS = 10_000
WORKERS = 2
CONNECTIONS = 64
BATCH = 1_000
READY_SECONDS = 120.0
#: more requests are not prepared for a second than any run has ever needed
PER_SECOND = 6_000
DNS_NAME = "bench.example"
BIND_TO_CERTIFICATE = """
UPDATE registry_app
   SET token_binding = 'certificate', certificate_subject = $2, dpop_nonce_required = false,
       request_signature = 'optional'
 WHERE client_id = $1
"""


def measure(_orders: Path | None) -> list[dict[str, Any]]:
    """All figures, on servers of their own."""
    root = Path(tempfile.mkdtemp(prefix="tessera-bench-", dir="/var/tmp"))
    root.chmod(0o711)
    try:
        with EmbeddedServers(root / "servers", buffers_mb=quarter_of_memory_mb()) as servers:
            bench = Bench(root, servers.endpoints, servers.pids()["postgres"])
            return asyncio.run(bench.measure())
    finally:
        shutil.rmtree(root, ignore_errors=True)


class Bench:
    """The platform under load, and what it costs."""

    def __init__(self, root: Path, endpoints: Endpoints, postmaster: int) -> None:
        self._root = root
        self._data_dir = root / "data"
        self._endpoints = endpoints
        self._postmaster = postmaster
        self._figures: dict[str, Figure] = {}
        self._subs: list[str] = []
        self._private_port = free_port()
        self._certificate = ""
        self._bound_client = ""

    async def measure(self) -> list[dict[str, Any]]:
        await migrate.apply(self._endpoints.migration_url, migrate.find_directory())
        await floor.prepare(self._endpoints.superuser_url)
        program = find_postgres().programs / "pgbench"
        with self._started("serve", "--port", "0", "--workers", str(WORKERS)) as serve:
            await self._enrol(serve.url)
            credentials = str(self._credentials())
            with (
                self._listening("plain", serve.url) as plain,
                self._listening("proved", serve.url) as proved,
            ):
                for _ in range(ROUNDS):
                    await self._refer("pgbench_hot", program, 4)
                    await self._refer("pgbench_hot_16", program, 16)
                    await self._load("bare", plain, Spec(**self._get(plain.url, None)))
                    await self._load("open", proved, Spec(**self._get(proved.url, None, OPEN_PATH)))
                    await self._load("proved", proved, Spec(**self._get(proved.url, credentials)))
                    await self._load("http_earn_dpop", serve, self._earn(serve.url, CONNECTIONS))
                    await self._load("http_earn_16", serve, self._earn(serve.url, 16))
                    await self._load("http_earn_hot", serve, self._earn_bound())
                    await self._load("http_batch_earn", serve, self._batch(serve.url))
            await self._check_books()
        return self._entries()

    def _entries(self) -> list[dict[str, Any]]:
        figures = self._figures
        floor_hot = best("pgbench_hot", [figures["pgbench_hot"], figures["pgbench_hot_16"]])
        floor_hot.clients = 4
        told = [
            entry(floor_hot, floor_hot, notes="A*: the better of 4 and 16 clients in each round"),
            entry(figures["bare"], floor_hot, notes="our server and router, an empty handler, one worker"),
            entry(figures["http_earn_hot"], floor_hot, notes="certificate-bound token, two workers"),
            entry(figures["http_earn_dpop"], floor_hot, notes="a fresh proof each, two workers"),
            entry(figures["http_batch_earn"], floor_hot, unit="items/s", notes=f"{BATCH} in a request"),
        ]
        cost = _costs(figures["http_earn_hot"])
        told.append(
            _ratio("http_cpu", "µs", cost, "pgbench_hot", _costs(figures["pgbench_hot"]), CONNECTIONS)
        )
        cost = _costs(figures["http_earn_dpop"])
        told.append(
            _ratio("http_cpu_dpop", "µs", cost, "pgbench_hot", _costs(figures["pgbench_hot"]), CONNECTIONS)
        )
        proved, bare = _costs(figures["proved"]), _costs(figures["bare"])
        told.append(_ratio("auth_cost", "µs", proved, "bare", bare, CONNECTIONS))
        told.append(_ratio("auth_cost_open", "µs", proved, "open", _costs(figures["open"]), CONNECTIONS))
        slowest = [run.p99_ms for run in figures["http_earn_16"].runs]
        floor_p99 = [run.p99_ms for run in figures["pgbench_hot_16"].runs]
        told.append(_ratio("http_p99", "ms", slowest, "pgbench_hot_16", floor_p99, 16))
        return told

    async def _load(self, name: str, server: "Server", spec: Spec) -> None:
        file = self._root / "spec.json"
        file.write_bytes(msgspec.json.encode(spec))
        load = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.load", str(file)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_environment({}),
        )
        assert load.stdin is not None and load.stdout is not None
        async with asyncio.timeout(READY_SECONDS + 2 * spec.seconds):
            if await load.stdout.readline() != b"ready\n":
                raise SystemExit(f"the load of {name} was not prepared")
            before = self._cpu(server)
            wal = await self._wal()
            load.stdin.write(b"go\n")
            loaded = msgspec.json.decode(await load.stdout.readline(), type=Loaded)
            after = self._cpu(server)
            await load.wait()
        if not loaded.done or any(not status.startswith("2") for status in loaded.statuses):
            raise SystemExit(f"{name} was refused: {loaded.statuses}")
        done = loaded.done * spec.items
        run = Run(
            rate=done / loaded.seconds,
            postgres_us=(after[0] - before[0]) / done * 1e6,
            client_us=(after[1] - before[1]) / done * 1e6,
            wal_bytes=(await self._wal() - wal) / done,
            p50_ms=loaded.p50_ms,
            p99_ms=loaded.p99_ms,
        )
        self._figures.setdefault(name, Figure(name=name, clients=spec.connections, runs=[])).runs.append(run)

    async def _refer(self, name: str, program: Path, clients: int) -> None:
        before = cpu_seconds(family(self._postmaster))
        run, cpu = await asyncio.to_thread(
            floor.pgbench,
            program,
            self._endpoints.superuser_url,
            script=floor.HOT,
            clients=clients,
            seconds=SECONDS,
        )
        done = run.rate * max(1, round(SECONDS))
        postgres = cpu_seconds(family(self._postmaster)) - before
        run = msgspec.structs.replace(run, postgres_us=postgres / done * 1e6, client_us=cpu / done * 1e6)
        self._figures.setdefault(name, Figure(name=name, clients=clients, runs=[])).runs.append(run)

    def _cpu(self, server: "Server") -> tuple[float, float]:
        """CPU seconds of PostgreSQL and of the server's processes."""
        return cpu_seconds(family(self._postmaster)), cpu_seconds(family(server.pid))

    async def _wal(self) -> int:
        connection = await asyncpg.connect(self._endpoints.superuser_url, timeout=10)
        try:
            return int(await connection.fetchval("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"))
        finally:
            await connection.close()

    def _get(self, url: str, credentials: str | None, path: str = PATH) -> dict[str, Any]:
        return {
            "url": url,
            "credentials": credentials,
            "method": "GET",
            "path": path,
            "connections": CONNECTIONS,
            "seconds": SECONDS,
            "prepared": round(PER_SECOND * SECONDS * (1 if credentials else 4)),
        }

    def _earn(self, url: str, connections: int) -> Spec:
        return Spec(
            url=url,
            credentials=str(self._credentials()),
            path="/v1/points/earnings",
            subs=self._subs,
            connections=connections,
            seconds=SECONDS,
            prepared=round(PER_SECOND * SECONDS),
        )

    def _earn_bound(self) -> Spec:
        """Through the port on which the proxy in front vouches for certificates."""
        return Spec(
            url=f"http://{HOST}:{self._private_port}",
            credentials=None,
            certificate=self._certificate,
            client_id=self._bound_client,
            path="/v1/points/earnings",
            subs=self._subs,
            connections=CONNECTIONS,
            seconds=SECONDS,
            prepared=round(4 * PER_SECOND * SECONDS),
        )

    def _batch(self, url: str) -> Spec:
        return Spec(
            url=url,
            credentials=str(self._credentials()),
            path="/v1/points/earnings/batch",
            subs=self._subs,
            items=BATCH,
            connections=2 * WORKERS,
            seconds=SECONDS,
            prepared=round(60 * SECONDS),
        )

    def _credentials(self) -> Path:
        return self._data_dir / "sandbox" / "partners" / "ecommerce.json"

    async def _enrol(self, url: str) -> None:
        """Customers with consent, and a limit that does not bind."""
        async with PartnerClient(read_credentials(self._credentials()), base_url=url) as client:
            for begin in range(0, MEMBERS, BATCH):
                refs = [f"bench-{number}" for number in range(begin, begin + BATCH)]
                answer = await client.post("/v1/members/bindings", {"customer_refs": refs})
                self._subs += [binding["member"] for binding in answer["bindings"]]
        connection = await asyncpg.connect(
            self._endpoints.superuser_url.replace("/postgres?", "/tessera?"), timeout=10
        )
        await connection.execute("UPDATE registry_app SET rate_per_second = 1000000, burst = 1000000")
        self._bound_client = read_credentials(self._data_dir / "sandbox/strict/ecommerce.json").client_id
        self._certificate = _make_certificate()
        await connection.execute(BIND_TO_CERTIFICATE, self._bound_client, f"dns:{DNS_NAME}")
        await connection.execute("VACUUM ANALYZE")
        await connection.close()
        await asyncio.sleep(2)  # the verifier's knowledge of an app lives for a second

    async def _check_books(self) -> None:
        command = [sys.executable, "-m", "gateway", "books", "check", "--data-dir", str(self._data_dir)]
        done = await asyncio.to_thread(
            subprocess.run,
            command,
            capture_output=True,
            text=True,
            timeout=300,
            env=self._where(),
            check=False,
        )
        if done.returncode != 0:
            raise SystemExit(f"the books are not true, the figures are void: {done.stdout}{done.stderr}")

    @contextmanager
    def _started(self, *command: str) -> Generator["Server", None, None]:
        arguments = [sys.executable, "-m", "gateway", *command, "--data-dir", str(self._data_dir)]
        with _process(arguments, self._root / "serve.log", self._where()) as (process, line):
            yield Server(pid=process.pid, url=line.removeprefix("ready ").strip())

    @contextmanager
    def _listening(self, kind: str, base_url: str) -> Generator["Server", None, None]:
        arguments = [sys.executable, "-m", "bench.bare", kind, str(self._data_dir)]
        with _process(
            arguments, self._root / f"{kind}.log", self._where() | {"TESSERA_BASE_URL": base_url}
        ) as (process, line):
            yield Server(pid=process.pid, url=f"http://127.0.0.1:{line.strip()}")

    def _where(self) -> dict[str, str]:
        return _environment(
            {
                "TESSERA_DATABASE_URL": self._endpoints.database_url,
                "TESSERA_MIGRATION_URL": self._endpoints.migration_url,
                "TESSERA_REDIS_URL": self._endpoints.redis_url,
                "TESSERA_PRIVATE_PORT": str(self._private_port),
            }
        )


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """A process that answers."""

    pid: int
    url: str


@contextmanager
def _process(
    arguments: Sequence[str], log: Path, environment: dict[str, str]
) -> Generator[tuple["subprocess.Popen[bytes]", str], None, None]:
    """A child, and the first line it says."""
    with log.open("ab") as errors:
        process = spawn(
            list(arguments),
            identity=None,
            death_signal=SIGTERM,
            output=subprocess.PIPE,
            errors=errors,
            environment=environment,
        )
    try:
        assert process.stdout is not None
        readable, _, _ = select.select([process.stdout], [], [], READY_SECONDS)
        line = process.stdout.readline().decode() if readable else ""
        if not line:
            raise SystemExit(f"{arguments[2]} did not begin: {log.read_text()[-2_000:]}")
        yield process, line
    finally:
        process.terminate()
        try:
            process.wait(60)
        finally:
            process.kill()
            if process.stdout is not None:
                process.stdout.close()


@contextmanager
def quiet_process(
    command: list[str], log: Path, environment: dict[str, str]
) -> Generator["subprocess.Popen[bytes]", None, None]:
    """A child that says nothing when it is ready."""
    with log.open("ab") as errors:
        process = spawn(
            command,
            identity=None,
            death_signal=SIGTERM,
            output=errors,
            errors=errors,
            environment=environment,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(60)
        finally:
            process.kill()


def _make_certificate() -> str:
    """As a proxy hands one on (RFC 9440 §2.1)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "bench")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(DNS_NAME)]), critical=False)
        .sign(key, SHA256())
    )
    return f":{b64encode(made.public_bytes(Encoding.DER)).decode()}:"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        return int(listener.getsockname()[1])


def await_answer(url: str) -> None:
    """Return when somebody answers there, whatever it is."""
    until = time.monotonic() + READY_SECONDS
    while True:
        try:
            httpx.get(url, timeout=10)
        except httpx.HTTPError:
            if time.monotonic() > until:
                raise SystemExit(f"nobody answers at {url}") from None
            time.sleep(0.05)
        else:
            return


def _environment(more: dict[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TESSERA_")}
    return kept | more


def _costs(figure: Figure) -> list[float]:
    return [run.postgres_us + run.client_us for run in figure.runs]


def _ratio(
    name: str, unit: str, mine: Sequence[float], against: str, theirs: Sequence[float], clients: int
) -> dict[str, Any]:
    """A cost against another's of the same rounds; less is better."""
    ratios = sorted(one / other for one, other in zip(mine, theirs, strict=True))
    return {
        "name": name,
        "value": round(sorted(mine)[len(mine) // 2], 1),
        "unit": unit,
        "against": against,
        "reference_value": round(sorted(theirs)[len(theirs) // 2], 1),
        "ratio": round(ratios[len(ratios) // 2], 2),
        "clients": clients,
        "notes": f"less is better; ratio {ratios[0]:.2f}–{ratios[-1]:.2f}; {json.dumps([round(v) for v in mine])}",
    }
