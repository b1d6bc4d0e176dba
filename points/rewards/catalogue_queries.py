"""The statements on the catalogue: rewards, prices, stock and codes."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from msgspec import Struct

from kernel.database import Connection, read, read_if_any
from points.rewards.model import Definition, Reward, RewardState, Stock

INSERT_REWARD = """
INSERT INTO rewards_reward (
    id, kind, title_zh, title_en, provider_id, stock, offset_fen, fulfil_seconds, starts_at, ends_at, tiers, partners,
    limit_count, limit_period, cancel_policy, cancel_days, cancel_restocks, cancel_shown, state, price_version,
    created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, 'draft', 1, $19)
"""

INSERT_PRICE = """
INSERT INTO rewards_price (reward_id, version, points, point_type, since) VALUES ($1, $2, $3, $4, $5)
"""

# The row is locked until commit, so of two new prices the second gets the next version.
RAISE_PRICE_VERSION = """
UPDATE rewards_reward SET price_version = price_version + 1 WHERE id = $1 AND state <> 'ended' RETURNING price_version
"""

INSERT_STOCK = "INSERT INTO rewards_stock (reward_id, total) VALUES ($1, $2)"

MOVE_REWARD = "UPDATE rewards_reward SET state = $2 WHERE id = $1 AND state = ANY($3) RETURNING true"

FIND_REWARD = """
SELECT reward.id, kind, title_zh, title_en, provider_id, stock, offset_fen, fulfil_seconds, starts_at, ends_at, tiers,
       partners, limit_count, limit_period, cancel_policy, cancel_days, cancel_restocks, cancel_shown, state,
       price_version, price.points AS price_points, price.point_type
  FROM rewards_reward AS reward
  JOIN rewards_price AS price ON price.reward_id = reward.id AND price.version = reward.price_version
 WHERE reward.id = $1
"""

# Newest first; the id is time-ordered, so it is the cursor. Those of the catalogue that this tier may have through this
# partner now.
LIST_ON_OFFER = """
SELECT reward.id, kind, title_zh, title_en, provider_id, stock, offset_fen, fulfil_seconds, starts_at, ends_at, tiers,
       partners, limit_count, limit_period, cancel_policy, cancel_days, cancel_restocks, cancel_shown, state,
       price_version, price.points AS price_points, price.point_type
  FROM rewards_reward AS reward
  JOIN rewards_price AS price ON price.reward_id = reward.id AND price.version = reward.price_version
 WHERE state = 'active' AND starts_at <= $1 AND (ends_at IS NULL OR ends_at > $1)
   AND (tiers = '{}' OR $2 = ANY(tiers)) AND (partners = '{}' OR $3 = ANY(partners))
   AND ($4::uuid IS NULL OR reward.id < $4)
 ORDER BY reward.id DESC
 LIMIT $5
"""

# In the order in which they were made: for whoever looks after the catalogue.
LIST_REWARDS = """
SELECT reward.id, kind, title_zh, title_en, provider_id, stock, offset_fen, fulfil_seconds, starts_at, ends_at, tiers,
       partners, limit_count, limit_period, cancel_policy, cancel_days, cancel_restocks, cancel_shown, state,
       price_version, price.points AS price_points, price.point_type
  FROM rewards_reward AS reward
  JOIN rewards_price AS price ON price.reward_id = reward.id AND price.version = reward.price_version
 ORDER BY reward.id
 LIMIT $1
"""

# Of codes no more are counted than anybody wants to know.
LIST_LEFT = """
SELECT stock.reward_id, stock.total - stock.taken AS pieces
  FROM rewards_stock AS stock
 WHERE stock.reward_id = ANY($1)
 UNION ALL
SELECT asked.id, free.pieces
  FROM unnest($2::uuid[]) AS asked (id)
 CROSS JOIN LATERAL (
       SELECT count(*)::int AS pieces
         FROM (SELECT FROM rewards_code WHERE reward_id = asked.id AND redemption_id IS NULL LIMIT $3) AS code) AS free
"""

# Never below zero: the last one is taken by one, and the next finds no row. Whoever takes waits for those before.
TAKE_PIECE = """
UPDATE rewards_stock SET taken = taken + 1 WHERE reward_id = $1 AND taken < total RETURNING true
"""

RETURN_PIECE = "UPDATE rewards_stock SET taken = taken - 1 WHERE reward_id = $1"

ADD_PIECES = "UPDATE rewards_stock SET total = total + $2 WHERE reward_id = $1 RETURNING total - taken"

# The oldest that nobody else is about to hand out.
HAND_OUT_CODE = """
UPDATE rewards_code
   SET redemption_id = $2, handed_at = $3
 WHERE id = (SELECT id
               FROM rewards_code
              WHERE reward_id = $1 AND redemption_id IS NULL
              ORDER BY ordinal
              LIMIT 1
                FOR UPDATE SKIP LOCKED)
RETURNING id
"""

# The same, waiting for those who hold one: if they give up, theirs is free again.
AWAIT_CODE = """
UPDATE rewards_code
   SET redemption_id = $2, handed_at = $3
 WHERE id = (SELECT id
               FROM rewards_code
              WHERE reward_id = $1 AND redemption_id IS NULL
              ORDER BY ordinal
              LIMIT 1
                FOR UPDATE)
RETURNING id
"""

VOID_CODE = (
    "UPDATE rewards_code SET voided_at = $3 WHERE id = $1 AND redemption_id = $2 AND voided_at IS NULL"
)

FIND_CODE = "SELECT code_sealed FROM rewards_code WHERE id = $1 AND redemption_id = $2 AND voided_at IS NULL"

# In the order of the file, so that they are handed out in it.
INSERT_CODES = """
WITH loaded AS (
    INSERT INTO rewards_code (id, reward_id, code_sealed, code_index, loaded_at)
    SELECT code.id, $1, code.sealed, code.index, $5
      FROM unnest($2::uuid[], $3::bytea[], $4::bytea[]) WITH ORDINALITY AS code (id, sealed, index, place)
     ORDER BY code.place
        ON CONFLICT (code_index) DO NOTHING
    RETURNING 1
)
SELECT count(*)::int FROM loaded
"""


class SealedCode(Struct, frozen=True, kw_only=True):
    """A code as it is stored."""

    id: UUID
    sealed: bytes
    index: bytes


async def insert_reward(
    connection: Connection, reward_id: UUID, definition: Definition, *, stock: Stock, now: datetime
) -> None:
    limit, cancellation = definition.limit, definition.cancellation
    await connection.execute(
        INSERT_REWARD,
        *(
            reward_id,
            definition.kind,
            definition.title_zh,
            definition.title_en,
            definition.provider_id,
            stock,
        ),
        *(definition.offset_fen, definition.fulfil_seconds, definition.starts_at, definition.ends_at),
        *(list(definition.tiers), list(definition.partners)),
        *((None, None) if limit is None else (limit.count, limit.period)),
        *(cancellation.policy, cancellation.days, cancellation.restocks, cancellation.shown, now),
    )
    if stock == "counted":
        await connection.execute(INSERT_STOCK, reward_id, definition.pieces)


async def insert_price(
    connection: Connection, reward_id: UUID, *, version: int, points: int, point_type: int, now: datetime
) -> None:
    await connection.execute(INSERT_PRICE, reward_id, version, points, point_type, now)


async def raise_price_version(connection: Connection, reward_id: UUID) -> int | None:
    """The next version; None for a reward that has ended."""
    version: int | None = await connection.fetchval(RAISE_PRICE_VERSION, reward_id)
    return version


async def move_reward(
    connection: Connection, reward_id: UUID, *, state: RewardState, before: Sequence[RewardState]
) -> bool:
    """False when the reward was in none of the states before."""
    return bool(await connection.fetchval(MOVE_REWARD, reward_id, state, list(before)))


async def find_reward(connection: Connection, reward_id: UUID) -> Reward | None:
    return read_if_any(await connection.fetchrow(FIND_REWARD, reward_id), Reward)


async def list_on_offer(
    connection: Connection, *, tier: str, partner_id: UUID, before: UUID | None, limit: int, now: datetime
) -> list[Reward]:
    records = await connection.fetch(LIST_ON_OFFER, now, tier, partner_id, before, limit)
    return [read(record, Reward) for record in records]


async def list_rewards(connection: Connection, *, limit: int) -> list[Reward]:
    return [read(record, Reward) for record in await connection.fetch(LIST_REWARDS, limit)]


async def list_left(connection: Connection, rewards: Sequence[Reward], *, most: int) -> dict[UUID, int]:
    """How many pieces are left of those that have a stock; of codes at most `most` are counted."""
    counted = [reward.id for reward in rewards if reward.stock == "counted"]
    coded = [reward.id for reward in rewards if reward.stock == "codes"]
    records = await connection.fetch(LIST_LEFT, counted, coded, most)
    return {record["reward_id"]: record["pieces"] for record in records}


async def take_piece(connection: Connection, reward_id: UUID) -> bool:
    """False when none is left."""
    return bool(await connection.fetchval(TAKE_PIECE, reward_id))


async def return_piece(connection: Connection, reward_id: UUID) -> None:
    await connection.execute(RETURN_PIECE, reward_id)


async def add_pieces(connection: Connection, reward_id: UUID, pieces: int) -> int | None:
    """How many are left; None for a reward whose pieces are not counted."""
    left: int | None = await connection.fetchval(ADD_PIECES, reward_id, pieces)
    return left


async def hand_out_code(
    connection: Connection, reward_id: UUID, *, redemption_id: UUID, now: datetime
) -> UUID | None:
    """A code for this redemption alone; None only when none is left, whatever others are about to give back."""
    for statement in (HAND_OUT_CODE, AWAIT_CODE):
        code_id: UUID | None = await connection.fetchval(statement, reward_id, redemption_id, now)
        if code_id is not None:
            return code_id
    return None


async def void_code(connection: Connection, code_id: UUID, *, redemption_id: UUID, now: datetime) -> None:
    await connection.execute(VOID_CODE, code_id, redemption_id, now)


async def find_code(connection: Connection, code_id: UUID, *, redemption_id: UUID) -> bytes | None:
    sealed: bytes | None = await connection.fetchval(FIND_CODE, code_id, redemption_id)
    return sealed


async def insert_codes(
    connection: Connection, reward_id: UUID, codes: Sequence[SealedCode], *, now: datetime
) -> int:
    """How many were not there before."""
    loaded: int = await connection.fetchval(
        INSERT_CODES,
        reward_id,
        [code.id for code in codes],
        [code.sealed for code in codes],
        [code.index for code in codes],
        now,
    )
    return loaded
