"""The SM2 scheme through the whole gateway, with signatures made and verified by another implementation."""

import asyncio
import base64
import re
import secrets
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import httpx
import msgspec
import pytest
from gmssl.sm3 import sm3_hash
from sm2_peer import peer

from gateway.client import PartnerClient
from gateway.runtime import Runtime
from gateway.signing import Signing
from kernel import sm2
from kernel.database import transaction
from partners.oauth.scopes import SCOPES
from partners.registry import signatures
from partners.registry.jwk import PrivateKeySent, decode, encode
from partners.registry.rules import KeyAlreadyRegistered, KeyLimitReached

from .test_edge import available, earning, new_member

EARNINGS = "/v1/points/earnings"
QUOTES = "/v1/points/quotes"
NAME = "TESSERA-SM2-WITH-SM3"


def sm3(data: bytes) -> str:
    return str(sm3_hash(list(data)))


class Signatory:
    """A partner that signs by the national algorithms."""

    def __init__(self, partner: PartnerClient, serial_no: str = "sm2-1") -> None:
        self.partner = partner
        self.serial_no = serial_no
        key = sm2.PrivateKey.generate()
        self.public = key.public()
        x, y = self.public.point
        # RFC 5915: version 1, then the private key as an octet string
        private = key.to_der()[7:39].hex()
        self._key = peer(x, y, private=private)

    async def register(self, runtime: Runtime) -> None:
        async with transaction(runtime.pool) as connection:
            app = await signatures.find_app_of_client(connection, self.partner.credentials.client_id)
            await signatures.add_sm2_key(
                connection,
                app=app,
                serial_no=self.serial_no,
                key=self.public,
                actor="admin:test",
                now=runtime.clock.now(),
            )

    async def headers(
        self, method: str, path: str, body: bytes, /, *, key: str | None = None, **changes: str
    ) -> dict[str, str]:
        """Everything a request carries; `changes` are of what is signed, or of the header's members."""
        token, token_hash = await self.partner._current_token()
        told = {
            "method": method,
            "target": self.partner.credentials.base_url + path,
            "timestamp": str(int(time.time())),
            "nonce": secrets.token_hex(16),
            "body": sm3(body),
            "token": sm3(token.encode()),
            "key": key or "",
        } | changes
        text = "".join(
            f"{told[name]}\n" for name in ("method", "target", "timestamp", "nonce", "body", "token", "key")
        )
        signature = base64.b64encode(bytes.fromhex(self._key.sign_with_sm3(text.encode()))).decode()
        members = {
            "app_id": self.partner.credentials.client_id,
            "serial_no": self.serial_no,
            "timestamp": told["timestamp"],
            "nonce": told["nonce"],
            "signature": signature,
        }
        written = ",".join(f'{name}="{changes.get(name, value)}"' for name, value in members.items())
        headers = {
            "authorization": f"DPoP {token}",
            "dpop": self.partner.make_proof(method, path, token_hash=token_hash),
            "tessera-signature": f"{NAME} {written}",
        }
        return headers | ({"idempotency-key": key} if key else {})


@pytest.fixture
async def signatory(register: Any, runtime: Runtime) -> Signatory:
    """A partner whose policy demands SM2."""
    partner = await register(*sorted(SCOPES), request_signature="sm2")
    signatory = Signatory(partner)
    await signatory.register(runtime)
    return signatory


async def send(
    signatory: Signatory, http: httpx.AsyncClient, body: bytes, headers: dict[str, str]
) -> httpx.Response:
    return await http.post(EARNINGS, content=body, headers={"content-type": "application/json"} | headers)


async def test_a_signed_write_is_done_and_its_answer_is_signed_by_the_bank(
    signatory: Signatory, http: httpx.AsyncClient
) -> None:
    body = msgspec.json.encode(earning(await new_member(signatory.partner)))
    headers = await signatory.headers("POST", EARNINGS, body, key="k-1")

    answer = await send(signatory, http, body, headers)

    assert answer.status_code == 201
    told = dict(re.findall(r'(\w+)="([^"]*)"', answer.headers["tessera-signature"]))
    (key, *_) = [
        key
        for key in (await http.get("/oauth2/sm2_keys")).json()["keys"]
        if key["serial_no"] == told["serial_no"]
    ]
    asked = re.findall(r'nonce="(\w+)"', headers["tessera-signature"])[0]
    url = signatory.partner.credentials.base_url + EARNINGS
    lines = ["201", "POST", url, told["timestamp"], told["nonce"], asked, sm3(answer.content)]
    text = "".join(f"{line}\n" for line in lines).encode()
    bank = peer(decode(key["x"]), decode(key["y"]))
    signature = base64.b64decode(told["signature"]).hex()
    assert bank.verify_with_sm3(signature, text)
    assert not bank.verify_with_sm3(signature, text.replace(b"201", b"200"))


#: the name of an attack, what is signed instead or what the header says, and how the code is called
ATTACKS: dict[str, dict[str, str]] = {
    "method": {"method": "PUT"},
    "target": {"target": f"http://127.0.0.1:8080{QUOTES}"},
    "host": {"target": f"http://attacker.example{EARNINGS}"},
    "body": {"body": sm3(b"{}")},
    "token": {"token": sm3(b"another token")},
    "idempotency-key": {"key": "another"},
    "app": {"app_id": "app_00000000000000000000000000"},
    "serial-unknown": {"serial_no": "nobody"},
    "serial-empty": {"serial_no": ""},
    "old": {"timestamp": str(int(time.time()) - 3_600)},
    "future": {"timestamp": str(int(time.time()) + 3_600)},
    "timestamp-in-milliseconds": {"timestamp": "1795667903000123"},
    "timestamp-negative": {"timestamp": "-1"},
    "nonce-short": {"nonce": "abc"},
    "nonce-long": {"nonce": "a" * 65},
    "nonce-with-a-line": {"nonce": "aaaaaaaaaaaaaaaa\\n"},
    "signature-empty": {"signature": ""},
    "signature-garbage": {"signature": "!!!!"},
    "signature-of-zeros": {"signature": base64.b64encode(bytes(70)).decode()},
}


@pytest.mark.parametrize("name", ATTACKS)
async def test_a_request_that_was_not_signed_like_this_does_nothing(
    signatory: Signatory, http: httpx.AsyncClient, name: str
) -> None:
    member = await new_member(signatory.partner)
    body = msgspec.json.encode(earning(member))
    good = await signatory.headers("POST", EARNINGS, body, key="k-1")
    bad = await signatory.headers("POST", EARNINGS, body, **({"key": "k-1"} | ATTACKS[name]))
    bad["idempotency-key"] = "k-1"

    answer = await send(signatory, http, body, bad)

    assert (answer.status_code, answer.json()["code"]) == (401, "signature_invalid"), answer.json()
    assert "tessera-signature" not in answer.headers
    assert await available(signatory.partner, member) == 0
    assert (await send(signatory, http, body, good)).status_code == 201


Change = Callable[[str], str]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda field: field.replace(NAME, "TESSERA-SM2"), id="scheme"),
        pytest.param(lambda field: field + ',more="x"', id="member more"),
        pytest.param(lambda field: re.sub(r',nonce="[^"]*"', "", field), id="member less"),
        pytest.param(lambda field: f'{field},nonce="aaaaaaaaaaaaaaaa"', id="member twice"),
        pytest.param(lambda field: field.replace('"', ""), id="quotes"),
        pytest.param(lambda field: f"{field}, {field}", id="header twice"),
        pytest.param(lambda field: NAME, id="nothing"),
        pytest.param(lambda field: field.replace(",sig", "," + " " * 2_000 + "sig"), id="long"),
    ],
)
async def test_a_header_that_cannot_be_read_is_refused(
    signatory: Signatory, http: httpx.AsyncClient, change: Change
) -> None:
    body = msgspec.json.encode(earning(await new_member(signatory.partner)))
    headers = await signatory.headers("POST", EARNINGS, body, key="k-1")
    headers["tessera-signature"] = change(headers["tessera-signature"])

    assert (await send(signatory, http, body, headers)).json()["code"] == "signature_invalid"


async def test_stripped_of_its_signature_a_write_is_refused(
    signatory: Signatory, http: httpx.AsyncClient
) -> None:
    body = msgspec.json.encode(earning(await new_member(signatory.partner)))
    headers = await signatory.headers("POST", EARNINGS, body, key="k-1")
    del headers["tessera-signature"]

    answer = await send(signatory, http, body, headers)

    assert (answer.status_code, answer.json()["code"]) == (401, "signature_missing")
    assert answer.json()["request_signature"] == "sm2"


async def test_one_scheme_does_not_stand_in_for_the_other(
    signatory: Signatory, http: httpx.AsyncClient
) -> None:
    body = msgspec.json.encode(earning(await new_member(signatory.partner)))
    headers = await signatory.headers("POST", EARNINGS, body, key="k-1")
    del headers["tessera-signature"]
    headers |= signatory.partner.sign_request("POST", EARNINGS, headers, body)

    assert (await send(signatory, http, body, headers)).json()["code"] == "signature_missing"


@pytest.mark.parametrize("path", [EARNINGS, "/v1/redemptions"])
async def test_of_a_hundred_copies_of_a_nonce_one_succeeds(
    signatory: Signatory, http: httpx.AsyncClient, path: str
) -> None:
    member = await new_member(signatory.partner)
    body = msgspec.json.encode(
        earning(member) if path == EARNINGS else {"member": member, "reward": "x", "redemption_ref": "r-1"}
    )
    nonce = secrets.token_hex(16)
    requests = []
    for _ in range(100):
        key = str(uuid4())
        headers = await signatory.headers("POST", path, body, key=key, nonce=nonce)
        requests.append(http.post(path, content=body, headers={"content-type": "application/json"} | headers))

    answers = await asyncio.gather(*requests)

    refused = [answer for answer in answers if answer.status_code == 401]
    assert len(refused) == 99
    assert {answer.json()["code"] for answer in refused} == {"signature_invalid"}
    assert await available(signatory.partner, member) in ((1299,) if path == EARNINGS else (0,))


async def test_a_nonce_of_a_refused_write_stays_used(signatory: Signatory, http: httpx.AsyncClient) -> None:
    good = msgspec.json.encode(earning(await new_member(signatory.partner)))
    nonce = secrets.token_hex(16)
    answers = [
        await send(
            signatory, http, body, await signatory.headers("POST", EARNINGS, body, key="k-1", nonce=nonce)
        )
        for body in (b'{"no": "member"}', good)
    ]

    assert [answer.status_code for answer in answers] == [422, 401]
    assert answers[1].json()["code"] == "signature_invalid"


async def test_a_nonce_of_a_read_is_good_once(signatory: Signatory, http: httpx.AsyncClient) -> None:
    nonce = secrets.token_hex(16)
    answers = [
        await http.get("/v1/me", headers=await signatory.headers("GET", "/v1/me", b"", nonce=nonce))
        for _ in range(2)
    ]

    assert [answer.status_code for answer in answers] == [200, 401]
    assert answers[1].json()["code"] == "signature_invalid"


async def test_both_schemes_at_once_are_both_checked_and_both_answered(
    signatory: Signatory, http: httpx.AsyncClient
) -> None:
    body = msgspec.json.encode(earning(await new_member(signatory.partner)))
    headers = await signatory.headers("POST", EARNINGS, body, key="k-1")
    both = headers | signatory.partner.sign_request("POST", EARNINGS, headers, body)
    spoilt = await signatory.headers("POST", EARNINGS, body, key="k-1")
    spoilt |= {name: both[name] for name in ("signature", "signature-input", "content-digest")}

    answer = await send(signatory, http, body, both)

    assert answer.status_code == 201
    assert {"signature", "signature-input", "tessera-signature"} <= set(answer.headers)
    assert (await send(signatory, http, body, spoilt)).json()["code"] == "signature_invalid"


async def test_a_revoked_key_signs_nothing_and_never_returns(
    signatory: Signatory, http: httpx.AsyncClient, runtime: Runtime
) -> None:
    client_id, now = signatory.partner.credentials.client_id, runtime.clock.now()
    async with transaction(runtime.pool) as connection:
        app = await signatures.find_app_of_client(connection, client_id)
        await signatures.revoke_sm2_key(
            connection, app=app, serial_no=signatory.serial_no, actor="admin:test", now=now
        )
    runtime.verifier._directory.forget(client_id)
    body = msgspec.json.encode(earning(await new_member(signatory.partner)))

    answer = await send(signatory, http, body, await signatory.headers("POST", EARNINGS, body, key="k-1"))

    assert answer.json()["code"] == "signature_invalid"
    for serial_no in (signatory.serial_no, "another"):  # neither the number nor the key
        signatory.serial_no = serial_no
        with pytest.raises(KeyAlreadyRegistered):
            await signatory.register(runtime)


async def test_an_app_has_two_active_sm2_keys_at_most(signatory: Signatory, runtime: Runtime) -> None:
    await Signatory(signatory.partner, "sm2-2").register(runtime)
    with pytest.raises(KeyLimitReached):
        await Signatory(signatory.partner, "sm2-3").register(runtime)


async def test_a_server_without_sm2_says_so_and_does_nothing(
    signatory: Signatory, http: httpx.AsyncClient, runtime: Runtime
) -> None:
    signer, runtime.sm2_signer = runtime.sm2_signer, None
    try:
        body = msgspec.json.encode(earning(await new_member(signatory.partner)))
        headers = await signatory.headers("POST", EARNINGS, body, key="k-1")
        answer = await send(signatory, http, body, headers)
        keys = await http.get("/oauth2/sm2_keys")
    finally:
        runtime.sm2_signer = signer

    assert (answer.status_code, answer.json()["code"]) == (503, "sm2_off")
    assert keys.json() == {"keys": []}


async def test_an_answer_that_cannot_be_signed_in_time_is_unknown_and_found_again_under_its_key(
    signatory: Signatory, http: httpx.AsyncClient, runtime: Runtime
) -> None:
    class Unwell:
        serial_no = "bank"

        def sign(self, _text: bytes) -> bytes:
            raise sm2.Sm2Off

    member = await new_member(signatory.partner)
    body = msgspec.json.encode(earning(member))
    signer, runtime.sm2_signer = runtime.sm2_signer, Unwell()  # type: ignore[assignment]  # a fake
    try:
        unknown = await send(
            signatory, http, body, await signatory.headers("POST", EARNINGS, body, key="k-9")
        )
    finally:
        runtime.sm2_signer = signer
    again = await send(signatory, http, body, await signatory.headers("POST", EARNINGS, body, key="k-9"))

    assert (unknown.status_code, unknown.json()["code"]) == (503, "outcome_unknown")
    assert "x-request-id" in unknown.headers and "tessera-signature" not in unknown.headers
    assert (again.status_code, again.headers["idempotency-replayed"]) == (201, "true")
    assert await available(signatory.partner, member) == 1299


def test_a_jwk_of_the_curve_is_read_and_a_private_one_refused() -> None:
    x, y = (encode(half) for half in sm2.PrivateKey.generate().public().point)
    jwk = {"kty": "EC", "crv": "SM2", "x": x, "y": y}

    assert signatures.read_sm2_jwk(jwk).point == (decode(x), decode(y))
    with pytest.raises(PrivateKeySent):
        signatures.read_sm2_jwk(jwk | {"d": x})
    for changed in ({"crv": "P-256"}, {"x": "!"}, {"y": x}, {"x": x + "AA"}, {"kty": "OKP"}):
        with pytest.raises(sm2.Sm2KeyInvalid):
            signatures.read_sm2_jwk(jwk | changed)


def test_the_gateway_looks_at_nothing_but_the_configured_address(runtime: Runtime) -> None:
    scope = {
        "method": "GET",
        "path": "/v1/a b",
        "raw_path": b"/v1/a%20b?x=1",
        "query_string": b"x=1",
        "headers": [(b"host", b"attacker.example"), (b"x-forwarded-host", b"attacker.example")],
    }

    assert Signing(runtime)._request(scope, {}).target == f"{runtime.base_url}/v1/a%20b?x=1"
