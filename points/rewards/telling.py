"""What the world learns of a redemption: ids, amounts and states, never a code."""

from datetime import datetime
from typing import Any

from kernel.database import Connection
from kernel.ids import to_wire
from kernel.outbox import Event, enqueue
from points.rewards.model import BANK, Redemption, Reward

FEE_OFFSET_REQUESTED = "rewards.fee_offset.requested"


async def tell(connection: Connection, redemption: Redemption, *, now: datetime) -> None:
    """The present state, to the partner through whom it was redeemed and to another that provides it.

    The provider is not told the first one's number, nor anything of the member.
    """
    facts = {
        "id": to_wire("rdm", redemption.id),
        "reward": to_wire("rwd", redemption.reward_id),
        "state": redemption.state,
        "price_points": redemption.price_points,
        "reason": redemption.reason,
    }
    events = [_event(redemption, facts | {"redemption_ref": redemption.redemption_ref})]
    if redemption.supplier_id not in (BANK, redemption.partner_id):
        events.append(_event(redemption, facts, to_provider=True))
    await enqueue(connection, events, now=now)


async def ask_for_offset(
    connection: Connection, redemption: Redemption, reward: Reward, *, now: datetime
) -> None:
    """Tell the bank's own systems that a fee is to be reduced; addressed to the bank, so no partner sees it."""
    event = Event(
        bucket=redemption.member.bucket,
        partner_id=BANK,
        type=FEE_OFFSET_REQUESTED,
        aggregate=to_wire("rdm", redemption.id),
        payload={"id": to_wire("rdm", redemption.id), "offset_fen": reward.offset_fen},
    )
    await enqueue(connection, [event], now=now)


def _event(redemption: Redemption, facts: dict[str, Any], *, to_provider: bool = False) -> Event:
    return Event(
        bucket=redemption.member.bucket,
        partner_id=redemption.supplier_id if to_provider else redemption.partner_id,
        type=f"redemption.{redemption.state}",
        aggregate=to_wire("rdm", redemption.id),
        payload=facts,
    )
