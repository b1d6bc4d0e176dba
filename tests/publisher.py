"""A partner's own web server that publishes its keys."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Self


class Publisher:
    """A partner's web server, which counts how often it is asked and may misbehave."""

    def __init__(self, keys: list[dict[str, Any]]) -> None:
        self.keys = keys
        self.asked = 0
        self.status = "200 OK"
        self.headers = ""
        self.body: bytes | None = None
        self.port = 0

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}/jwks"

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.asked += 1
        body = json.dumps({"keys": self.keys}).encode() if self.body is None else self.body
        head = f"HTTP/1.1 {self.status}\r\ncontent-length: {len(body)}\r\n{self.headers}\r\n"
        writer.write(head.encode() + body)
        writer.close()

    @asynccontextmanager
    async def serving(self) -> AsyncGenerator[Self, None]:
        """On a port of its own on loopback."""
        server = await asyncio.start_server(self.answer, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield self
