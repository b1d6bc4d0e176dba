"""The catalogue as the bank looks after it, and as one member may have it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from kernel import audit
from kernel.audit import AuditRecord
from kernel.caller import MemberRef, MemberUnknown
from kernel.database import Connection
from kernel.ids import new_id, to_wire
from kernel.vault import Vault
from points.ledger import service as ledger
from points.membership import service as membership
from points.rewards import catalogue_queries, queries
from points.rewards.catalogue_queries import SealedCode
from points.rewards.model import Definition, LoadedCodes, Offered, Reward, RewardState
from points.rewards.rules import (
    PIECES_MAX,
    CodeFileRefused,
    RewardDefinitionRefused,
    RewardTransitionRefused,
    RewardUnknown,
    check_codes,
    check_definition,
    period_of,
    states_before,
)

CODES = "rewards_code"
CODES_AT_ONCE = 1_000
#: of a gift card's codes no more are counted
LEFT_MAX = 1_000
LISTED_MAX = 1_000


async def define_reward(connection: Connection, definition: Definition, *, actor: str, now: datetime) -> UUID:
    """A new reward, as a draft that nobody sees yet."""
    stock = check_definition(definition)
    point_type = await ledger.find_point_type(connection, definition.point_type)
    reward_id = new_id(now)
    await catalogue_queries.insert_reward(connection, reward_id, definition, stock=stock, now=now)
    await catalogue_queries.insert_price(
        connection,
        reward_id,
        version=1,
        points=definition.price_points,
        point_type=point_type.code,
        now=now,
    )
    facts = {"kind": definition.kind, "price_points": definition.price_points}
    await _note(connection, actor, "define", reward_id, facts, now)
    return reward_id


async def move_reward(
    connection: Connection, *, reward_id: UUID, state: RewardState, actor: str, now: datetime
) -> None:
    """draft → active ⇄ paused → ended: what has been redeemed goes on whatever becomes of the reward."""
    reward = await find_reward(connection, reward_id=reward_id)
    if not await catalogue_queries.move_reward(
        connection, reward_id, state=state, before=states_before(state)
    ):
        raise RewardTransitionRefused(state=reward.state)
    await _note(connection, actor, state, reward_id, {"before": reward.state}, now)


async def set_price(
    connection: Connection, *, reward_id: UUID, price_points: int, actor: str, now: datetime
) -> int:
    """A new price from now on; returns its version. Redemptions keep the price they saw."""
    if not 0 < price_points < 10**13:
        raise RewardDefinitionRefused(field="price_points")
    reward = await find_reward(connection, reward_id=reward_id)
    version = await catalogue_queries.raise_price_version(connection, reward_id)
    if version is None:
        raise RewardTransitionRefused(state=reward.state)
    await catalogue_queries.insert_price(
        connection,
        reward_id,
        version=version,
        points=price_points,
        point_type=reward.point_type,
        now=now,
    )
    await _note(connection, actor, "price", reward_id, {"version": version, "points": price_points}, now)
    return version


async def add_pieces(
    connection: Connection, *, reward_id: UUID, pieces: int, actor: str, now: datetime
) -> int:
    """More of a counted reward; returns how many are left."""
    if not 0 < pieces <= PIECES_MAX:
        raise RewardDefinitionRefused(field="pieces")
    await find_reward(connection, reward_id=reward_id)
    left = await catalogue_queries.add_pieces(connection, reward_id, pieces)
    if left is None:
        raise RewardDefinitionRefused(field="pieces")
    await _note(connection, actor, "add_pieces", reward_id, {"pieces": pieces}, now)
    return left


async def load_codes(
    connection: Connection,
    *,
    reward_id: UUID,
    lines: Sequence[str],
    actor: str,
    vault: Vault,
    now: datetime,
) -> LoadedCodes:
    """The codes of a file, sealed; one that is there already, for whatever reward, is left as it is."""
    reward = await find_reward(connection, reward_id=reward_id)
    if reward.stock != "codes" or reward.state == "ended":
        raise CodeFileRefused
    codes = check_codes(lines)
    loaded = 0
    for start in range(0, len(codes), CODES_AT_ONCE):
        sealed = [_seal(code, new_id(now), vault) for code in codes[start : start + CODES_AT_ONCE]]
        loaded += await catalogue_queries.insert_codes(connection, reward_id, sealed, now=now)
    await _note(connection, actor, "load_codes", reward_id, {"loaded": loaded}, now)
    return LoadedCodes(loaded=loaded, known=len(codes) - loaded)


async def find_reward(connection: Connection, *, reward_id: UUID) -> Reward:
    reward = await catalogue_queries.find_reward(connection, reward_id)
    if reward is None:
        raise RewardUnknown
    return reward


async def list_rewards(connection: Connection) -> list[tuple[Reward, int | None]]:
    """The whole catalogue with what is left of each, for the bank."""
    rewards = await catalogue_queries.list_rewards(connection, limit=LISTED_MAX)
    left = await catalogue_queries.list_left(connection, rewards, most=LEFT_MAX)
    return [(reward, left.get(reward.id)) for reward in rewards]


async def list_offered(
    connection: Connection,
    *,
    member: MemberRef,
    partner_id: UUID,
    before: UUID | None = None,
    limit: int,
    now: datetime,
) -> list[Offered]:
    """What this member may redeem through this partner now, newest first; what is sold out says so."""
    standing = (await membership.list_standings(connection, [member])).get(member.member_id)
    if standing is None:
        raise MemberUnknown
    rewards = await catalogue_queries.list_on_offer(
        connection, tier=standing.tier, partner_id=partner_id, before=before, limit=limit, now=now
    )
    left = await catalogue_queries.list_left(connection, rewards, most=LEFT_MAX)
    periods = [(r, period_of(r.limit_period, now)) for r in rewards if r.limit_period is not None]
    uses = await queries.list_uses(connection, member, periods)
    types = {each.code: each.name for each in await ledger.list_point_types(connection)}
    return [
        Offered(
            reward=reward,
            point_type=types[reward.point_type],
            left=left.get(reward.id),
            times_left=None
            if reward.limit_count is None
            else max(0, reward.limit_count - uses.get(reward.id, 0)),
        )
        for reward in rewards
    ]


def _seal(code: str, code_id: UUID, vault: Vault) -> SealedCode:
    return SealedCode(
        id=code_id,
        sealed=vault.encrypt(code, table=CODES, column="code", row=str(code_id)),
        index=vault.blind_index("reward.code", code),
    )


async def _note(
    connection: Connection, actor: str, act: str, reward_id: UUID, facts: dict[str, Any], now: datetime
) -> None:
    record = AuditRecord(actor=actor, action=f"reward.{act}", subject=to_wire("rwd", reward_id), detail=facts)
    await audit.append(connection, record, partner_id=None, now=now)
