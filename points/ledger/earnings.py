"""Earning: postings decided elsewhere become lots and entries, many or one in a single round trip."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from kernel.calendar import business_date
from kernel.caller import MemberRef
from kernel.database import Connection
from points.ledger import earning_queries, queries
from points.ledger.balances import settle_wallets
from points.ledger.model import EarnOutcome, EarnPosting, Source, wallet_ref
from points.ledger.rules import OperationUnknown


async def post_earnings(
    connection: Connection, postings: Sequence[EarnPosting], *, now: datetime
) -> list[EarnOutcome]:
    """Post each earning whose source has not earned before; outcomes in the order of `postings`.

    Wallets are locked in key order and house slots last, so parallel batches wait for each other but never in a circle.
    """
    if not postings:
        return []
    firsts: dict[tuple[int, UUID, str, str], EarnPosting] = {}
    for posting in postings:
        firsts.setdefault(_source(posting), posting)
    ordered = sorted(firsts.values(), key=_wallet)
    outcomes = await earning_queries.post_earnings(
        connection, ordered, now=now, business_on=business_date(now)
    )
    if outcomes is None:
        await settle_wallets(connection, [wallet_ref(posting.member) for posting in ordered], now=now)
        outcomes = await earning_queries.post_earnings(
            connection, ordered, now=now, business_on=business_date(now)
        )
        assert outcomes is not None, "nothing has ripened since, for the moment is the same"
    if len(firsts) == len(postings):
        by_id = {posting.operation_id: outcome for posting, outcome in zip(ordered, outcomes, strict=True)}
        return [by_id[posting.operation_id] for posting in postings]
    by_source = {_source(posting): outcome for posting, outcome in zip(ordered, outcomes, strict=True)}
    return [_outcome(by_source[source := _source(p)], is_first=firsts[source] is p) for p in postings]


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


def _source(posting: EarnPosting) -> tuple[int, UUID, str, str]:
    return posting.member.member_id, posting.partner_id, posting.source_kind, posting.source_ref


def _wallet(posting: EarnPosting) -> tuple[int, int]:
    member = posting.member
    return member.bucket, member.member_id


def _outcome(outcome: EarnOutcome, *, is_first: bool) -> EarnOutcome:
    """Of several postings with one source the first counts; the others come after it."""
    if is_first or not outcome.posted:
        return outcome
    return EarnOutcome(operation_id=outcome.operation_id, posted=False, balance=outcome.balance)
