"""Row 22, request smuggling: bytes on which two servers could disagree, sent to the server as a worker runs it.

Whatever is ambiguous is answered 400 or not at all, the connection ends, and at most one request was seen.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, Generator
from typing import Any

import pytest
import uvicorn
from attacks.house import House

from gateway.app import build_edge, build_litestar
from gateway.edge import App, Receive, Scope, Send
from gateway.server import HEAD_BYTES_MAX, OneWrite, configure

DEADLINE_SECONDS = 5.0
HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /oauth2/token HTTP/1.1\r\nHost: x\r\n"
GET = b"GET /livez HTTP/1.1\r\nHost: x\r\n"


class Counting:
    """What the server's parser took for requests."""

    def __init__(self, app: App) -> None:
        self._app = app
        self.seen: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.seen.append(scope["path"])
        await self._app(scope, receive, send)


class Impatient(OneWrite):
    """What a worker speaks, with less time for a head."""

    head_seconds = 0.3


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Signals stay with the test runner."""
        yield


class Target(Counting):
    """A running server, and the way to it."""

    address: Any = None

    async def send(self, data: bytes) -> bytes:
        """Everything that comes back until the server hangs up, or until it has answered and waits for more."""
        self.seen.clear()
        reader, writer = await asyncio.open_connection(*self.address)
        answer = b""
        try:
            writer.write(data)
            async with asyncio.timeout(DEADLINE_SECONDS):
                answer = await reader.read(65_536)
                writer.write_eof()
                return answer + await reader.read()
        except OSError:
            return answer  # the server has hung up
        finally:
            writer.close()


@pytest.fixture(scope="module")
async def target(house: House) -> AsyncGenerator[Target, None]:
    counting = Target(build_edge(house.runtime, build_litestar(house.runtime, openapi=None)))
    config = configure(counting)
    config.lifespan, config.http = "off", Impatient
    server = _Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        counting.address = listener.getsockname()
        yield counting
        server.should_exit = True
        await serving


def chunked(size_line: bytes, data: bytes = b"hello\r\n") -> bytes:
    return POST + b"Transfer-Encoding: chunked\r\n\r\n" + size_line + b"\r\n" + data + b"0\r\n\r\n"


def lengths(*values: bytes) -> bytes:
    fields = b"".join(b"Content-Length: " + value + b"\r\n" for value in values)
    return POST + fields + b"\r\nhello" + HIDDEN


CL, TE = b"Content-Length: 6\r\n", b"Transfer-Encoding: chunked\r\n"
END = b"\r\n0\r\n\r\n"
#: two servers could read these differently
AMBIGUOUS: dict[str, bytes] = {
    "CL.TE": POST + CL + TE + END + HIDDEN,
    "TE.CL": POST + TE + CL + END + HIDDEN,
    "TE.TE, the second unknown": POST + TE + b"Transfer-Encoding: cow\r\n" + END + HIDDEN,
    "TE.TE, the first unknown": POST + b"Transfer-Encoding: cow\r\n" + TE + END + HIDDEN,
    "chunked is not the last coding": POST + b"Transfer-Encoding: chunked, identity\r\n" + END + HIDDEN,
    "an unknown coding": POST + b"Transfer-Encoding: xchunked\r\n" + END + HIDDEN,
    "a quoted coding": POST + b'Transfer-Encoding: "chunked"\r\n' + END + HIDDEN,
    "a space before the colon": POST + b"Transfer-Encoding : chunked\r\n" + END + HIDDEN,
    "a space before the colon of the length": POST + b"Content-Length : 5\r\n\r\nhello" + HIDDEN,
    "two equal lengths": lengths(b"5", b"5"),
    "two lengths": lengths(b"5", b"50"),
    "a list of lengths": lengths(b"5, 5"),
    "a length with a sign": lengths(b"+5"),
    "a negative length": lengths(b"-5"),
    "a length in hexadecimal": lengths(b"0x5"),
    "a length with a gap": lengths(b"5 5"),
    "a length with a fraction": lengths(b"5.0"),
    "an empty length": lengths(b""),
    "a length beyond 64 bits": lengths(b"18446744073709551621"),
    "a folded line": POST + b"Content-Length: 5\r\nX: a\r\n b\r\n\r\nhello" + HIDDEN,
    "a folded first field": b"GET /livez HTTP/1.1\r\n Host: x\r\n\r\n",
    "bare line feeds": GET.replace(b"\r\n", b"\n") + b"X: y\n\n" + HIDDEN,
    "a bare line feed in the header": GET + b"X: y\nTransfer-Encoding: chunked\r\n\r\n" + HIDDEN,
    "a bare carriage return": GET + b"X: y\rTransfer-Encoding: chunked\r\n\r\n" + HIDDEN,
    "a NUL in a value": GET + b"X: a\0b\r\n\r\n" + HIDDEN,
    "a NUL in a name": GET + b"X\0: a\r\n\r\n" + HIDDEN,
    "a NUL in the target": b"GET /livez\0 HTTP/1.1\r\nHost: x\r\n\r\n" + HIDDEN,
    "a name with a space": GET + b"X Y: a\r\n\r\n" + HIDDEN,
    "a field without a name": GET + b": a\r\n\r\n" + HIDDEN,
    "a field without a colon": GET + b"X\r\n\r\n" + HIDDEN,
    "a control character in a value": GET + b"X: a\x01b\r\n\r\n" + HIDDEN,
    "a chunk size that is none": chunked(b"x") + HIDDEN,
    "a chunk size in C's hexadecimal": chunked(b"0x5") + HIDDEN,
    "a negative chunk size": chunked(b"-5") + HIDDEN,
    "a chunk size beyond 64 bits": chunked(b"10000000000000005") + HIDDEN,
    "a chunk that is longer than it says": chunked(b"3") + HIDDEN,
    "a chunk size ended by a line feed": chunked(b"5\nhello\r\n0\r\n") + HIDDEN,
    "a chunk extension with a line feed": chunked(b"5;a\nhello") + HIDDEN,
    "a chunk extension with a NUL": chunked(b"5;a=\0") + HIDDEN,
    "a chunk ended by a line feed": chunked(b"5", b"hello\n") + HIDDEN,
    "a version nobody speaks": b"GET /livez HTTP/3.7\r\nHost: x\r\n\r\n" + HIDDEN,
    "a version in small letters": b"GET /livez http/1.1\r\nHost: x\r\n\r\n" + HIDDEN,
    "a request line with a word more": b"GET /livez HTTP/1.1 x\r\nHost: x\r\n\r\n" + HIDDEN,
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + HIDDEN,
}


@pytest.mark.parametrize("name", AMBIGUOUS)
async def test_attack_22_what_two_servers_could_read_differently_is_refused(
    target: Target, name: str
) -> None:
    answer = await target.send(AMBIGUOUS[name])
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 "), answer[:200]
    assert answer.count(b"HTTP/1.1 ") <= 1
    assert len(target.seen) <= 1 and "/hidden" not in target.seen


#: strange but clear: one request, and what follows is not part of it
CLEAR: dict[str, bytes] = {
    "chunk extensions": chunked(b"5;name=value;other"),
    "an upgrade to HTTP/2": GET + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n",
    "an upgrade to WebSocket": GET
    + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    "another host in the target": b"GET http://evil.example/livez HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.mark.parametrize("name", CLEAR)
async def test_attack_22_what_is_strange_but_clear_is_one_request(target: Target, name: str) -> None:
    answer = await target.send(CLEAR[name])
    assert answer.count(b"HTTP/1.1 ") == 1 and not answer.startswith(b"HTTP/1.1 101")
    assert len(target.seen) == 1


async def test_attack_22_a_second_request_is_seen_where_there_is_one(target: Target) -> None:
    assert (await target.send(GET + b"\r\n" + GET + b"\r\n")).count(b"HTTP/1.1 200 ") == 2
    assert target.seen == ["/livez", "/livez"]


@pytest.mark.parametrize("head", [b"", b"G", GET, GET + b"X: y", POST + b"X-" + b"a" * 1_000])
async def test_attack_19_a_head_that_does_not_come_to_its_end_is_not_waited_for(
    target: Target, head: bytes
) -> None:
    target.seen.clear()
    reader, writer = await asyncio.open_connection(*target.address)
    writer.write(head)
    async with asyncio.timeout(DEADLINE_SECONDS):
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
    writer.close()
    assert target.seen == []


async def test_attack_19_the_head_of_a_later_request_is_not_waited_for_either(target: Target) -> None:
    target.seen.clear()
    reader, writer = await asyncio.open_connection(*target.address)
    writer.write(GET + b"\r\n" + GET)
    async with asyncio.timeout(DEADLINE_SECONDS):
        with contextlib.suppress(ConnectionError):
            assert (await reader.read()).count(b"HTTP/1.1 200 ") == 1
    writer.close()
    assert target.seen == ["/livez"]


@pytest.mark.parametrize("start", [GET + b"X: ", GET + b"X-", b"GET /", b"GET /livez?"], ids=len)
async def test_attack_19_a_head_without_bound_is_refused(target: Target, start: bytes) -> None:
    answer = await target.send(start + b"a" * (HEAD_BYTES_MAX * 8))
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
    assert target.seen == []


async def test_attack_19_many_fields_are_no_way_around_the_bound(target: Target) -> None:
    answer = await target.send(GET + b"X: yyyyyyyy\r\n" * (HEAD_BYTES_MAX // 2))
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
    assert target.seen == []
