"""`tessera admin create`: an account for a member of the bank's staff."""

import argparse
import asyncio
import os
from typing import Any, get_args

from msgspec import structs

from gateway.admins import NewAdmin, Role, create_admin
from gateway.attach import attached
from gateway.runtime import Runtime
from kernel.database import transaction
from kernel.settings import Settings, from_environment


def register(subparsers: Any) -> None:
    """Add the commands to the parser."""
    parser = subparsers.add_parser("admin", help="accounts of the bank's staff")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    create = commands.add_parser("create", help="create an account; prints its secrets once")
    create.add_argument("login")
    create.add_argument("--role", action="append", choices=get_args(Role), required=True, dest="roles")
    create.add_argument("--data-dir", default=None)
    create.set_defaults(run=_create)


def _create(options: argparse.Namespace) -> int:
    settings = from_environment(os.environ)
    if options.data_dir is not None:
        settings = structs.replace(settings, data_dir=options.data_dir)
    with attached(settings) as found:
        created = asyncio.run(_create_in(found, options.login, options.roles))
    print(f"login       {created.login}\nroles       {', '.join(created.roles)}")
    print(f"password    {created.password}\ntotp secret {created.totp_secret}")
    print("Shown once: the password is stored as a hash, the secret encrypted.")
    return 0


async def _create_in(settings: Settings, login: str, roles: list[Role]) -> NewAdmin:
    runtime = Runtime(settings)
    async with runtime.open(), transaction(runtime.pool) as connection:
        return await create_admin(
            connection, login=login, roles=roles, vault=runtime.vault, now=runtime.clock.now()
        )
