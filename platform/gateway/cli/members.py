"""`tessera members`: the bank's levels, versions of the rules, and fraud; what evaluates by itself is a job."""

import argparse
import asyncio
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import ExitStack, asynccontextmanager
from datetime import date
from pathlib import Path
from typing import Any, get_args

import msgspec
from msgspec import structs

from gateway.admins import require_admin
from gateway.attach import attached
from gateway.level_lines import LevelHeaderRefused, read_levels
from gateway.membership import feed_levels, propose
from gateway.schedule import TIMEOUT_MS
from kernel.calendar import business_date
from kernel.caller import MemberUnknown
from kernel.clock import DatabaseClock
from kernel.database import Pool, acquire, open_pool, tell_time, transaction
from kernel.settings import Settings, from_environment
from points.membership import service as membership
from points.membership.model import Proposal, Simulation, VersionKind

KINDS = get_args(VersionKind)


def register(subparsers: Any) -> None:
    """Add the commands to the parser."""
    parser = subparsers.add_parser("members", help="members' levels and tiers")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    levels = commands.add_parser("levels", help="feed a file of bank levels")
    levels.add_argument("file", type=Path, metavar="FILE")
    levels.add_argument("--results", type=Path, metavar="FILE", help="write what became of each line")
    _finish(levels, _feed)
    proposing = commands.add_parser("propose", help="propose a version of the rules from a JSON file")
    proposing.add_argument("kind", choices=KINDS)
    proposing.add_argument("file", type=Path, metavar="FILE")
    proposing.add_argument("--by", required=True, metavar="LOGIN", help="a maker")
    _finish(proposing, _propose)
    simulating = commands.add_parser("simulate", help="what an evaluation by other versions would do")
    for kind in ("matrix", "scheme"):
        simulating.add_argument(f"--{kind}", type=int, default=None, metavar="VERSION")
    simulating.add_argument("--date", type=date.fromisoformat, default=None, metavar="YYYY-MM-DD")
    _finish(simulating, _simulate)
    switching = commands.add_parser("switch", help="put a proposed version in force from a date on")
    switching.add_argument("kind", choices=KINDS)
    switching.add_argument("version", type=int)
    switching.add_argument("--date", type=date.fromisoformat, required=True, metavar="YYYY-MM-DD")
    switching.add_argument("--by", required=True, metavar="LOGIN", help="a checker, not the proposer")
    _finish(switching, _switch)
    fraud = commands.add_parser("fraud", help="take at once what a member's levels do not make")
    fraud.add_argument("member_id", type=int)
    fraud.add_argument("--by", required=True, metavar="LOGIN", help="a duty officer")
    _finish(fraud, _fraud)


def _finish(parser: argparse.ArgumentParser, run: Any) -> None:
    parser.add_argument("--data-dir", default=None, help="the system's data directory (default: var)")
    parser.set_defaults(run=run)


def _settings(options: argparse.Namespace) -> Settings:
    settings = from_environment(os.environ)
    if options.data_dir is not None:
        settings = structs.replace(settings, data_dir=options.data_dir)
    return settings


@asynccontextmanager
async def _at_work(settings: Settings) -> AsyncGenerator[tuple[Pool, DatabaseClock], None]:
    assert settings.database_url is not None, "attached settings lead to a database"
    clock = DatabaseClock()
    url = settings.database_url.reveal()
    async with await open_pool(
        url, size=2, statement_timeout_ms=TIMEOUT_MS, application="tessera-members"
    ) as pool:
        async with acquire(pool) as connection:
            await tell_time(clock, connection)
        yield pool, clock


def _feed(options: argparse.Namespace) -> int:
    """0 when every line was answered, 2 when the file is not one of levels."""
    try:
        if (
            options.results is not None
            and options.results.exists()
            and options.results.samefile(options.file)
        ):
            raise LevelHeaderRefused("the results would take the place of the file")
        with attached(_settings(options)) as found:
            counts = asyncio.run(_feed_file(found, options.file, options.results))
    except (LevelHeaderRefused, OSError) as mistake:
        print(f"tessera: {mistake}", file=sys.stderr)
        return 2
    told = ", ".join(f"{counts[status]:,} {status}" for status in ("recorded", "unchanged", "refused"))
    print(f"{counts.total():,} lines: {told}")
    return 0


async def _feed_file(settings: Settings, path: Path, results: Path | None) -> Any:
    with ExitStack() as stack:
        file = stack.enter_context(path.open("rb"))
        written = None if results is None else stack.enter_context(results.open("w", encoding="utf-8"))

        def tell(number: int, status: str, code: str) -> None:
            if written is not None:
                written.write(f"{number},{status},{code}\n")

        if written is not None:
            written.write("line,status,code\n")
        async with _at_work(settings) as (pool, clock):
            return await feed_levels(pool, read_levels(file), fed_ref=path.name, now_of=clock.now, tell=tell)


def _propose(options: argparse.Namespace) -> int:
    try:
        with attached(_settings(options)) as found:
            proposal = asyncio.run(_propose_in(found, options.kind, options.file.read_bytes(), options.by))
    except (OSError, msgspec.DecodeError) as mistake:
        print(f"tessera: {options.file}: {mistake}", file=sys.stderr)
        return 2
    print(f"{proposal.kind} version {proposal.version} proposed by {proposal.proposed_by}")
    return 0


async def _propose_in(settings: Settings, kind: VersionKind, data: bytes, by: str) -> Proposal:
    async with _at_work(settings) as (pool, clock), transaction(pool) as connection:
        return await propose(connection, kind, data, by=by, now=clock.now())


def _simulate(options: argparse.Namespace) -> int:
    with attached(_settings(options)) as found:
        told = asyncio.run(_simulate_in(found, options))
    print(f"evaluation of {told.business_on} by matrix {told.matrix_version}, scheme {told.scheme_version}")
    print(
        f"{told.members:,} members: {told.up:,} up, {told.down:,} down, {told.unchanged:,} unchanged "
        f"({told.protected:,} protected)"
    )
    for (before, after), members in told.by_tier.items():
        print(f"  {before:>8} -> {after:<8} {members:>12,}")
    for (bank, shop), (up, down, unchanged) in told.by_pair.items():
        print(f"  {bank:>8} x {shop:<8} {up:>12,} up {down:>12,} down {unchanged:>12,} unchanged")
    return 0


async def _simulate_in(settings: Settings, options: argparse.Namespace) -> Simulation:
    async with _at_work(settings) as (pool, clock), transaction(pool) as connection:
        return await membership.simulate(
            connection,
            business_on=options.date or business_date(clock.now()),
            matrix_version=options.matrix,
            scheme_version=options.scheme,
        )


def _switch(options: argparse.Namespace) -> int:
    with attached(_settings(options)) as found:
        asyncio.run(_switch_in(found, options))
    print(f"{options.kind} version {options.version} in force from {options.date}")
    return 0


async def _switch_in(settings: Settings, options: argparse.Namespace) -> None:
    async with _at_work(settings) as (pool, clock), transaction(pool) as connection:
        by = await require_admin(connection, options.by, "checker")
        await membership.switch_on(
            connection,
            options.kind,
            options.version,
            effective_on=options.date,
            by=by,
            now=clock.now(),
        )


def _fraud(options: argparse.Namespace) -> int:
    with attached(_settings(options)) as found:
        tier = asyncio.run(_judge_fraud(found, options.member_id, options.by))
    print("nothing to take" if tier is None else f"member {options.member_id} is {tier} now")
    return 0


async def _judge_fraud(settings: Settings, member_id: int, by: str) -> str | None:
    async with _at_work(settings) as (pool, clock), transaction(pool) as connection:
        by = await require_admin(connection, by, "duty_officer")
        found = await membership.find_members(connection, [member_id])
        if member_id not in found:
            raise MemberUnknown
        decided = await membership.judge_fraud(connection, found[member_id], found_by=by, now=clock.now())
        return decided[0][1].tier if decided else None
