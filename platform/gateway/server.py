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
#: of a request's head, and of what follows its body
HEAD_BYTES_MAX = 65_536
#: from a head's first byte to its last, and for the rest of a body nobody reads any more
HEAD_SECONDS = 10.0
#: a request leaves hardly anything to the collector, and each collection is a pause for all requests
COLLECT_AFTER = (20_000, 20, 50)


class OneWrite(HttpToolsProtocol):
    """Sends head and body of an answer in one write: each write is a call of the system, and a packet.

    And bounds what uvicorn leaves open: how long a head may be and how long it may take, on a connection that may never
    have said anything. Trailer fields are nobody's header fields (RFC 9110 §6.5.1): a proxy that takes Client-Cert from a
    client's head may well hand on its trailers.
    """

    def __init__(
        self,
        *given: Any,
        head_seconds: float = HEAD_SECONDS,
        silence_seconds: float = KEEP_ALIVE_SECONDS,
        **named: Any,
    ) -> None:
        super().__init__(*given, **named)
        self._head_seconds = head_seconds
        self._silence_seconds = silence_seconds
        self._in_head = self._in_message = False
        #: bytes since anything of a request was complete
        self._pending = 0
        self.head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(cast(asyncio.Transport, _Gathered(transport)))
        self.timeout_keep_alive_task = self.loop.call_later(
            self._silence_seconds, self.timeout_keep_alive_handler
        )

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._pending += len(data)
        super().data_received(data)
        if self._pending > HEAD_BYTES_MAX and not self.transport.is_closing():
            self.send_400_response("Request header too long.")
        elif self._in_head:
            self._start_timer()

    def on_message_begin(self) -> None:
        self._in_head = self._in_message = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head, self._pending = False, 0
        self._stop_timer()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._pending = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_message, self._pending = False, 0
        self._stop_timer()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._in_message:
            self._start_timer()

    def _start_timer(self) -> None:
        if self.head_timer is None and not self.transport.is_closing():
            self.head_timer = self.loop.call_later(self._head_seconds, self.timeout_keep_alive_handler)

    def _stop_timer(self) -> None:
        if self.head_timer is not None:
            self.head_timer.cancel()
            self.head_timer = None


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
