"""Dry runs: what a spend or an earning would do at this moment, by the same decisions; nothing locked, nothing written."""

from datetime import datetime

from kernel.caller import MemberRef
from kernel.database import Connection
from kernel.errors import Refusal
from kernel.ids import new_id
from points.ledger import queries
from points.ledger.balances import read_balance
from points.ledger.deeds import SpendPreview
from points.ledger.model import Account, Balance, EarnOutcome, EarnPosting, PointType, wallet_ref
from points.ledger.picking import preview_lots
from points.ledger.rules import value_fen


async def preview_spend(
    connection: Connection, *, member: MemberRef, points: int, point_type: PointType, now: datetime
) -> SpendPreview:
    """The lots that a hold or a spend of `points` takes if it comes now, in spend order, and what it leaves."""
    key = wallet_ref(member, point_type.code)
    journal, [takes] = await preview_lots(connection, [(key, points)], now=now)
    if isinstance(takes, Refusal):
        raise takes
    operation_id = new_id(now)
    journal.post(operation_id, Account.AVAILABLE, Account.REDEEMED, takes, "spend")
    return SpendPreview(
        points=points,
        value_fen=value_fen(points, point_type),
        takes=takes,
        balance=journal.wallet(member, point_type.code).balance,
    )


async def preview_earning(connection: Connection, posting: EarnPosting, *, now: datetime) -> EarnOutcome:
    """What the books would answer to a posting: who owes repays first, and an event that has earned earns nothing."""
    claimed = await queries.find_claim(
        connection,
        posting.member,
        partner_id=posting.partner_id,
        kind=posting.source_kind,
        source_ref=posting.source_ref,
    )
    balance = await read_balance(connection, posting.member, now=now)
    if claimed is not None:
        return EarnOutcome(operation_id=claimed, posted=False, balance=balance)
    waiting = sum(
        grant.points
        for grant in posting.grants
        if grant.activates_at is not None and grant.activates_at > now
    )
    repaid = min(balance.arrears_points, posting.points - waiting)
    return EarnOutcome(
        operation_id=posting.operation_id,
        posted=True,
        balance=Balance(
            available_points=balance.available_points + posting.points - waiting - repaid,
            held_points=balance.held_points,
            pending_points=balance.pending_points + waiting,
            arrears_points=balance.arrears_points - repaid,
        ),
    )
