"""The statement that posts earnings: its many columns, and the columns it answers with."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

from kernel.database import Connection
from kernel.ids import to_wire
from points.ledger.hold_posting_queries import wallet_columns
from points.ledger.model import TESSERA, Balance, EarnOutcome, EarnPosting

# One row: a column of outcomes for each field, in the order of the postings.
POST_EARNINGS = """
SELECT operation_ids, posted, available, held, pending, arrears
  FROM ledger_post_earnings($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20,
                            $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35, $36)
"""


async def post_earnings(
    connection: Connection, postings: Sequence[EarnPosting], *, now: datetime, business_on: date
) -> list[EarnOutcome] | None:
    """Post them in one statement; they come ordered by (bucket, member), no two with one source.

    None, and nothing posted, while one of the wallets owes what points that have ripened in it must repay first.
    """
    wire_ids = [to_wire("ent", p.operation_id) for p in postings]
    grants = [grant for p in postings for grant in p.grants]
    wallets = wallet_columns([p.member for p in postings])
    sums = _sums(postings, wallets[2], now)
    record = await connection.fetchrow(
        POST_EARNINGS,
        *(TESSERA, now, business_on, *wallets),
        [p.operation_id for p in postings],
        [p.partner_id for p in postings],
        [p.source_kind for p in postings],
        [p.source_ref for p in postings],
        [p.amount_fen for p in postings],
        [p.points for p in postings],
        [p.rule_version for p in postings],
        [p.tier for p in postings],
        [p.multiplier_pct for p in postings],
        [p.own_card for p in postings],
        _if_any([p.category for p in postings]),
        [p.occurred_at for p in postings],
        _if_any([p.manager for p in postings]),
        _if_any([p.calculation for p in postings]),
        wire_ids,
        [_told(p, wire_id) for p, wire_id in zip(postings, wire_ids, strict=True)],
        *(sums.free, sums.waiting, sums.grant_of),
        [grant.lot_id for grant in grants],
        [grant.funder_id for grant in grants],
        [grant.unit_cost_e6 for grant in grants],
        _if_any([grant.campaign for grant in grants]),
        [grant.expires_at for grant in grants],
        [grant.points for grant in grants],
        _if_any([grant.activates_at for grant in grants]),
        *(sums.grant_wallet, sums.grant_nth, sums.grant_free, sums.grant_waiting),
    )
    assert record is not None, "the function answers with one row"
    if record["operation_ids"] is None:
        return None
    return [
        EarnOutcome(
            operation_id=operation_id,
            posted=posted,
            balance=Balance(
                available_points=available,
                held_points=held,
                pending_points=pending,
                arrears_points=arrears,
            ),
        )
        for operation_id, posted, available, held, pending, arrears in zip(*record, strict=True)
    ]


def _if_any(column: list[Any]) -> list[Any] | None:
    """Nothing at all for a column of nothing: to send it and to unpack it would cost as much as any other."""
    return None if column.count(None) == len(column) else column


class _Sums:
    """Of each posting, and of each grant, what it and those before it in its wallet grant; counted from one."""

    __slots__ = ("free", "grant_free", "grant_nth", "grant_of", "grant_waiting", "grant_wallet", "waiting")

    def __init__(self) -> None:
        self.free: list[int] = []
        self.waiting: list[int] = []
        self.grant_of: list[int] = []
        self.grant_wallet: list[int] = []
        self.grant_nth: list[int] = []
        self.grant_free: list[int] = []
        self.grant_waiting: list[int] = []


def _sums(postings: Sequence[EarnPosting], wallets: Sequence[int], now: datetime) -> _Sums:
    """Points that may be spent at once and points that wait are summed apart; `postings` are ordered by wallet."""
    sums = _Sums()
    before = nth = free = waiting = 0
    for place, (posting, wallet) in enumerate(zip(postings, wallets, strict=True), 1):
        if wallet != before:
            before, nth, free, waiting = wallet, 0, 0, 0
        for grant in posting.grants:
            nth += 1
            if grant.activates_at is not None and grant.activates_at > now:
                waiting += grant.points
            else:
                free += grant.points
            sums.grant_of.append(place)
            sums.grant_wallet.append(wallet)
            sums.grant_nth.append(nth)
            sums.grant_free.append(free)
            sums.grant_waiting.append(waiting)
        sums.free.append(free)
        sums.waiting.append(waiting)
    return sums


def _told(posting: EarnPosting, wire_id: str) -> Any:
    """What the event of an earning tells."""
    return {
        "id": wire_id,
        "kind": posting.source_kind,
        "source_ref": posting.source_ref,
        "points": posting.points,
    }
