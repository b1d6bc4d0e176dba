"""One HTTP worker process: uvicorn on the sockets its parent opened."""

import gc
import socket
from collections.abc import Sequence

import uvicorn

from gateway.app import build_app
from kernel.settings import Settings

KEEP_ALIVE_SECONDS = 75
CONNECTIONS_MAX = 2_000


def run(settings: Settings, *, fds: Sequence[int]) -> int:
    """Answer until SIGTERM; requests in flight then have `drain_seconds` to finish."""
    listeners = [socket.socket(fileno=fd) for fd in fds]
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
    uvicorn.Server(config).run(sockets=listeners)
    return 0
