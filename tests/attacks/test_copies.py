"""A hundred copies of whatever is good once, spread over two worker processes: exactly one succeeds."""

import asyncio
import base64
import secrets
import shutil
import tempfile
import time
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import msgspec
import pytest
from attacks.crowd import COPIES, REDIRECT, Hesitant, Sender, connections_of, copies, told
from attacks.house import digest
from faults import Serve
from gmssl.sm3 import sm3_hash
from served import Platform
from sm2_peer import peer

from kernel import sm2
from kernel.clock import SystemClock
from kernel.database import open_pool, transaction
from partners.registry import signatures

EARNINGS = "/v1/points/earnings"
PATIENCE_SECONDS = 20.0


@pytest.fixture(scope="module")
def serve() -> Generator[Serve, None, None]:
    """A running platform of two HTTP workers with its own servers."""
    root = Path(tempfile.mkdtemp(prefix="tessera-attacks-", dir="/var/tmp"))
    root.chmod(0o711)
    plenty = {"TESSERA_TOKEN_REQUESTS_PER_MINUTE": "100000", "TESSERA_TOKEN_FAILURES_PER_MINUTE": "100000"}
    running = Serve(root, environment=plenty)
    try:
        running.start()
        yield running
    finally:
        running.reap()
        shutil.rmtree(root)


@pytest.fixture(scope="module")
async def sender(serve: Serve) -> AsyncGenerator[Sender, None]:
    """The mall, with a hundred connections that lead to both workers."""
    workers = serve.http_workers()
    before = [connections_of(pid) for pid in workers]
    limits = httpx.Limits(max_connections=COPIES, max_keepalive_connections=COPIES)
    async with httpx.AsyncClient(timeout=60.0, limits=limits) as http:
        await copies(lambda: http.get(f"{serve.base_url}/livez"))
        after = [connections_of(pid) for pid in workers]
        assert all(now > then for now, then in zip(after, before, strict=True)), "both workers are asked"
        yield Sender(serve, http)


@pytest.fixture(scope="module")
async def hesitant(serve: Serve) -> AsyncGenerator[Hesitant, None]:
    async with Hesitant.at(Platform(base_url=serve.base_url, data_dir=serve.data_dir)) as member:
        yield member


def earning(member: str) -> bytes:
    return msgspec.json.encode(
        {
            "member": member,
            "source_ref": str(uuid4()),
            "kind": "purchase",
            "occurred_at": "2026-11-11T20:00:00+08:00",
            "amount_fen": 10_000,
        }
    )


async def post(sender: Sender, body: bytes, headers: dict[str, str]) -> httpx.Response:
    sent = {"content-type": "application/json"} | headers
    return await sender.http.post(sender.serve.base_url + EARNINGS, content=body, headers=sent)


async def test_attack_04_a_proof_reads_once(sender: Sender) -> None:
    headers = await sender.headers("GET", "/v1/me")
    answers = await copies(lambda: sender.http.get(f"{sender.serve.base_url}/v1/me", headers=headers))
    assert told(answers) == {(200, ""): 1, (401, "invalid_dpop_proof"): COPIES - 1}


async def test_attack_04_a_proof_writes_once(sender: Sender) -> None:
    member, headers = sender.members[0], await sender.headers("POST", EARNINGS)
    before = await sender.balance(member)
    answers = await copies(lambda: post(sender, earning(member), headers | {"idempotency-key": str(uuid4())}))
    assert told(answers) == {(201, ""): 1, (401, "invalid_dpop_proof"): COPIES - 1}
    [done] = [answer.json() for answer in answers if answer.status_code == 201]
    assert await sender.balance(member) == before + done["points"] > before


async def test_attack_03_an_assertion_authenticates_once(sender: Sender) -> None:
    assertion = sender.partner.make_assertion()
    answers = await copies(
        lambda: sender.form("/oauth2/token", assertion=assertion, grant_type="client_credentials")
    )
    assert told(answers) == {(200, ""): 1, (401, "invalid_client"): COPIES - 1}


async def test_attack_25_an_idempotency_key_has_one_effect_and_one_answer(sender: Sender) -> None:
    member = sender.members[1]
    before, body, key = await sender.balance(member), earning(member), str(uuid4())

    async def send() -> httpx.Response:
        return await post(sender, body, await sender.headers("POST", EARNINGS, **{"idempotency-key": key}))

    answers = await copies(send)
    waited = [answer for answer in answers if answer.status_code == 409]
    assert {answer.json()["code"] for answer in waited} <= {"idempotency_in_progress"}
    done = {answer.content for answer in answers if answer.status_code == 201}
    assert len(done) == 1 and len(answers) == COPIES
    assert await sender.balance(member) == before + msgspec.json.decode(done.pop())["points"]


async def test_attack_09_a_request_uri_is_answered_once(sender: Sender, hesitant: Hesitant) -> None:
    form = await hesitant.come_to_consent(await sender.authorization_address(), number=0)
    answers = await copies(lambda: hesitant.answer_once(form))
    gone = [answer.headers.get("location", "") for answer in answers]
    codes = {httpx.URL(where).params.get("code") for where in gone if where.startswith(REDIRECT)}
    assert len(codes - {None}) == 1


async def test_attack_05_a_code_is_exchanged_once_and_a_copy_ends_what_came_of_it(
    sender: Sender, hesitant: Hesitant
) -> None:
    back = httpx.URL(await hesitant.agree(await sender.authorization_address(), number=1))
    answers = await copies(lambda: sender.exchange(back.params["code"]))
    assert told(answers) == {(200, ""): 1, (400, "invalid_grant"): COPIES - 1}
    [issued] = [answer.json() for answer in answers if answer.status_code == 200]

    async def try_once() -> tuple[int, str]:
        token = issued["access_token"]
        proof = sender.partner.make_proof("GET", "/v1/me", token_hash=digest(token))
        headers = {"authorization": f"DPoP {token}", "dpop": proof}
        answer = await sender.http.get(f"{sender.serve.base_url}/v1/me", headers=headers)
        return answer.status_code, answer.json().get("code", "")

    # Within a second in every process.
    async with asyncio.timeout(PATIENCE_SECONDS):
        while {*(await asyncio.gather(*(try_once() for _ in range(10))))} != {(401, "invalid_token")}:
            pass
    refused = await sender.form(
        "/oauth2/token", grant_type="refresh_token", refresh_token=issued["refresh_token"]
    )
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant")


async def test_attack_10_a_refresh_request_is_answered_once_and_the_token_stays_the_same(
    sender: Sender, hesitant: Hesitant
) -> None:
    back = httpx.URL(await hesitant.agree(await sender.authorization_address(), number=2))
    issued = (await sender.exchange(back.params["code"])).json()
    wanted = {"grant_type": "refresh_token", "refresh_token": issued["refresh_token"]}
    assertion = sender.partner.make_assertion()
    same = await copies(lambda: sender.form("/oauth2/token", assertion=assertion, **wanted))
    assert told(same) == {(200, ""): 1, (401, "invalid_client"): COPIES - 1}
    # FAPI 2.0 SP §5.3.2.1: not rotated, so each request of its own is answered, and nothing is replaced.
    each = await copies(lambda: sender.form("/oauth2/token", **wanted))
    assert told(each) == {(200, ""): COPIES}
    assert {answer.json().get("refresh_token", issued["refresh_token"]) for answer in each} == {
        issued["refresh_token"]
    }


async def test_attack_26_a_nonce_of_sm2_signs_once(serve: Serve, sender: Sender) -> None:
    hospital = Sender(serve, sender.http, "hospital")
    key = sm2.PrivateKey.generate()
    await register_sm2(serve, hospital, key)
    x, y = key.public().point
    pen, nonce, member = (
        peer(x, y, private=key.to_der()[7:39].hex()),
        secrets.token_hex(16),
        hospital.members[3],
    )
    before = await hospital.balance(member)

    async def send() -> httpx.Response:
        body, idempotency_key = earning(member), str(uuid4())
        headers = await hospital.headers("POST", EARNINGS, **{"idempotency-key": idempotency_key})
        headers["tessera-signature"] = sign(hospital, pen, nonce, body, idempotency_key, headers)
        return await post(hospital, body, headers)

    answers = await copies(send)
    assert told(answers) == {(201, ""): 1, (401, "signature_invalid"): COPIES - 1}
    [done] = [answer.json() for answer in answers if answer.status_code == 201]
    assert await hospital.balance(member) == before + done["points"]


async def register_sm2(serve: Serve, hospital: Sender, key: sm2.PrivateKey) -> None:
    url = serve.announced()["database_url"]
    async with await open_pool(url, application="tessera-tests") as pool, transaction(pool) as connection:
        app = await signatures.find_app_of_client(connection, hospital.partner.credentials.client_id)
        await signatures.add_sm2_key(
            connection,
            app=app,
            serial_no="sm2-1",
            key=key.public(),
            actor="admin:test",
            now=SystemClock().now(),
        )


def sign(hospital: Sender, pen: Any, nonce: str, body: bytes, key: str, headers: dict[str, str]) -> str:
    def sm3(data: bytes) -> str:
        return str(sm3_hash(list(data)))

    credentials, timestamp = hospital.partner.credentials, str(int(time.time()))
    token = headers["authorization"].partition(" ")[2]
    lines = ("POST", credentials.base_url + EARNINGS, timestamp, nonce, sm3(body), sm3(token.encode()), key)
    text = "".join(f"{line}\n" for line in lines)
    members = {
        "app_id": credentials.client_id,
        "serial_no": "sm2-1",
        "timestamp": timestamp,
        "nonce": nonce,
        "signature": base64.b64encode(bytes.fromhex(pen.sign_with_sm3(text.encode()))).decode(),
    }
    return "TESSERA-SM2-WITH-SM3 " + ",".join(f'{name}="{value}"' for name, value in members.items())
