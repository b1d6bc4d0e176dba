"""How a redemption goes on: spent, given up before anything was spent, or taken back afterwards; each once, and told."""

from datetime import datetime

from kernel.database import Connection
from points.ledger import service as ledger
from points.rewards import catalogue_queries, queries
from points.rewards.model import Redemption, RedemptionState
from points.rewards.rules import FulfilmentOverdue
from points.rewards.telling import tell

REFUND = "redemption"


async def spend(
    connection: Connection, redemption: Redemption, state: RedemptionState, now: datetime
) -> Redemption:
    """From this transaction on the points are gone, unless they are reversed. Refunds are reckoned in points."""
    try:
        await ledger.capture_hold(
            connection,
            hold_id=redemption.hold_id,
            partner_id=redemption.supplier_id,
            order_fen=redemption.price_points,
            manager="redemption",
            now=now,
        )
    except ledger.HoldNotOpen:  # its time ran out while this waited for the wallet
        raise FulfilmentOverdue from None
    return await move(connection, redemption, state, now=now)


async def give_up(
    connection: Connection,
    redemption: Redemption,
    state: RedemptionState,
    *,
    reason: str | None = None,
    now: datetime,
) -> Redemption:
    """Nothing was spent: everything goes back. The ledger's own sweep may have let the hold lapse before."""
    await _return(connection, redemption, gives_back=True)
    try:
        await ledger.release_hold(
            connection,
            hold_id=redemption.hold_id,
            partner_id=redemption.supplier_id,
            manager="redemption",
            now=now,
        )
    except ledger.HoldNotOpen as refusal:
        assert refusal.facts["state"] == "lapsed", (
            "who spends a redemption's hold moves the redemption with it"
        )
    return await move(connection, redemption, state, gives_back=True, reason=reason, now=now)


async def take_back(
    connection: Connection,
    redemption: Redemption,
    state: RedemptionState,
    *,
    gives_back: bool,
    reason: str | None = None,
    now: datetime,
) -> Redemption:
    """Undo what was spent: points to the lots they came from, the code void."""
    await _return(connection, redemption, gives_back=gives_back)
    if redemption.code_id is not None:
        await catalogue_queries.void_code(
            connection, redemption.code_id, redemption_id=redemption.id, now=now
        )
    await ledger.reverse(
        connection,
        operation_id=redemption.hold_id,
        partner_id=redemption.supplier_id,
        side="spend",
        refund_ref=f"{REFUND} {state}",
        refunded_fen=redemption.price_points,
        manager="redemption",
        now=now,
    )
    return await move(connection, redemption, state, gives_back=gives_back, reason=reason, now=now)


async def move(
    connection: Connection,
    redemption: Redemption,
    state: RedemptionState,
    *,
    gives_back: bool = False,
    reason: str | None = None,
    now: datetime,
) -> Redemption:
    """To its next state, and tell of it; the redemption is locked."""
    moved = await queries.move_redemption(
        connection, redemption, state=state, gives_back=gives_back, reason=reason, now=now
    )
    assert moved is not None, "the redemption is locked"
    await tell(connection, moved, now=now)
    return moved


async def _return(connection: Connection, redemption: Redemption, *, gives_back: bool) -> None:
    """The member's time first, then the piece: the order in which they were taken."""
    if not gives_back:
        return
    if redemption.counts:
        assert redemption.period_on is not None, "what counts has a period"
        await queries.discount_use(
            connection, redemption.member, reward_id=redemption.reward_id, period_on=redemption.period_on
        )
    if redemption.has_piece and redemption.code_id is None:
        await catalogue_queries.return_piece(connection, redemption.reward_id)
