"""Tiers change by judgements: at once or at the evaluation, in periods that follow each other."""

import asyncio
from datetime import date, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from kernel.calendar import start_of_day
from kernel.caller import MemberRef
from kernel.database import Pool, transaction
from kernel.jobs import Run
from points.membership import service
from points.membership.evaluation import PAGE, evaluate
from points.membership.model import Deed

Club = Any

#: the validity of a tier of 20 November 2026 is over, and the grace
GRACE_OVER = date(2027, 12, 20)


async def test_an_enrolled_member_is_protected_for_a_year(club: Club) -> None:
    member = await club.enrol("comm", "gold")
    outlook = await service.read_outlook(club.connection, member, now=club.now)
    assert outlook.period.valid_until == start_of_day(date(2027, 11, 21))
    assert (outlook.period.reason, outlook.kept) == ("enrolled", "protected")
    for day in (date(2026, 11, 20), date(2027, 11, 19), date(2027, 11, 20), GRACE_OVER - timedelta(days=1)):
        assert await club.evaluate(member, on=day) == []
    assert await club.tier(member) == "gold"


async def test_after_the_grace_a_tier_falls_one_step_a_year(club: Club) -> None:
    member = await club.enrol("comm", "gold")
    verdicts = await club.evaluate(member, on=GRACE_OVER, now=club.after(395))
    assert [(v.reason, v.tier, v.judged_tier) for v in verdicts] == [("downgraded", "silver", "bronze")]
    assert await club.evaluate(member, on=GRACE_OVER, now=club.after(395)) == []
    assert await club.evaluate(member, on=GRACE_OVER + timedelta(days=390)) == []
    again = await club.evaluate(member, on=GRACE_OVER + timedelta(days=396), now=club.after(800))
    assert [v.tier for v in again] == ["bronze"]
    assert await club.reasons(member) == ["enrolled", "downgraded", "downgraded"]
    assert await club.contradictions([member]) == []


async def test_what_was_earned_is_renewed(club: Club) -> None:
    await club.use_scheme()
    member = await club.enrol("comm", "bronze")
    await club.record(*(club.deed(member, 700, occurred_at=club.now) for _ in range(3)))
    (verdict,) = await club.evaluate(member, on=date(2027, 11, 20), now=club.after(366))
    # the window of November 2027 begins in December 2026: those deeds count no more
    assert (verdict.reason, verdict.tier, verdict.multiplier_pct) == ("renewed", "bronze", 105)
    assert verdict.valid_until == start_of_day(date(2028, 11, 21))


@pytest.mark.parametrize(
    ("first", "second"), [((2027, 12, 19), (2027, 12, 20)), ((2027, 12, 20), (2027, 12, 19))]
)
async def test_the_order_of_dates_does_not_matter(club: Club, first: Any, second: Any) -> None:
    member = await club.enrol("comm", "gold")
    for day in (first, second):
        await club.evaluate(member, on=date(*day), now=club.after(395))
    assert (await club.tier(member), await club.reasons(member)) == ("silver", ["enrolled", "downgraded"])


async def test_fraud_takes_everything_at_once_and_is_on_record(club: Club) -> None:
    member = await club.enrol("comm", "gold")
    decided = await service.judge_fraud(club.connection, member, found_by="checker", now=club.now)
    assert [(v.reason, v.tier) for _, v in decided] == [("fraud", "bronze")]
    assert await service.judge_fraud(club.connection, member, found_by="checker", now=club.now) == []
    assert await club.reasons(member) == ["enrolled", "fraud"]
    acted = await club.connection.fetch(
        "SELECT actor, detail FROM audit_record WHERE action = 'member.fraud' AND subject = $1 ORDER BY seq",
        f"member:{member.member_id}",
    )
    assert [(row["actor"], row["detail"]) for row in acted] == [
        ("admin:checker", {"tier": "bronze"}),
        ("admin:checker", {}),
    ]


async def test_the_history_is_half_open_and_newest_first(club: Club) -> None:
    await club.use_scheme()
    member = await club.enrol("comm")
    for _ in range(2):
        club.now += timedelta(days=1)
        await club.record(*(club.deed(member, 500) for _ in range(2)))
    periods = await service.list_periods(club.connection, member, limit=10)
    assert [period.no for period in periods] == [3, 2, 1]
    assert [period.ends_at for period in periods] == [None, periods[0].starts_at, periods[1].starts_at]
    assert [(p.reason, p.qualifying_fen, p.qualifying_count) for p in periods] == [
        ("upgraded", 2_000, 4),
        ("upgraded", 1_000, 2),
        ("enrolled", None, None),
    ]
    assert periods[0].window_from == date(2025, 12, 1) and periods[0].window_to == date(2026, 12, 1)
    older = await service.list_periods(club.connection, member, before=3, limit=1)
    assert [period.no for period in older] == [2]


async def test_a_clock_that_is_behind_does_not_turn_periods_round(club: Club) -> None:
    await club.use_scheme()
    member = await club.enrol("comm", at=club.now + timedelta(seconds=2))
    await club.record(*(club.deed(member, 500) for _ in range(2)))
    newest, oldest = await service.list_periods(club.connection, member, limit=10)
    assert newest.starts_at == oldest.starts_at
    assert await club.contradictions([member]) == []


OVERLAPPING = [
    ("a second first period", "no = 1", "no, starts_at", "1, starts_at"),
    ("a gap", "no = 1", "no, starts_at, previous_starts_at", "3, starts_at, starts_at"),
    ("a wrong start of the one before", "no = 1", "no, starts_at, previous_starts_at",
     "2, starts_at + interval '2 days', starts_at + interval '1 day'"),
    ("a period that begins before the one before", "no = 1", "no, starts_at, previous_starts_at",
     "2, starts_at - interval '1 day', starts_at"),
]  # fmt: skip


@pytest.mark.parametrize(("why", "of", "columns", "values"), OVERLAPPING, ids=[row[0] for row in OVERLAPPING])
async def test_periods_cannot_overlap_even_by_a_bug(
    club: Club, why: str, of: str, columns: str, values: str
) -> None:
    member = await club.enrol()
    rest = "bucket, member_id, tier, multiplier_pct, bank_level, shop_level, judged_tier, matrix_version, scheme_version, judged_on, valid_until"
    with pytest.raises(asyncpg.IntegrityConstraintViolationError):
        await club.connection.execute(
            f"INSERT INTO membership_tier_period ({rest}, reason, qualifying_fen, {columns})"
            f" SELECT {rest}, CASE WHEN {values.split(',')[0]} = 1 THEN 'enrolled' ELSE 'renewed' END,"
            f" CASE WHEN {values.split(',')[0]} > 1 THEN 0 END, {values}"
            f" FROM membership_tier_period WHERE member_id = $1 AND {of}",
            member.member_id,
        )


async def test_history_is_append_only(club: Club) -> None:
    for table in (
        "membership_tier_period",
        "membership_bank_level",
        "membership_version",
        "membership_switch",
    ):
        savepoint = club.connection.transaction()
        await savepoint.start()
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await club.connection.execute(f"DELETE FROM {table}")
        await savepoint.rollback()


async def test_the_job_goes_through_every_member_of_its_buckets(club: Club) -> None:
    members = await service.enrol_members(
        club.connection, count=20, bank_level="comm", shop_level="gold", now=club.now
    )
    done = 0
    for lane in range(4):
        cursor, finished = None, False
        while not finished:
            run = Run(job="evaluation", business_on=GRACE_OVER, lane=lane, lanes=4, cursor=cursor)
            step = await evaluate(club.connection, run, club.after(395))
            done, cursor, finished = done + step.done, step.cursor, step.cursor is None
            assert finished or step.done == PAGE
    assert done == await club.connection.fetchval("SELECT count(*) FROM membership_member")
    assert {await club.tier(member) for member in members} == {"silver"}
    assert await club.contradictions(members) == []


async def test_judgements_in_parallel_begin_one_period(pool: Pool, now: datetime) -> None:
    async with transaction(pool) as connection:
        members: list[MemberRef] = await service.enrol_members(
            connection, count=8, bank_level="comm", shop_level="gold", now=now
        )

    async def judge(number: int) -> int:
        order = members if number % 2 else list(reversed(members))
        async with transaction(pool) as connection:
            decided = await service.judge_members(
                connection, order, day=GRACE_OVER, cause="evaluation", now=now + timedelta(days=395)
            )
        return len(decided)

    assert sum(await asyncio.gather(*(judge(number) for number in range(6)))) == len(members)


async def test_an_evaluation_and_purchases_go_past_each_other(pool: Pool, now: datetime) -> None:
    partner_id = uuid4()
    async with transaction(pool) as connection:
        members = await service.enrol_members(connection, count=6, now=now)

    async def purchase(number: int) -> None:
        reported = [
            (
                partner_id,
                Deed(
                    member=member,
                    kind="purchase",
                    source_ref=str(number),
                    occurred_at=now,
                    amount_fen=20_000_000,
                ),
            )
            for member in members
        ]
        async with transaction(pool) as connection:
            await service.record_activity(connection, reported, now=now)

    async def look(_number: int) -> None:
        async with transaction(pool) as connection:
            await service.judge_members(connection, members, day=now.date(), cause="evaluation", now=now)

    await asyncio.gather(*(work(number) for number in range(12) for work in (purchase, look)))
    await look(0)
    async with transaction(pool) as connection:
        standings = await service.list_standings(connection, members)
    assert {standing.shop_level for standing in standings.values()} == {"bronze"}
