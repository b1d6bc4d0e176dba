"""Membership through the whole gateway: partners by HTTP, the bank's staff by the command line."""

import asyncio
import json
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from gateway.__main__ import main
from gateway.admins import create_admin
from gateway.client import ApiProblem, PartnerClient
from gateway.level_lines import BrokenLevelLine, LevelLine, read_level
from gateway.runtime import Runtime
from kernel.calendar import business_date
from kernel.caller import MemberRef
from kernel.database import transaction
from kernel.ids import to_wire
from kernel.settings import Settings
from partners.oauth import service as oauth
from points.membership import service as membership

Register = Any


async def bind(partner: PartnerClient) -> str:
    answer = await partner.post("/v1/members/bindings", {"customer_refs": [str(uuid4())]})
    return str(answer["bindings"][0]["member"])


async def member_of(runtime: Runtime, sub: str) -> tuple[Any, MemberRef]:
    """(partner, member) behind a subject."""
    async with transaction(runtime.pool) as connection:
        row = await connection.fetchrow(
            "SELECT s.partner_id, m.member_id, m.bucket FROM oauth_subject AS s JOIN membership_member AS m"
            " USING (member_id) WHERE s.sub = $1",
            sub,
        )
    assert row is not None
    return row["partner_id"], MemberRef(member_id=row["member_id"], bucket=row["bucket"])


async def evaluate(runtime: Runtime, sub: str) -> None:
    _, member = await member_of(runtime, sub)
    now = runtime.clock.now()
    async with transaction(runtime.pool) as connection:
        await membership.judge_members(
            connection, [member], day=business_date(now), cause="evaluation", now=now
        )


def deed(runtime: Runtime, fen: int = 100, **changes: Any) -> dict[str, Any]:
    occurred_at = runtime.clock.now().isoformat()
    return {
        "kind": "purchase",
        "source_ref": str(uuid4()),
        "occurred_at": occurred_at,
        "amount_fen": fen,
    } | changes


async def refused(call: Any) -> tuple[int, str]:
    with pytest.raises(ApiProblem) as problem:
        await call
    return problem.value.status, problem.value.code


async def test_activity_counts_once_and_says_in_which_month(partner: PartnerClient, runtime: Runtime) -> None:
    sub = await bind(partner)
    body = deed(runtime, 700)
    counted = await partner.post(f"/v1/members/{sub}/activity", body)
    today = business_date(runtime.clock.now())
    assert counted == {
        "kind": "purchase",
        "source_ref": body["source_ref"],
        "amount_fen": 700,
        "month": today.replace(day=1).isoformat(),
    }
    again = refused(partner.post(f"/v1/members/{sub}/activity", body))
    assert await again == (409, "activity_already_counted")


async def test_a_batch_answers_every_item_for_itself(partner: PartnerClient, runtime: Runtime) -> None:
    sub = await bind(partner)
    good = deed(runtime, member=sub)
    items = [
        good,
        good,
        deed(runtime, member="nobody"),
        deed(runtime, member=sub, occurred_at="2001-01-01T00:00:00Z"),
        deed(runtime, member=sub, amount_fen=-1),
        deed(runtime, member=sub, source_ref="a\0b"),
        "nonsense",
        deed(runtime, member=sub),
    ]
    answer = await partner.post("/v1/activity/batch", {"items": items})
    told = [(r["status"], r.get("problem", {}).get("code")) for r in answer["results"]]
    assert told == [
        (201, None),
        (409, "activity_already_counted"),
        (404, "member_not_found"),
        (422, "occurred_too_long_ago"),
        (422, "item_invalid"),
        (422, "item_invalid"),
        (422, "item_invalid"),
        (201, None),
    ]
    over = partner.post("/v1/activity/batch", {"items": [good] * 1001})
    assert (await refused(over))[0] == 422


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "theft"},
        {"amount_fen": 1.5},
        {"amount_fen": 10**14},
        {"occurred_at": "2026-11-20T12:00:00"},
        {"occurred_at": "2999-01-01T00:00:00Z"},
        {"source_ref": ""},
        {"surprise": 1},
    ],
)
async def test_bad_activity_is_refused_and_counts_for_nothing(
    partner: PartnerClient, runtime: Runtime, changes: dict[str, Any]
) -> None:
    sub = await bind(partner)
    status, _ = await refused(partner.post(f"/v1/members/{sub}/activity", deed(runtime) | changes))
    assert status == 422
    membership_ = await partner.get(f"/v1/members/{sub}/membership")
    assert membership_["next_level"]["missing_count"] == 12


async def test_an_earning_counts_and_its_refund_takes_it_back(
    partner: PartnerClient, runtime: Runtime
) -> None:
    sub = await bind(partner)
    earned = await partner.post("/v1/points/earnings", deed(runtime, 90_000, member=sub))
    missing = (await partner.get(f"/v1/members/{sub}/membership"))["next_level"]
    assert (missing["missing_fen"], missing["missing_count"]) == (4_910_000, 11)
    refund = {"operation_id": earned["id"], "refund_ref": "r1", "refunded_fen": 90_000}
    await partner.post("/v1/points/reversals", refund)
    missing = (await partner.get(f"/v1/members/{sub}/membership"))["next_level"]
    assert (missing["missing_fen"], missing["missing_count"]) == (5_000_000, 12)


async def test_who_qualifies_has_a_better_tier_after_the_evaluation(
    partner: PartnerClient, runtime: Runtime
) -> None:
    sub = await bind(partner)
    items = [deed(runtime, 500_000, member=sub) for _ in range(12)]
    await partner.post("/v1/activity/batch", {"items": items})
    assert (await partner.get(f"/v1/members/{sub}/membership"))["tier"] == "start", (
        "it rises at the evaluation"
    )
    await evaluate(runtime, sub)
    standing = await partner.get(f"/v1/members/{sub}/membership")
    assert (standing["tier"], standing["shop_level"], standing["multiplier_pct"]) == ("bronze", "bronze", 105)
    assert standing["reasons"] == ["upgraded", "qualified"]
    assert standing["next_level"]["shop_level"] == "silver"
    assert standing["next_level"]["missing_fen"] == 9_000_000
    earned = await partner.post("/v1/points/earnings", deed(runtime, 100_000, member=sub))
    assert earned["points"] == 1_050
    first = await partner.get(f"/v1/members/{sub}/membership/history?limit=1")
    assert [period["reason"] for period in first["data"]] == ["upgraded"]
    assert first["data"][0]["ends_at"] is None
    assert not {"qualifying_fen", "qualifying_count"} & first["data"][0].keys(), "what was done elsewhere"
    cursor = first["next_cursor"]
    rest = await partner.get(f"/v1/members/{sub}/membership/history?limit=1&cursor={cursor}")
    assert [period["reason"] for period in rest["data"]] == ["enrolled"]
    assert rest["data"][0]["ends_at"] == first["data"][0]["starts_at"] and rest["next_cursor"] is None


async def give_right(runtime: Runtime, sub: str, quantity: int = 2) -> str:
    partner_id, member = await member_of(runtime, sub)
    async with transaction(runtime.pool) as connection:
        right = await membership.grant_entitlement(
            connection,
            member=member,
            partner_id=partner_id,
            kind="golf",
            source="test",
            quantity=quantity,
            expires_at=None,
            now=runtime.clock.now(),
        )
    return to_wire("etl", right)


def booking(runtime: Runtime, ref: str, days: int = 1, **changes: Any) -> dict[str, Any]:
    day = business_date(runtime.clock.now()) + timedelta(days=days)
    return {"booking_ref": ref, "booked_for": day.isoformat()} | changes


async def test_a_right_is_booked_cancelled_and_used(partner: PartnerClient, runtime: Runtime) -> None:
    right = await give_right(runtime, await bind(partner))
    booked = await partner.post(f"/v1/entitlements/{right}/book", booking(runtime, "b1"))
    assert (booked["state"], booked["entitlement"]["booked"], booked["entitlement"]["left"]) == (
        "booked",
        1,
        1,
    )
    await partner.post(f"/v1/entitlements/{right}/book", booking(runtime, "b2"))
    problems = [
        (f"/v1/entitlements/{right}/book", booking(runtime, "b1"), (409, "booking_ref_taken")),
        (f"/v1/entitlements/{right}/book", booking(runtime, "b3"), (409, "entitlement_used_up")),
        (f"/v1/entitlements/{right}/book", booking(runtime, "b3", days=-1), (409, "entitlement_used_up")),
        (f"/v1/entitlements/{right}/book", booking(runtime, "b3", quantity=0), (422, "validation_failed")),
        (f"/v1/entitlements/{right}/use", {"use_ref": "u1"}, (409, "entitlement_used_up")),
        (f"/v1/entitlements/{right}/use", {"use_ref": "u1", "booking_ref": "b9"}, (404, "booking_not_found")),
        (f"/v1/entitlements/{right}/cancel", {"booking_ref": "b9"}, (404, "booking_not_found")),
    ]
    for path, body, problem in problems:
        assert await refused(partner.post(path, body)) == problem
    cancelled = await partner.post(f"/v1/entitlements/{right}/cancel", {"booking_ref": "b2"})
    assert (cancelled["state"], cancelled["entitlement"]["left"]) == ("cancelled", 1)
    assert await refused(partner.post(f"/v1/entitlements/{right}/book", booking(runtime, "b3", days=-1))) == (
        422,
        "booked_for_past",
    )
    used = await partner.post(f"/v1/entitlements/{right}/use", {"use_ref": "u1", "booking_ref": "b1"})
    assert (used["used"], used["booked"], used["left"]) == (1, 0, 1)
    for path in ("use", "cancel"):
        body = {"use_ref": "u2", "booking_ref": "b1"} if path == "use" else {"booking_ref": "b1"}
        again = refused(partner.post(f"/v1/entitlements/{right}/{path}", body))
        assert await again == (409, "booking_closed")


async def test_another_partner_finds_nobody_and_nothing(
    partner: PartnerClient, register: Register, runtime: Runtime
) -> None:
    stranger = await register("members:read", "activity:write", "entitlements:write", "points:earn")
    sub = await bind(partner)
    right = await give_right(runtime, sub)
    calls = [
        stranger.get(f"/v1/members/{sub}/membership"),
        stranger.get(f"/v1/members/{sub}/membership/history"),
        stranger.post(f"/v1/members/{sub}/activity", deed(runtime)),
        stranger.post(f"/v1/entitlements/{right}/book", booking(runtime, "b1")),
        stranger.post(f"/v1/entitlements/{right}/cancel", {"booking_ref": "b1"}),
    ]
    for call in calls:
        assert (await refused(call))[0] == 404


async def test_a_withdrawn_consent_closes_every_door_but_the_way_back(
    partner: PartnerClient, runtime: Runtime
) -> None:
    sub = await bind(partner)
    right = await give_right(runtime, sub)
    await partner.post(f"/v1/entitlements/{right}/book", booking(runtime, "b1"))
    partner_id, member = await member_of(runtime, sub)
    async with transaction(runtime.pool) as connection:
        assert await oauth.withdraw_consent(
            connection, partner_id=partner_id, member=member, now=runtime.clock.now()
        )
    calls = [
        partner.get(f"/v1/members/{sub}/membership"),
        partner.get(f"/v1/members/{sub}/membership/history"),
        partner.post(f"/v1/members/{sub}/activity", deed(runtime)),
        partner.post(f"/v1/entitlements/{right}/book", booking(runtime, "b2")),
        partner.post(f"/v1/entitlements/{right}/use", {"use_ref": "u2"}),
    ]
    for call in calls:
        assert await refused(call) == (403, "consent_missing")
    batch = await partner.post("/v1/activity/batch", {"items": [deed(runtime, member=sub)]})
    [result] = batch["results"]
    assert (result["status"], result["problem"]["code"]) == (403, "consent_missing")
    await partner.post(f"/v1/entitlements/{right}/cancel", {"booking_ref": "b1"})


async def test_scopes_are_needed(register: Register, partner: PartnerClient, runtime: Runtime) -> None:
    reader = await register("members:read", "points:earn")
    sub = await bind(reader)
    right = to_wire("etl", uuid4())
    for path, body in (
        (f"/v1/members/{sub}/activity", deed(runtime)),
        ("/v1/activity/batch", {"items": [deed(runtime, member=sub)]}),
        (f"/v1/entitlements/{right}/book", booking(runtime, "b1")),
        (f"/v1/entitlements/{right}/cancel", {"booking_ref": "b1"}),
    ):
        assert await refused(reader.post(path, body)) == (403, "insufficient_scope")


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"7,gold\n", "columns_missing"),
        (b"7,wode,2026-11-20,x\n", "columns_extra"),
        (b"\xff,wode,2026-11-20\n", "line_not_utf8"),
        (b"-7,wode,2026-11-20\n", "member_id_invalid"),
        (b"99999999999999999999,wode,2026-11-20\n", "member_id_invalid"),
        (b"7,gold,2026-11-20\n", "bank_level_invalid"),
        (b"7,wode,2026-02-30\n", "valid_from_invalid"),
        (b"7,wode,20261120\n", "valid_from_invalid"),
        (b"\n", "columns_missing"),
        (b"7" * 300 + b",wode,2026-11-20\n", "line_too_long"),
    ],
)
def test_a_bad_line_is_refused_with_its_first_fault(line: bytes, code: str) -> None:
    assert read_level(line) == BrokenLevelLine(code=code)


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_a_good_line_names_member_level_and_day(end: bytes) -> None:
    assert read_level(b"7,wode,2026-11-20" + end) == LevelLine(
        member_id=7, bank_level="wode", valid_from=date(2026, 11, 20)
    )


Run = Callable[..., Any]


@pytest.fixture
def command(settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line on this worker's database; (exit code, lines of both outputs)."""
    assert settings.database_url and settings.redis_url
    monkeypatch.setenv("TESSERA_DATABASE_URL", settings.database_url.reveal())
    monkeypatch.setenv("TESSERA_REDIS_URL", settings.redis_url.reveal())

    async def run(*arguments: str) -> tuple[int, list[str]]:
        code = await asyncio.to_thread(main, ["members", *arguments])
        captured = capsys.readouterr()
        return code, [*captured.out.splitlines(), *captured.err.splitlines()]

    return run


async def staff(runtime: Runtime) -> list[str]:
    """A maker who also checks, and a checker on duty."""
    logins = [f"a{uuid4().hex}", f"b{uuid4().hex}"]
    roles: list[Sequence[Any]] = [("maker", "checker"), ("checker", "duty_officer")]
    async with transaction(runtime.pool) as connection:
        for login, given in zip(logins, roles, strict=True):
            await create_admin(
                connection, login=login, roles=given, vault=runtime.vault, now=runtime.clock.now()
            )
    return logins


async def test_levels_are_fed_from_a_file_and_twice_changes_nothing(
    command: Run, runtime: Runtime, tmp_path: Path
) -> None:
    async with transaction(runtime.pool) as connection:
        members = await membership.enrol_members(connection, count=2, now=runtime.clock.now())
    file, results = tmp_path / "levels.csv", tmp_path / "results.csv"
    today = business_date(runtime.clock.now()).isoformat()
    file.write_text(
        "member_id,bank_level,valid_from\n"
        f"{members[0].member_id},private,{today}\n"
        f"{members[1].member_id},golden,{today}\n"
        f"{2**62},wode,{today}\n"
        f"{members[1].member_id},comm,{today}"
    )
    assert await command("levels", str(file), "--results", str(results)) == (
        *(0, ["4 lines: 2 recorded, 0 unchanged, 2 refused"]),
    )
    assert results.read_text().splitlines() == [
        "line,status,code",
        "1,recorded,",
        "2,refused,bank_level_invalid",
        "3,refused,member_not_found",
        "4,recorded,",
    ]
    async with transaction(runtime.pool) as connection:
        standings = await membership.list_standings(connection, members)
    assert [standings[m.member_id].tier for m in members] == ["gold", "bronze"]
    assert (await command("levels", str(file)))[1] == ["4 lines: 0 recorded, 2 unchanged, 2 refused"]
    file.write_text("member_id,level\n")
    assert (await command("levels", str(file)))[0] == 2
    assert (await command("levels", str(tmp_path / "none.csv")))[0] == 2


async def test_a_matrix_is_proposed_simulated_and_switched_on_by_two_people(
    command: Run, runtime: Runtime, tmp_path: Path
) -> None:
    maker, checker = await staff(runtime)
    async with transaction(runtime.pool) as connection:
        rules = await membership.find_rules(connection, day=business_date(runtime.clock.now()))
    file = tmp_path / "matrix.json"
    cells = [
        {"bank_level": bank, "shop_level": shop, "tier": cell.tier, "multiplier_pct": cell.multiplier_pct}
        for (bank, shop), cell in rules.matrix.cells.items()
    ]
    file.write_text(json.dumps({"cells": cells}))
    code, (told,) = await command("propose", "matrix", str(file), "--by", maker)
    assert code == 0 and told.endswith(f"proposed by admin:{maker}")
    version = told.split()[2]
    code, lines = await command("simulate", "--matrix", version)
    assert code == 0 and f"by matrix {version}, scheme" in lines[0]
    # far ahead: whatever else runs on this database goes by the rules of today
    on = ("--date", "2999-01-01")
    refusals = [
        (("switch", "matrix", version, *on, "--by", maker), "switched_by_same_person"),
        (("switch", "matrix", version, *on, "--by", "nobody"), "admin_not_allowed"),
        (("switch", "matrix", version, "--date", "2026-01-01", "--by", checker), "effective_in_past"),
        (("switch", "matrix", "999", *on, "--by", checker), "version_not_found"),
        (("propose", "matrix", str(file), "--by", checker), "admin_not_allowed"),
        (("simulate", "--scheme", "999"), "version_not_found"),
    ]
    for arguments, refusal in refusals:
        code, lines = await command(*arguments)
        assert code == 2 and refusal in lines[-1]
    file.write_text(json.dumps({"cells": cells[1:]}))
    code, lines = await command("propose", "matrix", str(file), "--by", maker)
    assert code == 2 and "matrix_incomplete" in lines[-1]
    file.write_text('{"cells": 1}')
    assert (await command("propose", "matrix", str(file), "--by", maker))[0] == 2
    code, lines = await command("switch", "matrix", version, *on, "--by", checker)
    assert (code, lines) == (0, [f"matrix version {version} in force from 2999-01-01"])


async def test_schemes_and_privileges_come_from_files_too(
    command: Run, runtime: Runtime, tmp_path: Path
) -> None:
    maker, _ = await staff(runtime)
    file = tmp_path / "rules.json"
    levels = {level: {"min_count": n} for n, level in enumerate(("bronze", "silver", "gold"), start=1)}
    scheme = {
        "window_kind": "calendar",
        "window_months": 12,
        "needs": "any",
        "rises": "at_once",
        "validity_months": 12,
        "grace_days": 14,
        "levels": levels,
    }
    file.write_text(json.dumps(scheme))
    assert (await command("propose", "scheme", str(file), "--by", maker))[0] == 0
    right = {"tier": "gold", "partner": "no-such", "kind": "golf", "quantity": 1, "period": "year"}
    file.write_text(json.dumps({"privileges": [right]}))
    code, lines = await command("propose", "privileges", str(file), "--by", maker)
    assert code == 2 and "not_found" in lines[-1]
    file.write_text(json.dumps({"privileges": []}))
    assert (await command("propose", "privileges", str(file), "--by", maker))[0] == 0


async def test_fraud_is_found_by_a_duty_officer(command: Run, runtime: Runtime) -> None:
    maker, officer = await staff(runtime)
    async with transaction(runtime.pool) as connection:
        (member,) = await membership.enrol_members(
            connection, count=1, shop_level="gold", now=runtime.clock.now()
        )
    number = str(member.member_id)
    assert "admin_not_allowed" in (await command("fraud", number, "--by", maker))[1][-1]
    assert (await command("fraud", number, "--by", officer))[1] == [f"member {number} is start now"]
    assert (await command("fraud", number, "--by", officer))[1] == ["nothing to take"]
    assert "member_not_found" in (await command("fraud", str(2**62), "--by", officer))[1][-1]


async def test_refunds_of_both_sides_and_in_batches_take_activity_back(
    partner: PartnerClient, runtime: Runtime
) -> None:
    sub = await bind(partner)
    first, second = [
        await partner.post("/v1/points/earnings", deed(runtime, fen, member=sub)) for fen in (90_000, 7_000)
    ]
    hold = await partner.post("/v1/points/holds", {"member": sub, "points": 100, "order_ref": "o"})
    await partner.post(f"/v1/points/holds/{hold['id']}/capture")
    refund = {
        "refund_ref": "r1",
        "refunded_fen": 100,
        "spend": {"id": hold["id"]},
        "earning": {"operation_id": first["id"]},
    }
    await partner.post("/v1/points/refunds", refund)
    missing = (await partner.get(f"/v1/members/{sub}/membership"))["next_level"]
    assert (missing["missing_fen"], missing["missing_count"]) == (5_000_000 - 96_900, 10)
    items = [
        {"operation_id": earned["id"], "refund_ref": "r2", "refunded_fen": fen}
        for earned, fen in ((second, 7_000), (first, 900), (first, 10**9))
    ]
    answer = await partner.post("/v1/points/reversals/batch", {"items": items})
    assert [result["status"] for result in answer["results"]] == [201, 201, 409]
    missing = (await partner.get(f"/v1/members/{sub}/membership"))["next_level"]
    assert (missing["missing_fen"], missing["missing_count"]) == (5_000_000 - 89_000, 11)
