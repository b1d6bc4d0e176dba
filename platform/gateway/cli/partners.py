"""`tessera partner`: suspend at once, reinstate by two people, and decide what others proposed."""

import argparse
from typing import Any, get_args

from gateway.admins import require_admin
from gateway.cli.acting import Deed, add_by, add_command
from gateway.runtime import Runtime
from kernel.database import Connection
from kernel.ids import from_wire, to_wire
from partners.registry import changes
from partners.registry import service as registry
from partners.registry.model import Change, ChangeState, Partner


def register(subparsers: Any) -> None:
    """Add the commands to the parser."""
    parser = subparsers.add_parser("partner", help="partners: suspend, reinstate, decide proposals")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_command(commands, "list", _list_partners, "all of them")
    suspend = add_command(commands, "suspend", _suspend, "stop every app at once; takes one duty officer")
    suspend.add_argument("slug")
    add_by(suspend)
    reinstate = add_command(
        commands,
        "reinstate",
        _propose_reinstatement,
        "propose it; takes a maker, then somebody else approves",
    )
    reinstate.add_argument("slug")
    add_by(reinstate)
    for name, run, told in (
        ("approve", _approve, "do what was proposed; takes a checker other than the proposer"),
        ("reject", _reject, "turn it down; takes a checker other than the proposer"),
    ):
        decide = add_command(commands, name, run, told)
        decide.add_argument("id", help="chg_...")
        add_by(decide, reason=False)
    listing = add_command(commands, "changes", _list_changes, "proposals, newest first")
    listing.add_argument("--state", choices=get_args(ChangeState), default=None)


def _list_partners(_options: argparse.Namespace) -> Deed:
    async def deed(connection: Connection, _runtime: Runtime) -> list[str]:
        return [_partner_line(partner) for partner in await registry.list_partners(connection)]

    return deed


def _suspend(options: argparse.Namespace) -> Deed:
    async def deed(connection: Connection, runtime: Runtime) -> list[str]:
        by = await require_admin(connection, options.login, "duty_officer")
        partner = await registry.find_partner_by_slug(connection, options.slug)
        suspended = await registry.set_partner_status(
            connection,
            partner_id=partner.id,
            status="suspended",
            reason=options.reason,
            actor=by,
            now=runtime.clock.now(),
        )
        return [_partner_line(suspended)]

    return deed


def _propose_reinstatement(options: argparse.Namespace) -> Deed:
    async def deed(connection: Connection, runtime: Runtime) -> list[str]:
        by = await require_admin(connection, options.login, "maker")
        partner = await registry.find_partner_by_slug(connection, options.slug)
        change = await changes.propose_reinstatement(
            connection, partner_id=partner.id, reason=options.reason, by=by, now=runtime.clock.now()
        )
        return [change_line(change)]

    return deed


def _approve(options: argparse.Namespace) -> Deed:
    async def deed(connection: Connection, runtime: Runtime) -> list[str]:
        by = await require_admin(connection, options.login, "checker")
        change = await changes.approve_change(
            connection, change_id=from_wire("chg", options.id), by=by, now=runtime.clock.now()
        )
        return [change_line(change)]

    return deed


def _reject(options: argparse.Namespace) -> Deed:
    async def deed(connection: Connection, runtime: Runtime) -> list[str]:
        by = await require_admin(connection, options.login, "checker")
        change = await changes.reject_change(
            connection, change_id=from_wire("chg", options.id), by=by, now=runtime.clock.now()
        )
        return [change_line(change)]

    return deed


def _list_changes(options: argparse.Namespace) -> Deed:
    async def deed(connection: Connection, _runtime: Runtime) -> list[str]:
        return [change_line(change) for change in await changes.list_changes(connection, state=options.state)]

    return deed


def _partner_line(partner: Partner) -> str:
    return f"{to_wire('ptn', partner.id)} {partner.slug:<16} {partner.status:<11} epoch {partner.epoch}"


def change_line(change: Change) -> str:
    """A proposal in one line."""
    about = to_wire("ptn", change.partner_id) if change.app_id is None else to_wire("app", change.app_id)
    people = f"{change.proposed_by} / {change.decided_by or '-'}"
    return f"{to_wire('chg', change.id)} {change.kind:<9} {change.state:<8} {about} {people}: {change.reason}"
