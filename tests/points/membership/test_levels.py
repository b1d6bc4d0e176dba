"""What the bank says of its customers, late, early, twice and corrected."""

from datetime import date, timedelta
from itertools import permutations
from typing import Any

import pytest

from kernel.caller import MemberRef
from points.membership import service
from points.membership.model import BankLevel, FedLevel

Club = Any

TODAY = date(2026, 11, 20)
FEEDS: list[tuple[BankLevel, date]] = [
    ("wode", date(2026, 11, 1)),
    ("private", date(2026, 11, 10)),
    ("comm", TODAY + timedelta(days=1)),
]


async def feed(club: Club, member: MemberRef, level: BankLevel, on: date) -> bool:
    fed = FedLevel(member=member, bank_level=level, valid_from=on)
    (new,) = await service.feed_bank_levels(club.connection, [fed], fed_ref="levels-1", now=club.now)
    return new


@pytest.mark.parametrize("order", list(permutations(FEEDS)))
async def test_the_order_of_feeds_does_not_matter(club: Club, order: Any) -> None:
    member = await club.enrol("express")
    for level, on in order:
        assert await feed(club, member, level, on)
    assert await club.tier(member) == "gold", "private, since the tenth"
    outlook = await service.read_outlook(club.connection, member, now=club.now)
    assert (outlook.period.bank_level, outlook.kept) == ("private", "qualified")
    tomorrow = await service.read_outlook(club.connection, member, now=club.after(1))
    assert (tomorrow.period.tier, tomorrow.kept) == ("gold", "protected"), "comm from tomorrow on"


async def test_the_same_again_is_nothing_new(club: Club) -> None:
    member = await club.enrol("express")
    assert await feed(club, member, "wode", TODAY)
    assert not await feed(club, member, "wode", TODAY)
    assert await club.reasons(member) == ["enrolled", "upgraded"]


async def test_a_correction_stands_beside_what_it_corrects(club: Club) -> None:
    member = await club.enrol("express")
    for level in ("wode", "comm", "wode"):
        assert await feed(club, member, level, TODAY)
    rows = await club.connection.fetch(
        "SELECT revision, bank_level FROM membership_bank_level WHERE member_id = $1 ORDER BY revision",
        member.member_id,
    )
    assert [tuple(row) for row in rows] == [(1, "wode"), (2, "comm"), (3, "wode")]
    assert await club.tier(member) == "silver"


async def test_of_two_lines_for_one_date_the_later_counts(club: Club) -> None:
    member, other = await club.enrol("express"), await club.enrol("express")
    fed = [
        FedLevel(member=who, bank_level=level, valid_from=TODAY)  # type: ignore[arg-type]  # words of the table
        for who, level in ((other, "comm"), (member, "private"), (member, "comm"), (member, "comm"))
    ]
    assert await service.feed_bank_levels(club.connection, fed, fed_ref="f", now=club.now) == [
        *(True, True, True, False)
    ]
    assert (await club.tier(member), await club.tier(other)) == ("bronze", "bronze")


async def test_a_level_of_the_future_waits_for_its_day(club: Club) -> None:
    member = await club.enrol("express")
    await feed(club, member, "private", TODAY + timedelta(days=3))
    assert await club.tier(member) == "start"
    assert await club.evaluate(member, on=TODAY + timedelta(days=2)) == []
    (verdict,) = await club.evaluate(member, on=TODAY + timedelta(days=3), now=club.after(4))
    assert (verdict.reason, verdict.tier) == ("upgraded", "gold")


async def test_a_worse_level_waits_for_the_evaluation_after_the_grace(club: Club) -> None:
    member = await club.enrol("private", "iron")
    await feed(club, member, "express", TODAY)
    assert await club.tier(member) == "gold"
    (verdict,) = await club.evaluate(member, on=date(2027, 12, 20), now=club.after(395))
    assert (verdict.reason, verdict.tier, verdict.judged_tier) == ("downgraded", "silver", "start")
    assert await club.contradictions([member]) == []


async def test_members_are_found_by_number(club: Club) -> None:
    member = await club.enrol()
    assert await service.find_members(club.connection, [member.member_id, 2**62]) == {
        member.member_id: member
    }
