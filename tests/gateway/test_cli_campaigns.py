"""`tessera campaigns` and `tessera rules`: one person proposes, another approves, and files are simulated first."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest
from msgspec import Struct

from gateway.__main__ import main
from gateway.admins import Role, create_admin
from gateway.runtime import Runtime
from kernel.database import transaction

Tessera = Callable[..., Awaitable[tuple[int, str, str]]]


class Staff(Struct, frozen=True, kw_only=True):
    """Logins of two of the bank's people."""

    maker: str
    checker: str


@pytest.fixture
async def staff(runtime: Runtime) -> Staff:
    """Accounts of their own for every test."""
    logins = Staff(maker=f"maker-{uuid4().hex[:8]}", checker=f"checker-{uuid4().hex[:8]}")
    roles: tuple[tuple[str, tuple[Role, ...]], ...] = (
        (logins.maker, ("maker",)),
        (logins.checker, ("maker", "checker", "duty_officer")),
    )
    async with transaction(runtime.pool) as connection:
        for login, held in roles:
            await create_admin(
                connection, login=login, roles=held, vault=runtime.vault, now=runtime.clock.now()
            )
    return logins


@pytest.fixture
def tessera(
    database_url: str,
    redis_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Tessera:
    """Runs the command against this worker's servers, in a thread with a loop of its own."""
    monkeypatch.setenv("TESSERA_DATABASE_URL", database_url)
    monkeypatch.setenv("TESSERA_REDIS_URL", redis_url)

    async def run(*arguments: str, attach: bool = True) -> tuple[int, str, str]:
        where = ("--data-dir", str(tmp_path)) if attach else ()
        code = await asyncio.to_thread(main, [*arguments, *where])
        return code, *capsys.readouterr()

    return run


async def test_two_people_start_a_campaign_and_one_ends_it(
    tessera: Tessera, runtime: Runtime, staff: Staff, tmp_path: Path
) -> None:
    now, code = runtime.clock.now(), f"cli-{uuid4().hex[:8]}"
    file = tmp_path / "campaign.json"
    file.write_bytes(
        msgspec.json.encode(
            {
                "code": code,
                "name_zh": "活动",
                "name_en": "Campaign",
                "starts_at": now,
                "ends_at": now + timedelta(days=1),
                "partner_ids": [uuid4()],
                "fixed_points": 5,
                "budget": {"total": 1_000},
            }
        )
    )
    assert (await tessera("campaigns", "propose", str(file), "--by", staff.maker))[0] == 0
    again = await tessera("campaigns", "propose", str(file), "--by", staff.maker)
    assert (again[0], again[2].split(":")[0]) == (1, "campaign_code_taken")
    alone = await tessera("campaigns", "approve", code, "--by", staff.maker)
    assert (alone[0], alone[2].split(":")[0]) == (1, "admin_not_allowed")
    assert (await tessera("campaigns", "approve", code, "--by", staff.checker))[0] == 0
    listed = (await tessera("campaigns", "list"))[1]
    (line,) = [line for line in listed.splitlines() if line.startswith(code)]
    assert "scheduled" in line
    assert "1,000 of 1,000 points left" in line
    for command in ("pause", "resume", "end"):
        assert (await tessera("campaigns", command, code, "--by", staff.checker))[0] == 0
    over = await tessera("campaigns", "resume", code, "--by", staff.checker)
    assert (over[0], over[2].split(":")[0]) == (1, "campaign_state_forbids")


async def test_a_rule_is_proposed_and_waits(tessera: Tessera, staff: Staff, tmp_path: Path) -> None:
    file = tmp_path / "rule.json"
    file.write_text('{"fen_per_point": 200, "effective_from": "2099-01-01T00:00:00+08:00"}')
    code, said, _ = await tessera("rules", "propose", str(file), "--by", staff.maker)
    assert (code, said.endswith("in_review\n")) == (0, True)
    listed = (await tessera("rules", "list"))[1].splitlines()
    assert listed[0].startswith("version 1")
    assert "in_review" in listed[-1]
    file.write_text('{"fen_per_point": 0}')
    assert (await tessera("rules", "propose", str(file), "--by", staff.maker))[0] == 2


async def test_files_are_simulated_without_a_server(tessera: Tessera, tmp_path: Path) -> None:
    campaign, activities = tmp_path / "campaign.json", tmp_path / "activities.jsonl"
    campaign.write_text(
        '{"code": "double", "name_zh": "双", "name_en": "Double", "multiplier_pct": 200,'
        ' "starts_at": "2026-11-01T00:00:00+08:00", "ends_at": "2026-12-01T00:00:00+08:00"}'
    )
    activities.write_text(
        '{"member": "ann", "occurred_at": "2026-11-11T00:00:00+08:00", "amount_fen": 9900}\n'
    )
    code, said, totals = await tessera(
        "campaigns", "simulate", str(activities), "--campaign", str(campaign), attach=False
    )
    assert (code, totals) == (0, "base 99, double 99\n")
    assert msgspec.json.decode(said)["bonus_points"] == {"double": 99}
    campaign.write_text("{}")
    refused = await tessera(
        "campaigns", "simulate", str(activities), "--campaign", str(campaign), attach=False
    )
    assert refused[0] == 2
