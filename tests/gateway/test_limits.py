"""The limiter: exact against Redis, bounded without it."""

import asyncio
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from gateway.limits import GCRA, Limit, Limiter
from kernel.redis_client import open_redis

SMALL = Limit(name="write", per_second=1, burst=10)


class Seconds:
    """A monotonic timer that stands still until told."""

    def __init__(self) -> None:
        self.value = 1_000.0

    def __call__(self) -> float:
        return self.value


async def test_the_burst_is_granted_and_not_one_more(redis: Redis) -> None:
    limiter = Limiter(redis, share=1.0)
    key = str(uuid4())

    verdicts = [await limiter.take(key, SMALL) for _ in range(12)]

    assert [verdict.allowed for verdict in verdicts] == [True] * 10 + [False] * 2
    assert verdicts[0].remaining == 9
    assert verdicts[-1].retry_after_seconds == 1


async def test_two_processes_share_one_limit(redis: Redis) -> None:
    first, second = Limiter(redis, share=0.5), Limiter(redis, share=0.5)
    key = str(uuid4())

    allowed = [(await limiter.take(key, SMALL)).allowed for _ in range(8) for limiter in (first, second)]

    assert sum(allowed) == 10


async def test_a_slice_of_a_large_limit_costs_one_trip(redis: Redis) -> None:
    limiter = Limiter(redis, share=1.0)
    large = Limit(name="write", per_second=1_000, burst=2_000)
    key = str(uuid4())
    before = (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"]

    for _ in range(200):
        assert (await limiter.take(key, large)).allowed

    after = (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"]
    assert after - before <= 0.1 * 200


async def test_a_crowd_leases_no_more_than_it_spends(redis: Redis) -> None:
    limiter = Limiter(redis, share=1.0)
    limit = Limit(name="write", per_second=1, burst=400)
    key = str(uuid4())

    verdicts = await asyncio.gather(*(limiter.take(key, limit) for _ in range(400)))

    assert all(verdict.allowed for verdict in verdicts)
    assert not (await limiter.take(key, limit)).allowed


async def test_the_script_refills_at_the_rate(redis: Redis) -> None:
    key = f"limit:test:{uuid4()}"
    script = redis.register_script(GCRA)
    fast = 1_000_000  # a cell each microsecond: by the next trip the burst is back

    first = await script(keys=[key], args=[5, fast, 5])
    second = await script(keys=[key], args=[5, fast, 5])

    assert first[0] == 5 and second[0] == 5


@pytest.mark.parametrize(("share", "granted"), [(1.0, 10), (0.5, 5)])
async def test_without_redis_each_process_grants_its_share(share: float, granted: int) -> None:
    seconds = Seconds()
    limiter = Limiter(open_redis("redis://127.0.0.1:1"), share=share, monotonic=seconds)

    verdicts = [await limiter.take("app", SMALL) for _ in range(12)]

    assert sum(verdict.allowed for verdict in verdicts) == granted
    assert all(verdict.degraded for verdict in verdicts)
    assert b"degraded" in dict(verdicts[0].headers())[b"ratelimit-policy"]


async def test_the_local_bucket_refills_with_time() -> None:
    seconds = Seconds()
    limiter = Limiter(open_redis("redis://127.0.0.1:1"), share=1.0, monotonic=seconds)
    for _ in range(10):
        await limiter.take("app", SMALL)
    assert not (await limiter.take("app", SMALL)).allowed

    seconds.value += 1.0

    assert (await limiter.take("app", SMALL)).allowed
    assert not (await limiter.take("app", SMALL)).allowed
