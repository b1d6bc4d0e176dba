"""Versions of the rules: two people, no way back, and a simulation that tells what the switch will do."""

from datetime import date, timedelta
from typing import Any

import asyncpg
import pytest
from msgspec.structs import replace

from kernel.database import Connection
from kernel.errors import Refusal
from points.membership import service
from points.membership.model import BANK_LEVELS, SHOP_LEVELS, Cell, Matrix, Scheme, Threshold
from points.membership.version_rules import (
    EffectiveInPast,
    MatrixIncomplete,
    MatrixNotMonotone,
    SchemeUnsound,
    SwitchedBySamePerson,
    VersionUnknown,
    check_matrix,
    check_scheme,
)

Club = Any

TODAY = date(2026, 11, 20)
TIER_OF = {0: "start", 1: "bronze", 2: "silver", 3: "gold", 4: "gold", 5: "platinum", 6: "platinum"}
GENEROUS = Matrix(
    version=0,
    cells={
        (bank, shop): Cell(
            tier=TIER_OF[BANK_LEVELS.index(bank) + SHOP_LEVELS.index(shop)],  # type: ignore[arg-type]  # words of the table
            multiplier_pct=100 + 20 * (BANK_LEVELS.index(bank) + SHOP_LEVELS.index(shop)),
        )
        for bank in BANK_LEVELS
        for shop in SHOP_LEVELS
    },
)


async def switch(club: Club, kind: Any, version: int, on: date = TODAY, by: str = "checker") -> None:
    await service.switch_on(club.connection, kind, version, effective_on=on, by=by, now=club.now)


async def propose(club: Club, matrix: Matrix = GENEROUS) -> int:
    return (await service.propose_matrix(club.connection, matrix, by="maker", now=club.now)).version


async def test_a_version_comes_into_force_on_its_day_by_a_second_person(club: Club) -> None:
    version = await propose(club)
    refused: list[tuple[type[Refusal], dict[str, Any]]] = [
        (SwitchedBySamePerson, {"by": "maker"}),
        (EffectiveInPast, {"on": TODAY - timedelta(days=1)}),
        (VersionUnknown, {"version": version + 1}),
    ]
    for refusal, changes in refused:
        with pytest.raises(refusal):
            await switch(club, "matrix", **({"version": version} | changes))
    await switch(club, "matrix", version, TODAY + timedelta(days=2))
    for days, expected in ((1, 1), (2, version), (9, version)):
        rules = await service.find_rules(club.connection, day=TODAY + timedelta(days=days))
        assert rules.matrix.version == expected
    await switch(club, "matrix", 1, TODAY + timedelta(days=2), by="somebody else")
    rules = await service.find_rules(club.connection, day=TODAY + timedelta(days=2))
    assert rules.matrix.version == 1, "the last switch of a day counts"


async def test_one_person_cannot_switch_even_by_a_bug(club: Club) -> None:
    version = await propose(club)
    with pytest.raises(asyncpg.CheckViolationError, match="membership_switch_two_people"):
        await club.connection.execute(
            "INSERT INTO membership_switch (kind, effective_on, version, proposed_by, switched_by, switched_at)"
            " VALUES ('matrix', $2, $1, 'maker', 'maker', $3)",
            version,
            TODAY,
            club.now,
        )


@pytest.mark.parametrize("table", ["membership_matrix", "membership_scheme", "membership_scheme_level"])
async def test_a_version_never_changes(connection: Connection, table: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute(f"UPDATE {table} SET version = version")


def without(pair: Any) -> Matrix:
    return replace(GENEROUS, cells={key: cell for key, cell in GENEROUS.cells.items() if key != pair})


def with_cell(pair: Any, cell: Cell) -> Matrix:
    return replace(GENEROUS, cells={**GENEROUS.cells, pair: cell})


@pytest.mark.parametrize(
    ("matrix", "refusal"),
    [
        (without(("comm", "gold")), MatrixIncomplete),
        (with_cell(("express", "iron"), Cell(tier="start", multiplier_pct=99)), MatrixIncomplete),
        (with_cell(("private", "gold"), Cell(tier="platinum", multiplier_pct=1001)), MatrixIncomplete),
        (with_cell(("private", "gold"), Cell(tier="gold", multiplier_pct=1000)), MatrixNotMonotone),
        (with_cell(("private", "gold"), Cell(tier="platinum", multiplier_pct=100)), MatrixNotMonotone),
    ],
)
def test_an_unsound_matrix_is_refused(matrix: Matrix, refusal: type[Refusal]) -> None:
    check_matrix(GENEROUS)
    with pytest.raises(refusal):
        check_matrix(matrix)


SOUND = Scheme(
    version=0,
    window_kind="rolling",
    window_months=12,
    needs="any",
    validity_months=12,
    grace_days=0,
    levels={
        "bronze": Threshold(min_fen=1),
        "silver": Threshold(min_fen=1),
        "gold": Threshold(min_fen=2),
    },
)


@pytest.mark.parametrize(
    "changes",
    [
        {"window_months": 0},
        {"window_months": 37},
        {"window_kind": "calendar", "window_months": 6},
        {"validity_months": 0},
        {"grace_days": -1},
        {"levels": {"bronze": Threshold(min_fen=1), "silver": Threshold(min_fen=2)}},
        {"levels": dict.fromkeys(SHOP_LEVELS[1:], Threshold())},
        {"levels": dict.fromkeys(SHOP_LEVELS[1:], Threshold(min_count=0))},
        {"levels": {**SOUND.levels, "gold": Threshold(min_count=5)}},
        {"levels": {**SOUND.levels, "bronze": Threshold(min_fen=3)}},
        {"levels": {**SOUND.levels, "iron": Threshold(min_fen=1)}},
    ],
)
def test_an_unsound_scheme_is_refused(changes: dict[str, Any]) -> None:
    check_scheme(SOUND)
    with pytest.raises(SchemeUnsound):
        check_scheme(replace(SOUND, **changes))


async def state(club: Club) -> list[Any]:
    return [
        tuple(row)
        for row in await club.connection.fetch(
            "SELECT member_id, tier, multiplier_pct, period_no FROM membership_member ORDER BY member_id"
        )
    ]


async def test_the_simulation_is_what_the_switch_then_does(club: Club) -> None:
    """Members of every pair of levels, some active, some fallen behind; by other rules, on a day long after."""
    await club.use_scheme()
    members = [await club.enrol(bank, shop) for bank in BANK_LEVELS for shop in SHOP_LEVELS]
    later = club.after(395)
    for number, member in enumerate(members):
        if number % 3 == 0:
            deeds = [club.deed(member, 1_500, occurred_at=later) for _ in range(number)]
            await service.record_activity(
                club.connection, [(club.partner_id, deed) for deed in deeds], now=club.now
            )
    version = await propose(club)
    scheme = await service.propose_scheme(club.connection, SOUND, by="maker", now=club.now)
    day = date(2027, 12, 20)
    before = await state(club)
    told = await service.simulate(
        club.connection, business_on=day, matrix_version=version, scheme_version=scheme.version
    )
    assert await state(club) == before, "nothing has changed"
    assert (told.matrix_version, told.scheme_version) == (version, scheme.version)
    assert told.members == len(before) == told.up + told.down + told.unchanged
    assert told.up and told.down and told.unchanged
    assert sum(told.by_tier.values()) == told.members
    assert [sum(ways) for ways in zip(*told.by_pair.values(), strict=True)] == [
        *(told.up, told.down, told.unchanged)
    ]

    await switch(club, "matrix", version, day)
    await switch(club, "scheme", scheme.version, day)
    await club.night(day, later)
    tiers = {row[0]: row[1] for row in before}
    moved: dict[tuple[str, str], int] = {}
    for member_id, tier, _, _ in await state(club):
        moved[tiers[member_id], tier] = moved.get((tiers[member_id], tier), 0) + 1
    assert moved == dict(told.by_tier)
    assert await club.contradictions(members) == []


async def test_a_simulation_by_unknown_rules_is_refused(club: Club) -> None:
    with pytest.raises(VersionUnknown):
        await service.simulate(club.connection, business_on=TODAY, matrix_version=99)
    with pytest.raises(VersionUnknown):
        await service.simulate(club.connection, business_on=TODAY, scheme_version=99)
