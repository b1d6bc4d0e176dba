"""`tessera campaigns` and `tessera rules`: what earns points, proposed by one person and approved by another."""

import argparse
import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
from msgspec import structs

from gateway.admins import require_admin
from gateway.attach import attached
from kernel.calendar import rfc3339
from kernel.caller import MemberRef
from kernel.clock import DatabaseClock
from kernel.database import Connection, acquire, open_pool, tell_time, transaction
from kernel.errors import Refusal
from kernel.settings import Settings, from_environment
from points.earning import campaigns, versions
from points.earning.definitions import CampaignDefinition, RuleDefinition, check_campaign, check_rule
from points.earning.simulation import SimulatedActivity, simulate
from points.ledger import budgets

Work = Callable[[Connection, datetime, argparse.Namespace], Awaitable[list[str]]]


def register(subparsers: Any) -> None:
    """Add both commands to the parser."""
    parser = subparsers.add_parser("campaigns", help="campaigns: propose, approve, pause, simulate")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    proposing = _command(commands, "propose", _propose, "propose a campaign from a JSON file", by=True)
    proposing.add_argument("file", type=Path)
    proposing.add_argument(
        "--members", type=Path, default=None, help="JSON list of {member_id, bucket}: for listed ones"
    )
    for name, work, help_ in (
        ("approve", _approve, "let a proposed campaign give points; by another person than proposed it"),
        ("pause", _pause, "stop a campaign at once; takes a duty officer"),
        ("resume", _resume, "let a paused or exhausted campaign go on"),
        ("end", _end, "end a campaign for good"),
    ):
        _command(commands, name, work, help_, by=True).add_argument("code")
    raising = _command(commands, "raise", _raise, "add to a campaign's budget; takes a checker", by=True)
    raising.add_argument("code")
    raising.add_argument("amount", type=int, help="in the budget's unit")
    _command(commands, "list", _list, "the newest campaigns and what is left of their budgets")
    simulating = commands.add_parser("simulate", help="what rules and campaigns would give for a file")
    simulating.add_argument("activities", type=Path, help="JSON lines of activities")
    simulating.add_argument("--campaign", type=Path, action="append", default=[], dest="campaigns")
    simulating.add_argument("--rule", type=Path, default=None)
    simulating.set_defaults(run=_simulate)

    parser = subparsers.add_parser("rules", help="versions of the earning rules: propose, approve")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _command(commands, "propose", _propose_rule, "propose a version from a JSON file", by=True).add_argument(
        "file", type=Path
    )
    approving = _command(commands, "approve", _approve_rule, "let a proposed version earn", by=True)
    approving.add_argument("version", type=int)
    _command(commands, "list", _list_rules, "every version")


def _command(
    commands: Any, name: str, work: Work, help_: str, *, by: bool = False
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=help_)
    if by:
        parser.add_argument("--by", required=True, metavar="LOGIN", help="the admin who answers for it")
    parser.add_argument("--data-dir", default=None)
    parser.set_defaults(run=lambda options: _run(work, options))
    return parser


def _run(work: Work, options: argparse.Namespace) -> int:
    settings = from_environment(os.environ)
    if options.data_dir is not None:
        settings = structs.replace(settings, data_dir=options.data_dir)
    try:
        with attached(settings) as found:
            lines = asyncio.run(_work_in(found, work, options))
    except Refusal as refusal:
        return _tell(refusal)
    except (msgspec.DecodeError, OSError) as mistake:
        print(mistake, file=sys.stderr)
        return 2
    print("\n".join(lines))
    return 0


def _tell(refusal: Refusal) -> int:
    facts = "".join(f" {name}={value}" for name, value in refusal.facts.items())
    print(f"{refusal.code}: {refusal}{facts}", file=sys.stderr)
    return 1


async def _work_in(settings: Settings, work: Work, options: argparse.Namespace) -> list[str]:
    assert settings.database_url is not None, "attached settings lead to a database"
    clock = DatabaseClock()
    async with await open_pool(
        settings.database_url.reveal(), size=1, application="tessera-campaigns"
    ) as pool:
        async with acquire(pool) as connection:
            await tell_time(clock, connection)
        async with transaction(pool) as connection:
            return await work(connection, clock.now(), options)


async def _propose(connection: Connection, now: datetime, options: argparse.Namespace) -> list[str]:
    by = await require_admin(connection, options.by, "maker")
    definition = msgspec.json.decode(options.file.read_bytes(), type=CampaignDefinition)
    members = []
    if options.members is not None:
        members = msgspec.json.decode(options.members.read_bytes(), type=list[MemberRef])
    made = await campaigns.propose_campaign(connection, definition, members=members, by=by, now=now)
    return [f"{made.code} {made.state}, {len(members):,} members listed"]


async def _approve(connection: Connection, now: datetime, options: argparse.Namespace) -> list[str]:
    by = await require_admin(connection, options.by, "checker")
    begins = await campaigns.approve_campaign(connection, options.code, by=by, now=now)
    return [f"{options.code} scheduled, gives points from {rfc3339(begins)}"]


async def _pause(connection: Connection, now: datetime, options: argparse.Namespace) -> list[str]:
    by = await require_admin(connection, options.by, "duty_officer")
    await campaigns.pause_campaign(connection, options.code, by=by, now=now)
    return [f"{options.code} paused"]


async def _resume(connection: Connection, now: datetime, options: argparse.Namespace) -> list[str]:
    by = await require_admin(connection, options.by, "checker")
    await campaigns.resume_campaign(connection, options.code, by=by, now=now)
    return [f"{options.code} goes on"]


async def _end(connection: Connection, now: datetime, options: argparse.Namespace) -> list[str]:
    by = await require_admin(connection, options.by, "checker")
    await campaigns.end_campaign(connection, options.code, by=by, now=now)
    return [f"{options.code} ended"]


async def _raise(connection: Connection, now: datetime, options: argparse.Namespace) -> list[str]:
    by = await require_admin(connection, options.by, "checker")
    await campaigns.raise_budget(connection, options.code, add=options.amount, by=by, now=now)
    return [f"{options.code} has {options.amount:,} more"]


async def _list(connection: Connection, now: datetime, options: argparse.Namespace) -> list[str]:
    lines = []
    for row in await campaigns.list_campaigns(connection):
        left = "no budget"
        if row.budget_id is not None:
            state = await budgets.read_budget(connection, row.budget_id)
            left = f"{state.left:,} of {state.total:,} {state.unit} left"
        effect = f"×{row.multiplier_pct}%" if row.multiplier_pct else f"+{row.fixed_points}"
        window = f"{rfc3339(row.starts_at)} – {rfc3339(row.ends_at)}"
        lines.append(f"{row.code:<24} {row.state:<10} {effect:<7} {window}  {left}")
    return lines or ["no campaigns"]


async def _propose_rule(connection: Connection, now: datetime, options: argparse.Namespace) -> list[str]:
    by = await require_admin(connection, options.by, "maker")
    definition = msgspec.json.decode(options.file.read_bytes(), type=RuleDefinition)
    version = await versions.propose_rule(connection, definition, by=by, now=now)
    return [f"version {version} in_review"]


async def _approve_rule(connection: Connection, now: datetime, options: argparse.Namespace) -> list[str]:
    by = await require_admin(connection, options.by, "checker")
    begins = await versions.approve_rule(connection, options.version, by=by, now=now)
    return [f"version {options.version} scheduled, in force from {rfc3339(begins)}"]


async def _list_rules(connection: Connection, now: datetime, options: argparse.Namespace) -> list[str]:
    return [
        f"version {row['version']:<4} {row['state']:<10} one point for {row['fen_per_point']} fen, from "
        + ("–" if row["in_force_from"] is None else rfc3339(row["in_force_from"]))
        for row in await versions.list_rules(connection)
    ]


def _simulate(options: argparse.Namespace) -> int:
    """Nothing is connected to: files in, figures out."""
    try:
        rule, definitions = _read_definitions(options)
        lines = options.activities.read_bytes().splitlines()
        activities = [msgspec.json.decode(line, type=SimulatedActivity) for line in lines if line.strip()]
    except Refusal as refusal:
        return _tell(refusal)
    except (msgspec.DecodeError, OSError) as mistake:
        print(mistake, file=sys.stderr)
        return 2
    results = simulate(rule, definitions, activities)
    for result in results:
        print(msgspec.json.encode(result).decode())
    totals = {"base": sum(result.base_points for result in results)}
    for definition in definitions:
        totals[definition.code] = sum(result.bonus_points.get(definition.code, 0) for result in results)
    print(", ".join(f"{name} {points:,}" for name, points in totals.items()), file=sys.stderr)
    return 0


def _read_definitions(
    options: argparse.Namespace,
) -> tuple[RuleDefinition | None, list[CampaignDefinition]]:
    rule = None
    if options.rule is not None:
        rule = msgspec.json.decode(options.rule.read_bytes(), type=RuleDefinition)
        check_rule(rule)
    definitions = [
        msgspec.json.decode(path.read_bytes(), type=CampaignDefinition) for path in options.campaigns
    ]
    for definition in definitions:
        check_campaign(definition)
    return rule, definitions
