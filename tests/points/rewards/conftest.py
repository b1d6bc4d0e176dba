"""A shelf of rewards and the people who want them, on the small bank of the points tests."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from msgspec.structs import replace

from kernel.caller import MemberRef
from kernel.database import Connection
from kernel.vault import Vault, generate_ring
from points.rewards import service
from points.rewards.model import Cancellation, Definition, Redemption, Reward, RewardKind, Wish

Bank = Any
WEEK = Cancellation(policy="within_days", days=7)
VIEWS = ("books_i70_redemptions_are_paid", "books_i71_redemption_holds", "books_i72_codes_once")
STOCK = "books_i73_stock_and_limits"


class Shelf:
    """Short words for long calls."""

    def __init__(self, bank: Bank) -> None:
        self.bank = bank
        self.now: datetime = bank.now
        #: through whom rewards are redeemed, and who gives the services
        self.partner_id: UUID = bank.partner_id
        self.provider_id = uuid4()
        self.vault = Vault(generate_ring())

    def definition(self, kind: RewardKind, **changes: Any) -> Definition:
        """One of a kind that costs 100 points."""
        plain = Definition(
            kind=kind,
            title_zh="礼",
            title_en="gift",
            price_points=100,
            provider_id=self.provider_id if kind == "service" else None,
            offset_fen=100 if kind == "fee_offset" else None,
            fulfil_seconds=3_600 if kind == "service" else None,
            starts_at=self.now - timedelta(days=1),
        )
        return replace(plain, **changes)

    async def put(
        self, connection: Connection, kind: RewardKind, *, codes: int = 0, active: bool = True, **changes: Any
    ) -> UUID:
        """Define it, load its codes, offer it."""
        reward_id = await service.define_reward(
            connection, self.definition(kind, **changes), actor="test", now=self.now
        )
        if codes:
            lines = [f"{reward_id}-{number}" for number in range(codes)]
            await service.load_codes(
                connection, reward_id=reward_id, lines=lines, actor="test", vault=self.vault, now=self.now
            )
        if active:
            await service.move_reward(
                connection, reward_id=reward_id, state="active", actor="test", now=self.now
            )
        return reward_id

    async def member(self, connection: Connection, points: int = 1_000) -> MemberRef:
        member: MemberRef = await self.bank.enrol(connection)
        if points:
            await self.bank.earn(connection, member, points)
        return member

    async def redeem(
        self,
        connection: Connection,
        member: MemberRef,
        reward_id: UUID,
        *,
        ref: str | None = None,
        **more: Any,
    ) -> Redemption:
        wish = Wish(
            member=member,
            partner_id=more.pop("partner_id", self.partner_id),
            reward_id=reward_id,
            redemption_ref=ref or str(uuid4()),
            **more,
        )
        return await service.redeem(connection, wish, now=self.now)

    async def reward(self, connection: Connection, reward_id: UUID) -> Reward:
        return await service.find_reward(connection, reward_id=reward_id)

    async def balance(self, connection: Connection, member: MemberRef) -> tuple[int, int]:
        """(available, held)."""
        wallet = await connection.fetchrow(
            "SELECT available_points, held_points FROM ledger_wallet WHERE member_id = $1 AND point_type = 1",
            member.member_id,
        )
        return (0, 0) if wallet is None else (wallet[0], wallet[1])

    async def taken(self, connection: Connection, reward_id: UUID) -> int:
        taken: int = await connection.fetchval(
            "SELECT taken FROM rewards_stock WHERE reward_id = $1", reward_id
        )
        return taken

    async def contradictions(self, connection: Connection) -> list[str]:
        """The sentences of the books on rewards that are not true."""
        return [view for view in (*VIEWS, STOCK) if await connection.fetch(f"SELECT FROM {view}")]


@pytest.fixture
def shelf(bank: Bank) -> Shelf:
    """Short words for long calls."""
    return Shelf(bank)
