"""`tessera serve`, and the processes it is made of: `tessera worker` and the hidden `http`."""

import argparse
import os
from typing import Any

from msgspec import structs

from gateway import serve, server, worker
from kernel import logs
from kernel.settings import Settings, from_environment


def register(subparsers: Any) -> None:
    """Add the commands to the parser."""
    parser = subparsers.add_parser(
        "serve", help="run the platform; embedded servers unless their URLs are set"
    )
    parser.add_argument("--port", type=int, default=8080, help="where the API answers; 0 takes a free one")
    parser.add_argument("--ops-port", type=int, default=None, help="where /metrics answers, on loopback")
    parser.add_argument(
        "--data-dir", default=None, help="embedded data, secrets and sandbox files (default: var)"
    )
    parser.add_argument("--workers", type=int, default=None, help="HTTP worker processes")
    parser.set_defaults(run=_serve)
    background = subparsers.add_parser("worker", help="deliver webhooks and run due jobs, until SIGTERM")
    background.set_defaults(run=_work)
    http = subparsers.add_parser("http")  # started by serve: answers on inherited sockets
    http.add_argument("--fd", type=int, action="append", dest="fds", required=True)
    http.set_defaults(run=_answer)


def _settings(options: argparse.Namespace) -> Settings:
    settings = from_environment(os.environ)
    logs.configure(settings.log_level)
    given = {name: getattr(options, name, None) for name in ("data_dir", "workers")}
    return structs.replace(settings, **{name: value for name, value in given.items() if value is not None})


def _serve(options: argparse.Namespace) -> int:
    try:
        return serve.serve(_settings(options), port=options.port, ops_port=options.ops_port)
    except serve.Stopped:
        return 0


def _work(options: argparse.Namespace) -> int:
    return worker.run(_settings(options))


def _answer(options: argparse.Namespace) -> int:
    return server.run(_settings(options), fds=options.fds)
