"""What commands that act on the platform share: the settings, one transaction, and who acts."""

import argparse
import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

from msgspec import structs

from gateway.attach import attached
from gateway.runtime import Runtime
from kernel.database import Connection, transaction
from kernel.settings import Settings, from_environment

#: prints the lines it returns, after the commit
Deed = Callable[[Connection, Runtime], Awaitable[list[str]]]


def add_command(commands: Any, name: str, run: Callable[[argparse.Namespace], Deed], told: str) -> Any:
    """A command that runs in one transaction."""
    command = commands.add_parser(name, help=told)
    command.add_argument("--data-dir", default=None, help="the system's data directory (default: var)")
    command.set_defaults(run=lambda options: _do(options, run(options)))
    return command


def add_by(command: Any, *, reason: bool = True) -> None:
    """Who acts, and why."""
    command.add_argument("--by", dest="login", required=True, metavar="LOGIN", help="the admin who acts")
    if reason:
        command.add_argument("--reason", required=True, help="a sentence for the record")


def _do(options: argparse.Namespace, deed: Deed) -> int:
    settings = from_environment(os.environ)
    if options.data_dir is not None:
        settings = structs.replace(settings, data_dir=options.data_dir)
    with attached(settings) as found:
        for line in asyncio.run(_in_transaction(found, deed)):
            print(line)
    return 0


async def _in_transaction(settings: Settings, deed: Deed) -> list[str]:
    runtime = Runtime(settings)
    async with runtime.open(), transaction(runtime.pool) as connection:
        return await deed(connection, runtime)
