"""Writes of an app with the strict policy carry the server's nonce; a nonce that is sent must be right anywhere."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest

from gateway.client import PartnerClient
from gateway.runtime import Runtime
from kernel.vault import Vault, generate_ring
from partners.oauth.nonce import Nonces
from partners.oauth.scopes import SCOPES

BINDINGS = "/v1/members/bindings"
EARNINGS = "/v1/points/earnings"
ME = "/v1/me"


async def signed(partner: PartnerClient, method: str, path: str, nonce: str | None) -> dict[str, str]:
    """The headers of one request, its proof with `nonce` or without any."""
    token, token_hash = await partner._current_token()
    partner._nonce = nonce
    return {
        "authorization": f"DPoP {token}",
        "dpop": partner.make_proof(method, path, token_hash=token_hash),
    }


@pytest.fixture
async def strict(register: Any) -> PartnerClient:
    partner: PartnerClient = await register(*sorted(SCOPES), strict=True)
    return partner


def ago(seconds: float) -> Callable[[Runtime, datetime], str]:
    return lambda runtime, now: runtime.nonces.offered(now - timedelta(seconds=seconds))


def stranger(_runtime: Runtime, now: datetime) -> str:
    return Nonces(Vault(generate_ring()).key("dpop-nonce")).offered(now)


NONCES: dict[str, tuple[Callable[[Runtime, datetime], str | None], bool]] = {
    "absent": (lambda _runtime, _now: None, False),
    "empty": (lambda _runtime, _now: "", False),
    "forged": (lambda _runtime, _now: "A" * 22, False),
    "with another key": (stranger, False),
    "stale": (ago(121), False),
    "of the minute before": (ago(60), True),
    "present": (ago(0), True),
}


@pytest.mark.parametrize(("nonce", "good"), NONCES.values(), ids=NONCES)
async def test_a_strict_apps_write_needs_a_nonce_of_this_minute_or_the_last(
    strict: PartnerClient, http: httpx.AsyncClient, runtime: Runtime, nonce: Any, good: bool
) -> None:
    headers = await signed(strict, "POST", BINDINGS, nonce(runtime, runtime.clock.now()))

    answer = await http.post(BINDINGS, json={"customer_refs": [str(uuid4())]}, headers=headers)

    assert runtime.nonces.accepts(answer.headers["dpop-nonce"], runtime.clock.now())
    if good:
        assert answer.status_code == 200
    else:
        assert (answer.status_code, answer.json()["code"]) == (401, "use_dpop_nonce")
        assert 'error="use_dpop_nonce"' in answer.headers["www-authenticate"]


async def test_a_proof_without_nonce_is_refused_and_not_used_up(
    strict: PartnerClient, http: httpx.AsyncClient, runtime: Runtime
) -> None:
    headers = await signed(strict, "POST", BINDINGS, None)
    before = await _used_proofs(runtime)

    answers = [await http.post(BINDINGS, json={"customer_refs": ["a"]}, headers=headers) for _ in range(2)]

    assert [answer.json()["code"] for answer in answers] == ["use_dpop_nonce"] * 2
    assert await _used_proofs(runtime) == before


async def test_a_strict_apps_reads_need_none_and_bring_none(
    strict: PartnerClient, http: httpx.AsyncClient
) -> None:
    answer = await http.get(ME, headers=await signed(strict, "GET", ME, None))

    assert answer.status_code == 200
    assert "dpop-nonce" not in answer.headers


@pytest.mark.parametrize("policy", [False, True], ids=["easy", "strict"])
@pytest.mark.parametrize(("method", "path"), [("GET", ME), ("POST", BINDINGS)])
async def test_a_nonce_that_is_sent_must_be_right(
    register: Any, http: httpx.AsyncClient, policy: bool, method: str, path: str
) -> None:
    partner = await register(*sorted(SCOPES), strict=policy)
    body = {"customer_refs": [str(uuid4())]} if method == "POST" else None

    wrong = await http.request(method, path, json=body, headers=await signed(partner, method, path, "A" * 22))
    offered = wrong.headers["dpop-nonce"]
    right = await http.request(method, path, json=body, headers=await signed(partner, method, path, offered))

    assert (wrong.status_code, wrong.json()["code"]) == (401, "use_dpop_nonce")
    assert right.status_code == 200
    assert right.headers["dpop-nonce"]


async def test_an_easy_apps_write_needs_none(partner: PartnerClient, http: httpx.AsyncClient) -> None:
    headers = await signed(partner, "POST", BINDINGS, None)

    answer = await http.post(BINDINGS, json={"customer_refs": [str(uuid4())]}, headers=headers)

    assert answer.status_code == 200
    assert answer.headers["dpop-nonce"]  # for whoever wants to send one


async def test_a_good_nonce_does_not_make_a_proof_good_twice(
    strict: PartnerClient, http: httpx.AsyncClient, runtime: Runtime
) -> None:
    nonce = runtime.nonces.offered(runtime.clock.now())
    headers = await signed(strict, "POST", BINDINGS, nonce)

    answers = [await http.post(BINDINGS, json={"customer_refs": ["a"]}, headers=headers) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 401]
    assert answers[1].json()["code"] == "invalid_dpop_proof"


async def test_our_client_answers_the_challenge_by_itself(strict: PartnerClient) -> None:
    bound = await strict.post(BINDINGS, {"customer_refs": [str(uuid4())]})
    earning = {
        "member": bound["bindings"][0]["member"],
        "source_ref": str(uuid4()),
        "kind": "purchase",
        "occurred_at": "2026-11-11T20:00:00+08:00",
        "amount_fen": 129_900,
    }

    strict._nonce = "A" * 22  # as after a long pause
    assert (await strict.post(EARNINGS, earning))["points"] == 1_299


async def _used_proofs(runtime: Runtime) -> int:
    async with runtime.pool.acquire() as connection:
        return int(await connection.fetchval("SELECT count(*) FROM kernel_one_time_id"))
