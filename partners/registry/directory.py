"""The directory of clients each process keeps: never older than its time to live, one lookup in flight per client."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable

from msgspec import Struct

from kernel.database import Pool, acquire
from partners.registry.model import Client
from partners.registry.service import find_client

LIFE_SECONDS = 0.8
ENTRIES_MAX = 10_000


class _Entry(Struct, frozen=True):
    client: Client | None
    #: before the database was asked, so that the answer is at least this young
    asked_at: float


class AppDirectory:
    """Clients by name, read from PostgreSQL at most once per lifetime; strangers are remembered as such as well."""

    def __init__(
        self,
        pool: Pool,
        *,
        life_seconds: float = LIFE_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool = pool
        self._life_seconds = life_seconds
        self._monotonic = monotonic
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._asking: dict[str, asyncio.Task[Client | None]] = {}

    async def find(self, client_id: str) -> Client | None:
        """The client as it was less than a lifetime ago. Without the database there is no answer, only DatabaseBusy."""
        entry = self._entries.get(client_id)
        if entry is not None and self._monotonic() - entry.asked_at < self._life_seconds:
            return entry.client
        asking = self._asking.get(client_id)
        if asking is None:
            asking = asyncio.create_task(self._ask(client_id))
            self._asking[client_id] = asking
            asking.add_done_callback(lambda task: self._answered(client_id, task))
        # A caller that hangs up must not take the answer away from the others.
        return await asyncio.shield(asking)

    def forget(self, client_id: str) -> None:
        """Ask again next time: for a hint that something changed."""
        self._entries.pop(client_id, None)

    def _answered(self, client_id: str, task: asyncio.Task[Client | None]) -> None:
        del self._asking[client_id]
        if not task.cancelled():
            task.exception()  # seen here even if everybody who waited has hung up

    async def _ask(self, client_id: str) -> Client | None:
        asked_at = self._monotonic()
        async with acquire(self._pool) as connection:
            client = await find_client(connection, client_id)
        self._entries[client_id] = _Entry(client, asked_at)
        self._entries.move_to_end(client_id)
        while len(self._entries) > ENTRIES_MAX:
            self._entries.popitem(last=False)
        return client
