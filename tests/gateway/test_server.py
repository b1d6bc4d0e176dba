"""What the worker process adds to uvicorn."""

import asyncio
from typing import Any, cast

from gateway.server import KEPT_BYTES_MAX, _Gathered


class Wire:
    """A transport that remembers what it was asked to do."""

    def __init__(self) -> None:
        self.done: list[Any] = []

    def writelines(self, chunks: list[bytes]) -> None:
        self.done.append(b"".join(chunks))

    def close(self) -> None:
        self.done.append("closed")

    def is_closing(self) -> bool:
        return "closed" in self.done


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
