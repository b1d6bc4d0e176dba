"""Earning: check what a partner reports, decide the points, post them to the ledger."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from kernel.database import Connection
from kernel.errors import Refusal
from kernel.ids import to_wire
from points.earning.allotment import allot, give_back, try_allot
from points.earning.book import SHELF
from points.earning.draft import Draft, draw_up, posting_of
from points.earning.model import Activity, Earned
from points.earning.posting import Meanwhile, Posted, post_drafts
from points.earning.rules import SourceAlreadyEarned
from points.ledger import service as ledger
from points.ledger.model import EarnOutcome, EarnPosting
from points.membership import service as membership
from points.membership.model import Deed


async def earn(
    connection: Connection,
    items: Sequence[Activity],
    *,
    partner_id: UUID,
    meanwhile: Meanwhile | None = None,
    now: datetime,
) -> list[Earned | Refusal]:
    """Post many activities in one transaction; each is answered for itself, in the order of `items`.

    Whoever moves the same members' points in this transaction too does so `meanwhile`: called once, when counters and
    budgets are locked and no wallet is yet, as everybody locks them.
    """
    return await earn_each(connection, [(partner_id, item) for item in items], meanwhile=meanwhile, now=now)


async def earn_each(
    connection: Connection,
    reported: Sequence[tuple[UUID, Activity]],
    *,
    meanwhile: Meanwhile | None = None,
    now: datetime,
) -> list[Earned | Refusal]:
    """`earn` for activities that several partners report."""
    if not reported:
        return []
    book = await SHELF.current(connection, now=now)
    standings = await membership.list_standings(connection, [item.member for _, item in reported])
    decided = [
        draw_up(book, item, standings.get(item.member.member_id), partner_id=partner_id, now=now)
        for partner_id, item in reported
    ]
    scarce = {
        place: draft for place, draft in enumerate(decided) if isinstance(draft, Draft) and not draft.is_plain
    }
    if scarce:
        allotted = await allot(connection, list(scarce.values()), now=now)
        for place, outcome in zip(scarce, allotted, strict=True):
            decided[place] = outcome
    drafts = [decision for decision in decided if isinstance(decision, Draft)]
    posted = iter(await post_drafts(connection, drafts, meanwhile=meanwhile, now=now))
    results = [next(posted) if isinstance(decision, Draft) else decision for decision in decided]
    if scarce:
        unused = [one.draft for one in results if isinstance(one, Posted) and not one.outcome.posted]
        await give_back(connection, unused, now=now)
    done = [one.posting for one in results if isinstance(one, Posted) and one.outcome.posted]
    await membership.record_activity(
        connection, [(posting.partner_id, _deed(posting)) for posting in done], now=now
    )
    return [one if isinstance(one, Refusal) else _answer(one.posting, one.outcome) for one in results]


async def preview_earning(
    connection: Connection, item: Activity, *, partner_id: UUID, now: datetime
) -> Earned:
    """What `earn` would answer at this moment; nothing is written, and lots have no names yet."""
    book = await SHELF.current(connection, now=now)
    standings = await membership.list_standings(connection, [item.member])
    draft = draw_up(book, item, standings.get(item.member.member_id), partner_id=partner_id, now=now)
    if isinstance(draft, Draft) and not draft.is_plain:
        draft = await try_allot(connection, draft, now=now)
    if isinstance(draft, Refusal):
        raise draft
    posting = posting_of(draft, now=now)
    answer = _answer(posting, await ledger.preview_earning(connection, posting, now=now))
    if isinstance(answer, Refusal):
        raise answer
    return answer


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


def _answer(posting: EarnPosting, outcome: EarnOutcome) -> Earned | Refusal:
    if not outcome.posted:
        return SourceAlreadyEarned(operation_id=to_wire("ent", outcome.operation_id))
    return Earned(
        operation_id=outcome.operation_id,
        points=posting.points,
        rule_version=posting.rule_version,
        grants=posting.grants,
        balance=outcome.balance,
    )
