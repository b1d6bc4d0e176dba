"""`tessera books`: do they balance, what would a third party need to see it, and does a file of them hold?"""

import argparse
import asyncio
import io
import os
import runpy
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any, Literal

from msgspec import structs

from gateway import books, books_log, books_recent
from gateway.attach import attached
from gateway.books import Finding
from gateway.books_export import export_books
from gateway.cli.jobs import parse_month
from gateway.statement_export import FORMAT as STATEMENT_FORMAT
from gateway.statement_export import export_statement
from kernel.caller import MemberRef
from kernel.clock import DatabaseClock
from kernel.database import acquire, open_pool, tell_time
from kernel.settings import Settings, from_environment

ROWS_SHOWN = 3


def register(subparsers: Any) -> None:
    """Add the command to the parser."""
    parser = subparsers.add_parser("books", help="the accounts of the whole system")
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    check = actions.add_parser("check", help="check every invariant; exit 1 when one is broken")
    check.add_argument(
        "--since",
        type=_since,
        default=None,
        metavar="last|YYYY-MM-DD",
        help="only what was touched since the last good check, or since a business day",
    )
    check.add_argument("--data-dir", default=None, help="the system's data directory (default: var)")
    check.set_defaults(run=_check)
    export = actions.add_parser("export", help="write the points books to a file that anyone can verify")
    export.add_argument("file", type=Path)
    export.add_argument(
        "--until",
        type=date.fromisoformat,
        default=None,
        metavar="YYYY-MM-DD",
        help="only up to this day's end",
    )
    export.add_argument("--data-dir", default=None, help="the system's data directory (default: var)")
    export.set_defaults(run=_export)
    prove = actions.add_parser("prove", help="write one member's month to a file that anyone can verify")
    prove.add_argument("member", type=int, help="the member's number")
    prove.add_argument("month", type=parse_month, metavar="YYYY-MM")
    prove.add_argument("file", type=Path)
    prove.add_argument("--data-dir", default=None, help="the system's data directory (default: var)")
    prove.set_defaults(run=_prove)
    verify = actions.add_parser("verify", help="verify such a file; exit 1 when it does not hold")
    verify.add_argument("file", type=Path)
    verify.add_argument("--earlier", type=Path, help="an older export: none of its seals may have changed")
    verify.add_argument(
        "--keys", type=Path, help="the bank's JWK set: every seal must be signed by one of them"
    )
    verify.set_defaults(run=_verify)


def _check(options: argparse.Namespace) -> int:
    settings = from_environment(os.environ)
    if options.data_dir is not None:
        settings = structs.replace(settings, data_dir=options.data_dir)
    with attached(settings) as found:
        findings, looked_at = asyncio.run(_check_in(found, options.since))
    print(looked_at)
    for finding in findings:
        print(f"{finding.view.removeprefix('books_'):<40} {_verdict(finding):<18} {finding.sentence}")
        for row in finding.rows[:ROWS_SHOWN]:
            print("    " + ", ".join(f"{column} {value}" for column, value in row.items()))
    broken = [finding.view.removeprefix("books_") for finding in findings if finding.rows]
    if not findings:
        broken = ["there are no invariants; is the database migrated?"]
    print(f"books broken: {', '.join(broken)}" if broken else "books balanced")
    return 1 if broken else 0


def _export(options: argparse.Namespace) -> int:
    settings = from_environment(os.environ)
    if options.data_dir is not None:
        settings = structs.replace(settings, data_dir=options.data_dir)
    with attached(settings) as found:
        counted = asyncio.run(_export_to(found, options.file, options.until))
    print(", ".join(f"{count:,} {kind}" for kind, count in counted.items()))
    return 0


async def _export_to(settings: Settings, path: Path, until: date | None) -> dict[str, int]:
    """Under another name until it is whole: a file that was cut off never looks like an export."""
    assert settings.database_url is not None, "attached settings lead to a database"
    clock, unfinished = DatabaseClock(), path.with_name(path.name + ".part")
    async with (
        await open_pool(settings.database_url.reveal(), size=2, application="tessera-books") as pool,
        acquire(pool) as connection,
    ):
        await tell_time(clock, connection)
        with unfinished.open("w", encoding="utf-8") as file:
            counted = await export_books(connection, file, until=until, now=clock.now())
    unfinished.rename(path)
    return counted


def _prove(options: argparse.Namespace) -> int:
    settings = from_environment(os.environ)
    if options.data_dir is not None:
        settings = structs.replace(settings, data_dir=options.data_dir)
    with attached(settings) as found:
        text = asyncio.run(_prove_in(found, options.member, options.month))
    options.file.write_text(text, encoding="utf-8")
    print(f"statement of {options.month:%Y-%m} written")
    return 0


async def _prove_in(settings: Settings, member_id: int, month: date) -> str:
    assert settings.database_url is not None, "attached settings lead to a database"
    clock, text = DatabaseClock(), io.StringIO()
    async with (
        await open_pool(settings.database_url.reveal(), size=2, application="tessera-books") as pool,
        acquire(pool) as connection,
    ):
        await tell_time(clock, connection)
        bucket = await connection.fetchval("SELECT bucket_of($1::bigint)", member_id)
        member = MemberRef(member_id=member_id, bucket=bucket)
        await export_statement(connection, text, member=member, period=month, now=clock.now())
    return text.getvalue()


def _verify(options: argparse.Namespace) -> int:
    """By the very files that a third party runs, so that both always see the same."""
    if _is_statement(options.file):
        keys = None if options.keys is None else str(options.keys)
        return int(_script("tessera_statement")(str(options.file), keys))
    earlier = None if options.earlier is None else str(options.earlier)
    code = int(_script("tessera_verify")(str(options.file), earlier))
    if options.keys is not None:
        code |= int(_script("tessera_signatures")(str(options.file), str(options.keys)))
    return code


def _is_statement(path: Path) -> bool:
    with path.open("rb") as file:
        return STATEMENT_FORMAT.encode() in file.readline(1_000)


def _script(name: str) -> Callable[..., int]:
    """A stand-alone script's `main`; like the migrations, the scripts are in the checkout and not in a wheel."""
    script = Path(__file__).resolve().parents[3] / "docs" / "verify" / f"{name}.py"
    verify: Callable[..., int] = runpy.run_path(str(script))["main"]
    return verify


async def _check_in(settings: Settings, asked: date | Literal["last"] | None) -> tuple[list[Finding], str]:
    """The findings, and a line that says what was looked at. Every check is written down."""
    assert settings.database_url is not None, "attached settings lead to a database"
    async with (
        await open_pool(settings.database_url.reveal(), size=2, application="tessera-books") as pool,
        acquire(pool) as connection,
    ):
        moment = await books_log.read_moment(connection)
        since = await books_log.find_next_since(connection) if asked == "last" else asked
        if since is None:
            findings, members = await books.check(connection), None
            looked_at = "no check was good so far: everything" if asked == "last" else "everything"
        else:
            recent = await books_recent.check_since(connection, since)
            findings, members = recent.findings, recent.members
            looked_at = f"{members:,} members touched since {since}; the rest is for the full check"
        await books_log.remember(connection, findings, since=since, members=members, moment=moment)
    return findings, looked_at


def _since(text: str) -> date | Literal["last"]:
    return "last" if text == "last" else date.fromisoformat(text)


def _verdict(finding: Finding) -> str:
    if not finding.rows:
        return "ok"
    return f"BROKEN, {len(finding.rows)}{'+' if len(finding.rows) == books.ROWS_MAX else ''} rows"
