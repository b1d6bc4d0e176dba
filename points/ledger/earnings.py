"""Earning: postings decided elsewhere become lots and entries, many or one in a single round trip."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID

from kernel.calendar import business_date
from kernel.caller import MemberRef
from kernel.database import Connection
from kernel.ids import to_wire
from points.ledger import queries
from points.ledger.model import TESSERA, Balance, EarnOutcome, EarnPosting, Grant, Source
from points.ledger.rules import OperationUnknown


async def post_earnings(
    connection: Connection, postings: Sequence[EarnPosting], *, now: datetime
) -> list[EarnOutcome]:
    """Post each earning whose source has not earned before; outcomes in the order of `postings`.

    Wallets are locked in key order and house slots last, so parallel batches wait for each other but never in a circle.
    """
    if not postings:
        return []
    order = sorted(range(len(postings)), key=lambda place: _key(postings[place]))
    sorted_postings = [postings[place] for place in order]
    business_on = business_date(now)
    wire_ids = [to_wire("ent", posting.operation_id) for posting in sorted_postings]
    records = await connection.fetch(
        queries.POST_EARNINGS,
        now,
        [_posting_row(posting, now, business_on) for posting in sorted_postings],
        [len(posting.grants) for posting in sorted_postings],
        [_grant_row(grant) for posting in sorted_postings for grant in posting.grants],
        wire_ids,
        [_told(posting, wire_id) for posting, wire_id in zip(sorted_postings, wire_ids, strict=True)],
    )
    outcomes = dict(zip(order, records, strict=True))
    return [_outcome(outcomes[place]) for place in range(len(postings))]


async def find_earning(
    connection: Connection, *, member: MemberRef, partner_id: UUID, kind: str, source_ref: str
) -> UUID | None:
    """The operation that earned from this event of the partner, if any did."""
    return await queries.find_claim(
        connection, member, partner_id=partner_id, kind=kind, source_ref=source_ref
    )


async def find_source(connection: Connection, *, operation_id: UUID, partner_id: UUID) -> Source:
    """The event behind an earning of this partner."""
    operation = await queries.find_operation(connection, operation_id, partner_id=partner_id)
    if operation is None or operation.source_kind is None or operation.source_ref is None:
        raise OperationUnknown
    return Source(member=operation.member, kind=operation.source_kind, source_ref=operation.source_ref)


def _key(posting: EarnPosting) -> tuple[int, int]:
    return posting.member.bucket, posting.member.member_id


def _posting_row(p: EarnPosting, now: datetime, business_on: date) -> tuple[Any, ...]:
    """In the order of ledger_operation's columns."""
    return (
        *(p.member.bucket, p.member.member_id, p.operation_id, "earn", p.partner_id, None),
        *(p.source_kind, p.source_ref, None, None, p.amount_fen, p.points),
        *(p.rule_version, p.tier, p.multiplier_pct, p.own_card, p.category),
        *(p.occurred_at, now, business_on, p.manager, TESSERA, p.calculation),
    )


def _told(posting: EarnPosting, wire_id: str) -> dict[str, Any]:
    """What the event of an earning tells."""
    return {
        "id": wire_id,
        "kind": posting.source_kind,
        "source_ref": posting.source_ref,
        "points": posting.points,
    }


def _grant_row(grant: Grant) -> tuple[Any, ...]:
    """In the order of the type ledger_grant."""
    return (
        *(grant.lot_id, grant.funder_id, grant.unit_cost_e6, grant.campaign, grant.expires_at),
        *(grant.points, grant.activates_at),
    )


def _outcome(record: Any) -> EarnOutcome:
    return EarnOutcome(
        operation_id=record["operation_id"],
        posted=record["posted"],
        balance=Balance(
            available_points=record["available"],
            held_points=record["held"],
            pending_points=record["pending"],
            arrears_points=record["arrears"],
        ),
    )
