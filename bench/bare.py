"""The references of the HTTP figures: our server and the framework with an empty handler, and the gateway with one.

`python -m bench.bare plain|open|proved|tokens DIR` listens on a free port, prints it, and answers until it is ended. `proved`
belongs to the platform that runs on DIR: its partners' tokens and proofs are verified, counted and used up; `open` is the
same without authentication. `tokens` is the whole gateway in two processes, with a limit that does not bind.
"""

import ctypes
import os
import signal
import socket
import sys
from pathlib import Path

import uvicorn
from litestar import Litestar, get
from msgspec import Struct, structs

import gateway.app
import gateway.edge
from gateway.attach import HOST, attached
from gateway.limits import Limit
from gateway.server import configure, settle
from kernel.settings import from_environment

PATH = "/v1/bench/empty"
OPEN_PATH = "/bench/empty"
UNLIMITED = Limit(name="bench", per_second=1_000_000, burst=1_000_000)
PR_SET_PDEATHSIG = 1


class Nothing(Struct, frozen=True, kw_only=True):
    """The answer."""


@get(PATH, scope="points:earn", level="A1")
async def empty() -> Nothing:
    """Nothing."""
    return Nothing()


@get(OPEN_PATH, public=True)
async def free() -> Nothing:
    """Nothing, for anybody."""
    return Nothing()


def _double() -> None:
    """A second process on the same socket, which ends with the first."""
    if os.fork() == 0:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def main() -> None:
    kind, data_dir = sys.argv[1], Path(sys.argv[2])
    listener = socket.socket()
    listener.bind((HOST, 0))
    settings = structs.replace(from_environment(os.environ), data_dir=str(data_dir))
    with attached(settings) as found:
        gateway.edge.TOKEN_LIMIT = gateway.edge.ANONYMOUS_LIMIT = UNLIMITED
        if kind == "tokens":
            _double()
        if kind == "plain":
            app: object = Litestar([empty], openapi_config=None, logging_config=None)
        else:
            gateway.app.ROUTES.extend([empty, free])
            app = gateway.app.build_app(structs.replace(found, token_requests_per_minute=10**9))
        settle()
        print(listener.getsockname()[1], flush=True)
        uvicorn.Server(configure(app)).run(sockets=[listener])


if __name__ == "__main__":
    main()
