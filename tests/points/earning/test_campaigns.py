"""Campaigns at work: audiences, caps, budgets, named campaigns, pauses and refunds, from the report to the books."""

from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from kernel.calendar import business_date
from kernel.database import Connection
from kernel.errors import Refusal
from points.earning import campaigns, versions
from points.earning.model import Activity, Earned
from points.earning.replay import replay_operation
from points.earning.service import earn
from points.ledger import budgets, queries
from points.ledger.funder_model import Terms
from points.ledger.service import buy_block, register_funder, reverse
from points.membership.service import enrol_members

Bank = Any
Marketing = Any


async def post(marketing: Marketing, *items: Activity, now: datetime | None = None) -> list[int | str]:
    results = await earn(
        marketing.connection, items, partner_id=marketing.bank.partner_id, now=now or marketing.now
    )
    return [result.code if isinstance(result, Refusal) else result.points for result in results]


async def post_one(marketing: Marketing, item: Activity) -> Earned:
    (result,) = await earn(
        marketing.connection, [item], partner_id=marketing.bank.partner_id, now=marketing.now
    )
    assert isinstance(result, Earned), result
    return result


async def test_double_eleven_doubles_the_base_and_not_the_tiers_part(
    marketing: Marketing, connection: Connection
) -> None:
    (member,) = await enrol_members(
        connection, count=1, bank_level="private", shop_level="gold", now=marketing.now
    )
    await marketing.run("double11", own_card=True)
    earned = await post_one(marketing, marketing.activity(member, "a", own_card=True))
    assert [(g.rule, g.campaign, g.multiplier_pct, g.points) for g in earned.grants] == [
        ("base", None, 200, 200),
        ("campaign", "double11", 200, 100),
    ]
    assert await post(marketing, marketing.activity(member, "b")) == [200]
    assert await marketing.contradictions() == {}


@pytest.mark.parametrize(
    ("terms", "activity", "points"),
    [
        ({}, {}, 200),
        ({"kinds": ["tuition"]}, {}, 100),
        ({"kinds": ["tuition", "purchase"]}, {}, 200),
        ({"categories": ["books"]}, {}, 100),
        ({"categories": ["books"]}, {"category": "books"}, 200),
        ({"own_card": False}, {"own_card": True}, 100),
        ({"min_amount_fen": 10_001}, {}, 100),
        ({"min_amount_fen": 10_000}, {}, 200),
        ({"tiers": ["gold"]}, {}, 100),
        ({"tiers": ["start"]}, {}, 200),
        ({"partner_ids": [str(uuid4())]}, {}, 100),
        ({"named_only": True}, {}, 100),
        ({"named_only": True}, {"campaign": "some"}, 200),
        ({"fixed_points": 7}, {"amount_fen": 0}, 7),
        ({"recurrence": {"weekdays": [5]}}, {}, 200),
        ({"recurrence": {"weekdays": [4]}}, {}, 100),
    ],
)
async def test_a_campaign_is_for_what_its_conditions_say(
    marketing: Marketing,
    connection: Connection,
    bank: Bank,
    terms: dict[str, Any],
    activity: dict[str, Any],
    points: int,
) -> None:
    member = await bank.enrol(connection)
    await marketing.run("some", **terms)
    assert await post(marketing, marketing.activity(member, "a", **activity)) == [points]
    assert await marketing.contradictions() == {}


async def test_a_listed_campaign_is_for_the_members_on_its_list(
    marketing: Marketing, connection: Connection, bank: Bank
) -> None:
    listed, other = await bank.enrol(connection), await bank.enrol(connection)
    await marketing.run("segment", members=[listed], listed=True)
    items = [marketing.activity(listed, "a"), marketing.activity(other, "b")]
    assert await post(marketing, *items) == [200, 100]
    refused = marketing.activity(other, "c", campaign="segment")
    assert await post(marketing, refused) == ["campaign_not_applicable"]
    assert await marketing.contradictions() == {}


async def test_the_activitys_moment_decides_and_late_reports_count_for_a_while(
    marketing: Marketing, connection: Connection, bank: Bank
) -> None:
    member, day = await bank.enrol(connection), timedelta(days=1)
    await marketing.run("short", ends_at=marketing.now + day, late_days=3)
    within = marketing.activity(member, "a")
    assert await post(marketing, within, now=marketing.now + 2 * day) == [200]
    before = marketing.activity(member, "b", occurred_at=marketing.now - timedelta(hours=1))
    assert await post(marketing, before) == [100]
    too_late = marketing.activity(member, "c")
    assert await post(marketing, too_late, now=marketing.now + 5 * day) == [100]
    assert await marketing.contradictions() == {}


async def test_of_a_group_the_best_applies_and_the_rest_stacks_in_order(
    marketing: Marketing, connection: Connection, bank: Bank
) -> None:
    member = await bank.enrol(connection)
    await marketing.run("red-friday", exclusive_group="friday", priority=5)
    await marketing.run("black-friday", exclusive_group="friday", priority=6, multiplier_pct=300)
    await marketing.run("welcome", fixed_points=8, priority=1)
    earned = await post_one(marketing, marketing.activity(member, "a"))
    assert [(g.campaign, g.points) for g in earned.grants] == [
        (None, 100),
        ("welcome", 8),
        ("black-friday", 200),
    ]
    assert await marketing.contradictions() == {}


async def test_funders_share_a_bonus_each_with_a_lot_of_its_own(
    marketing: Marketing, connection: Connection, bank: Bank
) -> None:
    member = await bank.enrol(connection)
    await connection.execute("INSERT INTO ledger_funder (code, kind) VALUES ('merchant:tea', 'merchant')")
    await marketing.run(
        "shared",
        multiplier_pct=201,
        shares=[
            {"share_ppm": 500_000},
            {
                "share_ppm": 500_000,
                "funder": "merchant:tea",
                "unit_cost_e6": 400_000,
                "validity_months": 1,
                "expiry": "same_day",
                "pending_days": 1,
            },
        ],
    )
    earned = await post_one(marketing, marketing.activity(member, "a"))
    bonus = [grant for grant in earned.grants if grant.campaign]
    assert [(g.funder, g.points, g.unit_cost_e6) for g in bonus] == [
        ("bank", 51, 1_000_000),
        ("merchant:tea", 50, 400_000),
    ]
    assert str(bonus[1].expires_at) == "2031-12-14 16:00:00+00:00"
    assert str(bonus[1].activates_at) == "2031-11-14 16:00:00+00:00"
    assert (earned.balance.available_points, earned.balance.pending_points) == (151, 50)
    assert await marketing.contradictions() == {}


async def test_rates_exclusions_and_the_transaction_cap_are_the_versions(
    marketing: Marketing, connection: Connection, bank: Bank
) -> None:
    member = await bank.enrol(connection)
    await marketing.run("double")
    version = await marketing.rule(
        fen_per_point=200,
        rates=[{"category": "tobacco", "fen_per_point": None}, {"kind": "tuition", "fen_per_point": 50}],
        transaction_cap_points=150,
    )
    items = [
        marketing.activity(member, "a"),
        marketing.activity(member, "b", kind="tuition"),
        marketing.activity(member, "c", category="tobacco"),
        marketing.activity(member, "d", category="tobacco", campaign="double"),
        marketing.activity(member, "e", occurred_at=marketing.now - timedelta(days=2)),
        marketing.activity(member, "f", rule_version=version),
        marketing.activity(member, "g", rule_version=1),
    ]
    assert await post(marketing, *items) == [
        100,
        350,
        0,
        "campaign_not_applicable",
        100,
        100,
        "rule_version_stale",
    ]
    assert await marketing.contradictions() == {}


async def test_the_day_is_capped_for_a_member_in_shanghai_and_refunds_do_not_free_it(
    marketing: Marketing, connection: Connection, bank: Bank
) -> None:
    member, other = await bank.enrol(connection), await bank.enrol(connection)
    await marketing.rule(daily_cap_points=250)
    items = [marketing.activity(member, ref) for ref in "abc"]
    assert await post(marketing, *items, marketing.activity(other, "d")) == [100, 100, 50, 100]
    earned = await post_one(marketing, marketing.activity(other, "e"))
    await refund(marketing, earned, 10_000)
    assert await post(marketing, marketing.activity(other, "f")) == [50]
    midnight = marketing.now.replace(hour=16)
    tomorrow = marketing.activity(member, "g", occurred_at=midnight)
    yesterday_late = marketing.activity(member, "h", occurred_at=midnight - timedelta(microseconds=1))
    assert await post(marketing, tomorrow, yesterday_late, now=midnight) == [100, 0]
    assert await marketing.contradictions() == {}


async def test_a_members_campaign_points_are_capped_by_the_day_and_altogether(
    marketing: Marketing, connection: Connection, bank: Bank
) -> None:
    member, day = await bank.enrol(connection), timedelta(days=1)
    await marketing.run("capped", member_daily_cap_points=120, member_cap_points=200)
    assert await post(marketing, *[marketing.activity(member, ref) for ref in "abc"]) == [200, 120, 100]
    tomorrow = [marketing.activity(member, ref, occurred_at=marketing.now + day) for ref in "def"]
    assert await post(marketing, *tomorrow, now=marketing.now + day) == [180, 100, 100]
    named = marketing.activity(member, "g", campaign="capped")
    assert await post(marketing, named) == ["campaign_not_applicable"]
    assert await marketing.contradictions() == {}


@pytest.mark.parametrize(
    ("on_exhaustion", "points"),
    [("skip", [200, 200, 100, 100]), ("partial", [200, 200, 150, 100])],
)
async def test_a_budget_is_used_up_and_never_exceeded(
    marketing: Marketing, connection: Connection, bank: Bank, on_exhaustion: str, points: list[int]
) -> None:
    members = [await bank.enrol(connection) for _ in range(4)]
    await marketing.run("tight", budget={"total": 250, "on_exhaustion": on_exhaustion})
    items = [marketing.activity(member, "a") for member in members]
    assert await post(marketing, *items) == points
    campaign = await campaigns.find_campaign(connection, "tight")
    assert campaign.budget_id is not None
    state = await budgets.read_budget(connection, campaign.budget_id)
    assert state.used == sum(points) - 400
    assert await marketing.contradictions() == {}


async def test_a_budget_of_fen_pays_what_the_points_cost(
    marketing: Marketing, connection: Connection, bank: Bank
) -> None:
    member = await bank.enrol(connection)
    await marketing.run(
        "costly",
        budget={"total": 330, "unit": "fen", "on_exhaustion": "partial"},
        shares=[{"unit_cost_e6": 2_500_000}],
    )
    assert await post(marketing, *[marketing.activity(member, ref) for ref in "abc"]) == [200, 132, 100]
    assert await marketing.contradictions() == {}


async def test_who_counts_on_an_exhausted_campaign_is_refused_and_nothing_is_changed(
    marketing: Marketing, connection: Connection, bank: Bank
) -> None:
    member = await bank.enrol(connection)
    await marketing.run("tight", budget={"total": 150})
    await marketing.run("other", budget={"total": 1_000}, member_cap_points=500, priority=1)
    named = [marketing.activity(member, ref, campaign="tight") for ref in "ab"]
    assert await post(marketing, *named) == [300, "budget_exhausted"]
    other = await campaigns.find_campaign(connection, "other")
    assert other.budget_id is not None
    assert (await budgets.read_budget(connection, other.budget_id)).used == 100
    # the source of a refused event is free
    assert await post(marketing, marketing.activity(member, "b")) == [200]
    assert await marketing.contradictions() == {}


async def test_unknown_and_foreign_campaigns_are_the_same(
    marketing: Marketing, connection: Connection, bank: Bank
) -> None:
    member = await bank.enrol(connection)
    await marketing.run("foreign", partner_ids=[str(uuid4())])
    await marketing.propose("draft")
    items = [marketing.activity(member, code, campaign=code) for code in ("none", "foreign", "draft")]
    assert await post(marketing, *items) == ["campaign_unknown"] * 3
    assert await bank.available(connection, member) == 0


async def test_a_source_that_earned_before_draws_no_budget_and_uses_no_cap(
    marketing: Marketing, connection: Connection, bank: Bank
) -> None:
    member = await bank.enrol(connection)
    await marketing.run("tight", budget={"total": 200}, member_cap_points=150)
    again = marketing.activity(member, "a")
    assert await post(marketing, again, again) == [200, "source_already_earned"]
    assert await post(marketing, again) == ["source_already_earned"]
    assert await post(marketing, marketing.activity(member, "b")) == [150]
    assert await marketing.contradictions() == {}


async def test_a_refund_gives_the_campaigns_part_back_to_its_budget(
    marketing: Marketing, connection: Connection, bank: Bank
) -> None:
    member = await bank.enrol(connection)
    await marketing.run("tight", budget={"total": 100})
    earned = await post_one(marketing, marketing.activity(member, "a"))
    campaign = await campaigns.find_campaign(connection, "tight")
    assert campaign.budget_id is not None
    for fen, used in ((3_333, 67), (3_333, 34), (3_334, 0)):
        await refund(marketing, earned, fen)
        assert (await budgets.read_budget(connection, campaign.budget_id)).used == used
        assert await marketing.contradictions() == {}
    assert await bank.available(connection, member) == 0
    assert await post(marketing, marketing.activity(member, "b")) == [200]


async def test_pending_points_of_a_campaign_are_clawed_back_too(
    marketing: Marketing, connection: Connection, bank: Bank
) -> None:
    member = await bank.enrol(connection)
    await marketing.run("later", shares=[{"pending_days": 7}], budget={"total": 100})
    earned = await post_one(marketing, marketing.activity(member, "a"))
    await refund(marketing, earned, 10_000)
    record = await connection.fetchrow(
        "SELECT available_points, pending_points, arrears_points FROM ledger_wallet WHERE member_id = $1",
        member.member_id,
    )
    assert record is not None
    assert tuple(record) == (0, 0, 0)
    assert await marketing.contradictions() == {}


async def test_a_paused_campaign_gives_nothing_until_it_goes_on(
    marketing: Marketing, connection: Connection, bank: Bank
) -> None:
    member = await bank.enrol(connection)
    await marketing.run("stop", budget={"total": 1_000})
    assert await post(marketing, marketing.activity(member, "a")) == [200]
    # behind the back of this process's book
    await connection.execute("UPDATE earning_campaign SET state = 'paused' WHERE code = 'stop'")
    assert await post(marketing, marketing.activity(member, "b")) == [100]
    named = marketing.activity(member, "c", campaign="stop")
    assert await post(marketing, named) == ["campaign_not_applicable"]
    await campaigns.resume_campaign(connection, "stop", by="anyone", now=marketing.now)
    assert await post(marketing, marketing.activity(member, "c")) == [200]
    await campaigns.pause_campaign(connection, "stop", by="anyone", now=marketing.now)
    assert await post(marketing, marketing.activity(member, "d")) == [100]
    await campaigns.end_campaign(connection, "stop", by="anyone", now=marketing.now)
    with pytest.raises(campaigns.CampaignStateForbids):
        await campaigns.resume_campaign(connection, "stop", by="anyone", now=marketing.now)


async def test_what_an_instalment_plan_looks_after_earns_the_base_only(
    marketing: Marketing, connection: Connection, bank: Bank
) -> None:
    member = await bank.enrol(connection)
    await marketing.run("double")
    await marketing.rule(daily_cap_points=50)
    managed = marketing.activity(member, "a", kind="instalment", manager="plan")
    assert await post(marketing, managed, marketing.activity(member, "b")) == [100, 150]
    assert await marketing.contradictions() == {}


async def test_an_earning_replays_whatever_is_in_force_today(
    marketing: Marketing, connection: Connection, bank: Bank
) -> None:
    member = await bank.enrol(connection)
    await marketing.rule(daily_cap_points=150)
    await marketing.run("tight", budget={"total": 130, "on_exhaustion": "partial"})
    for ref in "ab":
        earned = await post_one(marketing, marketing.activity(member, ref))
    await campaigns.end_campaign(connection, "tight", by="anyone", now=marketing.now)
    operation = await queries.find_operation(connection, earned.operation_id, partner_id=bank.partner_id)
    assert operation is not None
    replayed = await replay_operation(connection, operation, now=marketing.now + timedelta(days=3_000))
    assert (replayed.base_points, replayed.base_limit, replayed.points) == (50, 50, 80)
    assert [(p.campaign.code, p.wanted_points, p.points, p.limited_by) for p in replayed.campaigns] == [
        ("tight", 100, 30, "budget")
    ]


async def test_maker_and_checker_are_two_people(marketing: Marketing, connection: Connection) -> None:
    await marketing.propose("some")
    with pytest.raises(versions.MakerMayNotApprove):
        await campaigns.approve_campaign(connection, "some", by="maker", now=marketing.now)
    with pytest.raises(asyncpg.CheckViolationError, match="earning_campaign_two_people"):
        async with connection.transaction():
            await connection.execute(
                """UPDATE earning_campaign
                      SET state = 'scheduled', approved_by = made_by, approved_at = $1, in_force_from = $1
                    WHERE code = 'some'""",
                marketing.now,
            )
    await marketing.approve("some")
    with pytest.raises(versions.NotInReview):
        await marketing.approve("some")


@pytest.mark.parametrize(
    ("statement", "refusal"),
    [
        ("UPDATE earning_rule SET fen_per_point = 1", asyncpg.InsufficientPrivilegeError),
        ("UPDATE earning_campaign SET multiplier_pct = 900", asyncpg.InsufficientPrivilegeError),
        ("DELETE FROM earning_campaign_share", asyncpg.InsufficientPrivilegeError),
        ("UPDATE earning_rule SET in_force_from = now() WHERE version = 1", asyncpg.CheckViolationError),
        ("INSERT INTO earning_rate VALUES (1, 1, NULL, NULL, NULL, 1)", asyncpg.CheckViolationError),
        (
            """INSERT INTO earning_campaign_share
               SELECT id, 2, funder_id + 1, 1, 0, 1, 'same_day', 0
                 FROM earning_campaign JOIN earning_campaign_share ON campaign_id = id""",
            asyncpg.CheckViolationError,
        ),
        (
            "INSERT INTO earning_campaign_member SELECT 1, 1, id FROM earning_campaign",
            asyncpg.CheckViolationError,
        ),
    ],
)
async def test_nothing_approved_ever_changes(
    marketing: Marketing, connection: Connection, statement: str, refusal: type[Exception]
) -> None:
    await marketing.run("some")
    with pytest.raises(refusal):
        await connection.execute(statement)


async def test_time_and_budget_move_states(marketing: Marketing, connection: Connection, bank: Bank) -> None:
    member, day = await bank.enrol(connection), timedelta(days=1)
    await marketing.run("tight", budget={"total": 100}, ends_at=marketing.now + day, late_days=0)
    await marketing.run("later", starts_at=marketing.now + day, ends_at=marketing.now + 2 * day)
    version = await marketing.rule()

    async def states() -> list[str]:
        await campaigns.keep_states(connection, now=marketing.now)
        return [(await campaigns.find_campaign(connection, code)).state for code in ("tight", "later")]

    assert await states() == ["running", "scheduled"]
    assert await post(marketing, marketing.activity(member, "a")) == [200]
    assert await states() == ["exhausted", "scheduled"]
    named = marketing.activity(member, "b", campaign="tight")
    assert await post(marketing, named) == ["budget_exhausted"]
    await campaigns.raise_budget(connection, "tight", add=100, by="maker", now=marketing.now)
    await campaigns.resume_campaign(connection, "tight", by="checker", now=marketing.now)
    assert await post(marketing, named) == [200]
    marketing.now += day + timedelta(seconds=1)
    assert await states() == ["ended", "running"]
    rows = {row["version"]: row["state"] for row in await versions.list_rules(connection)}
    assert (rows[1], rows[version]) == ("superseded", "scheduled")


async def refund(marketing: Marketing, earned: Earned, fen: int) -> None:
    await reverse(
        marketing.connection,
        operation_id=earned.operation_id,
        partner_id=marketing.bank.partner_id,
        side="earn",
        refund_ref=str(uuid4()),
        refunded_fen=fen,
        now=marketing.now,
    )


async def test_a_campaign_whose_funder_cannot_pay_is_done_without_unless_it_was_named(
    marketing: Marketing, connection: Connection, bank: Bank
) -> None:
    member = await bank.enrol(connection)
    await register_prepaid(marketing, points=150)
    await marketing.run(
        "brand",
        shares=[{"share_ppm": 400_000}, {"share_ppm": 600_000, "funder": "partner:brand"}],
        budget={"total": 1_000},
        member_cap_points=1_000,
    )
    items = [marketing.activity(member, ref) for ref in "abc"]
    named = marketing.activity(member, "d", campaign="brand")
    assert await post(marketing, *items, named) == [200, 200, 100, "funder_exhausted"]
    campaign = await campaigns.find_campaign(connection, "brand")
    assert campaign.budget_id is not None
    assert (await budgets.read_budget(connection, campaign.budget_id)).used == 200
    assert await marketing.contradictions() == {}


async def register_prepaid(marketing: Marketing, *, points: int) -> None:
    """A brand that has paid for so many points in advance."""
    day = business_date(marketing.now)
    await register_funder(
        marketing.connection,
        code="partner:brand",
        kind="partner",
        partner_id=marketing.bank.partner_id,
        terms=Terms(effective_on=day, billing="prepaid"),
        actor="test",
        now=marketing.now,
    )
    await buy_block(
        marketing.connection,
        code="partner:brand",
        points=points,
        paid_fen=points,
        starts_on=day,
        purchase_ref="first",
        actor="test",
        now=marketing.now,
    )
