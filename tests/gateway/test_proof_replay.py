"""A proof of possession is good once, whatever became of the request it came with."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest

from gateway.client import PartnerClient
from gateway.edge import Edge
from gateway.replays import ReadProofs
from gateway.requests import OneTimeProof
from gateway.runtime import Runtime
from kernel.redis_client import open_redis
from kernel.settings import Settings
from partners.oauth.access import InvalidDpopProof

EARNINGS = "/v1/points/earnings"
QUOTES = "/v1/points/quotes"


@pytest.mark.parametrize(
    ("path", "refused_with", "then"),
    [
        pytest.param(QUOTES, {"json": {"no": "member"}}, {}, id="a body against the schema"),
        pytest.param(QUOTES, {"content": b"{"}, {}, id="a body that is no JSON"),
        pytest.param(EARNINGS, {"json": None}, {"idempotency-key": "later"}, id="a missing idempotency key"),
    ],
)
async def test_a_proof_of_a_write_refused_before_its_transaction_stays_used(
    partner: PartnerClient,
    http: httpx.AsyncClient,
    path: str,
    refused_with: dict[str, Any],
    then: dict[str, str],
) -> None:
    body = await _body_of(partner, path)
    headers = await _signed(partner, "POST", path)
    first = {"json": body} if refused_with == {"json": None} else refused_with

    refused = await http.post(path, headers=headers, **first)
    again = await http.post(path, headers=headers | then, json=body)

    assert refused.status_code in (400, 422)
    assert (again.status_code, again.json()["code"]) == (401, "invalid_dpop_proof")


async def test_a_proof_of_a_read_is_good_once_even_if_redis_believes_it_is_another_day(edge: Edge) -> None:
    now = edge.runtime.clock.now() - timedelta(hours=2)
    proof = OneTimeProof(scope="proof:x", jti=str(uuid4()), expires_at=now + timedelta(seconds=150))

    await edge._read_proofs.use_up(proof, now)
    with pytest.raises(InvalidDpopProof):
        await edge._read_proofs.use_up(proof, now)


@pytest.mark.parametrize("away", [False, True], ids=["Redis", "Redis away"])
async def test_of_a_hundred_copies_in_two_processes_one_reads(
    runtime: Runtime, settings: Settings, away: bool
) -> None:
    other = Runtime(settings)
    async with other.open():
        kept = [runtime.redis, other.redis]
        if away:
            runtime.redis = other.redis = open_redis("redis://127.0.0.1:1")
        processes = [ReadProofs(runtime), ReadProofs(other)]
        now = runtime.clock.now()
        proofs = [
            OneTimeProof(scope="proof:x", jti=str(uuid4()), expires_at=now + timedelta(seconds=150))
            for _ in range(5)
        ]
        try:
            outcomes = await asyncio.gather(
                *(process.use_up(proofs[n % 5], now) for n in range(50) for process in processes),
                return_exceptions=True,
            )
        finally:
            runtime.redis, other.redis = kept

    assert sum(outcome is None for outcome in outcomes) == len(proofs)
    assert all(outcome is None or isinstance(outcome, InvalidDpopProof) for outcome in outcomes)


async def test_reads_that_come_together_ask_redis_together(runtime: Runtime) -> None:
    before = await _asked(runtime)
    now = runtime.clock.now()
    proofs = ReadProofs(runtime)

    await asyncio.gather(
        *(
            proofs.use_up(
                OneTimeProof(scope="proof:x", jti=str(uuid4()), expires_at=now + timedelta(seconds=150)), now
            )
            for _ in range(200)
        )
    )

    assert await _asked(runtime) - before <= 0.1 * 200


async def _asked(runtime: Runtime) -> int:
    told = await runtime.redis.info("commandstats")
    return sum(told.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("eval", "evalsha"))


async def _body_of(partner: PartnerClient, path: str) -> dict[str, Any]:
    answer = await partner.post("/v1/members/bindings", {"customer_refs": [str(uuid4())]})
    member = answer["bindings"][0]["member"]
    if path == QUOTES:
        return {"member": member, "order_amount_fen": 1_000}
    return {
        "member": member,
        "source_ref": str(uuid4()),
        "kind": "purchase",
        "occurred_at": "2026-11-11T20:00:00+08:00",
        "amount_fen": 129_900,
    }


async def _signed(partner: PartnerClient, method: str, path: str) -> dict[str, str]:
    token, token_hash = await partner._current_token()
    return {
        "authorization": f"DPoP {token}",
        "dpop": partner.make_proof(method, path, token_hash=token_hash),
    }
