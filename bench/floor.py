"""The reference: the strongest way to post one transfer per transaction, driven by pgbench on the same cluster.

One round trip to a prepared PL/pgSQL function that writes two entries and two balances. Hot: one of the two accounts is
the same for everybody, and locked last. It has no idempotency, no lots, no chain, no events.
"""

import os
import re
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg

from bench.measure import Run, percentile

DATABASE = "bench_floor"
ACCOUNTS = 20_000

TABLES = f"""
CREATE TABLE account (id int PRIMARY KEY, balance bigint NOT NULL DEFAULT 0) WITH (fillfactor = 50);
CREATE TABLE entry (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, account_id int NOT NULL, amount bigint NOT NULL,
                    balance_after bigint NOT NULL, at timestamptz NOT NULL);
INSERT INTO account SELECT generate_series(0, {ACCOUNTS})
"""  # a number of our own
FUNCTION = """
CREATE FUNCTION transfer_one(payer int, payee int, amount bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    first  int := greatest(payer, payee);
    second int := least(payer, payee);
    after_first  bigint;
    after_second bigint;
BEGIN
    UPDATE account SET balance = balance + CASE WHEN id = payer THEN -amount ELSE amount END
     WHERE id = first RETURNING balance INTO after_first;
    UPDATE account SET balance = balance + CASE WHEN id = payer THEN -amount ELSE amount END
     WHERE id = second RETURNING balance INTO after_second;
    INSERT INTO entry (account_id, amount, balance_after, at)
    VALUES (first, CASE WHEN first = payer THEN -amount ELSE amount END, after_first, now()),
           (second, CASE WHEN second = payer THEN -amount ELSE amount END, after_second, now());
    RETURN after_first;
END $$
"""
HOT = f"\\set payer random(1, {ACCOUNTS})\nSELECT transfer_one(:payer, 0, 1);\n"
UNIFORM = f"\\set payer random(1, {ACCOUNTS})\n\\set payee random(1, {ACCOUNTS})\nSELECT transfer_one(:payer, :payee, 1);\n"


async def prepare(superuser_url: str) -> None:
    """The reference's own database."""
    connection = await asyncpg.connect(superuser_url)
    await connection.execute(f"CREATE DATABASE {DATABASE}")
    await connection.close()
    connection = await asyncpg.connect(urlsplit(superuser_url)._replace(path=f"/{DATABASE}").geturl())
    for statement in (*TABLES.split(";"), FUNCTION, "VACUUM ANALYZE account"):
        await connection.execute(statement)
    await connection.close()


def pgbench(
    program: Path, superuser_url: str, *, script: str, clients: int, seconds: float
) -> tuple[Run, float]:
    """One run of pgbench, and its own CPU seconds; PostgreSQL's are the caller's to add."""
    parts = urlsplit(superuser_url)
    where = parse_qs(parts.query)
    host, port = where.get("host", [parts.hostname or ""])[0], where.get("port", [str(parts.port or 5432)])[0]
    environment = os.environ | {"PGPASSWORD": parts.password or ""}
    with tempfile.TemporaryDirectory(prefix="tessera-pgbench-", dir="/var/tmp") as directory:
        file = Path(directory, "script.sql")
        file.write_text(script)
        before = os.times()
        done = subprocess.run(
            [
                *(str(program), "-n", "-M", "prepared", "-f", str(file)),
                *("-c", str(clients), "-j", "1", "-T", str(max(1, round(seconds)))),
                *("-l", "--log-prefix", f"{directory}/log"),
                *("-h", host, "-p", port, "-U", parts.username or "", DATABASE),
            ],
            capture_output=True,
            text=True,
            timeout=seconds + 60,
            env=environment,
            check=True,
        )
        after = os.times()
        latencies = sorted(
            int(line.split()[2]) / 1_000
            for log in Path(directory).glob("log*")
            for line in log.read_text().splitlines()
        )
    told = re.search(r"tps = ([\d.]+)", done.stdout)
    assert told is not None, done.stdout
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    run = Run(rate=float(told[1]), p50_ms=percentile(latencies, 0.5), p99_ms=percentile(latencies, 0.99))
    return run, cpu
