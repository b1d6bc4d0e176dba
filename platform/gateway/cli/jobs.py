"""`tessera job`: what ran, and the bank's jobs by hand; a worker runs by itself what is due."""

import argparse
import asyncio
import os
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import date, timedelta
from typing import Any

from msgspec import structs

from gateway.attach import attached
from gateway.schedule import TIMEOUT_MS, Scheduled, list_open, run_by_hand, schedule
from kernel import jobs
from kernel.calendar import business_date
from kernel.clock import DatabaseClock
from kernel.database import Pool, acquire, open_pool, tell_time, transaction
from kernel.jobs import RunState
from kernel.settings import Settings, from_environment
from kernel.vault import Vault
from partners.oauth.keys import Signer, load_signer
from partners.registry import service as registry
from partners.settlement import service as settlement
from partners.settlement.closing import SETTLED
from partners.settlement.model import Batch
from points.ledger import service as ledger
from points.ledger.model import Seal

RUNS_SHOWN = 30


def register(subparsers: Any) -> None:
    """Add the command to the parser."""
    parser = subparsers.add_parser("job", help="the bank's own jobs: what ran, and to run one by hand")
    actions = parser.add_subparsers(required=True, metavar="JOB")
    listing = actions.add_parser("list", help="the last runs of all jobs")
    listing.add_argument("--limit", type=int, default=RUNS_SHOWN, help=f"how many (default: {RUNS_SHOWN})")
    _finish(listing, _list)
    running = actions.add_parser("run", help="run a job to its end, for a date or for all that are open")
    running.add_argument("name", choices=[scheduled.job.name for scheduled in schedule(None)])
    _add_date(running, "default: every open date that is over")
    _finish(running, _run)
    closing = actions.add_parser("settlement", help="close what bank and partners owe each other by now")
    _add_date(closing, "default: today in Shanghai")
    closing.add_argument("--partner", default=None, metavar="SLUG", help="only this one")
    _finish(closing, _settle)
    months = actions.add_parser("statements", help="issue every wallet's statement of a month that is over")
    months.add_argument(
        "--month", type=parse_month, default=None, metavar="YYYY-MM", help="default: the last one"
    )
    _finish(months, _issue)
    sealing = actions.add_parser("seal", help="seal the points books of every day up to one that is over")
    _add_date(sealing, "default: yesterday")
    _finish(sealing, _seal)


def _add_date(parser: argparse.ArgumentParser, note: str) -> None:
    parser.add_argument("--date", type=date.fromisoformat, default=None, metavar="YYYY-MM-DD", help=note)


def _finish(parser: argparse.ArgumentParser, run: Any) -> None:
    parser.add_argument("--data-dir", default=None, help="the system's data directory (default: var)")
    parser.set_defaults(run=run)


def parse_month(text: str) -> date:
    """The first day of `YYYY-MM`."""
    if re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])", text, re.ASCII) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a month, such as 2026-11")
    return date.fromisoformat(f"{text}-01")


def _settings(options: argparse.Namespace) -> Settings:
    settings = from_environment(os.environ)
    if options.data_dir is not None:
        settings = structs.replace(settings, data_dir=options.data_dir)
    return settings


@asynccontextmanager
async def _at_work(settings: Settings) -> AsyncGenerator[tuple[Pool, DatabaseClock], None]:
    """A pool for long statements, and the database's clock."""
    assert settings.database_url is not None, "attached settings lead to a database"
    clock = DatabaseClock()
    async with await open_pool(
        settings.database_url.reveal(), size=2, statement_timeout_ms=TIMEOUT_MS, application="tessera-job"
    ) as pool:
        async with acquire(pool) as connection:
            await tell_time(clock, connection)
        yield pool, clock


async def _load_signer(settings: Settings, pool: Pool, clock: DatabaseClock) -> Signer | None:
    """The platform's key where the key ring is at hand."""
    if settings.master_keys is None or settings.base_url is None:
        return None
    vault = Vault(settings.master_keys.reveal())
    async with transaction(pool) as connection:
        return await load_signer(connection, vault=vault, issuer=settings.base_url, now=clock.now())


def _list(options: argparse.Namespace) -> int:
    with attached(_settings(options)) as found:
        runs = asyncio.run(_list_runs(found, options.limit))
    for run in runs:
        print(_told(run))
    print(f"{len(runs)} runs")
    return 0


async def _list_runs(settings: Settings, limit: int) -> list[RunState]:
    async with _at_work(settings) as (pool, _), acquire(pool) as connection:
        return await jobs.list_runs(connection, limit=limit)


def _told(run: RunState) -> str:
    ended = "unfinished" if run.finished_at is None else f"finished {run.finished_at:%Y-%m-%d %H:%M:%S}Z"
    return (
        f"{run.job:<16} {run.business_on} {run.lanes_finished:>4}/{run.lanes} lanes {run.done:>12,} rows "
        f"started {run.started_at:%Y-%m-%d %H:%M:%S}Z {ended}"
    )


def _run(options: argparse.Namespace) -> int:
    with attached(_settings(options)) as found:
        runs = asyncio.run(_run_job(found, options.name, options.date))
    for run in runs:
        print(_told(run))
    print(f"{len(runs)} runs")
    return 0


async def _run_job(settings: Settings, name: str, day: date | None) -> list[RunState]:
    async with _at_work(settings) as (pool, clock):
        scheduled = await _find_scheduled(settings, pool, clock, name)
        if day is not None:
            days = [day]
        else:
            async with acquire(pool) as connection:
                first = await scheduled.first(connection)
                days = await list_open(connection, scheduled, first=first, now=clock.now())
        return [await run_by_hand(pool, scheduled, business_on=each, now_of=clock.now) for each in days]


async def _find_scheduled(settings: Settings, pool: Pool, clock: DatabaseClock, name: str) -> Scheduled:
    signer = await _load_signer(settings, pool, clock)
    vault = None if settings.master_keys is None else Vault(settings.master_keys.reveal())
    return next(scheduled for scheduled in schedule(signer, vault) if scheduled.job.name == name)


def _settle(options: argparse.Namespace) -> int:
    with attached(_settings(options)) as found:
        batches = asyncio.run(_close_batches(found, options.date, options.partner))
    for slug, batch in batches:
        print(
            f"{slug:<12} {batch.business_on} no. {batch.sequence} {batch.state}: {batch.lines:,} lines, "
            f"net {batch.net_fen:,} fen"
        )
    return 0


async def _close_batches(settings: Settings, day: date | None, slug: str | None) -> list[tuple[str, Batch]]:
    """One transaction for each partner, so that one's trouble is not another's."""
    batches = []
    async with _at_work(settings) as (pool, clock):
        async with acquire(pool) as connection:
            if slug is None:
                partners = await registry.list_partners(connection)
            else:
                partners = [await registry.find_partner_by_slug(connection, slug)]
        for partner in partners:
            if partner.status not in SETTLED:
                continue
            async with transaction(pool) as connection:
                now = clock.now()
                batch = await settlement.close_batch(
                    connection, partner_id=partner.id, business_on=day or business_date(now), now=now
                )
            batches.append((partner.slug, batch))
    return batches


def _issue(options: argparse.Namespace) -> int:
    with attached(_settings(options)) as found:
        issued = asyncio.run(_issue_statements(found, options.month))
    for run in issued:
        print(f"{run.business_on:%Y-%m} {run.done:,} statements")
    print(f"{len(issued)} months issued")
    return 0


async def _issue_statements(settings: Settings, month: date | None) -> list[RunState]:
    """Every open month in turn, up to the one asked for or the last; a month that was asked for is told again."""
    async with _at_work(settings) as (pool, clock):
        scheduled = await _find_scheduled(settings, pool, clock, ledger.STATEMENTS.name)
        last = (business_date(clock.now()).replace(day=1) - timedelta(days=1)).replace(day=1)
        async with acquire(pool) as connection:
            months = await ledger.list_open_months(connection, until=month or last)
        if month is not None and not months:
            months = [month]
        return [await run_by_hand(pool, scheduled, business_on=each, now_of=clock.now) for each in months]


def _seal(options: argparse.Namespace) -> int:
    with attached(_settings(options)) as found:
        sealed = asyncio.run(_seal_days(found, options.date))
    for seal in sealed:
        print(f"{seal.business_on} lane {seal.lane} {seal.leaves:>9,} wallets {seal.hash.hex()}")
    print(f"{len(sealed)} seals")
    return 0


async def _seal_days(settings: Settings, day: date | None) -> list[Seal]:
    """Every open day in turn, signed where the key ring is at hand; the printed hashes are to be kept elsewhere."""
    sealed: list[Seal] = []
    async with _at_work(settings) as (pool, clock):
        scheduled = await _find_scheduled(settings, pool, clock, "seal")
        yesterday = business_date(clock.now()) - timedelta(days=1)
        async with acquire(pool) as connection:
            days = await ledger.list_open_days(connection, until=day or yesterday)
        if day is not None and not days:
            days = [day]
        for each in days:
            await run_by_hand(pool, scheduled, business_on=each, now_of=clock.now)
            async with transaction(pool) as connection:
                sealed += await ledger.seal_day(connection, day=each, now=clock.now())
    return sealed
