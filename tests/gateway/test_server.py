"""What the worker process adds to uvicorn."""

import asyncio
from collections.abc import Awaitable
from typing import Any, cast

import pytest
from uvicorn.server import ServerState

from gateway.server import HEAD_BYTES_MAX, KEPT_BYTES_MAX, OneWrite, _Gathered, configure


class Wire:
    """A transport that remembers what it was asked to do."""

    def __init__(self) -> None:
        self.done: list[Any] = []
        self.wrote, self.closed = asyncio.Event(), asyncio.Event()

    def writelines(self, chunks: list[bytes]) -> None:
        self.done.append(b"".join(chunks))
        self.wrote.set()

    def close(self) -> None:
        self.done.append("closed")
        self.closed.set()

    abort = close

    def is_closing(self) -> bool:
        return "closed" in self.done

    def get_extra_info(self, _name: str) -> None:
        """Nothing is known of the far end."""

    def pause_reading(self) -> None:
        """Everything is here."""

    resume_reading = pause_reading


class Seen:
    """An application that remembers the header fields of each request."""

    def __init__(self) -> None:
        self.requests: list[list[bytes]] = []
        self.answered = asyncio.Semaphore(0)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        self.requests.append([name for name, _ in scope["headers"]])
        self.answered.release()
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})


class Hasty(OneWrite):
    """Waits no longer than a test does."""

    head_seconds = 0.01


def connect(seen: Seen, wire: Wire, kind: type[OneWrite] = OneWrite) -> OneWrite:
    config = configure(seen)
    config.load()
    protocol = kind(config=config, server_state=ServerState(), app_state={})
    protocol.connection_made(cast(asyncio.Transport, wire))
    return protocol


async def soon(what: Awaitable[object]) -> None:
    await asyncio.wait_for(what, 5)


async def test_what_is_written_in_one_step_leaves_in_one_write() -> None:
    wire = Wire()
    gathered = _Gathered(cast(asyncio.Transport, wire))

    gathered.write(b"head ")
    gathered.write(b"body")
    assert wire.done == []
    await asyncio.sleep(0)
    gathered.write(b"next")
    await asyncio.sleep(0)

    assert wire.done == [b"head body", b"next"]


async def test_much_is_not_kept() -> None:
    wire = Wire()
    gathered = _Gathered(cast(asyncio.Transport, wire))

    for _ in range(100):
        gathered.write(b"x" * 1_000)

    assert sum(map(len, wire.done)) >= 100_000 - KEPT_BYTES_MAX - 1_000


async def test_nothing_is_lost_when_the_connection_is_closed_at_once() -> None:
    wire = Wire()
    gathered = _Gathered(cast(asyncio.Transport, wire))

    gathered.write(b"last")
    gathered.close()
    await asyncio.sleep(0)

    assert wire.done == [b"last", "closed"]
    assert gathered.is_closing()


@pytest.mark.parametrize("pieces", [1, 7])
async def test_a_trailer_field_is_no_header_field(pieces: int) -> None:
    seen, wire = Seen(), Wire()
    protocol = connect(seen, wire)
    sent = (
        b"POST /v1/x HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
        b"1\r\nx\r\n0\r\nclient-cert: :AAAA:\r\nx-forwarded-for: 10.9.9.9\r\n\r\n"
        b"GET /v1/y HTTP/1.1\r\nhost: b\r\naccept: c\r\n\r\n"
    )
    for place in range(0, len(sent), -(-len(sent) // pieces)):
        protocol.data_received(sent[place : place + -(-len(sent) // pieces)])

    for _ in range(2):
        await soon(seen.answered.acquire())
    assert seen.requests == [[b"host", b"transfer-encoding"], [b"host", b"accept"]]


@pytest.mark.parametrize(
    ("beginning", "more"),
    [
        pytest.param(b"GET / HTTP/1.1\r\n", b"x: " + b"y" * 990 + b"\r\n", id="many fields"),
        pytest.param(b"GET / HTTP/1.1\r\nx: ", b"y" * 1_000, id="a long field"),
        pytest.param(b"GET /", b"y" * 1_000, id="a long path"),
        pytest.param(
            b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n",
            b"x: " + b"y" * 990 + b"\r\n",
            id="many trailer fields",
        ),
    ],
)
async def test_a_head_has_its_bound(beginning: bytes, more: bytes) -> None:
    wire = Wire()
    protocol = connect(Seen(), wire)
    protocol.data_received(beginning)
    for _ in range(HEAD_BYTES_MAX // 1_000 + 2):
        if wire.is_closing():
            break
        protocol.data_received(more)

    assert wire.is_closing()


async def test_a_body_nobody_reads_any_more_has_its_time() -> None:
    async def refuse(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 401, "headers": []})
        await send({"type": "http.response.body", "body": b"no"})

    wire = Wire()
    protocol = connect(cast(Seen, refuse), wire, Hasty)
    protocol.data_received(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n")
    await soon(wire.wrote.wait())
    protocol.data_received(b"x")

    await soon(wire.closed.wait())
