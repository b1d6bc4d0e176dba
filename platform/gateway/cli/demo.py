"""`tessera demo`: the main job, start to finish, against a platform of its own."""

import argparse
import os
from pathlib import Path
from typing import Any

from gateway.demo.show import EXAMPLE, show
from kernel.settings import from_environment


def register(subparsers: Any) -> None:
    """Add the command to the parser."""
    parser = subparsers.add_parser("demo", help="four partners' day over HTTP; ends with `books balanced`")
    parser.add_argument("--data-dir", default=None, help="the sandbox's data directory (default: var)")
    parser.add_argument("--port", type=int, default=0, help="where its platform answers; 0 takes a free one")
    parser.add_argument(
        "--orders", type=Path, default=EXAMPLE, metavar="FILE", help="the order file to import"
    )
    parser.set_defaults(run=_show)


def _show(options: argparse.Namespace) -> int:
    data_dir = Path(options.data_dir or from_environment(os.environ).data_dir)
    return show(data_dir=data_dir, port=options.port, orders=options.orders)
