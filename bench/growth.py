"""What an earning costs PostgreSQL as the bank grows: more members, then more entries, on one growing cluster.

Every member and every entry is made by the services, so the books stay true; ten million entries take half an hour. Smaller
ends are chosen with BENCH_GROWTH_MEMBERS and BENCH_GROWTH_ENTRIES, and the notes say which were reached.
"""

import os
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

import asyncpg
import uvloop

from bench import floor
from bench.ledger import Bench, Shop
from bench.measure import Run, quarter_of_memory_mb
from kernel import logs, migrate
from kernel.database import open_pool
from kernel.supervisor import EmbeddedServers, Endpoints
from kernel.supervisor.programs import find_postgres

FEW_MEMBERS, MANY_MEMBERS = 10**4, int(os.environ.get("BENCH_GROWTH_MEMBERS", "1000000"))
FEW_ENTRIES, MANY_ENTRIES = 10**5, int(os.environ.get("BENCH_GROWTH_ENTRIES", "10000000"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))


def measure(_orders: Path | None) -> list[dict[str, Any]]:
    """Both figures, on servers of their own."""
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
    pool = await open_pool(endpoints.database_url, size=8, statement_timeout_ms=60_000)
    bench = Bench(superuser, endpoints.superuser_url, postmaster, program)
    shop = await Shop.open(pool, members=FEW_MEMBERS)
    await shop.earn_in_bulk(FEW_ENTRIES)

    async def runs() -> list[Run]:
        await superuser.execute("VACUUM ANALYZE", timeout=3_600)
        await superuser.execute("CHECKPOINT", timeout=600)
        return [await bench.crowd(shop.earn()) for _ in range(ROUNDS)]

    small = await runs()
    await shop.enrol(MANY_MEMBERS)
    # as many entries for each as before, so that only the number of members differs
    await shop.earn_in_bulk(max(0, MANY_MEMBERS - FEW_ENTRIES))
    many_members = await runs()
    entries = await superuser.fetchval("SELECT count(*) FROM ledger_entry", timeout=600)
    await shop.earn_in_bulk(max(0, MANY_ENTRIES - entries))
    many_entries = await runs()
    reached = await superuser.fetchval("SELECT count(*) FROM ledger_entry", timeout=600)
    size = await superuser.fetchval("SELECT pg_database_size(current_database())")
    await pool.close()
    await superuser.close()
    bytes_each = f"{size / reached:,.0f} B of database per entry"
    return [
        _entry("growth_members", many_members, small, f"{MANY_MEMBERS:,} members against {FEW_MEMBERS:,}"),
        _entry("growth_entries", many_entries, small, f"{reached:,} entries; {bytes_each}"),
    ]


def _entry(name: str, mine: list[Run], theirs: list[Run], notes: str) -> dict[str, Any]:
    cost = statistics.median(run.postgres_us for run in mine)
    reference = statistics.median(run.postgres_us for run in theirs)
    rates = ", ".join(f"{run.rate:,.0f}/s" for run in mine)
    return {
        "name": name,
        "value": round(cost, 1),
        "unit": "µs",
        "against": f"{FEW_MEMBERS:,} members",
        "reference_value": round(reference, 1),
        "ratio": round(cost / reference, 2),
        "clients": 1_024,
        "notes": f"PostgreSQL's CPU per earning, less is better; {notes}; {rates}",
    }
