"""Redemptions: points held, a piece taken, and both kept or given back together.

Everything of a redemption moves in one transaction. The order of locks: the redemption (one that is new is known to
nobody), the member's counter, the stock, the wallet.
"""

from datetime import date, datetime, timedelta
from uuid import UUID

from kernel.caller import MemberRef, MemberUnknown
from kernel.database import Connection
from kernel.ids import new_id, to_wire
from kernel.vault import Vault
from points.ledger import service as ledger
from points.membership import service as membership
from points.rewards import catalogue_queries, queries
from points.rewards.catalogue import CODES, find_reward
from points.rewards.model import Redemption, Reward, Wish
from points.rewards.outcomes import give_up, spend, take_back
from points.rewards.rules import (
    CodeNotShown,
    RedemptionRefUsed,
    RewardLimitReached,
    RewardOutOfStock,
    check_in_time,
    check_party,
    check_provider,
    check_redeemer,
    check_reward,
    decide_undoing,
    period_of,
)
from points.rewards.telling import ask_for_offset, tell

#: a hold that is closed in the transaction that opens it
AT_ONCE_SECONDS = 60
OVERDUE = "overdue"


async def redeem(connection: Connection, wish: Wish, *, now: datetime) -> Redemption:
    """Take a piece and hold its price; a gift card is the member's at once, the rest is in other hands."""
    standing = (await membership.list_standings(connection, [wish.member])).get(wish.member.member_id)
    if standing is None:
        raise MemberUnknown
    reward = check_reward(
        await catalogue_queries.find_reward(connection, wish.reward_id),
        partner_id=wish.partner_id,
        tier=standing.tier,
        price_points=wish.price_points,
        now=now,
    )
    await _check_ref(connection, wish)
    redemption_id = new_id(now)
    period_on = await _count(connection, reward, wish.member, now)
    code_id = await _take_piece(connection, reward, redemption_id, now)
    hold = await ledger.place_hold(
        connection,
        member=wish.member,
        partner_id=reward.supplier_id,
        points=reward.price_points,
        order_ref=to_wire("rdm", redemption_id),
        ttl_seconds=reward.fulfil_seconds or AT_ONCE_SECONDS,
        manager="redemption",
        point_type=await ledger.read_point_type(connection, reward.point_type),
        now=now,
    )
    redemption = Redemption(
        id=redemption_id,
        member=wish.member,
        partner_id=wish.partner_id,
        redemption_ref=wish.redemption_ref,
        reward_id=reward.id,
        kind=reward.kind,
        supplier_id=reward.supplier_id,
        price_version=reward.price_version,
        price_points=reward.price_points,
        point_type=reward.point_type,
        hold_id=hold.id,
        code_id=code_id,
        period_on=period_on,
        has_piece=reward.stock != "unlimited",
        counts=period_on is not None,
        state="requested",
        requested_at=now,
        fulfil_by=None if reward.fulfil_seconds is None else now + timedelta(seconds=reward.fulfil_seconds),
    )
    if not await queries.insert_redemption(connection, redemption):
        await _check_ref(connection, wish)
        raise AssertionError("a reference that is taken is found")
    await tell(connection, redemption, now=now)
    if reward.kind == "gift_card":
        return await spend(connection, redemption, "fulfilled", now)
    if reward.kind == "fee_offset":
        handed_over = await spend(connection, redemption, "fulfilling", now)
        await ask_for_offset(connection, handed_over, reward, now=now)
        return handed_over
    return redemption


async def find_redemption(
    connection: Connection, *, redemption_id: UUID, asking: UUID | MemberRef
) -> Redemption:
    """For the member, for the partner through whom it was redeemed, or for its provider."""
    return check_party(await queries.find_redemption(connection, redemption_id), asking)


async def fulfil(
    connection: Connection, *, redemption_id: UUID, provider_id: UUID, now: datetime
) -> Redemption:
    """The provider gives the service: from here on the points are spent."""
    redemption = check_provider(await queries.lock_redemption(connection, redemption_id), provider_id)
    check_in_time(redemption, now)
    return await spend(connection, redemption, "fulfilled", now)


async def fail(
    connection: Connection, *, redemption_id: UUID, provider_id: UUID, reason: str, now: datetime
) -> Redemption:
    """The provider will not give the service: points, piece and time go back."""
    redemption = check_provider(await queries.lock_redemption(connection, redemption_id), provider_id)
    return await give_up(connection, redemption, "failed", reason=reason, now=now)


async def fail_overdue(connection: Connection, *, now: datetime) -> int:
    """End the redemption that is longest overdue; one to a transaction, so that no two members' rows are locked."""
    redemption = await queries.lock_overdue(connection, now=now)
    if redemption is None:
        return 0
    await give_up(connection, redemption, "failed", reason=OVERDUE, now=now)
    return 1


async def cancel(
    connection: Connection, *, redemption_id: UUID, asking: UUID | MemberRef, now: datetime
) -> Redemption:
    """Take the redemption back as the reward's policy lets it."""
    redemption = check_redeemer(await queries.lock_redemption(connection, redemption_id), asking)
    reward = await find_reward(connection, reward_id=redemption.reward_id)
    undoing = decide_undoing(redemption, reward, now)
    if undoing.points == "release":
        return await give_up(connection, redemption, "cancelled", now=now)
    return await take_back(connection, redemption, "cancelled", gives_back=undoing.gives_back, now=now)


async def show_code(
    connection: Connection, *, redemption_id: UUID, asking: UUID | MemberRef, vault: Vault, now: datetime
) -> str:
    """The code of a gift card, for its owner alone; that it was shown is remembered."""
    redemption = check_redeemer(await queries.lock_redemption(connection, redemption_id), asking)
    if redemption.code_id is None or redemption.state != "fulfilled":
        raise CodeNotShown(state=redemption.state)
    sealed = await catalogue_queries.find_code(connection, redemption.code_id, redemption_id=redemption.id)
    assert sealed is not None, "a fulfilled gift card has a code that is not void"
    await queries.mark_shown(connection, redemption, now=now)
    return vault.decrypt(sealed, table=CODES, column="code", row=str(redemption.code_id))


async def _check_ref(connection: Connection, wish: Wish) -> None:
    used_by = await queries.find_by_ref(
        connection, wish.member, partner_id=wish.partner_id, redemption_ref=wish.redemption_ref
    )
    if used_by is not None:
        raise RedemptionRefUsed(redemption_id=to_wire("rdm", used_by))


async def _count(connection: Connection, reward: Reward, member: MemberRef, now: datetime) -> date | None:
    """The period in which this time counts; None without a limit."""
    if reward.limit_count is None or reward.limit_period is None:
        return None
    period_on = period_of(reward.limit_period, now)
    if not await queries.count_use(
        connection, member, reward_id=reward.id, period_on=period_on, limit=reward.limit_count
    ):
        raise RewardLimitReached(limit=reward.limit_count, period=reward.limit_period)
    return period_on


async def _take_piece(
    connection: Connection, reward: Reward, redemption_id: UUID, now: datetime
) -> UUID | None:
    """A piece for this redemption; a gift card's is its code."""
    if reward.stock == "unlimited":
        return None
    if reward.stock == "counted":
        if not await catalogue_queries.take_piece(connection, reward.id):
            raise RewardOutOfStock
        return None
    code_id = await catalogue_queries.hand_out_code(
        connection, reward.id, redemption_id=redemption_id, now=now
    )
    if code_id is None:
        raise RewardOutOfStock
    return code_id
