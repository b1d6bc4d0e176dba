"""`tessera worker`: the work after the answer: relay and deliver events, book what time has made true, forget the old.

Several may run: every round claims its rows or its lock. A round that fails is logged and tried again; the truth does
not wait for it, because expiry and lapse are decided at the moment of use.
"""

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable
from datetime import timedelta

import structlog

from gateway.runtime import Runtime
from kernel import idempotency, one_time
from kernel.database import transaction
from kernel.settings import Settings
from partners.credit import service as credit
from partners.webhooks import delivery
from partners.webhooks import service as webhooks
from points.ledger import service as ledger

log = structlog.get_logger("worker")

RELAY_EVENTS = 2_000
SWEEP_ROWS = 500
SWEEP_SECONDS = 5.0
FORGET_SECONDS = 60.0
#: how long an answer is kept under its Idempotency-Key; settlement disputes take longer than a day
IDEMPOTENCY_DAYS = 90

Round = Callable[[], Awaitable[int]]


def run(settings: Settings) -> int:
    """Work until SIGTERM."""
    asyncio.run(_work(settings))
    return 0


async def _work(settings: Settings) -> None:
    runtime = Runtime(settings)
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    async with runtime.open(), delivery.open_client() as client:

        async def relay() -> int:
            async with transaction(runtime.pool) as connection:
                return await webhooks.relay(connection, limit=RELAY_EVENTS, now=runtime.clock.now())

        async def deliver() -> int:
            return await delivery.deliver_due(
                runtime.pool,
                client,
                runtime.vault,
                mode=settings.mode,
                now_of=runtime.clock.now,
                ending=ending.is_set,
            )

        async def lapse() -> int:
            async with transaction(runtime.pool) as connection:
                return await ledger.lapse_due(connection, limit=SWEEP_ROWS, now=runtime.clock.now())

        async def lapse_plans() -> int:
            async with transaction(runtime.pool) as connection:
                return await credit.lapse_authorisations(
                    connection, limit=SWEEP_ROWS, now=runtime.clock.now()
                )

        async def expire() -> int:
            async with transaction(runtime.pool) as connection:
                return await ledger.expire_due(connection, limit=SWEEP_ROWS, now=runtime.clock.now())

        async def activate() -> int:
            async with transaction(runtime.pool) as connection:
                return await ledger.activate_due(connection, limit=SWEEP_ROWS, now=runtime.clock.now())

        async def forget() -> int:
            now = runtime.clock.now()
            async with transaction(runtime.pool) as connection:
                forgotten = await one_time.forget_expired(connection, now=now)
                return forgotten + await idempotency.forget_old(
                    connection, before=now - timedelta(days=IDEMPOTENCY_DAYS)
                )

        async with asyncio.TaskGroup() as group:
            for name, round_, pause in (
                ("relay", relay, 0.1),
                ("deliver", deliver, 0.1),
                ("lapse", lapse, SWEEP_SECONDS),
                ("lapse_plans", lapse_plans, SWEEP_SECONDS),
                ("expire", expire, SWEEP_SECONDS),
                ("activate", activate, SWEEP_SECONDS),
                ("forget", forget, FORGET_SECONDS),
            ):
                group.create_task(_repeat(name, round_, pause, ending), name=name)


async def _repeat(name: str, round_: Round, pause: float, ending: asyncio.Event) -> None:
    """Round after round, without a pause while there is work, until the end is asked for."""
    while not ending.is_set():
        try:
            done = await round_()
        except Exception as failure:  # a bug in one round must not end the others
            log.warning("round_failed", round=name, exc_info=failure)
            done, wait = 0, 1.0
        else:
            wait = pause
        if done == 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ending.wait(), wait)
