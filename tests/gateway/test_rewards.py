"""Rewards through HTTP: shapes, replays, foreign partners, consent, hostile bodies, the worker's rounds, the command line."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from itertools import repeat
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest

from gateway import books
from gateway.__main__ import main
from gateway.client import ApiProblem, PartnerClient
from gateway.fee_offsets import SimulatedFees, settle_offsets
from gateway.runtime import Runtime
from kernel.caller import MemberRef
from kernel.database import transaction
from kernel.ids import from_wire, to_wire
from partners.oauth import service as oauth
from partners.registry import service as registry
from points.rewards import service
from points.rewards.model import (
    Cancellation,
    Definition,
    Limit,
    Offset,
    OffsetOutcome,
    RewardKind,
)
from points.rewards.sandbox import stock_shelves

Register = Callable[..., Awaitable[PartnerClient]]
REWARDS, REDEMPTIONS = "/v1/rewards", "/v1/redemptions"
WEEK = Cancellation(policy="within_days", days=7)


async def partner_id(runtime: Runtime, client: PartnerClient) -> UUID:
    async with transaction(runtime.pool) as connection:
        found = await registry.find_client(connection, client.credentials.client_id)
    assert found is not None
    return found.partner_id


async def offer(runtime: Runtime, kind: RewardKind, *, codes: int = 0, **changes: Any) -> str:
    """A reward of 100 points on offer."""
    now = runtime.clock.now()
    plain: dict[str, Any] = {
        "kind": kind,
        "title_zh": "礼",
        "title_en": "gift",
        "price_points": 100,
        "starts_at": now,
        "fulfil_seconds": 3_600 if kind == "service" else None,
        "offset_fen": 250 if kind == "fee_offset" else None,
    }
    async with transaction(runtime.pool) as connection:
        key: dict[str, Any] = {"actor": "test", "now": now}
        reward_id = await service.define_reward(connection, Definition(**(plain | changes)), **key)
        if codes:
            lines = [f"{reward_id}/{number}" for number in range(codes)]
            await service.load_codes(connection, reward_id=reward_id, lines=lines, vault=runtime.vault, **key)
        await service.move_reward(connection, reward_id=reward_id, state="active", **key)
    return to_wire("rwd", reward_id)


async def bind(partner: PartnerClient, points: int = 1_000) -> str:
    """A member with consent, and points."""
    answer = await partner.post("/v1/members/bindings", {"customer_refs": [str(uuid4())]})
    member: str = answer["bindings"][0]["member"]
    earning = {
        "member": member,
        "source_ref": str(uuid4()),
        "kind": "purchase",
        "occurred_at": "2026-11-11T20:00:00+08:00",
        "amount_fen": points * 100,
    }
    await partner.post("/v1/points/earnings", earning)
    return member


def wish(member: str, reward: str, **changes: Any) -> dict[str, Any]:
    return {"member": member, "reward": reward, "redemption_ref": str(uuid4())} | changes


async def code_of(call: Awaitable[Any]) -> tuple[int, str]:
    with pytest.raises(ApiProblem) as problem:
        await call
    return problem.value.status, problem.value.code


async def points(partner: PartnerClient, member: str) -> tuple[int, int]:
    read = await partner.get(f"/v1/members/{member}/points")
    return read["available_points"], read["held_points"]


@pytest.fixture
async def hospital(register: Register) -> PartnerClient:
    """Another partner, which provides."""
    return await register("points:spend", "members:read")


async def test_a_member_is_shown_what_it_may_have_and_gets_it(
    partner: PartnerClient, runtime: Runtime
) -> None:
    ours = await partner_id(runtime, partner)
    card = await offer(runtime, "gift_card", codes=3, partners=(ours,), limit=Limit(count=2, period="month"))
    member = await bind(partner)
    listed = await partner.get(f"{REWARDS}?member={member}&limit=1")
    shown = listed["data"][0]
    assert shown == {
        "id": card,
        "kind": "gift_card",
        "title": {"zh": "礼", "en": "gift"},
        "price_points": 100,
        "point_type": "tessera",
        "price_version": 1,
        "offset_fen": None,
        "left": 3,
        "limit": {"count": 2, "period": "month", "left": 2},
        "ends_at": None,
    }
    redemption = await partner.post(REDEMPTIONS, wish(member, card, redemption_ref="r-1", price_points=100))
    assert redemption["id"].startswith("rdm_")
    assert {name: redemption[name] for name in ("state", "kind", "reward", "member", "redemption_ref")} == {
        "state": "fulfilled",
        "kind": "gift_card",
        "reward": card,
        "member": member,
        "redemption_ref": "r-1",
    }
    assert await points(partner, member) == (900, 0)
    assert await partner.get(f"{REDEMPTIONS}/{redemption['id']}") == redemption
    answer = await partner.send("POST", f"{REDEMPTIONS}/{redemption['id']}/code")
    assert answer.json() == {"code": f"{from_wire('rwd', card)}/0"}
    assert answer.headers["cache-control"] == "no-store"
    events = await partner.get("/v1/events?limit=100")
    assert f"{from_wire('rwd', card)}/0" not in str(events)
    assert [shown["left"], shown["limit"]["left"]] == [3, 2]
    again = (await partner.get(f"{REWARDS}?member={member}&limit=1"))["data"][0]
    assert [again["left"], again["limit"]["left"]] == [2, 1]


async def test_the_list_goes_on_with_its_own_cursor(partner: PartnerClient, runtime: Runtime) -> None:
    for _ in range(2):
        await offer(runtime, "gift_card")
    member, other = await bind(partner), await bind(partner)
    first = await partner.get(f"{REWARDS}?member={member}&limit=1")
    second = await partner.get(f"{REWARDS}?member={member}&limit=1&cursor={first['next_cursor']}")
    assert first["data"][0]["id"] > second["data"][0]["id"]
    wrong = partner.get(f"{REWARDS}?member={other}&limit=1&cursor={first['next_cursor']}")
    assert await code_of(wrong) == (400, "invalid_cursor")
    assert await code_of(partner.get(f"{REWARDS}?member={member}&limit=101")) == (422, "limit_out_of_range")


async def test_the_same_key_gives_the_same_answer_and_another_body_none(
    partner: PartnerClient, runtime: Runtime
) -> None:
    card = await offer(runtime, "gift_card", codes=9)
    member = await bind(partner)
    body, key = wish(member, card), str(uuid4())
    answers = await asyncio.gather(*(partner.post(REDEMPTIONS, body, idempotency_key=key) for _ in range(10)))
    assert all(answer == answers[0] for answer in answers)
    assert await points(partner, member) == (900, 0)
    other = partner.post(REDEMPTIONS, body | {"price_points": 100}, idempotency_key=key)
    assert await code_of(other) == (422, "idempotency_key_reused")
    assert await code_of(partner.post(REDEMPTIONS, body)) == (409, "redemption_ref_used")
    missing = await partner.send("POST", REDEMPTIONS, msgspec.json.encode(wish(member, card)))
    assert missing.json()["code"] == "idempotency_key_missing"
    assert await points(partner, member) == (900, 0)


async def test_a_provider_confirms_or_refuses_what_others_redeemed(
    partner: PartnerClient, hospital: PartnerClient, runtime: Runtime
) -> None:
    visit = await offer(
        runtime, "service", provider_id=await partner_id(runtime, hospital), pieces=5, cancellation=WEEK
    )
    member = await bind(partner)
    first, second = [(await partner.post(REDEMPTIONS, wish(member, visit)))["id"] for _ in range(2)]
    assert await points(partner, member) == (800, 200)
    at_provider = await hospital.get(f"{REDEMPTIONS}/{first}")
    assert (at_provider["member"], at_provider["redemption_ref"], at_provider["state"]) == (
        None,
        None,
        "requested",
    )
    assert await code_of(partner.post(f"{REDEMPTIONS}/{first}/fulfil")) == (403, "not_the_provider")
    assert await code_of(hospital.post(f"{REDEMPTIONS}/{first}/cancel")) == (403, "not_the_redeemer")
    assert await code_of(hospital.post(f"{REDEMPTIONS}/{first}/code")) == (403, "not_the_redeemer")
    key = str(uuid4())
    for _ in range(2):
        done = await hospital.post(f"{REDEMPTIONS}/{first}/fulfil", idempotency_key=key)
        assert done["state"] == "fulfilled"
    assert await code_of(hospital.post(f"{REDEMPTIONS}/{first}/fulfil")) == (409, "redemption_not_open")
    failed = await hospital.post(f"{REDEMPTIONS}/{second}/fail", {"reason": "no_doctor"})
    assert (failed["state"], failed["reason"]) == ("failed", "no_doctor")
    assert await points(partner, member) == (900, 0)
    cancelled = await partner.post(f"{REDEMPTIONS}/{first}/cancel")
    assert cancelled["state"] == "cancelled"
    assert await points(partner, member) == (1_000, 0)
    gone = partner.post(f"{REDEMPTIONS}/{first}/cancel")
    assert await code_of(gone) == (409, "redemption_not_cancellable")


async def test_a_partner_cannot_close_the_hold_of_a_redemption(
    partner: PartnerClient, runtime: Runtime
) -> None:
    visit = await offer(runtime, "service", provider_id=await partner_id(runtime, partner))
    member = await bind(partner)
    redemption = await partner.post(REDEMPTIONS, wish(member, visit))
    async with transaction(runtime.pool) as connection:
        hold_id = await connection.fetchval(
            "SELECT hold_id FROM rewards_redemption WHERE id = $1", from_wire("rdm", redemption["id"])
        )
    for act in ("capture", "release"):
        call = partner.post(f"/v1/points/holds/{to_wire('hld', hold_id)}/{act}")
        assert await code_of(call) == (409, "managed_by_redemption")
    assert await points(partner, member) == (900, 100)


@pytest.mark.parametrize("act", ["", "/code", "/cancel", "/fulfil", "/fail"])
async def test_another_partners_redemption_is_not_there(
    partner: PartnerClient, hospital: PartnerClient, runtime: Runtime, act: str
) -> None:
    card = await offer(runtime, "gift_card", codes=1)
    redemption = await partner.post(REDEMPTIONS, wish(await bind(partner), card))
    for identifier in (redemption["id"], f"rdm_{'0' * 26}", f"rwd_{'0' * 26}", "rdm_nonsense"):
        path = f"{REDEMPTIONS}/{identifier}{act}"
        call = hospital.post(path) if act else hospital.get(path)
        assert await code_of(call) == (404, "redemption_not_found")


async def test_without_consent_nothing_is_shown_or_redeemed(partner: PartnerClient, runtime: Runtime) -> None:
    card = await offer(runtime, "gift_card", codes=2, cancellation=WEEK)
    member = await bind(partner)
    redemption = await partner.post(REDEMPTIONS, wish(member, card))
    async with transaction(runtime.pool) as connection:
        row = await connection.fetchrow(
            "SELECT bucket, member_id, partner_id FROM rewards_redemption WHERE id = $1",
            from_wire("rdm", redemption["id"]),
        )
        assert row is not None
        assert await oauth.withdraw_consent(
            connection,
            partner_id=row["partner_id"],
            member=MemberRef(member_id=row["member_id"], bucket=row["bucket"]),
            now=runtime.clock.now(),
        )
    assert await code_of(partner.get(f"{REWARDS}?member={member}")) == (403, "consent_missing")
    assert await code_of(partner.post(REDEMPTIONS, wish(member, card))) == (403, "consent_missing")
    shown = partner.post(f"{REDEMPTIONS}/{redemption['id']}/code")
    assert await code_of(shown) == (403, "consent_missing")
    # what is to the member's good still goes through
    assert (await partner.post(f"{REDEMPTIONS}/{redemption['id']}/cancel"))["state"] == "cancelled"


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"reward": "rwd_nonsense"}, 404, "reward_not_found"),
        ({"reward": f"rdm_{'0' * 26}"}, 404, "reward_not_found"),
        ({"member": "x" * 43}, 404, "member_not_found"),
        ({"redemption_ref": ""}, 422, "validation_failed"),
        ({"redemption_ref": "x" * 129}, 422, "validation_failed"),
        ({"redemption_ref": "a\0b"}, 422, "value_not_storable"),
        ({"price_points": 0}, 422, "validation_failed"),
        ({"price_points": 99}, 409, "reward_price_changed"),
        ({"code": "give me"}, 422, "validation_failed"),
        ({"reward": None}, 422, "validation_failed"),
    ],
)
async def test_a_wish_that_makes_no_sense_is_refused_with_its_own_word(
    partner: PartnerClient, runtime: Runtime, changes: dict[str, Any], status: int, code: str
) -> None:
    card = await offer(runtime, "gift_card", codes=1)
    member = await bind(partner)
    assert await code_of(partner.post(REDEMPTIONS, wish(member, card) | changes)) == (status, code)
    assert await points(partner, member) == (1_000, 0)


async def test_what_cannot_be_had_is_refused_with_its_own_word(
    partner: PartnerClient, runtime: Runtime
) -> None:
    member = await bind(partner, points=150)
    expected = {
        "reward_out_of_stock": await offer(runtime, "gift_card"),
        "tier_not_eligible": await offer(runtime, "fee_offset", tiers=("platinum",)),
        "insufficient_points": await offer(runtime, "fee_offset", price_points=151),
        "reward_not_found": await offer(runtime, "fee_offset", partners=(uuid4(),)),
        "reward_not_available": await offer(
            runtime, "fee_offset", starts_at=runtime.clock.now() + timedelta(days=1)
        ),
    }
    for code, reward in expected.items():
        assert (await code_of(partner.post(REDEMPTIONS, wish(member, reward))))[1] == code
    limited = await offer(runtime, "gift_card", codes=2, price_points=1, limit=Limit(count=1, period="ever"))
    await partner.post(REDEMPTIONS, wish(member, limited))
    again = partner.post(REDEMPTIONS, wish(member, limited))
    assert await code_of(again) == (409, "reward_limit_reached")
    assert await points(partner, member) == (149, 0)


async def test_these_routes_need_their_scope(register: Register, runtime: Runtime) -> None:
    reader = await register("members:read", "points:earn")
    for call in (
        reader.get(f"{REWARDS}?member=x"),
        reader.post(REDEMPTIONS, wish("x", "y")),
        reader.post(f"{REDEMPTIONS}/rdm_1/code"),
    ):
        assert await code_of(call) == (403, "insufficient_scope")


class Fees:
    """A fee system that says what it is told to say, and remembers what it was asked."""

    def __init__(self, *answers: OffsetOutcome | Exception) -> None:
        self._answers = list(answers)
        self.asked: list[Offset] = []

    async def settle(self, offset: Offset) -> OffsetOutcome:
        self.asked.append(offset)
        answer = self._answers.pop(0) if self._answers else "done"
        if isinstance(answer, Exception):
            raise answer
        return answer


async def test_the_worker_asks_until_it_knows(partner: PartnerClient, runtime: Runtime) -> None:
    await settle_offsets(runtime.pool, SimulatedFees(), now_of=runtime.clock.now)  # other tests' leftovers
    fee = await offer(runtime, "fee_offset")
    member = await bind(partner)
    redemption = await partner.post(REDEMPTIONS, wish(member, fee))
    assert redemption["state"] == "fulfilling"
    path = f"{REDEMPTIONS}/{redemption['id']}"
    moment = runtime.clock.now()
    fees = Fees(TimeoutError(), "unknown", ConnectionError(), "done")
    for minute in range(5):
        later = moment + timedelta(minutes=minute)
        await settle_offsets(runtime.pool, fees, now_of=repeat(later).__next__)
        expected = "fulfilling" if minute < 3 else "fulfilled"
        assert (await partner.get(path))["state"] == expected
    assert [offset.offset_fen for offset in fees.asked] == [250] * 4
    assert {to_wire("rdm", offset.redemption_id) for offset in fees.asked} == {redemption["id"]}
    assert await points(partner, member) == (900, 0)
    assert await code_of(partner.post(f"{path}/cancel")) == (409, "redemption_not_cancellable")


async def test_a_refused_offset_gives_the_points_back(partner: PartnerClient, runtime: Runtime) -> None:
    await settle_offsets(runtime.pool, SimulatedFees(), now_of=runtime.clock.now)
    member = await bind(partner)
    redemption = await partner.post(REDEMPTIONS, wish(member, await offer(runtime, "fee_offset")))
    await settle_offsets(runtime.pool, Fees("refused"), now_of=runtime.clock.now)
    failed = await partner.get(f"{REDEMPTIONS}/{redemption['id']}")
    assert (failed["state"], failed["reason"]) == ("failed", "refused")
    assert await points(partner, member) == (1_000, 0)


async def test_a_fresh_sandbox_has_something_to_redeem(partner: PartnerClient, runtime: Runtime) -> None:
    async with transaction(runtime.pool) as connection:
        shelf = await stock_shelves(
            connection,
            provider_id=await partner_id(runtime, partner),
            vault=runtime.vault,
            now=runtime.clock.now(),
        )
    member = await bind(partner)
    card, fee, consultation = (to_wire("rwd", reward_id) for reward_id in shelf)
    assert (await partner.post(REDEMPTIONS, wish(member, card)))["state"] == "fulfilled"
    assert (await partner.post(REDEMPTIONS, wish(member, fee)))["state"] == "fulfilling"
    refused = partner.post(REDEMPTIONS, wish(member, consultation))
    assert await code_of(refused) == (409, "tier_not_eligible")
    async with runtime.pool.acquire() as connection:
        findings = {finding.view for finding in await books.look(connection) if finding.rows}
    assert not {view for view in findings if view.startswith("books_i7")}


@pytest.fixture
def shell(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Awaitable[tuple[int, str, str]]]:
    """Runs `tessera …` against the tests' database: exit code, output, errors."""
    settings = runtime.settings
    assert settings.database_url and settings.redis_url and settings.master_keys and settings.base_url
    monkeypatch.setenv("TESSERA_DATABASE_URL", settings.database_url.reveal())
    monkeypatch.setenv("TESSERA_REDIS_URL", settings.redis_url.reveal())
    monkeypatch.setenv("TESSERA_MASTER_KEYS", settings.master_keys.reveal())
    monkeypatch.setenv("TESSERA_BASE_URL", settings.base_url)

    async def run(*arguments: str) -> tuple[int, str, str]:
        code = await asyncio.to_thread(main, ["rewards", *arguments])
        said = capsys.readouterr()
        return code, said.out.strip(), said.err.strip()

    return run


async def test_the_catalogue_is_looked_after_from_the_command_line(
    shell: Callable[..., Awaitable[tuple[int, str, str]]], tmp_path: Path
) -> None:
    definition, codes = tmp_path / "card.json", tmp_path / "codes.txt"
    plain = {"kind": "gift_card", "title_zh": "卡", "title_en": "card", "starts_at": "2026-01-01T00:00:00Z"}
    definition.write_bytes(msgspec.json.encode(plain | {"price_points": 100}))
    codes.write_text(f"{uuid4()}\n{uuid4()}\n\n")
    code, reward, _ = await shell("define", str(definition))
    assert code == 0 and reward.startswith("rwd_")
    assert (await shell("load-codes", reward, str(codes)))[1] == "2 codes loaded, 0 were there before"
    assert (await shell("load-codes", reward, str(codes)))[1] == "0 codes loaded, 2 were there before"
    assert (await shell("move", reward, "active"))[:2] == (0, "active")
    assert (await shell("price", reward, "250"))[1] == "price version 2"
    _, listed, _ = await shell("list")
    (line,) = [line for line in listed.splitlines() if line.startswith(reward)]
    assert line.split() == [reward, "active", "gift_card", "250", "points,", "2", "left", "card"]


async def test_what_the_command_line_cannot_use_it_refuses_without_showing_a_code(
    shell: Callable[..., Awaitable[tuple[int, str, str]]], runtime: Runtime, tmp_path: Path
) -> None:
    reward = await offer(runtime, "gift_card")
    codes, secret = tmp_path / "codes.txt", str(uuid4())
    for content in (
        f"A\n{secret}\n{secret}\n".encode(),
        f"{secret}é".encode(),
        f"{secret}\t{secret}".encode(),
    ):
        codes.write_bytes(content)
        code, out, err = await shell("load-codes", reward, str(codes))
        assert code == 2 and "one code per line" in err
        assert secret not in out + err
    assert (await shell("load-codes", reward, str(tmp_path / "absent")))[0] == 2
    assert (await shell("move", "rwd_nonsense", "active"))[2].startswith("tessera: reward_not_found")
    assert (await shell("add-pieces", reward, "5"))[2].startswith("tessera: reward_definition_refused")
    no_zone = '{"kind":"gift_card","title_zh":"a","title_en":"a","price_points":1,"starts_at":"2026-01-01T00:00:00"}'
    for mistaken in ('{"kind": "car"}', no_zone, "{"):
        (tmp_path / "bad.json").write_text(mistaken)
        assert (await shell("define", str(tmp_path / "bad.json")))[0] == 2
