"""Fee offsets: points against a bank fee that another system books, and whose outcome may stay unknown for long.

The points are spent before that system hears of it: from then on it may have happened, and no hold may lapse under it.
Done ends it; refused gives the points back; unknown changes nothing, however long it lasts.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from kernel.database import Connection
from points.rewards import queries
from points.rewards.model import Offset, OffsetOutcome, Redemption
from points.rewards.outcomes import move, take_back
from points.rewards.rules import OffsetContradicted, RedemptionUnknown

#: how long an answer is waited for before the same is asked again
ASK_AGAIN_AFTER = timedelta(minutes=1)
REFUSED = "refused"


async def claim_offsets(connection: Connection, *, limit: int, now: datetime) -> Sequence[Offset]:
    """Offsets whose outcome is to be asked for now; two workers get different ones."""
    claimed = await queries.claim_unknown(connection, before=now - ASK_AGAIN_AFTER, limit=limit, now=now)
    return [
        Offset(redemption_id=redemption_id, member=member, offset_fen=fen)
        for redemption_id, member, fen in claimed
    ]


async def record_outcome(
    connection: Connection, *, redemption_id: UUID, outcome: OffsetOutcome, now: datetime
) -> Redemption:
    """What the other system says, as often as it likes to say it."""
    if outcome == "done":
        return await confirm_offset(connection, redemption_id=redemption_id, now=now)
    if outcome == "refused":
        return await refuse_offset(connection, redemption_id=redemption_id, reason=REFUSED, now=now)
    return await _lock(connection, redemption_id)


async def confirm_offset(connection: Connection, *, redemption_id: UUID, now: datetime) -> Redemption:
    """The fee was reduced."""
    redemption = await _lock(connection, redemption_id)
    if redemption.state == "failed":
        raise OffsetContradicted
    return (
        redemption
        if redemption.state == "fulfilled"
        else await move(connection, redemption, "fulfilled", now=now)
    )


async def refuse_offset(
    connection: Connection, *, redemption_id: UUID, reason: str, now: datetime
) -> Redemption:
    """The fee was not reduced and never will be: the points go back to the lots they came from."""
    redemption = await _lock(connection, redemption_id)
    if redemption.state == "fulfilled":
        raise OffsetContradicted
    if redemption.state == "failed":
        return redemption
    return await take_back(connection, redemption, "failed", gives_back=True, reason=reason, now=now)


async def _lock(connection: Connection, redemption_id: UUID) -> Redemption:
    redemption = await queries.lock_redemption(connection, redemption_id)
    if redemption is None or redemption.kind != "fee_offset":
        raise RedemptionUnknown
    return redemption
