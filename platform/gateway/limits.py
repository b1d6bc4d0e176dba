"""Rate limits: GCRA in Redis by one Lua script, leased in slices, with a bounded local fallback.

The generic cell rate algorithm (ITU-T I.371) keeps one number per key: the theoretical arrival time of the next cell.
A process leases a slice of cells in one trip and spends it locally, so most requests cost Redis nothing; what a lease
leaves unspent after a second is forgotten, which errs against the caller by at most one slice. When Redis does not
answer, each process grants its share of the limit from a local bucket: availability is kept, "unlimited" never is.
"""

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable

import structlog
from msgspec import Struct
from redis.asyncio import Redis
from redis.exceptions import RedisError

log = structlog.get_logger("limits")

LEASE_SECONDS = 1.0
LEASE_CELLS_MAX = 100
KEYS_MAX = 10_000
REDIS_PAUSE_SECONDS = 1.0

# KEYS[1] the limit's key. ARGV: cells wanted, cells per second, burst. Time is the server's, in microseconds.
# Grants as many of the wanted cells as fit; answers {granted, remaining, microseconds until one cell fits}.
GCRA = """
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local wanted, rate, burst = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local interval = 1000000 / rate
local tat = math.max(tonumber(redis.call('GET', KEYS[1]) or now), now)
local free = math.floor((burst * interval - (tat - now)) / interval + 0.000001)
local granted = math.max(0, math.min(wanted, free))
if granted > 0 then
  tat = tat + granted * interval
  redis.call('SET', KEYS[1], string.format('%.0f', tat), 'PX', math.ceil((tat - now) / 1000) + 1000)
end
local wait = 0
if granted == 0 then wait = math.ceil(tat - now - (burst - 1) * interval) end
return {granted, math.max(0, free - granted), wait}
"""


class Limit(Struct, frozen=True, kw_only=True):
    """So many requests a second, with so much burst."""

    #: what the limit counts, for the header: `read`, `write`, `token`
    name: str
    per_second: int
    burst: int


class Verdict(Struct, frozen=True, kw_only=True):
    """What the limiter says about one request, ready for the RateLimit header fields."""

    allowed: bool
    limit: Limit
    remaining: int
    retry_after_seconds: int
    degraded: bool

    def headers(self) -> list[tuple[bytes, bytes]]:
        """RateLimit and RateLimit-Policy (draft-ietf-httpapi-ratelimit-headers), Retry-After on refusal."""
        window = max(1, math.ceil(self.limit.burst / self.limit.per_second))
        policy = f'"{self.limit.name}";q={self.limit.burst};w={window}' + (
            ";degraded" if self.degraded else ""
        )
        fields = [
            (b"ratelimit-policy", policy.encode()),
            (b"ratelimit", f'"{self.limit.name}";r={self.remaining};t={window}'.encode()),
        ]
        if not self.allowed:
            fields.append((b"retry-after", str(self.retry_after_seconds).encode()))
        return fields


class _Lease:
    __slots__ = ("asking", "cells", "ends_at", "refused_until", "remaining")

    def __init__(self) -> None:
        self.asking = asyncio.Lock()
        self.cells = 0
        self.remaining = 0
        self.ends_at = 0.0
        self.refused_until = 0.0


class Limiter:
    """One per process. `share` is the process's part of every limit while Redis is away."""

    def __init__(
        self, redis: Redis, *, share: float, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._script = redis.register_script(GCRA)
        self._share = share
        self._monotonic = monotonic
        self._leases: OrderedDict[str, _Lease] = OrderedDict()
        self._local: OrderedDict[str, float] = OrderedDict()
        self._redis_away_until = 0.0

    async def take(self, key: str, limit: Limit) -> Verdict:
        """One cell of `limit` for `key`: spent from the lease, leased anew, or granted locally."""
        lease = self._lease(f"{key}:{limit.name}")
        verdict = self._spend(lease, limit)
        if verdict is not None:
            return verdict
        # One lease at a time for each key: a crowd that leased a slice each would use up the limit unspent.
        async with lease.asking:
            return self._spend(lease, limit) or await self._lease_more(lease, key, limit)

    def _spend(self, lease: "_Lease", limit: Limit) -> Verdict | None:
        """What is known without asking: a cell in hand, or that none will fit yet."""
        now = self._monotonic()
        if lease.cells > 0 and now < lease.ends_at:
            lease.cells -= 1
            return self._verdict(limit, allowed=True, remaining=lease.remaining + lease.cells)
        if now < lease.refused_until:
            return self._verdict(limit, allowed=False, wait=lease.refused_until - now)
        return None

    async def _lease_more(self, lease: "_Lease", key: str, limit: Limit) -> Verdict:
        now = self._monotonic()
        if now < self._redis_away_until:
            return self._take_locally(key, limit, now)
        wanted = max(1, min(LEASE_CELLS_MAX, limit.burst // 20))
        try:
            granted, remaining, wait = await self._script(
                keys=[f"limit:{limit.name}:{key}"], args=[wanted, limit.per_second, limit.burst]
            )
        except (RedisError, OSError, TimeoutError):
            self._redis_away_until = now + REDIS_PAUSE_SECONDS
            log.warning("redis_away", fallback="local")
            return self._take_locally(key, limit, now)
        if granted == 0:
            lease.refused_until = now + min(wait / 1e6, LEASE_SECONDS)
            return self._verdict(limit, allowed=False, wait=wait / 1e6)
        lease.cells = granted - 1
        lease.remaining = remaining
        lease.ends_at = now + LEASE_SECONDS
        return self._verdict(limit, allowed=True, remaining=remaining + lease.cells)

    def _take_locally(self, key: str, limit: Limit, now: float) -> Verdict:
        """GCRA on a local number, at this process's share of the limit."""
        interval = 1 / (limit.per_second * self._share)
        tolerance = max(1.0, limit.burst * self._share) * interval
        name = f"{key}:{limit.name}"
        arrival = max(self._local.pop(name, now), now)
        allowed = arrival + interval - now <= tolerance + 1e-9
        self._local[name] = arrival + interval if allowed else arrival
        if len(self._local) > KEYS_MAX:
            self._local.popitem(last=False)
        remaining = max(0, math.floor((tolerance - (self._local[name] - now)) / interval))
        wait = max(0.0, arrival + interval - now - tolerance)
        return self._verdict(limit, allowed=allowed, remaining=remaining, wait=wait, degraded=True)

    def _lease(self, name: str) -> _Lease:
        lease = self._leases.get(name)
        if lease is None:
            lease = self._leases[name] = _Lease()
            if len(self._leases) > KEYS_MAX:
                self._leases.popitem(last=False)
        else:
            self._leases.move_to_end(name)
        return lease

    def _verdict(
        self, limit: Limit, *, allowed: bool, remaining: int = 0, wait: float = 0.0, degraded: bool = False
    ) -> Verdict:
        return Verdict(
            allowed=allowed,
            limit=limit,
            remaining=remaining,
            retry_after_seconds=max(1, math.ceil(wait)),
            degraded=degraded,
        )
