"""`tessera import orders`: a partner's order file through the public API, with a results file in return."""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx

from gateway.client import ApiProblem, PartnerClient, Unreachable
from gateway.credentials import Credentials, CredentialsUnreadable, read_credentials
from gateway.order_lines import HeaderRefused, count_lines, read_header, read_lines
from gateway.orders import Result, ResultsFile, Totals, import_orders
from gateway.progress import Progress
from kernel.settings import from_environment


def register(subparsers: Any) -> None:
    """Add the command to the parser."""
    imports = subparsers.add_parser("import", help="send a partner's files through the API")
    kinds = imports.add_subparsers(required=True, metavar="KIND")
    parser = kinds.add_parser("orders", help="a CSV of orders and refunds")
    parser.add_argument("file", type=Path, metavar="FILE")
    whose = parser.add_mutually_exclusive_group(required=True)
    whose.add_argument("--partner", metavar="SLUG", help="a sandbox partner of the data directory")
    whose.add_argument("--credentials", type=Path, metavar="FILE", help="the partner file")
    parser.add_argument("--results", type=Path, metavar="FILE", help="write what became of each line")
    parser.add_argument("--data-dir", default=None, help="where sandbox partners live (default: var)")
    parser.add_argument("--base-url", default=None, metavar="URL", help="connect here instead")
    parser.add_argument(
        "--patience",
        type=float,
        default=90.0,
        metavar="SECONDS",
        help="how long to retry a request (default: 90)",
    )
    parser.add_argument("--progress", action="store_true", help="draw the bar even if nobody watches")
    parser.set_defaults(run=_import)


def _import(options: argparse.Namespace) -> int:
    """0 when every line was answered, 1 when the platform could not be reached, 2 when the file is not one of orders."""
    try:
        if (
            options.results is not None
            and options.results.exists()
            and options.results.samefile(options.file)
        ):
            raise HeaderRefused("the results would take the place of the order file")
        return asyncio.run(_send_file(_credentials(options), options))
    except (HeaderRefused, CredentialsUnreadable, OSError) as mistake:
        print(f"tessera: {mistake}", file=sys.stderr)
        return 2
    except (Unreachable, ApiProblem, httpx.HTTPError) as fault:
        print(f"\ntessera: the import stopped: {fault}; send the file again to go on", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ntessera: interrupted; send the file again to go on", file=sys.stderr)
        return 130


def _credentials(options: argparse.Namespace) -> Credentials:
    if options.credentials is not None:
        return read_credentials(options.credentials)
    data_dir = Path(options.data_dir or from_environment(os.environ).data_dir)
    return read_credentials(data_dir / "sandbox" / "partners" / f"{options.partner}.json")


async def _send_file(credentials: Credentials, options: argparse.Namespace) -> int:
    drawn = sys.stderr if options.progress or sys.stderr.isatty() else None
    totals = Totals()
    with ExitStack() as stack:
        file = stack.enter_context(options.file.open("rb"))
        columns = read_header(file)
        progress = Progress("importing", count_lines(options.file), drawn)
        results = stack.enter_context(ResultsFile(options.results)) if options.results else None

        def take(chunk: Sequence[Result]) -> None:
            totals.add(chunk)
            progress.advance(len(chunk))
            if results is not None:
                results.add(chunk)

        async with PartnerClient(
            credentials, base_url=options.base_url, deadline_seconds=options.patience
        ) as client:
            await import_orders(client, read_lines(file, columns), take=take)
        progress.finish()
    print(_summary(totals, progress.seconds))
    return 0


def _summary(totals: Totals, seconds: float) -> str:
    counts = ", ".join(
        f"{totals.statuses[status]:,} {status}" for status in _STATUSES if totals.statuses[status]
    )
    reasons = ", ".join(f"{code} {count:,}" for code, count in totals.refusals.most_common(5))
    speed = int(totals.lines / max(seconds, 0.001))
    return (
        f"{totals.lines:,} lines: {counts or 'nothing to do'}{f' ({reasons})' if reasons else ''}; "
        f"{totals.points:,} points; {seconds:.1f} s, {speed:,} lines/s"
    )


_STATUSES = ("earned", "reversed", "unchanged", "refused")
