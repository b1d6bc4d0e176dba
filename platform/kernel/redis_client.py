"""Redis: what may be lost, asked through a client that may only ever slow us a little."""

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

REDIS_SECONDS = 0.1


def open_redis(url: str) -> Redis:
    """A client that gives up after a tenth of a second and never retries (its own defaults add up to a minute)."""
    return Redis.from_url(
        url,
        socket_timeout=REDIS_SECONDS,
        socket_connect_timeout=REDIS_SECONDS,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=0,
        max_connections=32,
    )
