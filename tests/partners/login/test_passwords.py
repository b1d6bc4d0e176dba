"""Passwords: right or wrong, renewed when they were hashed too cheaply, as costly for a name nobody has."""

import asyncio

import pytest
from argon2 import extract_parameters

from partners.login.passwords import COST, DRAWN_COST, Cost, LoginBusy, PasswordDesk, hash_password

LOW = DRAWN_COST
HIGH = Cost(passes=2, memory_kib=2_048, lanes=1)


@pytest.fixture
def desk() -> PasswordDesk:
    return PasswordDesk(LOW)


@pytest.mark.parametrize(
    ("kept", "typed", "right"),
    [
        ("secret", "secret", True),
        ("secret", "Secret", False),
        ("secret", "", False),
        ("密码🔑", "密码🔑", True),
        (None, "secret", False),
    ],
)
async def test_a_password_is_right_for_its_own_hash_only(
    desk: PasswordDesk, kept: str | None, typed: str, right: bool
) -> None:
    stored = None if kept is None else hash_password(kept, LOW)
    assert (await desk.look_at(stored, typed)).right is right


async def test_a_hash_of_lower_cost_is_renewed_when_the_password_is_right() -> None:
    desk = PasswordDesk(HIGH)
    verdict = await desk.look_at(hash_password("secret", LOW), "secret")
    assert verdict.renewed is not None
    assert extract_parameters(verdict.renewed).memory_cost == HIGH.memory_kib
    again = await desk.look_at(verdict.renewed, "secret")
    assert (again.right, again.renewed) == (True, None)
    assert (await desk.look_at(hash_password("secret", LOW), "wrong")).renewed is None


def test_a_name_nobody_has_is_compared_with_a_hash_of_the_present_cost() -> None:
    nobody = extract_parameters(PasswordDesk(COST)._nobody)
    real = extract_parameters(hash_password("x"))
    assert nobody == real


async def test_those_who_cannot_be_served_are_told_at_once() -> None:
    desk = PasswordDesk(HIGH, threads=1, waiting_max=2)
    stored = hash_password("secret", HIGH)
    outcomes = await asyncio.gather(
        *(desk.look_at(stored, "secret") for _ in range(12)), return_exceptions=True
    )
    busy = [outcome for outcome in outcomes if isinstance(outcome, LoginBusy)]
    served = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    assert len(busy) + len(served) == 12
    assert len(served) >= 3 and busy
    assert (await desk.look_at(stored, "secret")).right, "places are given back"


async def test_the_loop_is_free_while_a_password_is_looked_at() -> None:
    desk, ticks = PasswordDesk(), 0
    looking = asyncio.create_task(desk.look_at(None, "secret"))
    while not looking.done():
        await asyncio.sleep(0)
        ticks += 1
    assert ticks > 1
