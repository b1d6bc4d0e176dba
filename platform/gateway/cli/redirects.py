"""`tessera redirect-uri`: where the members of an app's partner may be sent back to."""

import argparse
import asyncio
import os
from typing import Any

from msgspec import structs

from gateway.attach import attached
from kernel.clock import DatabaseClock
from kernel.database import open_pool, tell_time, transaction
from kernel.errors import Absent
from kernel.settings import Settings, from_environment
from partners.registry import service as registry


def register(subparsers: Any) -> None:
    """Add the commands to the parser."""
    parser = subparsers.add_parser("redirect-uri", help="where an app's members may be sent back to")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, about in (
        ("add", "register an address"),
        ("remove", "strike an address"),
        ("list", "show them"),
    ):
        command = commands.add_parser(name, help=about)
        command.add_argument("client_id", metavar="CLIENT_ID")
        if name != "list":
            command.add_argument("uri", metavar="URI")
            command.add_argument(
                "--by", default="operator", metavar="LOGIN", help="who does it, for the audit log"
            )
        command.add_argument("--data-dir", default=None, help="the system's data directory (default: var)")
        command.set_defaults(run=_run, command=name)


def _run(options: argparse.Namespace) -> int:
    settings = from_environment(os.environ)
    if options.data_dir is not None:
        settings = structs.replace(settings, data_dir=options.data_dir)
    with attached(settings) as found:
        for uri in asyncio.run(_change(found, options)):
            print(uri)
    return 0


async def _change(settings: Settings, options: argparse.Namespace) -> list[str]:
    """The app's addresses afterwards."""
    assert settings.database_url is not None
    clock = DatabaseClock()
    async with (
        await open_pool(settings.database_url.reveal(), size=1, application="tessera-cli") as pool,
        transaction(pool) as connection,
    ):
        await tell_time(clock, connection)
        now, client_id = clock.now(), options.client_id
        if options.command == "add":
            await registry.add_redirect_uri(
                connection,
                client_id=client_id,
                uri=options.uri,
                sandbox=settings.mode == "sandbox",
                actor=f"admin:{options.by}",
                now=now,
            )
        elif options.command == "remove":
            await registry.remove_redirect_uri(
                connection, client_id=client_id, uri=options.uri, actor=f"admin:{options.by}", now=now
            )
        client = await registry.find_client(connection, client_id)
        if client is None:
            raise Absent
        return client.redirect_uris
