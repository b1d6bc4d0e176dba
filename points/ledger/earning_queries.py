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
                            $21, $22, $23, $24, $25, $26, $27, $28, $29, $30)
"""


async def post_earnings(
    connection: Connection, postings: Sequence[EarnPosting], *, now: datetime, business_on: date
) -> list[EarnOutcome]:
    """Post them in one statement; they come ordered by (bucket, member), no two with one source."""
    wire_ids = [to_wire("ent", p.operation_id) for p in postings]
    grants = [(place, grant) for place, p in enumerate(postings, 1) for grant in p.grants]
    record = await connection.fetchrow(
        POST_EARNINGS,
        *(TESSERA, now, business_on, *wallet_columns([p.member for p in postings])),
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
        [p.category for p in postings],
        [p.occurred_at for p in postings],
        [p.manager for p in postings],
        [p.calculation for p in postings],
        wire_ids,
        [_told(p, wire_id) for p, wire_id in zip(postings, wire_ids, strict=True)],
        [place for place, _ in grants],
        [grant.lot_id for _, grant in grants],
        [grant.funder_id for _, grant in grants],
        [grant.unit_cost_e6 for _, grant in grants],
        [grant.campaign for _, grant in grants],
        [grant.expires_at for _, grant in grants],
        [grant.points for _, grant in grants],
        [grant.activates_at for _, grant in grants],
    )
    assert record is not None, "the function answers with one row"
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


def _told(posting: EarnPosting, wire_id: str) -> Any:
    """What the event of an earning tells."""
    return {
        "id": wire_id,
        "kind": posting.source_kind,
        "source_ref": posting.source_ref,
        "points": posting.points,
    }
