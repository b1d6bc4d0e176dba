"""What ran before jobs had a frame is not run again, and what was under way goes on where it was."""

import shutil
from datetime import UTC, date, datetime
from pathlib import Path

import asyncpg

from kernel import jobs, migrate
from kernel.database import open_pool

AT = datetime(2026, 11, 1, 1, tzinfo=UTC)


async def test_statements_and_seals_of_before_are_runs(
    empty_owner_url: str, empty_app_url: str, tmp_path: Path
) -> None:
    whole, before = migrate.find_directory(), tmp_path / "migrations"
    before.mkdir()
    for file in sorted(whole.glob("*.sql"))[:9]:
        shutil.copy(file, before)
    await migrate.apply(empty_owner_url, before)
    owner = await asyncpg.connect(empty_owner_url)
    await owner.execute(
        "INSERT INTO ledger_job (job, period, after_bucket, after_member_id, after_point_type, made, started_at,"
        " finished_at) VALUES ('statements', '2026-09-01', 5, 6, 1, 70, $1, $1),"
        " ('statements', '2026-10-01', 7, 9007199254740993, 1, 80, $1, NULL)",
        AT,
    )
    await owner.execute(
        "INSERT INTO ledger_seal (lane, business_on, leaves, root, previous_hash, hash, sealed_at)"
        " SELECT lane, '2026-10-31', 2, sha256(''), '',"
        "        ledger_seal_hash(lane::smallint, '2026-10-31', 2, sha256(''), ''), $1"
        "   FROM generate_series(0, 7) AS lane",
        AT,
    )
    await owner.close()

    await migrate.apply(empty_owner_url, whole)

    async with await open_pool(empty_app_url, size=1) as pool, pool.acquire() as connection:
        runs = {(run.job, run.business_on): run for run in await jobs.list_runs(connection, limit=10)}
        cursor = await connection.fetchval("SELECT cursor FROM kernel_job_run WHERE finished_at IS NULL")
    assert {key: (run.done, run.finished_at) for key, run in runs.items()} == {
        ("statements", date(2026, 9, 1)): (70, AT),
        ("statements", date(2026, 10, 1)): (80, None),
        ("seal", date(2026, 10, 31)): (16, AT),
    }
    assert cursor == [7, 9007199254740993, 1]
