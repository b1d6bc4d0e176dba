"""`tessera keys rotate`: replace the bank's signing key at once, when the present one may be in wrong hands."""

import argparse
from typing import Any

from gateway.admins import require_admin
from gateway.cli.acting import Deed, add_by, add_command
from gateway.runtime import Runtime
from kernel.database import Connection
from partners.oauth import queries, rotation


def register(subparsers: Any) -> None:
    """Add the commands to the parser."""
    parser = subparsers.add_parser("keys", help="the bank's signing keys")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_command(commands, "list", _list, "those that are published, newest first")
    rotate = add_command(
        commands,
        "rotate",
        _rotate,
        "in an emergency: a new key at once, nothing the old ones signed is accepted; takes one duty officer",
    )
    add_by(rotate)


def _list(_options: argparse.Namespace) -> Deed:
    async def deed(connection: Connection, _runtime: Runtime) -> list[str]:
        keys = await queries.list_signing_keys(connection)
        return [f"{key.kid} {key.status:<8} since {key.moved_at:%Y-%m-%dT%H:%M:%SZ}" for key in keys]

    return deed


def _rotate(options: argparse.Namespace) -> Deed:
    async def deed(connection: Connection, runtime: Runtime) -> list[str]:
        by = await require_admin(connection, options.login, "duty_officer")
        kid = await rotation.replace_now(
            connection, runtime.vault, reason=options.reason, by=by, now=runtime.clock.now()
        )
        return [f"{kid} active"]

    return deed
