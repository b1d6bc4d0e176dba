"""Clients that are slow, silent or unknown take nothing away from the others."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, cast

import httpx
import pytest
from litestar import Litestar, Response, get
from litestar.di import NamedDependency, Provide
from litestar.params import FromPath
from litestar.response import Stream

from gateway.client import PartnerClient
from gateway.edge import Edge
from gateway.runtime import Runtime
from gateway.unit_of_work import UnitOfWork, provide_connection
from kernel.database import Connection


async def test_a_reader_that_does_not_take_its_answer_holds_no_connection(
    edge: Edge, runtime: Runtime, partner: PartnerClient
) -> None:
    never, sending = asyncio.Event(), asyncio.Semaphore(0)

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.body":
            sending.release()
            await never.wait()

    many = runtime.settings.pool_size
    stuck = [
        asyncio.create_task(edge(await _request(partner, "/v1/me"), _no_body, cast(Any, send)))
        for _ in range(many)
    ]
    try:
        for _ in range(many):
            await asyncio.wait_for(sending.acquire(), 5)
        assert (await partner.get("/v1/me"))["status"] == "live"
    finally:
        for task in stuck:
            task.cancel()
        await asyncio.gather(*stuck, return_exceptions=True)


@get("/streams/{pieces:int}", public=True)
async def stream(pieces: FromPath[int], connection: NamedDependency[Connection]) -> Stream:
    """As many pieces as asked for, each from the database."""

    async def read() -> AsyncGenerator[bytes, None]:
        for no in range(pieces):
            yield str(await connection.fetchval("SELECT $1::int", no)).encode()

    return Stream(read())


@pytest.mark.parametrize(("pieces", "expected"), [(0, b""), (3, b"012")])
async def test_a_stream_is_sent_as_it_is_read(runtime: Runtime, pieces: int, expected: bytes) -> None:
    application = Litestar(
        [stream],
        dependencies={"connection": Provide(provide_connection)},
        middleware=[UnitOfWork(runtime)],
        openapi_config=None,
    )
    edge = Edge(cast(Any, application), runtime, batch_paths=frozenset())
    transport = httpx.ASGITransport(app=cast(Any, edge))
    async with httpx.AsyncClient(transport=transport, base_url=runtime.base_url) as reader:
        answer = await asyncio.wait_for(reader.get(f"/streams/{pieces}"), 5)

    assert (answer.status_code, answer.content) == (200, expected)


@get("/moved", public=True)
async def moved(connection: NamedDependency[Connection]) -> Response[str]:
    """A read that writes, and answers with nothing but an address; the answer names its transaction."""
    transaction_id = await connection.fetchval("SELECT pg_current_xact_id()::text")
    return Response("", status_code=303, headers={"location": "/elsewhere", "transaction": transaction_id})


async def test_a_redirect_leaves_after_its_commit(runtime: Runtime) -> None:
    states: list[str] = []

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            transaction_id = dict(message["headers"])[b"transaction"].decode()
            async with runtime.pool.acquire() as connection:
                states.append(
                    await connection.fetchval("SELECT pg_xact_status($1::text::xid8)", transaction_id)
                )

    application = Litestar(
        [moved],
        dependencies={"connection": Provide(provide_connection)},
        middleware=[UnitOfWork(runtime)],
        openapi_config=None,
    )
    edge = Edge(cast(Any, application), runtime, batch_paths=frozenset())
    scope: dict[str, Any] = {
        "type": "http",
        "method": "GET",
        "path": "/moved",
        "raw_path": b"/moved",
        "query_string": b"",
        "headers": [],
        "client": None,
    }

    await edge(cast(Any, scope), _no_body, cast(Any, send))

    assert states == ["committed"]


async def test_the_body_of_a_stranger_is_not_read(http: httpx.AsyncClient) -> None:
    taken = 0

    async def body() -> AsyncGenerator[bytes, None]:
        nonlocal taken
        for _ in range(16):
            taken += 1
            yield b" " * 65_536

    answer = await http.post("/v1/points/earnings/batch", content=body())

    assert (answer.status_code, answer.json()["code"]) == (401, "token_missing")
    assert taken == 0


async def test_being_alive_is_told_without_limit(edge: Edge) -> None:
    transport = httpx.ASGITransport(app=cast(Any, edge), client=("203.0.113.7", 1))
    async with httpx.AsyncClient(transport=transport, base_url=edge.runtime.base_url) as prober:
        statuses = {(await prober.get("/livez")).status_code for _ in range(300)}

    assert statuses == {200}


async def _request(partner: PartnerClient, path: str) -> dict[str, Any]:
    token, token_hash = await partner._current_token()
    proof = partner.make_proof("GET", path, token_hash=token_hash)
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [
            (b"host", b"127.0.0.1:8080"),
            (b"authorization", f"DPoP {token}".encode()),
            (b"dpop", proof.encode()),
        ],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8080),
    }


async def _no_body() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}
