"""The rewards a fresh sandbox is seeded with: a gift card, a bank fee, and a service where a partner gives one."""

import secrets
from datetime import datetime
from uuid import UUID

from kernel.database import Connection
from kernel.vault import Vault
from points.rewards.model import Cancellation, Definition, Limit
from points.rewards.service import define_reward, load_codes, move_reward

CODES = 200
ACTOR = "job:sandbox"
DAY = 24 * 3600


def gift_card(now: datetime) -> Definition:
    """Five yuan at a shop; may come back within a week while nobody has seen its code."""
    return Definition(
        kind="gift_card",
        title_zh="5元购物卡",
        title_en="Gift card of 5 yuan",
        price_points=500,
        starts_at=now,
        limit=Limit(count=5, period="month"),
        cancellation=Cancellation(policy="within_days", days=7),
    )


def fee_offset(now: datetime) -> Definition:
    """A yuan less on the card's annual fee."""
    return Definition(
        kind="fee_offset",
        title_zh="年费抵扣1元",
        title_en="1 yuan off the annual fee",
        price_points=100,
        offset_fen=100,
        starts_at=now,
    )


def consultation(provider_id: UUID, now: datetime) -> Definition:
    """A talk with a doctor, for the upper tiers, as long as there are appointments."""
    return Definition(
        kind="service",
        title_zh="健康咨询一次",
        title_en="A health consultation",
        price_points=300,
        provider_id=provider_id,
        pieces=1_000,
        fulfil_seconds=7 * DAY,
        starts_at=now,
        tiers=("silver", "gold", "platinum"),
        limit=Limit(count=2, period="year"),
        cancellation=Cancellation(policy="until_fulfilled"),
    )


async def stock_shelves(
    connection: Connection, *, provider_id: UUID, vault: Vault, now: datetime
) -> list[UUID]:
    """Define the sandbox's rewards and put them on offer; `provider_id` gives the consultations."""
    shelf = []
    for definition in (gift_card(now), fee_offset(now), consultation(provider_id, now)):
        reward_id = await define_reward(connection, definition, actor=ACTOR, now=now)
        if definition.kind == "gift_card":
            codes = [f"SANDBOX-{secrets.token_hex(8).upper()}" for _ in range(CODES)]
            await load_codes(connection, reward_id=reward_id, lines=codes, actor=ACTOR, vault=vault, now=now)
        await move_reward(connection, reward_id=reward_id, state="active", actor=ACTOR, now=now)
        shelf.append(reward_id)
    return shelf
