"""Is it alive, is it ready: two questions, two routes."""

import asyncio

import asyncpg
from litestar import Response, get
from litestar.di import NamedDependency
from redis.exceptions import RedisError

from gateway.runtime import Runtime
from kernel.database import acquire
from kernel.errors import Refusal

READY_SECONDS = 1.0


@get("/livez", public=True, tags=["health"])
async def live() -> dict[str, str]:
    """The process answers; asks nobody."""
    return {"status": "live"}


@get("/readyz", public=True, tags=["health"])
async def ready(runtime: NamedDependency[Runtime]) -> Response[dict[str, str]]:
    """The database answers. Without Redis the service is degraded, yet ready."""
    database = await _database_answers(runtime)
    redis = await _redis_answers(runtime)
    status = "ready" if database and redis else "degraded" if database else "unavailable"
    return Response({"status": status}, status_code=200 if database else 503)


async def _database_answers(runtime: Runtime) -> bool:
    try:
        async with asyncio.timeout(READY_SECONDS), acquire(runtime.pool) as connection:
            return bool(await connection.fetchval("SELECT true"))
    except (Refusal, asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
        return False


async def _redis_answers(runtime: Runtime) -> bool:
    try:
        return bool(await runtime.redis.ping())
    except (RedisError, OSError, TimeoutError):
        return False


routes = [live, ready]
