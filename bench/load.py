"""The load of the HTTP figures: a process of its own that sends prepared requests over kept connections.

`python -m bench.load SPEC`: prepares and signs everything, prints `ready`, waits for a line, sends, prints one JSON line.
Proofs are signed before the clock starts, so that the generator's cost is that of sending and receiving.
"""

import asyncio
import hashlib
import json
import resource
import sys
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import urlencode, urlsplit
from uuid import uuid4

import httpx
import msgspec
import uvloop
from msgspec import Struct

from bench.measure import percentile
from gateway.client import ASSERTION_TYPE, PartnerClient
from gateway.credentials import base64url, read_credentials

ANSWER_SECONDS = 30.0


class Spec(Struct, frozen=True, kw_only=True):
    """What to send, how, and for how long."""

    #: where to connect
    url: str
    #: the partner file; None sends without proof, as the bare server wants it
    credentials: str | None
    #: instead of proofs, the certificate that the trusted proxy hands on, and the client whose it is; `url` is the private port
    certificate: str | None = None
    client_id: str = ""
    #: a call of the API, or a token: by assertion and proof, without credentials by a secret
    asks: Literal["call", "token"] = "call"
    method: str = "POST"
    path: str
    subs: list[str] = []
    #: earnings in one request; 1 for the single route
    items: int = 1
    connections: int
    seconds: float
    #: how many requests to prepare
    prepared: int


class Loaded(Struct, frozen=True, kw_only=True):
    """What came of it."""

    done: int
    seconds: float
    cpu_seconds: float
    p50_ms: float
    p99_ms: float
    statuses: dict[str, int]


class _Line(asyncio.Protocol):
    """One kept connection: the next request goes out when the answer to the last is complete."""

    def __init__(
        self, requests: Iterator[bytes], until: Callable[[], bool], seen: list[tuple[int, float]]
    ) -> None:
        self._requests = requests
        self._over = until
        self._seen = seen
        self._buffer = b""
        self._begun = 0.0
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's has the methods and not the class
        self._send()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        if len(rest) < length:
            return
        self._seen.append((int(head[9:12]), time.perf_counter() - self._begun))
        self._buffer = rest[length:]
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    def _send(self) -> None:
        request = None if self._over() else next(self._requests, None)
        if request is None:
            self._transport.close()
            return
        self._begun = time.perf_counter()
        self._transport.write(request)


async def _prepare(spec: Spec) -> list[bytes]:
    return _token_requests(spec) if spec.asks == "token" else await _calls(spec)


def _token_requests(spec: Spec) -> list[bytes]:
    client = None
    if spec.credentials is not None:
        client = PartnerClient(read_credentials(Path(spec.credentials)), base_url=spec.url)
    return [_token_request(spec, client) for _ in range(spec.prepared)]


def _token_request(spec: Spec, client: PartnerClient | None) -> bytes:
    form = {"grant_type": "client_credentials"}
    if client is None:
        proved = f"authorization: Basic {b64encode(b'bench:secret').decode()}"
    else:
        form |= {"client_assertion_type": ASSERTION_TYPE, "client_assertion": client.make_assertion()}
        proved = f"dpop: {client.make_proof('POST', spec.path)}"
    body = urlencode(form).encode()
    lines = [
        f"POST {spec.path} HTTP/1.1",
        f"host: {urlsplit(spec.url).netloc}",
        "content-type: application/x-www-form-urlencoded",
        f"content-length: {len(body)}",
        proved,
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def _calls(spec: Spec) -> list[bytes]:
    host = urlsplit(spec.url).netloc
    client, token = None, ""
    if spec.credentials is not None:
        client = PartnerClient(read_credentials(Path(spec.credentials)), base_url=spec.url)
        await client.get("/v1/me")  # brings a nonce, if one is asked for
        token = await client.token()
    vouched: list[str] = []
    if spec.certificate is not None:
        vouched = [f"client-cert: {spec.certificate}"]
        vouched.append(f"authorization: Bearer {await _certificate_token(spec)}")
    hashed = base64url(hashlib.sha256(token.encode()).digest()) if token else None
    requests = []
    for number in range(spec.prepared):
        body = msgspec.json.encode(_body(spec, number)) if spec.method == "POST" else b""
        lines = [f"{spec.method} {spec.path} HTTP/1.1", f"host: {host}", *vouched]
        if spec.method == "POST":
            lines += [
                "content-type: application/json",
                f"content-length: {len(body)}",
                f"idempotency-key: {uuid4()}",
            ]
        if client is not None:
            lines.append(f"authorization: DPoP {token}")
            lines.append(f"dpop: {client.make_proof(spec.method, spec.path, token_hash=hashed)}")
        requests.append("\r\n".join([*lines, "", ""]).encode() + body)
    return requests


async def _certificate_token(spec: Spec) -> str:
    """A token bound to the certificate (RFC 8705 §3)."""
    form = {"grant_type": "client_credentials", "client_id": spec.client_id}
    async with httpx.AsyncClient(base_url=spec.url, timeout=ANSWER_SECONDS) as http:
        answer = await http.post("/oauth2/token", data=form, headers={"client-cert": spec.certificate or ""})
    return str(answer.raise_for_status().json()["access_token"])


def _body(spec: Spec, number: int) -> dict[str, Any]:
    earnings = [
        {
            "member": spec.subs[(number * spec.items + place) % len(spec.subs)],
            "source_ref": str(uuid4()),
            "kind": "purchase",
            "occurred_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "amount_fen": 129_900,
            "category": "appliances",
            "own_card": True,
        }
        for place in range(spec.items)
    ]
    return earnings[0] if spec.items == 1 else {"items": earnings}


async def _send(spec: Spec, requests: list[bytes]) -> Loaded:
    loop, parts = asyncio.get_running_loop(), urlsplit(spec.url)
    assert parts.hostname is not None and parts.port is not None
    seen: list[tuple[int, float]] = []
    waiting = iter(requests)
    began = time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_SELF)
    over = began + spec.seconds
    lines = []
    for _ in range(spec.connections):
        _, line = await loop.create_connection(
            lambda: _Line(waiting, lambda: time.perf_counter() > over, seen), parts.hostname, parts.port
        )
        lines.append(line)
    await asyncio.wait_for(asyncio.gather(*(line.ended for line in lines)), spec.seconds + ANSWER_SECONDS)
    seconds = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_SELF)
    latencies = sorted(latency for _, latency in seen)
    return Loaded(
        done=len(seen),
        seconds=seconds,
        cpu_seconds=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        p50_ms=percentile(latencies, 0.5) * 1e3,
        p99_ms=percentile(latencies, 0.99) * 1e3,
        statuses=dict(Counter(str(status) for status, _ in seen)),
    )


async def _main(spec: Spec) -> None:
    requests = await _prepare(spec)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    print(json.dumps(msgspec.to_builtins(await _send(spec, requests))), flush=True)


if __name__ == "__main__":
    uvloop.run(_main(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Spec)))
