"""The command `tessera`: reads settings once, picks the subcommand, returns its exit code."""

import argparse
import sys
from collections.abc import Sequence

from gateway.cli import (
    admin,
    apps,
    arithmetic,
    books,
    campaigns,
    demo,
    funders,
    import_orders,
    jobs,
    members,
    migration,
    partners,
    phones,
    points,
    redirects,
    rewards,
    sandbox,
    serving,
    signatures,
    signing_keys,
)
from kernel.errors import Refusal
from kernel.migrate import MigrationError
from kernel.settings import SettingsError
from kernel.supervisor import SupervisorError
from kernel.vault import VaultError

COMMANDS = (
    serving,
    demo,
    migration,
    sandbox,
    admin,
    signatures,
    books,
    jobs,
    members,
    partners,
    apps,
    signing_keys,
    points,
    funders,
    campaigns,
    rewards,
    redirects,
    phones,
    import_orders,
    arithmetic,
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tessera", description="A bank's open partner platform.")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.register(subparsers)
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options))
    except (SettingsError, SupervisorError, MigrationError, VaultError) as mistake:
        sys.stderr.write(f"tessera: {mistake}\n")
    except Refusal as refusal:
        sys.stderr.write(f"tessera: {refusal.code}: {refusal.sentence()}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main())
