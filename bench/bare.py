"""The bare reference of the HTTP figures: our server and router with an empty handler, and the same behind the whole edge.

`python -m bench.bare plain|proved --data-dir DIR` listens on a free port, prints it, and answers until it is ended.
`proved` belongs to the platform that runs on DIR: its partners' tokens and proofs are verified, counted and used up.
"""

import os
import socket
import sys
from pathlib import Path

import uvicorn
from litestar import Litestar, get
from msgspec import Struct, structs

import gateway.app
from gateway.attach import HOST, attached
from gateway.server import configure, settle
from kernel.settings import from_environment

PATH = "/v1/bench/empty"


class Nothing(Struct, frozen=True, kw_only=True):
    """The answer."""


@get(PATH, scope="points:earn", level="A1")
async def empty() -> Nothing:
    """Nothing."""
    return Nothing()


def main() -> None:
    kind, data_dir = sys.argv[1], Path(sys.argv[2])
    listener = socket.socket()
    listener.bind((HOST, 0))
    settings = structs.replace(from_environment(os.environ), data_dir=str(data_dir))
    with attached(settings) as found:
        if kind == "plain":
            app: object = Litestar([empty], openapi_config=None, logging_config=None)
        else:
            gateway.app.ROUTES.append(empty)
            app = gateway.app.build_app(found)
        settle()
        print(listener.getsockname()[1], flush=True)
        uvicorn.Server(configure(app)).run(sockets=[listener])


if __name__ == "__main__":
    main()
