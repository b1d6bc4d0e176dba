"""`tessera job settlement`: the bank's jobs that a scheduler starts, once a day or by hand."""

import argparse
import asyncio
import os
from datetime import date
from typing import Any

from msgspec import structs

from gateway.attach import attached
from kernel.calendar import business_date
from kernel.clock import DatabaseClock
from kernel.database import acquire, open_pool, tell_time, transaction
from kernel.settings import Settings, from_environment
from partners.registry import service as registry
from partners.settlement import service as settlement
from partners.settlement.model import Batch

#: a day's lines are taken in one statement
TIMEOUT_MS = 300_000
_SETTLED = frozenset(("live", "suspended", "terminating", "terminated"))


def register(subparsers: Any) -> None:
    """Add the command to the parser."""
    parser = subparsers.add_parser("job", help="the bank's own jobs")
    jobs = parser.add_subparsers(required=True, metavar="JOB")
    closing = jobs.add_parser("settlement", help="close what bank and partners owe each other up to a day")
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


def _settle(options: argparse.Namespace) -> int:
    settings = from_environment(os.environ)
    if options.data_dir is not None:
        settings = structs.replace(settings, data_dir=options.data_dir)
    with attached(settings) as found:
        batches = asyncio.run(_close_batches(found, options.date, options.partner))
    for slug, batch in batches:
        print(
            f"{slug:<12} {batch.business_on} no. {batch.sequence} {batch.state}: {batch.lines:,} lines, "
            f"net {batch.net_fen:,} fen"
        )
    return 0


async def _close_batches(settings: Settings, day: date | None, slug: str | None) -> list[tuple[str, Batch]]:
    """One transaction for each partner, so that one's trouble is not another's."""
    assert settings.database_url is not None, "attached settings lead to a database"
    clock = DatabaseClock()
    batches = []
    async with await open_pool(
        settings.database_url.reveal(), size=2, statement_timeout_ms=TIMEOUT_MS, application="tessera-job"
    ) as pool:
        async with acquire(pool) as connection:
            await tell_time(clock, connection)
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
