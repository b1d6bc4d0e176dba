"""Earning: check what a partner reports, decide the points, post them to the ledger."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from kernel.caller import MemberUnknown
from kernel.database import Connection
from kernel.errors import Refusal
from kernel.ids import new_id, to_wire
from points.earning.model import Activity, Earned
from points.earning.rules import RULE, SourceAlreadyEarned, grants_of
from points.ledger import service as ledger
from points.ledger.model import EarnOutcome, EarnPosting
from points.membership import service as membership
from points.membership.model import Deed, Standing
from points.membership.rules import check_occurred_at


async def earn(
    connection: Connection, items: Sequence[Activity], *, partner_id: UUID, now: datetime
) -> list[Earned | Refusal]:
    """Post many activities in one transaction; each is answered for itself, in the order of `items`."""
    return await earn_each(connection, [(partner_id, item) for item in items], now=now)


async def earn_each(
    connection: Connection, reported: Sequence[tuple[UUID, Activity]], *, now: datetime
) -> list[Earned | Refusal]:
    """`earn` for activities that several partners report."""
    if not reported:
        return []
    standings = await membership.list_standings(connection, [item.member for _, item in reported])
    decided = [
        _decide(item, standings.get(item.member.member_id), partner_id, now) for partner_id, item in reported
    ]
    postings = [decision for decision in decided if isinstance(decision, EarnPosting)]
    outcomes = await ledger.post_funded_earnings(connection, postings, now=now)
    posted = [
        posting
        for posting, outcome in (pair for pair in outcomes if not isinstance(pair, Refusal))
        if outcome.posted
    ]
    await membership.record_activity(
        connection, [(posting.partner_id, _deed(posting)) for posting in posted], now=now
    )
    answers = iter(outcomes)
    return [_answer(next(answers)) if isinstance(decision, EarnPosting) else decision for decision in decided]


async def preview_earning(
    connection: Connection, item: Activity, *, partner_id: UUID, now: datetime
) -> Earned:
    """What `earn` would answer at this moment; nothing is written, and lots have no names yet."""
    standings = await membership.list_standings(connection, [item.member])
    decided = _decide(item, standings.get(item.member.member_id), partner_id, now)
    if isinstance(decided, Refusal):
        raise decided
    answer = _answer((decided, await ledger.preview_earning(connection, decided, now=now)))
    if isinstance(answer, Refusal):
        raise answer
    return answer


def _decide(
    item: Activity, standing: Standing | None, partner_id: UUID, now: datetime
) -> EarnPosting | Refusal:
    if standing is None:
        return MemberUnknown()
    try:
        check_occurred_at(item.occurred_at, now)
    except Refusal as refusal:
        return refusal
    return EarnPosting(
        operation_id=new_id(now),
        member=item.member,
        partner_id=partner_id,
        source_kind=item.kind,
        source_ref=item.source_ref,
        amount_fen=item.amount_fen,
        occurred_at=item.occurred_at,
        rule_version=RULE.version,
        tier=standing.tier,
        multiplier_pct=standing.multiplier_pct,
        own_card=item.own_card,
        category=item.category,
        manager=item.manager,
        grants=grants_of(item, standing, lot_id=new_id(now), now=now),
    )


def _deed(posting: EarnPosting) -> Deed:
    return Deed(
        member=posting.member,
        kind=posting.source_kind,
        source_ref=posting.source_ref,
        occurred_at=posting.occurred_at,
        amount_fen=posting.amount_fen,
        own_card=posting.own_card,
        category=posting.category,
    )


def _answer(posted: tuple[EarnPosting, EarnOutcome] | Refusal) -> Earned | Refusal:
    if isinstance(posted, Refusal):
        return posted
    posting, outcome = posted
    if not outcome.posted:
        return SourceAlreadyEarned(operation_id=to_wire("ent", outcome.operation_id))
    return Earned(
        operation_id=outcome.operation_id,
        points=posting.points,
        grants=posting.grants,
        balance=outcome.balance,
    )
