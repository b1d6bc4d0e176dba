"""Posting: drafts become earnings in the books; a campaign whose funder cannot pay is done without."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from kernel.database import Connection
from kernel.errors import Refusal
from points.earning.allotment import give_back
from points.earning.draft import Draft, posting_of
from points.earning.stacking import Bonus
from points.ledger.earnings import post_earnings
from points.ledger.funder_model import Funded
from points.ledger.funding import fund_postings, settle_draws
from points.ledger.model import BANK_FUNDER_ID, EarnOutcome, EarnPosting

#: what else the caller does to these members' points in the same transaction
Meanwhile = Callable[[], Awaitable[None]]


class Posted(Struct, frozen=True, kw_only=True):
    """A draft as it was posted in the end, and what the books answered."""

    draft: Draft
    posting: EarnPosting
    outcome: EarnOutcome


async def post_drafts(
    connection: Connection,
    drafts: Sequence[Draft],
    *,
    meanwhile: Meanwhile | None = None,
    now: datetime,
) -> list[Posted | Refusal]:
    """Post each draft with its points paid for; refused where the base rule's or a named campaign's funder cannot pay.

    Funders are asked before wallets are locked, `meanwhile` comes in between; what an earning goes without goes back to
    caps and budgets.
    """
    asked = list(drafts)
    funded = await fund_postings(connection, [posting_of(draft, now=now) for draft in asked], now=now)
    for place, answer in enumerate(funded):
        if not isinstance(answer, Refusal):
            continue
        dropped = _unpaid(asked[place])
        if dropped:
            await give_back(
                connection, [replace(asked[place], base_points=0, bonuses=tuple(dropped))], now=now
            )
            asked[place] = _without(asked[place], dropped)
            funded[place] = Funded(posting=posting_of(asked[place], now=now))
        else:
            await give_back(connection, [asked[place]], now=now)
    paid = [answer for answer in funded if isinstance(answer, Funded)]
    if meanwhile is not None:
        await meanwhile()
    outcomes = await post_earnings(connection, [one.posting for one in paid], now=now)
    await settle_draws(connection, list(zip(paid, outcomes, strict=True)), now=now)
    posted = iter(zip(paid, outcomes, strict=True))
    results: list[Posted | Refusal] = []
    for draft, answer in zip(asked, funded, strict=True):
        if isinstance(answer, Refusal):
            results.append(answer)
        else:
            one, outcome = next(posted)
            results.append(Posted(draft=draft, posting=one.posting, outcome=outcome))
    return results


def _unpaid(draft: Draft) -> list[Bonus]:
    """The bonuses to do without when somebody cannot pay; none where the earning has to be refused."""
    dropped = [bonus for bonus in draft.bonuses if bonus.points and _is_shared(bonus)]
    named = any(bonus.campaign.code == draft.activity.campaign for bonus in dropped)
    if named or (draft.base_points and draft.rule.terms.funder_id != BANK_FUNDER_ID):
        return []
    return dropped


def _is_shared(bonus: Bonus) -> bool:
    return any(share.terms.funder_id != BANK_FUNDER_ID for share in bonus.campaign.shares)


def _without(draft: Draft, dropped: Sequence[Bonus]) -> Draft:
    return replace(
        draft,
        bonuses=tuple(
            replace(bonus, points=0, limit=0, limited_by="funder", drawn=0) if bonus in dropped else bonus
            for bonus in draft.bonuses
        ),
    )
