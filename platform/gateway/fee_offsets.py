"""The round in which the bank's fee system is asked about fee offsets, and the sandbox's stand-in for that system."""

import asyncio
from collections.abc import Callable
from datetime import datetime

from kernel.database import Pool, transaction
from points.rewards import service as rewards
from points.rewards.model import FeeOffset, Offset, OffsetOutcome

OFFSETS = 50
#: how long one answer is waited for; no answer means unknown
ANSWER_SECONDS = 5.0


class SimulatedFees:
    """A system of fees that does what it is asked, at once."""

    async def settle(self, offset: Offset) -> OffsetOutcome:
        return "done"


async def settle_offsets(pool: Pool, fees: FeeOffset, *, now_of: Callable[[], datetime]) -> int:
    """Ask about those that are due and record each answer; nothing is asked inside a transaction.

    Killed between an answer and its record, the next round asks again; what is unknown is asked again in a minute.
    """
    async with transaction(pool) as connection:
        claimed = await rewards.claim_offsets(connection, limit=OFFSETS, now=now_of())
    for offset in claimed:
        outcome = await _ask(fees, offset)
        if outcome == "unknown":
            continue
        async with transaction(pool) as connection:
            await rewards.record_outcome(
                connection, redemption_id=offset.redemption_id, outcome=outcome, now=now_of()
            )
    return len(claimed)


async def _ask(fees: FeeOffset, offset: Offset) -> OffsetOutcome:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            return await fees.settle(offset)
    except OSError:  # away, or too slow: it may have happened
        return "unknown"
