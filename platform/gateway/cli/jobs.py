"""`tessera job`: the bank's jobs that a scheduler starts, once a day, once a month or by hand."""

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
from kernel import jobs
from kernel.calendar import business_date
from kernel.clock import DatabaseClock
from kernel.database import Pool, acquire, open_pool, tell_time, transaction
from kernel.settings import Settings, from_environment
from kernel.vault import Vault
from partners.oauth.keys import load_signer
from partners.registry import service as registry
from partners.settlement import service as settlement
from partners.settlement.model import Batch
from points.ledger import service as ledger
from points.ledger.model import Seal

#: a day's lines are taken in one statement
TIMEOUT_MS = 300_000
_SETTLED = frozenset(("live", "suspended", "terminating", "terminated"))


def register(subparsers: Any) -> None:
    """Add the command to the parser."""
    parser = subparsers.add_parser("job", help="the bank's own jobs")
    actions = parser.add_subparsers(required=True, metavar="JOB")
    closing = actions.add_parser("settlement", help="close what bank and partners owe each other up to a day")
    closing.add_argument(
        "--date",
        type=date.fromisoformat,
        default=None,
        metavar="YYYY-MM-DD",
        help="default: today in Shanghai",
    )
    closing.add_argument("--partner", default=None, metavar="SLUG", help="only this one")
    closing.add_argument("--data-dir", default=None, help="the system's data directory (default: var)")
    closing.set_defaults(run=_settle)
    months = actions.add_parser("statements", help="issue every wallet's statement of a month that is over")
    months.add_argument("--month", type=_month, default=None, metavar="YYYY-MM", help="default: the last one")
    months.add_argument("--data-dir", default=None, help="the system's data directory (default: var)")
    months.set_defaults(run=_issue)
    sealing = actions.add_parser("seal", help="seal the points books of every day up to one that is over")
    sealing.add_argument(
        "--date", type=date.fromisoformat, default=None, metavar="YYYY-MM-DD", help="default: yesterday"
    )
    sealing.add_argument("--data-dir", default=None, help="the system's data directory (default: var)")
    sealing.set_defaults(run=_seal)


def _month(text: str) -> date:
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
            if partner.status not in _SETTLED:
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
    for job in issued:
        print(f"{job.business_on:%Y-%m} {job.done:,} statements")
    print(f"{len(issued)} months issued")
    return 0


async def _issue_statements(settings: Settings, month: date | None) -> list[jobs.RunState]:
    """Every open month in turn, and of each some wallets at a time: what is committed is not done again."""
    issued = []
    async with _at_work(settings) as (pool, clock):
        if month is None:
            month = (business_date(clock.now()).replace(day=1) - timedelta(days=1)).replace(day=1)
        async with acquire(pool) as connection:
            months = await ledger.list_open_months(connection, until=month)
        for period in months or [month]:
            advanced = True
            while advanced:
                async with transaction(pool) as connection:
                    advanced = await jobs.advance(
                        connection, ledger.STATEMENTS, business_on=period, now=clock.now()
                    )
            async with acquire(pool) as connection:
                job = await jobs.find_run(connection, ledger.STATEMENTS.name, business_on=period)
            assert job is not None
            issued.append(job)
    return issued


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
        signer = None
        if settings.master_keys is not None and settings.base_url is not None:
            async with transaction(pool) as connection:
                signer = await load_signer(
                    connection,
                    vault=Vault(settings.master_keys.reveal()),
                    issuer=settings.base_url,
                    now=clock.now(),
                )
        day = day or business_date(clock.now()) - timedelta(days=1)
        async with acquire(pool) as connection:
            days = await ledger.list_open_days(connection, until=day)
        for each in days or [day]:
            async with transaction(pool) as connection:
                sealed += await ledger.seal_day(connection, day=each, signer=signer, now=clock.now())
    return sealed
