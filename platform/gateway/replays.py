"""The proofs of reads are good once: remembered in Redis, and in PostgreSQL while Redis is away.

Reads that arrive together ask together: one trip for all whose predecessors are on their way, so that the cost of a
trip is shared by a crowd and nobody waits for a timer.
"""

import hashlib
import math
from collections.abc import Sequence
from datetime import datetime

from msgspec import Struct
from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError

from gateway.batching import Batcher
from gateway.requests import OneTimeProof
from gateway.runtime import Runtime
from kernel.database import transaction
from kernel.one_time import id_hash, use_each_once

# KEYS the identifiers. ARGV[1]: seconds to remember them. Answers 1 for each that is seen for the first time; of two
# equal ones in a batch that is the earlier.
SEEN_FIRST = """
local first = {}
for place, key in ipairs(KEYS) do
  first[place] = redis.call('SET', key, '1', 'NX', 'EX', ARGV[1]) and 1 or 0
end
return first
"""
SEEN_FIRST_SHA = hashlib.sha1(SEEN_FIRST.encode(), usedforsecurity=False).hexdigest()
TRIP_MAX = 128


class _Asked(Struct, frozen=True, kw_only=True):
    """A proof to be used up."""

    id_hash: bytes
    expires_at: datetime
    #: so many seconds, not until then: Redis has a clock of its own
    seconds: int


class ReadProofs:
    """One per process."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._batcher: Batcher[_Asked, bool] = Batcher(self._use_up_each, batch_max=TRIP_MAX)

    async def use_up(self, proof: OneTimeProof, now: datetime) -> None:
        """Return the first time, refuse ever after."""
        asked = _Asked(
            id_hash=id_hash(proof.scope, proof.jti),
            expires_at=proof.expires_at,
            seconds=math.ceil((proof.expires_at - now).total_seconds()),
        )
        if not await self._batcher.submit(asked):
            raise proof.used_before()

    async def _use_up_each(self, asked: Sequence[_Asked], _alone: bool) -> list[bool]:
        keys = [b"proof:" + one.id_hash for one in asked]
        try:
            first = await _ask(self._runtime.redis, keys, max(one.seconds for one in asked))
        except (RedisError, OSError, TimeoutError):
            return await self._use_up_in_database(asked)
        return [answer == 1 for answer in first]

    async def _use_up_in_database(self, asked: Sequence[_Asked]) -> list[bool]:
        """One statement for all; of equal ones the first is the one that counts."""
        async with transaction(self._runtime.pool) as connection:
            fresh = await use_each_once(connection, {one.id_hash: one.expires_at for one in asked})
        firsts = []
        for one in asked:
            firsts.append(one.id_hash in fresh)
            fresh.discard(one.id_hash)
        return firsts


async def _ask(redis: Redis, keys: Sequence[bytes], seconds: int) -> list[int]:
    try:
        answer: list[int] = await redis.evalsha(SEEN_FIRST_SHA, len(keys), *keys, seconds)
    except NoScriptError:
        answer = await redis.eval(SEEN_FIRST, len(keys), *keys, seconds)
    return answer
