"""Row 18, excessive data: the main journeys and many mistakes, and then every byte that left is searched."""

import asyncio
import json
import shutil
import tempfile
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import msgspec
import pytest
from attacks.crowd import Hesitant, Sender
from attacks.scanner import find_keys, find_known, find_personal, find_tokens, is_card_number, is_resident_id
from attacks.things import make_quote
from faults import Serve
from served import Platform

from kernel.calendar import rfc3339
from kernel.clock import SystemClock
from kernel.database import acquire, open_pool

RESIDENT, CARD, MOBILE = "11010519491231002X", "6222021234567890128", "13912345678"
PLANTED = (RESIDENT, CARD, MOBILE)
PATIENCE_SECONDS = 30.0


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"id":"11010519491231002X"}', 1),
        ("card 6222 0212 3456 7890 128.", 1),
        ("call 13912345678 or +86 13912345678", 2),
        ("110105194912310021 and 6222021234567890129", 0),
        ("2026-11-20T04:00:00.123456Z req_01M8B5GGA1EX490V67Q4R5DZCG", 0),
        ('{"points":1299,"amount_fen":129900}', 0),
    ],
)
def test_the_scanner_finds_what_was_planted_and_nothing_else(text: str, found: int) -> None:
    assert len(find_personal(text)) == found


def test_the_scanner_knows_keys_and_tokens() -> None:
    assert is_resident_id(RESIDENT) and is_card_number(CARD)
    assert find_keys('{"kty":"EC","d":"Xz0fGZ1T8m3J6c8n0l2Qd1Zy0z4"}') and not find_keys(
        '{"kty":"EC","x":"a"}'
    )
    assert find_tokens("DPoP eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJhIiwic3ViIjoiYiJ9.c2lnbmF0dXJlLXNpZ25hdHVyZQ")
    assert find_known("a hunter2222 b", ["hunter2222"])


class Heard:
    """Everything the platform said to anybody, and the secrets that were used."""

    def __init__(self) -> None:
        self.answers: list[tuple[str, str]] = []
        self.webhooks: list[str] = []
        self.told_of_points = asyncio.Event()
        #: with the paths whose answers hand it out
        self.secrets: dict[str, tuple[str, ...]] = {}

    async def hear(self, answer: httpx.Response) -> None:
        await answer.aread()
        head = "\n".join(f"{name}: {value}" for name, value in answer.headers.items())
        self.answers.append((answer.request.url.path, f"{head}\n\n{answer.text}"))

    def learn(self, issued: dict[str, Any]) -> None:
        for name in ("access_token", "refresh_token"):
            if name in issued:
                self.secrets[issued[name]] = ("/oauth2/token",)


@pytest.fixture(scope="module")
def serve() -> Generator[Serve, None, None]:
    root = Path(tempfile.mkdtemp(prefix="tessera-scanned-", dir="/var/tmp"))
    root.chmod(0o711)
    running = Serve(root, environment={"TESSERA_LOG_LEVEL": "debug"})
    try:
        running.start()
        yield running
    finally:
        running.reap()
        shutil.rmtree(root)


@pytest.fixture(scope="module")
async def heard(serve: Serve) -> AsyncGenerator[Heard, None]:
    """What was said in the course of the journeys."""
    heard = Heard()
    platform = Platform(base_url=serve.base_url, data_dir=serve.data_dir)
    receiver = await asyncio.start_server(lambda *ends: _receive(heard, *ends), "127.0.0.1", 0)
    async with httpx.AsyncClient(timeout=30.0, event_hooks={"response": [heard.hear]}) as http:
        sender = Sender(serve, http)
        async with Hesitant.at(platform) as member:
            member._browser.event_hooks = {"response": [heard.hear]}
            _learn_files(heard, serve)
            await _hook(heard, sender, receiver.sockets[0].getsockname()[1])
            await _trade(sender)
            await _let_a_member_agree(heard, sender, member)
            await _make_mistakes(sender, member)
    async with asyncio.timeout(PATIENCE_SECONDS):
        await heard.told_of_points.wait()
    receiver.close()
    yield heard


async def _receive(heard: Heard, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = next(line for line in head.lower().split("\r\n") if line.startswith("content-length:"))
    heard.webhooks.append((await reader.readexactly(int(length.partition(":")[2]))).decode())
    if '"points.' in heard.webhooks[-1]:
        heard.told_of_points.set()
    writer.write(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")
    await writer.drain()
    writer.close()


def _learn_files(heard: Heard, serve: Serve) -> None:
    """What the sandbox's files say to whoever may read them, and nobody else."""
    for file in (serve.data_dir / "sandbox").rglob("*.json"):
        document = json.loads(file.read_bytes())
        for entry in document if isinstance(document, list) else [document]:
            for secret in (
                entry.get("password"),
                entry.get("webhook_secret"),
                entry.get("totp_secret"),
                entry.get("private_jwk", {}).get("d"),
            ):
                if secret:
                    heard.secrets[secret] = ()


async def _hook(heard: Heard, sender: Sender, port: int) -> None:
    wanted = {"url": f"http://127.0.0.1:{port}/in", "event_types": ["*"]}
    made = await sender.partner.post("/v1/webhook_endpoints", wanted)
    turned = await sender.partner.post(f"/v1/webhook_endpoints/{made['id']}/rotate_secret")
    shown = ("/v1/webhook_endpoints", f"/v1/webhook_endpoints/{made['id']}/rotate_secret")
    heard.secrets |= {secret: shown for secret in (made["secret"], turned["secret"])}
    # The sandbox's own secret is the first of a partner's endpoints.
    heard.secrets[sender.partner.credentials.webhook_secret] = shown


async def _trade(sender: Sender) -> None:
    """Earn, hold, spend, give back; search, quote, agree, capture, refund; redeem; look at everything."""
    partner, member = sender.partner, sender.members[4]
    earning = {
        "member": member,
        "source_ref": str(uuid4()),
        "kind": "purchase",
        "occurred_at": "2026-11-11T20:00:00+08:00",
        "amount_fen": 1_000_000,
    }
    earned = await partner.post("/v1/points/earnings", earning)
    held = await partner.post("/v1/points/holds", {"member": member, "points": 100, "order_ref": "order-1"})
    await partner.post(f"/v1/points/holds/{held['id']}/capture", {})
    undo = {"operation_id": earned["id"], "refund_ref": str(uuid4()), "refunded_fen": 100}
    await partner.post("/v1/points/reversals", undo)
    quote = await make_quote(partner, member)
    shown = {
        "hash": quote["disclosure"]["hash"],
        "displayed_seconds": 60,
        "confirmed_at": rfc3339(SystemClock().now()),
    }
    await partner.post(f"/v1/quotes/{quote['id']}/disclosure", shown)
    plan = (await partner.post(f"/v1/quotes/{quote['id']}/accept"))["plan"]["id"]
    await partner.post(f"/v1/plans/{plan}/captures", {})
    await partner.post(f"/v1/plans/{plan}/refunds", {"refund_ref": "r-1", "amount_fen": 1_000})
    who = f"/v1/members/{member}"
    for path in ("", "/points", "/points/entries", "/membership", "/membership/history", "/entitlements"):
        await partner.get(who + path)
    for path in ("/v1/me", "/v1/keys", "/v1/events", f"/v1/plans/{plan}", f"/v1/rewards?member={member}"):
        await partner.get(path)
    await partner.post("/v1/members/bindings", {"customer_refs": ["customer-1"]})


async def _let_a_member_agree(heard: Heard, sender: Sender, member: Hesitant) -> None:
    address = await sender.authorization_address()
    code = httpx.URL(await member.agree(address, number=5)).params["code"]
    page = f"/oauth2/interactions/{'{handle}'}/consent"
    heard.secrets[code] = (page,)
    issued = (await sender.exchange(code)).json()
    heard.learn(issued)
    renewed = await sender.form(
        "/oauth2/token", grant_type="refresh_token", refresh_token=issued["refresh_token"]
    )
    heard.learn(renewed.json())
    await sender.form("/oauth2/introspect", token=issued["access_token"])
    await sender.exchange(code)
    await sender.form("/oauth2/revoke", token=issued["refresh_token"])
    heard.learn({"access_token": await sender.partner.token()})


async def _make_mistakes(sender: Sender, member: Hesitant) -> None:
    """Numbers of people where none belong, in every part of a request, and requests that fail."""
    http, base = sender.http, sender.serve.base_url
    for number in PLANTED:
        body = msgspec.json.encode(
            {"member": number, "points": number, number: number, "order_ref": [number]}
        )
        for path in (f"/v1/members/{number}/points", f"/v1/points/holds/{number}", f"/v1/{number}"):
            await sender.partner.send("GET", path)
        for path in (
            "/v1/points/holds",
            "/v1/points/earnings",
            "/v1/offers/search",
            "/v1/keys",
            "/v1/quotes",
        ):
            await sender.partner.send("POST", path, body, idempotency_key=str(uuid4()))
        await sender.partner.send("GET", f"/v1/events?after={number}&limit={number}")
        await http.get(f"{base}/v1/me", headers={"authorization": f"DPoP {number}", "dpop": number})
        await http.get(f"{base}/{number}", params={"q": number}, headers={"x-request-id": number})
        await http.get(f"{base}/oauth2/authorize", params={"client_id": number, "request_uri": number})
        await http.post(f"{base}/oauth2/token", data={"grant_type": number, "client_id": number})
        await http.post(f"{base}/oauth2/token", content=number, headers={"content-type": number})
        await sender.form(
            "/oauth2/par", response_type="code", redirect_uri=number, scope=number, state=number
        )
        await sender.form("/oauth2/introspect", token=number)
        await sender.form("/oauth2/token", grant_type="refresh_token", refresh_token=number)
    form = await member._send("GET", await sender.authorization_address())
    where = form.headers["location"]
    await member._send("GET", where)
    for number in PLANTED:
        await member._send("POST", f"{where}/password", {"login": number, "password": number})


def test_attack_18_no_answer_tells_who_somebody_is(heard: Heard) -> None:
    assert len(heard.answers) > 80
    said = [(path, found) for path, text in heard.answers for found in find_personal(text)]
    assert said == []


def test_attack_18_no_answer_holds_a_secret_but_the_one_that_hands_it_out(heard: Heard) -> None:
    assert len(heard.secrets) > 25
    for path, text in heard.answers:
        shape = path if "interactions" not in path else "/oauth2/interactions/{handle}/" + path.split("/")[-1]
        kept = [secret for secret, shown in heard.secrets.items() if shape not in shown]
        assert find_keys(text) + find_known(text, kept) == [], path


def test_attack_18_no_webhook_tells_who_somebody_is_or_holds_a_secret(heard: Heard) -> None:
    text = "\n".join(heard.webhooks)
    assert len(heard.webhooks) >= 3
    assert find_personal(text) + find_keys(text) + find_tokens(text) + find_known(text, heard.secrets) == []


def test_attack_18_no_line_of_a_log_tells_either(serve: Serve, heard: Heard) -> None:
    logs = [serve.log, *serve.data_dir.rglob("*.log"), *serve.data_dir.rglob("log/*")]
    assert len(logs) >= 2
    for log in logs:
        text = log.read_text(errors="replace")
        found = find_personal(text) + find_keys(text) + find_tokens(text) + find_known(text, heard.secrets)
        assert found == [], log.name


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT payload::text FROM outbox_event",
        "SELECT concat_ws(' ', actor, action, subject, detail::text) FROM audit_record",
    ],
)
async def test_attack_18_nothing_that_is_kept_to_be_told_tells_either(
    serve: Serve, heard: Heard, statement: str
) -> None:
    url = serve.announced()["database_url"]
    async with await open_pool(url, application="tessera-tests") as pool, acquire(pool) as connection:
        rows = [row[0] for row in await connection.fetch(statement)]
    text = "\n".join(rows)
    assert rows
    assert find_personal(text) + find_keys(text) + find_tokens(text) + find_known(text, heard.secrets) == []
