"""Clients from npm: a process of Node.js per client, asked by a line of JSON and answering by one."""

import asyncio
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import msgspec
from clients.third_party import PublicApp, Refused, Reply

from gateway.credentials import Credentials

HERE = Path(__file__).parent
DEADLINE_SECONDS = 60.0
LINE_MAX = 2**22


class NodeProcess:
    """A running driver."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def do(self, job: str, **arguments: Any) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(msgspec.json.encode({"do": job, **arguments}) + b"\n")
        line = await asyncio.wait_for(self._process.stdout.readline(), DEADLINE_SECONDS)
        assert line, "the driver ended; what it wrote to standard error says why"
        result = msgspec.json.decode(line)
        if "ok" in result:
            return result["ok"]
        refused = result["refused"]
        raise Refused(
            refused["name"],
            refused["text"],
            error=refused.get("error"),
            description=refused.get("description"),
        )


@asynccontextmanager
async def run_node(script: str) -> AsyncGenerator[NodeProcess, None]:
    """The driver for `script`, for as long as the block runs."""
    assert (HERE / "node_modules" / ".installed").exists(), "run `make clients`: the npm packages are missing"
    process = await asyncio.create_subprocess_exec(
        "node",
        "driver.mjs",
        script,
        cwd=HERE,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        limit=LINE_MAX,
    )
    try:
        yield NodeProcess(process)
        assert process.stdin is not None
        process.stdin.close()
        assert await asyncio.wait_for(process.wait(), DEADLINE_SECONDS) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


class NodeClient:
    """An OAuth client from npm behind the words of `ThirdParty`."""

    def __init__(self, node: NodeProcess, metadata: dict[str, Any]) -> None:
        self.metadata = metadata
        self._node = node

    @classmethod
    @asynccontextmanager
    async def configured(cls, script: str, app: Credentials | PublicApp) -> AsyncGenerator[Self, None]:
        """The app's client, for as long as the block runs."""
        key = {"kid": app.kid, "private_jwk": app.private_jwk} if isinstance(app, Credentials) else {}
        async with run_node(script) as node:
            metadata = await node.do("configure", issuer=app.issuer, client_id=app.client_id, **key)
            yield cls(node, metadata)

    async def token(self, **parameters: str) -> dict[str, Any]:
        return dict(await self._node.do("token", parameters=parameters))

    async def call(
        self, token: dict[str, Any], method: str, url: str, body: Any = None, *, signed: str | None = None
    ) -> Reply:
        headers = {}
        if body is not None:
            headers = {"content-type": "application/json", "idempotency-key": str(uuid4())}
        answer = await self._node.do(
            "call",
            token=token["access_token"],
            method=method,
            url=url,
            body=None if body is None else msgspec.json.encode(body).decode(),
            headers=headers,
            signed=signed,
        )
        return msgspec.convert(answer, Reply)

    async def make_sm2_key(self, *, serial_no: str, keys_uri: str) -> dict[str, str]:
        """The public half of a new key on the curve SM2."""
        return dict(await self._node.do("sm2_key", serial_no=serial_no, keys_uri=keys_uri))

    async def push(self, **parameters: str) -> str:
        return str(await self._node.do("push", parameters=parameters))

    async def begin(self, **parameters: str) -> str:
        return str(await self._node.do("begin", parameters=parameters))

    async def redeem(self, address: str, answer: str) -> dict[str, Any]:
        return dict(await self._node.do("redeem", address=address, answer=answer))

    async def refresh(self, token: dict[str, Any], **parameters: str) -> dict[str, Any]:
        refresh_token = token["refresh_token"]
        return dict(await self._node.do("refresh", refresh_token=refresh_token, parameters=parameters))

    async def ask(self, **parameters: str) -> dict[str, Any]:
        return dict(await self._node.do("ask", parameters=parameters))

    async def collect(self, asked: dict[str, Any]) -> dict[str, Any]:
        return dict(await self._node.do("collect", asked=asked))

    async def introspect(self, token: str) -> dict[str, Any]:
        return dict(await self._node.do("introspect", token=token))

    async def revoke(self, token: str) -> None:
        await self._node.do("revoke", token=token)
