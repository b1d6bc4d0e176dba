"""Members with tiers: a small scheme in place of the bank's, and short words for deeds and judgements."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from kernel.calendar import business_date
from kernel.caller import MemberRef
from kernel.database import Connection
from kernel.jobs import Run
from points.membership import service
from points.membership.evaluation import evaluate
from points.membership.model import BankLevel, Deed, Scheme, ShopLevel, Threshold, Verdict

#: bronze from 2 deeds of together 10 yuan
SMALL = Scheme(
    version=0,
    window_kind="rolling",
    window_months=12,
    needs="all",
    rises="at_once",
    validity_months=12,
    grace_days=30,
    levels={
        "bronze": Threshold(min_fen=1_000, min_count=2),
        "silver": Threshold(min_fen=2_000, min_count=4),
        "gold": Threshold(min_fen=3_000, min_count=6),
    },
)


class Club:
    """Short words for long calls."""

    def __init__(self, connection: Connection, now: datetime) -> None:
        self.connection = connection
        self.now = now
        self.partner_id = uuid4()
        self.scheme = SMALL

    async def use_scheme(self, scheme: Scheme = SMALL) -> int:
        proposal = await service.propose_scheme(self.connection, scheme, by="maker", now=self.now)
        await service.switch_on(
            self.connection,
            "scheme",
            proposal.version,
            effective_on=business_date(self.now),
            by="checker",
            now=self.now,
        )
        return proposal.version

    async def enrol(
        self, bank_level: BankLevel = "comm", shop_level: ShopLevel = "iron", *, at: datetime | None = None
    ) -> MemberRef:
        (member,) = await service.enrol_members(
            self.connection, count=1, bank_level=bank_level, shop_level=shop_level, now=at or self.now
        )
        return member

    def deed(self, member: MemberRef, fen: int, **changes: Any) -> Deed:
        given: dict[str, Any] = {
            "member": member,
            "kind": "purchase",
            "source_ref": str(uuid4()),
            "occurred_at": self.now,
            "amount_fen": fen,
        }
        return Deed(**given | changes)

    async def record(self, *deeds: Deed, partner_id: UUID | None = None) -> list[bool]:
        reported = [(partner_id or self.partner_id, deed) for deed in deeds]
        return await service.record_activity(self.connection, reported, now=self.now)

    async def counted(self, member: MemberRef) -> list[tuple[str, int, int]]:
        """(month, fen, count) of every month."""
        records = await self.connection.fetch(
            "SELECT month, qualifying_fen, qualifying_count FROM membership_activity_month"
            " WHERE member_id = $1 ORDER BY month",
            member.member_id,
        )
        return [(record[0].isoformat(), record[1], record[2]) for record in records]

    async def tier(self, member: MemberRef) -> str:
        return (await service.list_standings(self.connection, [member]))[member.member_id].tier

    async def reasons(self, member: MemberRef) -> list[str]:
        """Why each tier began, the first one first."""
        periods = await service.list_periods(self.connection, member, limit=100)
        return [period.reason for period in reversed(periods)]

    async def evaluate(self, *members: MemberRef, on: date, now: datetime | None = None) -> list[Verdict]:
        decided = await service.judge_members(
            self.connection, members, day=on, cause="evaluation", now=now or self.now
        )
        return [verdict for _, verdict in decided]

    async def night(self, day: date, now: datetime) -> None:
        """The evaluation of a date, over every member there is."""
        cursor, finished = None, False
        while not finished:
            run = Run(job="evaluation", business_on=day, lane=0, lanes=1, cursor=cursor)
            cursor = (await evaluate(self.connection, run, now)).cursor
            finished = cursor is None

    async def contradictions(self, members: Sequence[MemberRef]) -> list[str]:
        """The views of the books that name one of these members."""
        named = []
        for view in (
            "books_i44_activity_months",
            "books_i45_activity_undone",
            "books_i46_tier_periods",
            "books_i47_tiers_judged",
            "books_i48_versions",
        ):
            query = f"SELECT FROM {view} WHERE member_id = ANY ($1)"
            if await self.connection.fetch(query, [member.member_id for member in members]):
                named.append(view)
        return named

    def after(self, days: int) -> datetime:
        return self.now + timedelta(days=days)


@pytest.fixture
def club(connection: Connection, now: datetime) -> Club:
    """Short words for long calls."""
    return Club(connection, now)
