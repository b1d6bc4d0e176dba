"""`tessera sandbox`: back to a fresh one, and what it would have sent to a member's phone."""

import argparse
import asyncio
import os
import sys
from typing import Any

from msgspec import structs

from gateway import sandbox
from gateway.attach import attached
from kernel.calendar import rfc3339
from kernel.database import open_pool, transaction
from kernel.settings import Settings, SettingsError, from_environment
from kernel.vault import Vault
from partners.login.delivery import list_messages


def register(subparsers: Any) -> None:
    """Add the command to the parser."""
    parser = subparsers.add_parser("sandbox", help="look after the sandbox")
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    reset = actions.add_parser("reset", help="remove all data of a sandbox that is not running")
    reset.add_argument("--data-dir", default=None, help="the sandbox's data directory (default: var)")
    reset.set_defaults(run=_reset)
    messages = actions.add_parser("messages", help="what would have been sent to a member's phone")
    messages.add_argument("login", metavar="LOGIN", help="a login name of DATA_DIR/sandbox/members.json")
    messages.add_argument("--data-dir", default=None, help="the sandbox's data directory (default: var)")
    messages.set_defaults(run=_messages)


def _reset(options: argparse.Namespace) -> int:
    removed = sandbox.reset(_settings(options))
    print("\n".join(f"removed {path}" for path in removed) or "nothing to remove")
    return 0


def _messages(options: argparse.Namespace) -> int:
    settings = _settings(options)
    if settings.mode != "sandbox":
        raise SettingsError("a live system keeps no messages")
    with attached(settings) as found:
        lines = asyncio.run(_read_messages(found, options.login))
    if lines is None:
        print(f"nobody logs in as {options.login}", file=sys.stderr)
        return 1
    print("\n".join(lines) or "no messages yet")
    return 0


async def _read_messages(settings: Settings, login: str) -> list[str] | None:
    assert settings.database_url and settings.master_keys, "attached settings lead to a database"
    vault = Vault(settings.master_keys.reveal())
    async with (
        await open_pool(settings.database_url.reveal(), size=2, application="tessera-sandbox") as pool,
        transaction(pool) as connection,
    ):
        found = await list_messages(connection, login=login, vault=vault)
    return None if found is None else [f"{rfc3339(sent_at)}  {text}" for sent_at, text in found]


def _settings(options: argparse.Namespace) -> Settings:
    settings = from_environment(os.environ)
    return settings if options.data_dir is None else structs.replace(settings, data_dir=options.data_dir)
