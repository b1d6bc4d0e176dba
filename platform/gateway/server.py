"""One HTTP worker process: uvicorn on the sockets its parent opened."""

import asyncio
import gc
import socket
from collections.abc import Sequence
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.app import build_app
from kernel.settings import Settings

KEEP_ALIVE_SECONDS = 75
CONNECTIONS_MAX = 2_000
KEPT_BYTES_MAX = 16_384
#: of a request line with its header fields
HEAD_BYTES_MAX = 131_072
#: a request leaves hardly anything to the collector, and each collection is a pause for all requests
COLLECT_AFTER = (20_000, 20, 50)


class OneWrite(HttpToolsProtocol):
    """Sends head and body of an answer in one write: each write is a call of the system, and a packet.

    The head of a request has to arrive in time and within bounds: uvicorn waits for ever and keeps whatever comes.
    """

    #: from the first byte to the last; and how often that is looked at
    head_seconds = 10.0

    _awaited_since: float | None = None
    _head_bytes = 0
    _watch: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(cast(asyncio.Transport, _Gathered(transport)))
        self._await_head()
        self._watch = self.loop.call_later(self.head_seconds, self._look)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._await_head()

    def on_headers_complete(self) -> None:
        self._awaited_since = None
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._awaited_since is not None:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX and not self.transport.is_closing():
                self.send_400_response("The head of the request is too long.")

    def connection_lost(self, exc: Exception | None) -> None:
        if self._watch is not None:
            self._watch.cancel()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        self._awaited_since, self._head_bytes = self.loop.time(), 0

    def _look(self) -> None:
        since, now = self._awaited_since, self.loop.time()
        if since is not None and now - since >= self.head_seconds:
            self.transport.abort()
        else:
            self._watch = self.loop.call_later(self.head_seconds, self._look)


class _Gathered:
    """A transport that writes what it was given when the loop comes round, or when it is much."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._kept: list[bytes] = []
        self._size = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._kept:
            self._loop.call_soon(self._flush)
        self._kept.append(data)
        self._size += len(data)
        # From here on the transport must know how much waits, so that it can tell the sender to pause.
        if self._size > KEPT_BYTES_MAX:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        kept, self._kept, self._size = self._kept, [], 0
        if kept:
            self._transport.writelines(kept)


def configure(app: Any, **more: Any) -> uvicorn.Config:
    """How a worker serves `app`."""
    return uvicorn.Config(
        app,
        loop="uvloop",
        http=OneWrite,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        **more,
    )


def settle() -> None:
    """What exists now lives as long as the process: keep it out of every later collection."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)


def run(settings: Settings, *, fds: Sequence[int]) -> int:
    """Answer until SIGTERM; requests in flight then have `drain_seconds` to finish."""
    listeners = [socket.socket(fileno=fd) for fd in fds]
    config = configure(
        build_app(settings),
        limit_concurrency=CONNECTIONS_MAX,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=settings.drain_seconds,
    )
    settle()
    uvicorn.Server(config).run(sockets=listeners)
    return 0
