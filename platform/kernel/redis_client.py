"""Redis: what may be lost, asked through a client that may only ever slow us a little."""

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

ANSWER_SECONDS = 0.1
CONNECTIONS_MAX = 64
TURN_SECONDS = 1.0


def open_redis(url: str) -> Redis:
    """A client that gives up after a tenth of a second and never retries (its own defaults add up to a minute).

    When all connections are busy a caller waits its turn: to be many is not a fault of Redis.
    """
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=CONNECTIONS_MAX,
        timeout=TURN_SECONDS,
        socket_timeout=ANSWER_SECONDS,
        socket_connect_timeout=ANSWER_SECONDS,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=0,
    )
    return Redis.from_pool(pool)
