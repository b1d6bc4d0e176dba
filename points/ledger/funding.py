"""Funding: earnings whose points somebody else pays for are priced, drawn on the funder's blocks, and undone to them.

Blocks are drawn before wallets are locked, and nothing here is asked when the bank pays for everything.
"""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from kernel.calendar import business_date
from kernel.caller import MemberRef
from kernel.database import Connection
from kernel.ids import to_wire
from kernel.outbox import Event, enqueue
from points.ledger import budgets
from points.ledger import funder_queries as queries
from points.ledger.budgets import Want
from points.ledger.earnings import post_earnings
from points.ledger.funder_model import Draw, Funded, FundingSource, FundingWant, Share
from points.ledger.funder_rules import FunderExhausted, cost_of_shares, fund_posting, share_returns
from points.ledger.model import BANK_FUNDER_ID, EarnOutcome, EarnPosting, Operation, Take

BUCKETS = 1024


async def post_funded_earnings(
    connection: Connection, postings: Sequence[EarnPosting], *, now: datetime
) -> list[tuple[EarnPosting, EarnOutcome] | FunderExhausted]:
    """`post_earnings`, with the points paid for by their funders.

    An earning whose funder has not enough left is refused, or goes without the grants that are `optional`. Each answer
    comes with the posting as it was posted.
    """
    funded = await fund_postings(connection, postings, now=now)
    paid = [one for one in funded if isinstance(one, Funded)]
    outcomes = await post_earnings(connection, [one.posting for one in paid], now=now)
    await settle_draws(connection, list(zip(paid, outcomes, strict=True)), now=now)
    answers = iter(zip(paid, outcomes, strict=True))
    results: list[tuple[EarnPosting, EarnOutcome] | FunderExhausted] = []
    for one in funded:
        if isinstance(one, Funded):
            posted, outcome = next(answers)
            results.append((posted.posting, outcome))
        else:
            results.append(one)
    return results


async def fund_postings(
    connection: Connection, postings: Sequence[EarnPosting], *, now: datetime
) -> list[Funded | FunderExhausted]:
    """Each posting with its grants at their cost and drawn on blocks where they are paid in advance."""
    funders = sorted({grant.funder_id for posting in postings for grant in posting.grants} - {BANK_FUNDER_ID})
    if not funders:
        return [Funded(posting=posting) for posting in postings]
    sources = await queries.list_sources(connection, funders, on=business_date(now))
    claimed: set[int] = set()
    if any(source.billing == "prepaid" for source in sources.values()):
        # what has earned before draws nothing, and is told so even when the funder has nothing left
        claimed = await queries.list_claimed(connection, postings)
    asked = [
        (at, place, FundingWant(bucket=posting.member.bucket, funder_id=grant.funder_id, points=grant.points))
        for at, posting in enumerate(postings)
        if at not in claimed
        for place, grant in enumerate(posting.grants)
        if grant.funder_id != BANK_FUNDER_ID
    ]
    drawn = await _draw(connection, [want for _, _, want in asked], sources, now)
    paid = {(at, place): draw for (at, place, _), draw in zip(asked, drawn, strict=True)}
    results = [
        Funded(posting=posting) if at in claimed else _fund(posting, at, paid)
        for at, posting in enumerate(postings)
    ]
    refused = [at for at, one in enumerate(results) if isinstance(one, FunderExhausted)]
    await give_back_draws(
        connection, [draw for (at, _), draw in paid.items() if at in refused and draw], now=now
    )
    return results


async def draw_funding(
    connection: Connection, wants: Sequence[FundingWant], *, now: datetime
) -> list[Draw | None]:
    """How each want is paid, in the order of `wants`; None: the funder has not enough left, and nothing was drawn.

    Whoever draws posts the points in the same transaction and then calls `record_draws`, or `give_back_draws`.
    """
    funders = sorted({want.funder_id for want in wants})
    sources = await queries.list_sources(connection, funders, on=business_date(now)) if funders else {}
    return await _draw(connection, wants, sources, now)


async def settle_draws(
    connection: Connection, posted: Sequence[tuple[Funded, EarnOutcome]], *, now: datetime
) -> None:
    """What was posted is written down; what turned out to have earned before gives its draws back."""
    recorded = [
        (funded.posting.member, outcome.operation_id, draw)
        for funded, outcome in posted
        if outcome.posted
        for draw in funded.draws
    ]
    await record_draws(connection, recorded, now=now)
    unused = [draw for funded, outcome in posted if not outcome.posted for draw in funded.draws]
    await give_back_draws(connection, unused, now=now)


async def record_draws(
    connection: Connection, draws: Sequence[tuple[MemberRef, UUID, Draw]], *, now: datetime
) -> None:
    """Which operation drew what on which block; a block that runs low tells its funder's partner, once per mark."""
    if not any(draw.shares for _, _, draw in draws):
        return
    events = []
    for block_id, low_ppm, code, partner_id in await queries.record_draws(connection, draws, now=now):
        if partner_id is None:
            continue
        state = await budgets.read_budget(connection, block_id)
        wire_id = to_wire("blk", block_id)
        events.append(
            Event(
                bucket=partner_id.int % BUCKETS,
                partner_id=partner_id,
                type="funder.block_low",
                aggregate=wire_id,
                payload={
                    "id": wire_id,
                    "funder": code,
                    "low_ppm": low_ppm,
                    "points": state.total,
                    "left_points": state.left,
                },
            )
        )
    await enqueue(connection, events, now=now)


async def lock_blocks(
    connection: Connection, operations: Sequence[Operation], *, now: datetime
) -> list[tuple[int, UUID]]:
    """Before wallets are locked: lock the blocks, by bucket, that may get points back when `operations` are undone."""
    places = await queries.list_blocks_to_lock(connection, operations)
    await budgets.lock(connection, places, now=now)
    return places


async def return_draws(
    connection: Connection,
    operation: Operation,
    takes: Sequence[Take],
    *,
    block_ids: Sequence[UUID],
    by_operation: UUID,
    now: datetime,
) -> None:
    """Points taken from the member go back to the blocks they came from; `takes` has what is owed, too."""
    drawn = await queries.list_drawn(
        connection,
        operation.member,
        operation_ids=[operation.id, *(taken.lot.operation_id for taken in takes)],
        block_ids=block_ids,
    )
    returns = share_returns(drawn, takes, operation.id)
    if not returns:
        return
    await queries.record_returns(connection, operation.member, returns, by_operation=by_operation)
    back = [Want(bucket=operation.bucket, budget_id=one.block_id, amount=points) for one, points in returns]
    await budgets.give_back(connection, back, now=now)


async def give_back_draws(connection: Connection, draws: Sequence[Draw], *, now: datetime) -> None:
    """Undo draws of this transaction whose points were not posted."""
    back = [
        Want(bucket=draw.bucket, budget_id=share.block_id, amount=share.points)
        for draw in draws
        for share in draw.shares
    ]
    await budgets.give_back(connection, back, now=now)


async def _draw(
    connection: Connection,
    wants: Sequence[FundingWant],
    sources: dict[int, FundingSource],
    now: datetime,
) -> list[Draw | None]:
    turns = [
        [
            Want(bucket=want.bucket, budget_id=block_id, amount=want.points)
            for block_id, _ in sources[want.funder_id].blocks
        ]
        for want in wants
    ]
    granted = await budgets.draw_in_turn(connection, turns, now=now)
    return [_paid(want, sources[want.funder_id], taken) for want, taken in zip(wants, granted, strict=True)]


def _paid(want: FundingWant, source: FundingSource, granted: Sequence[int]) -> Draw | None:
    if source.billing != "prepaid":
        cost = None if source.billing is None else source.unit_cost_e6
        return Draw(bucket=want.bucket, funder_id=want.funder_id, unit_cost_e6=cost)
    if sum(granted) < want.points:
        return None
    shares = tuple(
        Share(block_id=block_id, points=points)
        for (block_id, _), points in zip(source.blocks, granted, strict=True)
        if points
    )
    cost = cost_of_shares(shares, source)
    return Draw(bucket=want.bucket, funder_id=want.funder_id, unit_cost_e6=cost, shares=shares)


def _fund(
    posting: EarnPosting, at: int, paid: dict[tuple[int, int], Draw | None]
) -> Funded | FunderExhausted:
    draws: list[Draw] = []
    costs: list[int | None] = []
    unpaid: list[int] = []
    for place, grant in enumerate(posting.grants):
        draw = paid.get((at, place))
        if draw is not None:
            draws.append(draw)
        elif grant.funder_id != BANK_FUNDER_ID:
            if not grant.optional:
                return FunderExhausted()
            unpaid.append(place)
        costs.append(None if draw is None else draw.unit_cost_e6)
    return Funded(posting=fund_posting(posting, costs, unpaid=unpaid), draws=tuple(draws))
