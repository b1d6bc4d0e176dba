"""`tessera books check`: do the books balance?"""

import argparse
import asyncio
import os
from typing import Any

from msgspec import structs

from gateway import books
from gateway.attach import attached
from gateway.books import Finding
from kernel.database import acquire, open_pool
from kernel.settings import Settings, from_environment

ROWS_SHOWN = 3


def register(subparsers: Any) -> None:
    """Add the command to the parser."""
    parser = subparsers.add_parser("books", help="the accounts of the whole system")
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    check = actions.add_parser("check", help="check every invariant; exit 1 when one is broken")
    check.add_argument("--data-dir", default=None, help="the system's data directory (default: var)")
    check.set_defaults(run=_check)


def _check(options: argparse.Namespace) -> int:
    settings = from_environment(os.environ)
    if options.data_dir is not None:
        settings = structs.replace(settings, data_dir=options.data_dir)
    with attached(settings) as found:
        findings = asyncio.run(_check_in(found))
    for finding in findings:
        print(f"{finding.view.removeprefix('books_'):<40} {_verdict(finding):<18} {finding.sentence}")
        for row in finding.rows[:ROWS_SHOWN]:
            print("    " + ", ".join(f"{column} {value}" for column, value in row.items()))
    broken = [finding.view.removeprefix("books_") for finding in findings if finding.rows]
    if not findings:
        broken = ["there are no invariants; is the database migrated?"]
    print(f"books broken: {', '.join(broken)}" if broken else "books balanced")
    return 1 if broken else 0


async def _check_in(settings: Settings) -> list[Finding]:
    assert settings.database_url is not None, "attached settings lead to a database"
    async with (
        await open_pool(settings.database_url.reveal(), size=2, application="tessera-books") as pool,
        acquire(pool) as connection,
    ):
        return await books.check(connection)


def _verdict(finding: Finding) -> str:
    if not finding.rows:
        return "ok"
    return f"BROKEN, {len(finding.rows)}{'+' if len(finding.rows) == books.ROWS_MAX else ''} rows"
