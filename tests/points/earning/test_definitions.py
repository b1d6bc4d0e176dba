"""What may be proposed, and what a simulation of it says."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from kernel.database import Connection
from points.earning import campaigns, versions
from points.earning.definitions import (
    CampaignDefinition,
    DefinitionInvalid,
    RuleDefinition,
    check_campaign,
    check_rule,
)
from points.earning.sandbox import double_eleven, red_friday
from points.earning.simulation import SimulatedActivity, simulate

Marketing = Any

NOW = datetime(2026, 11, 20, 4, 0, tzinfo=UTC)
GOOD: dict[str, Any] = {
    "code": "some",
    "name_zh": "活动",
    "name_en": "Campaign",
    "starts_at": NOW,
    "ends_at": NOW + timedelta(days=1),
    "multiplier_pct": 200,
}


@pytest.mark.parametrize(
    "changes",
    [
        {"multiplier_pct": None},
        {"fixed_points": 5},
        {"ends_at": NOW},
        {"kinds": ["theft"]},
        {"tiers": ["diamond"]},
        {"shares": [{"share_ppm": 999_999}]},
        {"shares": [{"share_ppm": 500_000}, {"share_ppm": 500_000}]},
        {"recurrence": {"weekdays": [1], "month_days": [1]}},
        {"recurrence": {"from_time": "10:00:00"}},
        {"recurrence": {"from_time": "10:00:00", "until_time": "10:00:00"}},
        {"recurrence": {"from_time": "10:00:00Z", "until_time": "11:00:00Z"}},
        {"recurrence": {"year_days": ["02-30"]}},
        {"recurrence": {"year_days": ["11-1"]}},
    ],
)
def test_a_campaign_that_contradicts_itself_is_not_proposed(changes: dict[str, Any]) -> None:
    check_campaign(msgspec.convert(GOOD, CampaignDefinition))
    with pytest.raises(DefinitionInvalid):
        check_campaign(msgspec.convert(GOOD | changes, CampaignDefinition))


@pytest.mark.parametrize(
    "changes",
    [
        {"code": "Not A Code"},
        {"starts_at": "2026-11-20T00:00:00"},
        {"multiplier_pct": 100},
        {"shares": []},
        {"late_days": 731},
        {"weekdays": [1]},
        {"recurrence": {"weekdays": [0]}},
        {"budget": {"total": 0}},
    ],
)
def test_what_no_campaign_has_is_not_read(changes: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(GOOD | changes, CampaignDefinition)


def test_rates_are_for_kinds_there_are() -> None:
    with pytest.raises(DefinitionInvalid):
        check_rule(
            msgspec.convert(
                {"fen_per_point": 1, "rates": [{"kind": "theft", "fen_per_point": 1}]}, RuleDefinition
            )
        )


async def test_funders_are_known_and_codes_are_used_once(
    marketing: Marketing, connection: Connection
) -> None:
    with pytest.raises(DefinitionInvalid):
        async with connection.transaction():
            await marketing.propose("some", shares=[{"funder": "nobody"}])
    await marketing.propose("some")
    with pytest.raises(campaigns.CampaignCodeTaken):
        await marketing.propose("some")
    with pytest.raises(campaigns.CampaignAbsent):
        await campaigns.pause_campaign(connection, "other", by="anyone", now=marketing.now)
    with pytest.raises(versions.RuleVersionUnknown):
        await versions.approve_rule(connection, 99, by="anyone", now=marketing.now)


async def test_an_approval_takes_effect_when_every_process_can_know_of_it(
    marketing: Marketing, connection: Connection
) -> None:
    later = marketing.now + timedelta(days=1)
    at_once = await versions.propose_rule(
        connection, RuleDefinition(fen_per_point=100), by="maker", now=marketing.now
    )
    scheduled = await versions.propose_rule(
        connection, RuleDefinition(fen_per_point=90, effective_from=later), by="maker", now=marketing.now
    )
    begins = await versions.approve_rule(connection, at_once, by="checker", now=marketing.now)
    assert begins == marketing.now + timedelta(seconds=5)
    assert await versions.approve_rule(connection, scheduled, by="checker", now=marketing.now) == later


def activity(text: str, amount_fen: int, **changes: Any) -> SimulatedActivity:
    fields = {"member": "ann", "occurred_at": text, "amount_fen": amount_fen, "own_card": True}
    return msgspec.convert(fields | changes, SimulatedActivity)


def test_a_simulation_says_what_would_be_given() -> None:
    friday, doubled = red_friday(NOW), double_eleven(NOW)
    lines = [
        activity("2026-11-27T00:00:00+08:00", 60_000),
        activity("2026-11-27T23:59:59+08:00", 60_000),
        activity("2026-11-28T00:00:00+08:00", 60_000),
        activity("2027-11-11T12:00:00+08:00", 60_000, multiplier_pct=150, tier="gold"),
        activity("2027-11-11T12:00:00+08:00", 60_000, own_card=False),
        activity("2026-11-27T12:00:00+08:00", 60_000, kind="tax"),
    ]
    rule = RuleDefinition(fen_per_point=100, daily_cap_points=1_000)
    results = simulate(rule, [friday, doubled], lines)
    assert [(result.base_points, result.bonus_points) for result in results] == [
        (600, {"red-friday": 300}),
        (400, {"red-friday": 200}),
        (600, {}),
        (900, {"double-11": 600}),
        (100, {}),
        (0, {}),
    ]
