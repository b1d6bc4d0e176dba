"""Campaigns and rule versions for the tests of earning, approved an hour ago unless a test says otherwise."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from kernel.caller import MemberRef
from kernel.database import Connection
from points.earning import campaigns, versions
from points.earning.definitions import CampaignDefinition, RuleDefinition
from points.earning.model import Activity

Bank = Any
HOUR = timedelta(hours=1)
#: a Friday again
YEARS_LATER = timedelta(weeks=5 * 52)
FIRST_YEAR = datetime(2029, 1, 1, tzinfo=UTC)
#: what must be true of every earning, whatever a test has done
VIEWS = (
    "books_i43_earnings_replay",
    "books_i57_rule_in_force",
    "books_i58_campaign_lots",
    "books_i59_campaigns_replay",
    "books_i60_campaign_conditions",
    "books_i61_campaign_budgets",
    "books_i62_caps",
)


class Marketing:
    """Short words for what the bank's staff do."""

    def __init__(self, connection: Connection, bank: Bank) -> None:
        self.connection = connection
        self.bank = bank
        self.now: datetime = bank.now

    async def propose(self, code: str, *, members: Sequence[MemberRef] = (), **changes: Any) -> None:
        fields: dict[str, Any] = {
            "code": code,
            "name_zh": "活动",
            "name_en": "Campaign",
            "starts_at": self.now - 2 * HOUR,
            "ends_at": self.now + timedelta(days=30),
            "partner_ids": [self.bank.partner_id],
        }
        if "fixed_points" not in changes:
            fields["multiplier_pct"] = 200
        await campaigns.propose_campaign(
            self.connection,
            msgspec.convert(fields | changes, CampaignDefinition),
            members=members,
            by="maker",
            now=self.now - HOUR,
        )

    async def approve(self, code: str) -> None:
        await campaigns.approve_campaign(self.connection, code, by="checker", now=self.now - HOUR)

    async def run(self, code: str, *, members: Sequence[MemberRef] = (), **changes: Any) -> None:
        """A campaign that gives points now."""
        await self.propose(code, members=members, **changes)
        await self.approve(code)

    async def rule(self, **changes: Any) -> int:
        """A version in force now."""
        definition = msgspec.convert({"fen_per_point": 100} | changes, RuleDefinition)
        version = await versions.propose_rule(self.connection, definition, by="maker", now=self.now - HOUR)
        await versions.approve_rule(self.connection, version, by="checker", now=self.now - HOUR)
        return version

    def activity(self, member: MemberRef, ref: str, **changes: Any) -> Activity:
        """A purchase of a hundred yuan, just now."""
        fields: dict[str, Any] = {
            "member": member,
            "source_ref": ref,
            "kind": "purchase",
            "occurred_at": self.now,
            "amount_fen": 10_000,
        }
        return Activity(**fields | changes)

    async def contradictions(self) -> dict[str, list[dict[str, Any]]]:
        """What the books find wrong with the earnings of these years' members; other tests commit what they like."""
        members = await self.connection.fetch(
            "SELECT member_id FROM membership_member WHERE created_at >= $1", FIRST_YEAR
        )
        own = {None, *(record["member_id"] for record in members)}
        found = {}
        for view in VIEWS:
            records = await self.connection.fetch(f"SELECT * FROM {view}")
            if mine := [dict(record) for record in records if record.get("member_id") in own]:
                found[view] = mine
        return found


@pytest.fixture
def marketing(connection: Connection, bank: Bank) -> Marketing:
    """Short words for what the bank's staff do, in years of which no other test has committed anything."""
    bank.now += YEARS_LATER
    return Marketing(connection, bank)


@pytest.fixture
def make_marketing() -> type[Marketing]:
    """For properties, where fixtures of one test serve many examples."""
    return Marketing
