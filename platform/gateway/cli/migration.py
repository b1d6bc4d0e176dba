"""`tessera migrate`: bring the database's schema up to date, or say what is missing."""

import argparse
import asyncio
import os
from typing import Any

from kernel import migrate
from kernel.settings import SettingsError, from_environment


def register(subparsers: Any) -> None:
    """Add the command to the parser."""
    parser = subparsers.add_parser("migrate", help="apply migrations/*.sql as the owner role")
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit 1 when a migration is pending"
    )
    parser.set_defaults(run=_migrate)


def _migrate(options: argparse.Namespace) -> int:
    url = from_environment(os.environ).migration_url
    if url is None:
        raise SettingsError("TESSERA_MIGRATION_URL is required to migrate")
    directory = migrate.find_directory()
    if options.check:
        waiting = asyncio.run(migrate.pending(url.reveal(), directory))
        print("\n".join(f"pending {name}" for name in waiting) or "up to date")
        return 1 if waiting else 0
    applied = asyncio.run(migrate.apply(url.reveal(), directory))
    print("\n".join(f"applied {name}" for name in applied) or "up to date")
    return 0
