"""`tessera mobile-app` and `tessera backchannel`: the bank's apps, and which partners' apps may ask members on them."""

import argparse
import asyncio
import os
from datetime import datetime
from typing import Any

from msgspec import structs

from gateway.attach import attached
from kernel.clock import DatabaseClock
from kernel.database import Connection, open_pool, tell_time, transaction
from kernel.errors import Absent
from kernel.settings import Settings, from_environment
from partners.mobile import service as mobile
from partners.registry import service as registry


def register(subparsers: Any) -> None:
    """Add the commands to the parser."""
    apps = subparsers.add_parser("mobile-app", help="the bank's own apps")
    commands = apps.add_subparsers(required=True, metavar="COMMAND")
    add = _command(commands, "add", "register an app")
    add.add_argument("--name-zh", required=True)
    add.add_argument("--name-en", required=True)
    add.add_argument("redirect_uris", metavar="URI", nargs="+", help="where the app is returned to")
    off = _command(commands, "off", "switch an app off: its sessions end at once")
    off.add_argument("client_id", metavar="CLIENT_ID")
    _command(commands, "list", "show them")
    asking = subparsers.add_parser("backchannel", help="who may ask members on their phones")
    rights = asking.add_subparsers(required=True, metavar="COMMAND")
    for name, about in (("allow", "let a partner's app ask"), ("forbid", "not any more")):
        _command(rights, name, about).add_argument("client_id", metavar="CLIENT_ID")


def _command(commands: Any, name: str, about: str) -> Any:
    command = commands.add_parser(name, help=about)
    command.add_argument("--by", default="operator", metavar="LOGIN", help="who does it, for the audit log")
    command.add_argument("--data-dir", default=None, help="the system's data directory (default: var)")
    command.set_defaults(run=_run, command=name)
    return command


def _run(options: argparse.Namespace) -> int:
    settings = from_environment(os.environ)
    if options.data_dir is not None:
        settings = structs.replace(settings, data_dir=options.data_dir)
    with attached(settings) as found:
        for line in asyncio.run(_change(found, options)):
            print(line)
    return 0


async def _change(settings: Settings, options: argparse.Namespace) -> list[str]:
    """What is so afterwards."""
    assert settings.database_url is not None
    clock = DatabaseClock()
    async with (
        await open_pool(settings.database_url.reveal(), size=1, application="tessera-cli") as pool,
        transaction(pool) as connection,
    ):
        await tell_time(clock, connection)
        if options.command in ("allow", "forbid"):
            return await _allow(connection, options, now=clock.now())
        return await _change_apps(connection, options, now=clock.now())


async def _change_apps(connection: Connection, options: argparse.Namespace, *, now: datetime) -> list[str]:
    actor = f"admin:{options.by}"
    if options.command == "add":
        await mobile.register_app(
            connection,
            name_zh=options.name_zh,
            name_en=options.name_en,
            redirect_uris=options.redirect_uris,
            actor=actor,
            now=now,
        )
    elif options.command == "off":
        await mobile.switch_off_app(connection, client_id=options.client_id, actor=actor, now=now)
    return [
        f"{app.client_id}  {app.status}  {app.name_en}  {' '.join(app.redirect_uris)}"
        for app in await mobile.list_apps(connection)
    ]


async def _allow(connection: Connection, options: argparse.Namespace, *, now: datetime) -> list[str]:
    await registry.allow_backchannel(
        connection,
        client_id=options.client_id,
        allowed=options.command == "allow",
        actor=f"admin:{options.by}",
        now=now,
    )
    client = await registry.find_client(connection, options.client_id)
    if client is None:
        raise Absent
    return client.grant_types
