"""`tessera worker`: the work after the answer: relay and deliver events, book what time has made true, run what is due.

Several may run: every round claims its rows or its lock. A round that fails is logged and tried again; the truth does
not wait for it, because expiry and lapse are decided at the moment of use. Jobs have a connection of their own, so that
a long one is in nobody's way.
"""

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable, Sequence
from datetime import date, datetime

import structlog

from gateway.fee_offsets import SimulatedFees, settle_offsets
from gateway.runtime import Runtime
from gateway.schedule import TIMEOUT_MS, Scheduled, list_open, schedule, work_off
from kernel import attempts, one_time
from kernel.database import Pool, acquire, open_pool, transaction
from kernel.settings import Settings
from partners.credit import service as credit
from partners.login import service as login
from partners.mobile import service as mobile
from partners.oauth.forgetting import forget_flows
from partners.webhooks import delivery
from partners.webhooks import service as webhooks
from points.earning import campaigns
from points.ledger import service as ledger
from points.rewards import service as rewards

log = structlog.get_logger("worker")

RELAY_EVENTS = 2_000
SWEEP_ROWS = 500
SWEEP_SECONDS = 5.0
#: of transfers ended in one transaction
TRANSFERS = 100
TRANSFER_SECONDS = 0.2
FORGET_SECONDS = 60.0
OFFSET_SECONDS = 1.0
JOBS_SECONDS = 30.0
#: how many missed dates of one job are worked off before the next job has its turn
CATCH_UP_DATES = 7

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
    assert settings.database_url is not None
    async with (
        runtime.open(),
        delivery.open_client() as client,
        await open_pool(
            settings.database_url.reveal(),
            size=1,
            statement_timeout_ms=TIMEOUT_MS,
            lock_timeout_ms=settings.lock_timeout_ms,
            application="tessera-job",
        ) as jobs_pool,
    ):

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

        async def fail_redemptions() -> int:
            async with transaction(runtime.pool) as connection:
                return await rewards.fail_overdue(connection, now=runtime.clock.now())

        async def offset_fees() -> int:
            # A live bank joins its own system here, or has it call confirm and refuse by itself.
            if settings.mode == "live":
                return 0
            return await settle_offsets(runtime.pool, SimulatedFees(), now_of=runtime.clock.now)

        async def activate() -> int:
            async with transaction(runtime.pool) as connection:
                return await ledger.activate_due(connection, limit=SWEEP_ROWS, now=runtime.clock.now())

        async def keep_campaigns() -> int:
            async with transaction(runtime.pool) as connection:
                return await campaigns.keep_states(connection, now=runtime.clock.now())

        async def transfers() -> int:
            async with transaction(runtime.pool) as connection:
                return await ledger.end_transfers(
                    connection, runtime.subjects, limit=TRANSFERS, now=runtime.clock.now()
                )

        async def adjustments() -> int:
            async with transaction(runtime.pool) as connection:
                return await ledger.expire_adjustments(connection, limit=SWEEP_ROWS, now=runtime.clock.now())

        async def forget() -> int:
            async with transaction(runtime.pool) as connection:
                await login.forget_old(connection, now=runtime.clock.now())
                await mobile.forget_old(connection, now=runtime.clock.now())
                await forget_flows(connection, now=runtime.clock.now())
                gone = await one_time.forget_expired(connection, now=runtime.clock.now())
                return gone + await attempts.forget_attempts(connection, now=runtime.clock.now())

        due = DueJobs(
            jobs_pool,
            schedule(runtime.signer, runtime.vault),
            now_of=runtime.clock.now,
            ending=ending.is_set,
        )
        async with asyncio.TaskGroup() as group:
            for name, round_, pause in (
                ("relay", relay, 0.1),
                ("deliver", deliver, 0.1),
                ("lapse", lapse, SWEEP_SECONDS),
                ("lapse_plans", lapse_plans, SWEEP_SECONDS),
                ("expire", expire, SWEEP_SECONDS),
                ("fail_redemptions", fail_redemptions, SWEEP_SECONDS),
                ("offset_fees", offset_fees, OFFSET_SECONDS),
                ("activate", activate, SWEEP_SECONDS),
                ("campaigns", keep_campaigns, SWEEP_SECONDS),
                ("transfers", transfers, TRANSFER_SECONDS),
                ("adjustments", adjustments, FORGET_SECONDS),
                ("forget", forget, FORGET_SECONDS),
                ("jobs", due.round, JOBS_SECONDS),
            ):
                group.create_task(_repeat(name, round_, pause, ending), name=name)


class DueJobs:
    """Works off what is due: job after job, the dates of each in order, a few of each in a round."""

    def __init__(
        self,
        pool: Pool,
        scheduled: Sequence[Scheduled],
        *,
        now_of: Callable[[], datetime],
        ending: Callable[[], bool] = lambda: False,
    ) -> None:
        self._pool = pool
        self._scheduled = scheduled
        self._now_of = now_of
        self._ending = ending
        #: a first entry stays the first
        self._first: dict[str, date] = {}

    async def round(self) -> int:
        """How many batches were done; 0 when nothing is due, or others are at it."""
        batches = 0
        for scheduled in self._scheduled:
            for business_on in (await self._list_open(scheduled))[:CATCH_UP_DATES]:
                if self._ending():
                    return batches
                worked = await work_off(
                    self._pool,
                    scheduled.job,
                    business_on=business_on,
                    now_of=self._now_of,
                    ending=self._ending,
                )
                batches += worked.batches
                for failure in worked.failures:
                    log.warning("job_failed", job=scheduled.job.name, day=str(business_on), exc_info=failure)
                if not worked.finished:  # dates follow each other
                    break
        return batches

    async def _list_open(self, scheduled: Scheduled) -> list[date]:
        name = scheduled.job.name
        async with acquire(self._pool) as connection:
            if name not in self._first:
                first = await scheduled.first(connection)
                if first is None:
                    return []
                self._first[name] = first
            return await list_open(connection, scheduled, first=self._first[name], now=self._now_of())


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
