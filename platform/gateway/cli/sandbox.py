"""`tessera sandbox reset`: back to a fresh sandbox."""

import argparse
import os
from typing import Any

from msgspec import structs

from gateway import sandbox
from kernel.settings import from_environment


def register(subparsers: Any) -> None:
    """Add the command to the parser."""
    parser = subparsers.add_parser("sandbox", help="look after the sandbox")
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    reset = actions.add_parser("reset", help="remove all data of a sandbox that is not running")
    reset.add_argument("--data-dir", default=None, help="the sandbox's data directory (default: var)")
    reset.set_defaults(run=_reset)


def _reset(options: argparse.Namespace) -> int:
    settings = from_environment(os.environ)
    if options.data_dir is not None:
        settings = structs.replace(settings, data_dir=options.data_dir)
    removed = sandbox.reset(settings)
    print("\n".join(f"removed {path}" for path in removed) or "nothing to remove")
    return 0
