"""How fast the ledger writer posts, in process, against pgbench on the same cluster in the same rounds.

Every request goes through the writer as a gateway's worker has it: idempotency, consent, standing, lots, chain, claim,
event. Only HTTP and the proof are left out. Afterwards the books are checked; figures of untrue books are void.
"""

import asyncio
import itertools
import os
import random
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import uvloop
from msgspec.structs import replace

from bench import floor
from bench.measure import Figure, Run, best, cpu_seconds, entry, family, percentile, quarter_of_memory_mb
from gateway import books
from gateway.writer import Errand, LedgerWriter
from kernel import logs, migrate
from kernel.caller import Caller, MemberRef, Subjects
from kernel.clock import DatabaseClock
from kernel.database import Connection, Pool, acquire, open_pool, tell_time, transaction
from kernel.errors import Refusal
from kernel.idempotency import AnsweredBefore, keyed
from kernel.ids import new_id
from kernel.supervisor import EmbeddedServers, Endpoints
from kernel.supervisor.programs import find_postgres
from kernel.together import Asked, Kind
from kernel.vault import Vault, generate_ring
from partners.oauth.service import PairwiseSubjects, bind_customers
from partners.registry import service as registry
from points.earning import handlers as earning
from points.ledger import postings, service
from points.ledger.bodies import HoldCapture, HoldRequest
from points.ledger.model import EarnOutcome, EarnPosting, Grant

MEMBERS = 20_000
WAITING = 1_024
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
SECONDS = float(os.environ.get("BENCH_SECONDS", "3"))
WARM_SECONDS = 1.0
FUNDERS = 64
RICH_FEN = 10**11
SCOPES = ["points:earn", "points:spend", "members:read"]

Act = Callable[[], Awaitable[None]]


def measure(_orders: Path | None) -> list[dict[str, Any]]:
    """All figures, on servers of their own."""
    logs.configure("error")
    root = Path(tempfile.mkdtemp(prefix="tessera-bench-", dir="/var/tmp"))
    root.chmod(0o711)
    try:
        with EmbeddedServers(root / "data", buffers_mb=quarter_of_memory_mb()) as servers:
            program = find_postgres().programs / "pgbench"
            return uvloop.run(_measure(servers.endpoints, servers.pids()["postgres"], program))
    finally:
        shutil.rmtree(root, ignore_errors=True)


async def _measure(endpoints: Endpoints, postmaster: int, program: Path) -> list[dict[str, Any]]:
    await migrate.apply(endpoints.migration_url, migrate.find_directory())
    await floor.prepare(endpoints.superuser_url)
    superuser = await asyncpg.connect(endpoints.superuser_url.replace("/postgres?", "/tessera?"), timeout=10)
    pool = await open_pool(endpoints.database_url, size=8)
    hurried = await open_pool(endpoints.database_url + "&options=-csynchronous_commit%3Doff", size=4)
    shop = await Shop.open(pool)
    await shop.fund()
    await superuser.execute(
        "INSERT INTO ledger_funder (code, kind) SELECT 'bench-' || n, 'merchant' FROM generate_series(2, $1) AS n",
        FUNDERS,
    )
    await superuser.execute("VACUUM ANALYZE")
    bench = Bench(superuser, endpoints.superuser_url, postmaster, program)
    figures: dict[str, Figure] = {}

    async def act(name: str, make: Callable[["Shop"], Act], over: Pool = pool) -> None:
        run = await bench.crowd(make(shop.over(over)))
        figures.setdefault(name, Figure(name=name, clients=WAITING, runs=[])).runs.append(run)

    async def refer(name: str, script: str, clients: int) -> None:
        run = await bench.reference(script, clients)
        figures.setdefault(name, Figure(name=name, clients=clients, runs=[])).runs.append(run)

    for _ in range(ROUNDS):
        await refer("pgbench_hot", floor.HOT, 4)
        await refer("pgbench_hot_16", floor.HOT, 16)
        await act("ledger_hot", Shop.earn)
        await refer("pgbench_uniform", floor.UNIFORM, 16)
        await act("ledger_one_funder", lambda shop: shop.earn_of(1))
        await act("ledger_many_funders", lambda shop: shop.earn_of(FUNDERS))
        await act("ledger_spend", Shop.spend)
        await act("ledger_holds", lambda shop: shop.hold(abused=False))
        await act("ledger_abuse", lambda shop: shop.hold(abused=True))
        await act("ledger_sync_off", Shop.earn, hurried)
    findings = [finding.view for finding in await books.check(superuser) if finding.rows]
    if findings:
        raise SystemExit(f"the books are not true, the figures are void: {', '.join(findings)}")
    await superuser.close()
    await pool.close()
    await hurried.close()
    floor_hot = best("pgbench_hot", [figures["pgbench_hot"], figures["pgbench_hot_16"]])
    floor_hot.clients = 4
    hot_vs = figures["ledger_one_funder"]
    hot_vs.name = "ledger_hot_vs_uniform"
    durable = Figure(name="ledger_durability", clients=WAITING, runs=figures["ledger_hot"].runs)
    return [
        entry(floor_hot, floor_hot, notes="A*: the better of 4 and 16 clients in each round"),
        entry(figures["pgbench_uniform"], floor_hot),
        entry(figures["ledger_hot"], floor_hot, notes="no proof; bank as funder, one partner"),
        entry(hot_vs, figures["ledger_many_funders"], notes=f"one funder against {FUNDERS}"),
        entry(figures["ledger_spend"], floor_hot, notes="pairs of hold and capture"),
        entry(figures["ledger_abuse"], figures["ledger_holds"], notes="holds; 5 % replays, 5 % overdrafts"),
        entry(durable, figures["ledger_sync_off"], notes="against synchronous_commit off"),
    ]


class Bench:
    """Runs a crowd or a reference, and says what it cost."""

    def __init__(
        self, superuser: "asyncpg.Connection[asyncpg.Record]", url: str, postmaster: int, program: Path
    ) -> None:
        self._superuser = superuser
        self._url = url
        self._postmaster = postmaster
        self._pgbench = program

    async def crowd(self, act: Act) -> Run:
        """So many at once, each again as soon as it is answered; the first second does not count."""
        latencies: list[float] = []
        over = time.perf_counter() + WARM_SECONDS + SECONDS
        begun = over - SECONDS

        async def go() -> None:
            while (started := time.perf_counter()) < over:
                await act()
                if started >= begun:
                    latencies.append(time.perf_counter() - started)

        crowd = [asyncio.create_task(go()) for _ in range(WAITING)]
        await asyncio.sleep(WARM_SECONDS)
        before = await self._reading()
        await asyncio.sleep(SECONDS)
        done = len(latencies)
        after = await self._reading()
        await asyncio.gather(*crowd)
        latencies.sort()
        seconds = after[0] - before[0]
        return Run(
            rate=done / seconds,
            postgres_us=(after[1] - before[1]) / done * 1e6,
            client_us=(after[2] - before[2]) / done * 1e6,
            wal_bytes=(after[3] - before[3]) / done,
            p50_ms=percentile(latencies, 0.5) * 1e3,
            p99_ms=percentile(latencies, 0.99) * 1e3,
        )

    async def reference(self, script: str, clients: int) -> Run:
        before = await self._reading()
        run, cpu = await asyncio.to_thread(
            floor.pgbench, self._pgbench, self._url, script=script, clients=clients, seconds=SECONDS
        )
        after = await self._reading()
        done = run.rate * max(1, round(SECONDS))
        return replace(
            run,
            postgres_us=(after[1] - before[1]) / done * 1e6,
            client_us=cpu / done * 1e6,
            wal_bytes=(after[3] - before[3]) / done,
        )

    async def _reading(self) -> tuple[float, float, float, int]:
        """The time, PostgreSQL's CPU seconds and ours, and the WAL's end."""
        wal = await self._superuser.fetchval("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
        # sessions come and go: what ended ones used is the postmaster's by then
        return time.perf_counter(), cpu_seconds(family(self._postmaster)), time.process_time(), int(wal)


class Shop:
    """One partner with many members, and the requests its app would send."""

    def __init__(
        self,
        pool: Pool,
        caller: Caller,
        subs: list[str],
        members: list[MemberRef],
        clock: DatabaseClock,
    ) -> None:
        self._pool = pool
        self._caller = caller
        self._subs = subs
        self._members = members
        self._clock = clock
        self._vault = Vault(_RING)
        self._writer = LedgerWriter(pool, vault=self._vault, subjects=PairwiseSubjects())
        self._answered: list[tuple[str, HoldRequest]] = []

    @classmethod
    async def open(cls, pool: Pool, *, members: int = MEMBERS) -> "Shop":
        clock = DatabaseClock()
        async with acquire(pool) as connection:
            await tell_time(clock, connection)
        now = clock.now()
        async with transaction(pool) as connection:
            partner_id = await registry.register_partner(
                connection,
                slug="bench",
                name_zh="压测商城",
                name_en="Bench",
                kind="service_provider",
                scene="ecommerce",
                status="live",
                now=now,
            )
            app = await registry.register_app(
                connection, partner_id=partner_id, scopes=SCOPES, rate_per_second=10**6, burst=10**6, now=now
            )
        caller = Caller(
            partner_id=partner_id,
            app_id=app.id,
            client_id=app.client_id,
            scopes=frozenset(SCOPES),
            key_thumbprint="",
        )
        shop = cls(pool, caller, [], [], clock)
        await shop.enrol(members)
        return shop

    async def enrol(self, members: int) -> None:
        """As many members as that, in all."""
        for begin in range(len(self._subs), members, 1_000):
            refs = [str(number) for number in range(begin, min(begin + 1_000, members))]
            now = self._clock.now()
            async with transaction(self._pool) as connection:
                bound = await bind_customers(
                    connection,
                    partner_id=self._caller.partner_id,
                    customer_refs=refs,
                    mode="sandbox",
                    vault=self._vault,
                    now=now,
                )
                subs = list(bound.values())
                found = await PairwiseSubjects().resolve(
                    connection, self._caller, subs, scope="points:earn", now=now
                )
            self._subs += subs
            self._members += [found[sub] for sub in subs]

    def over(self, pool: Pool) -> "Shop":
        """The same, through another pool."""
        return (
            self if pool is self._pool else Shop(pool, self._caller, self._subs, self._members, self._clock)
        )

    async def fund(self) -> None:
        """Every member can spend, and more than one lot lies in every wallet."""
        at_once = asyncio.Semaphore(WAITING)

        async def give(sub: str) -> None:
            async with at_once:
                await self._post(earning.EARNINGS, self._earning(sub, RICH_FEN))

        await asyncio.gather(*(give(sub) for sub in self._subs))

    async def earn_in_bulk(self, entries: int) -> None:
        """So many earnings of members in turn, posted a thousand at a time."""
        begins = iter(range(0, entries, 1_000))

        async def post() -> None:
            for begin in begins:
                now = self._clock.now()
                postings = [
                    self._posting(self._members[n % len(self._members)], 1, now)
                    for n in range(begin, begin + 1_000)
                ]
                async with transaction(self._pool) as connection:
                    await service.post_earnings(connection, postings, now=now)

        await asyncio.gather(*(post() for _ in range(2)))

    def earn(self) -> Act:
        async def act() -> None:
            await self._post(earning.EARNINGS, self._earning(random.choice(self._subs), 129_900))

        return act

    def earn_of(self, funders: int) -> Act:
        """Earnings decided beforehand, paid by so many funders."""

        async def act() -> None:
            member, funder_id = random.choice(self._members), random.randint(1, funders)
            await self._post(POSTINGS, self._posting(member, funder_id, self._clock.now()))

        return act

    def _posting(self, member: MemberRef, funder_id: int, now: datetime) -> EarnPosting:
        grant = Grant(rule="base", multiplier_pct=100, points=1_299, lot_id=new_id(now), funder_id=funder_id)
        return EarnPosting(
            operation_id=new_id(now),
            member=member,
            partner_id=self._caller.partner_id,
            source_kind="purchase",
            source_ref=str(uuid4()),
            amount_fen=129_900,
            occurred_at=now,
            rule_version=1,
            tier="start",
            multiplier_pct=100,
            own_card=True,
            category=None,
            grants=(grant,),
        )

    def spend(self) -> Act:
        async def act() -> None:
            held = await self._post(postings.HOLDS, self._hold(10))
            await self._post(postings.CAPTURES, postings.Capture(id=held.id, wish=HoldCapture()))

        return act

    def hold(self, *, abused: bool) -> Act:
        async def act() -> None:
            chance = random.random() if abused else 1.0
            if chance < 0.05 and self._answered:
                key, body = random.choice(self._answered)
            else:
                key, body = next(_KEYS), self._hold(10**12 if chance < 0.1 else 1)
            try:
                await self._post(postings.HOLDS, body, key=key)
            except (service.InsufficientPoints, AnsweredBefore):
                return
            if len(self._answered) < 10_000:
                self._answered.append((key, body))

        return act

    async def _post(self, kind: Kind[Any, Any], item: Any, *, key: str | None = None) -> Any:
        named = str(item.points) if isinstance(item, HoldRequest) else ""
        errand = Errand(
            caller=self._caller,
            proof=None,
            request=keyed(
                app_id=self._caller.app_id, key=key or next(_KEYS), fingerprint=named.encode().ljust(32)
            ),
            status=201,
            now=self._clock.now(),
            item=item,
        )
        return (await self._writer.post(kind, errand)).value

    def _earning(self, sub: str, amount_fen: int) -> earning.EarnRequest:
        return earning.EarnRequest(
            member=sub,
            source_ref=f"order-{next(_NUMBERS)}",
            kind="purchase",
            occurred_at=self._clock.now(),
            amount_fen=amount_fen,
            category="appliances",
            own_card=True,
        )

    def _hold(self, points: int) -> HoldRequest:
        return HoldRequest(
            member=random.choice(self._subs), points=points, order_ref="order", ttl_seconds=600
        )


async def _post_decided(
    connection: Connection, asked: Sequence[Asked[EarnPosting]], _subjects: Subjects, now: datetime
) -> list[EarnOutcome | Refusal]:
    return list(await service.post_earnings(connection, [one.item for one in asked], now=now))


POSTINGS: Kind[EarnPosting, EarnOutcome] = Kind("bench_postings", _post_decided)
_RING = generate_ring()
_RUN = uuid4()
#: no key comes twice, and a key costs the load generator next to nothing
_KEYS = (f"{_RUN}-{number}" for number in itertools.count())
#: of the partner's orders
_NUMBERS = itertools.count(10**9)
