"""One HTTP worker process: uvicorn on the socket its parent opened."""

import gc
import socket

import uvicorn

from gateway.app import build_app
from kernel.settings import Settings

KEEP_ALIVE_SECONDS = 75
CONNECTIONS_MAX = 2_000
#: a request leaves hardly anything to the collector, and each collection is a pause for all requests
COLLECT_AFTER = (20_000, 20, 50)


def run(settings: Settings, *, fd: int) -> int:
    """Answer until SIGTERM; requests in flight then have `drain_seconds` to finish."""
    listener = socket.socket(fileno=fd)
    config = uvicorn.Config(
        build_app(settings),
        loop="uvloop",
        http="httptools",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=CONNECTIONS_MAX,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=settings.drain_seconds,
    )
    # What exists now lives as long as the process: keep it out of every later collection.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
    uvicorn.Server(config).run(sockets=[listener])
    return 0
