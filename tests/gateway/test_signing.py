"""Signed requests and answers through the whole gateway: what must be signed, what spoils a signature, what an answer proves.

The signatures of these tests are made and verified by http-message-signatures, which nobody here wrote; `strict_partner`
(tests/gateway/conftest.py) is an app whose policy demands them, as the sandbox's strict/ecommerce.json is one over HTTP.
"""

import asyncio
import base64
import hashlib
import re
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import httpx
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from http_message_signatures import (
    ContentDigest,
    HTTPMessageSigner,
    HTTPMessageVerifier,
    InvalidSignature,
    MappingKeyResolver,
    algorithms,
)
from jwt import PyJWK

from gateway.client import PartnerClient
from gateway.credentials import SigningKey
from gateway.requests import Passage, Signed
from gateway.runtime import Runtime
from gateway.signing import Signing
from kernel.database import transaction
from partners.oauth.http_signature import Request
from partners.registry import service as registry

from .test_edge import available, earning, new_member

EARNINGS = "/v1/points/earnings"
QUOTES = "/v1/quotes"
COVERED = ("@method", "@target-uri", "authorization", "dpop", "content-digest", "idempotency-key")


class Unchecked(ContentDigest):
    """Signs whatever Content-Digest there is, good or bad."""

    @classmethod
    def prepare(cls, headers: Any, body: bytes | None, *, use_existing_digest: bool) -> None:
        """Nothing."""


class Signer(HTTPMessageSigner):
    """The library's, without its scruples."""

    content_digest_class = Unchecked


class Call:
    """One request of a partner, signed by a library of other people, and spoilt by a test."""

    def __init__(
        self, partner: PartnerClient, *, method: str, path: str, body: bytes, key: str | None
    ) -> None:
        self.partner = partner
        self.method, self.path, self.body = method, path, body
        self.url = partner.credentials.base_url + path
        self.headers: dict[str, str] = {} if key is None else {"idempotency-key": key}
        self.private: Any = SigningKey.read(partner.credentials.private_jwk)._key
        self.algorithm: Any = algorithms.ECDSA_P256_SHA256

    async def prove(self) -> None:
        token, token_hash = await self.partner._current_token()
        self.headers |= {
            "authorization": f"DPoP {token}",
            "dpop": self.partner.make_proof(self.method, self.path, token_hash=token_hash),
        }
        if self.body:
            self.headers["content-type"] = "application/json"
            self.headers["content-digest"] = _digest("sha-256", self.body)

    def sign(
        self,
        *,
        without: tuple[str, ...] = (),
        also: tuple[str, ...] = (),
        created: int | None = None,
        label: str = "sig1",
        tag: str | None = "fapi-2-request",
        keyid: str | None = None,
        include_alg: bool = True,
        expires: int | None = None,
        append: bool = False,
    ) -> None:
        names = [name for name in COVERED if name.startswith("@") or name in self.headers]
        keyid = keyid or self.partner.credentials.kid
        signer = Signer(
            signature_algorithm=self.algorithm,
            key_resolver=MappingKeyResolver(public_keys={}, private_keys={keyid: self.private}),
        )
        message = SimpleNamespace(method=self.method, url=self.url, headers=self.headers)
        signer.sign(
            message,
            key_id=keyid,
            created=None if created is None else datetime.fromtimestamp(created, UTC),
            expires=None if expires is None else datetime.fromtimestamp(expires, UTC),
            label=label,
            tag=tag,
            include_alg=include_alg,
            covered_component_ids=[*(name for name in names if name not in without), *also],
            append_if_signature_exists=append,
        )
        self.headers = {name.lower(): value for name, value in self.headers.items()}

    async def send(self, http: httpx.AsyncClient, **changes: str) -> httpx.Response:
        headers = [
            (name.encode(), value.encode("latin-1")) for name, value in (self.headers | changes).items()
        ]
        return await http.request(self.method, self.path, content=self.body, headers=headers)


async def _earning(partner: PartnerClient, member: str) -> Call:
    call = Call(
        partner,
        method="POST",
        path=EARNINGS,
        body=msgspec.json.encode(earning(member)),
        key=str(uuid4()),
    )
    await call.prove()
    return call


def _digest(name: str, body: bytes) -> str:
    digest = hashlib.new(name.replace("-", ""), body).digest()
    return f"{name}=:{base64.b64encode(digest).decode()}:"


def _verify_answer(call: Call, answer: httpx.Response, jwks: dict[str, Any]) -> Any:
    """What a careful partner does with an answer, by the library."""
    keys = {key["kid"]: PyJWK(key, "ES256").key for key in jwks["keys"]}
    request = SimpleNamespace(method=call.method, url=call.url, headers=call.headers)
    message = SimpleNamespace(
        status_code=answer.status_code, headers=dict(answer.headers), request=request, url=call.url
    )
    verifier = HTTPMessageVerifier(
        signature_algorithm=algorithms.ECDSA_P256_SHA256,
        key_resolver=MappingKeyResolver(public_keys=keys, private_keys={}),
    )
    (result,) = verifier.verify(
        message,
        expect_tag="fapi-2-response",
        require_components=(
            '"@status"',
            '"content-digest"',
            '"@method";req',
            '"@target-uri";req',
            '"signature";req',
            '"signature-input";req',
        ),
        body=answer.content,
    )
    return result


async def _jwks(http: httpx.AsyncClient) -> dict[str, Any]:
    return dict((await http.get("/oauth2/jwks")).json())


async def test_a_write_signed_by_a_library_of_other_people_is_done_and_its_answer_verifies(
    strict_partner: PartnerClient, http: httpx.AsyncClient
) -> None:
    call = await _earning(strict_partner, await new_member(strict_partner))
    call.sign()

    answer = await call.send(http)

    assert answer.status_code == 201
    result = _verify_answer(call, answer, await _jwks(http))
    assert '"content-digest";req' in result.covered_components
    assert result.parameters["keyid"] in {key["kid"] for key in (await _jwks(http))["keys"]}


@pytest.mark.parametrize("spoilt", ["status", "body", "request"])
async def test_an_answer_that_was_changed_does_not_verify(
    strict_partner: PartnerClient, http: httpx.AsyncClient, spoilt: str
) -> None:
    call = await _earning(strict_partner, await new_member(strict_partner))
    call.sign()
    answer = await call.send(http)
    if spoilt == "status":
        answer.status_code = 200
    elif spoilt == "body":
        answer._content = answer.content.replace(b"1299", b"9999")
    else:
        call.headers["signature"] = call.headers["signature"].replace("sig1", "sig2")

    with pytest.raises(InvalidSignature):
        _verify_answer(call, answer, await _jwks(http))


async def test_a_replayed_answer_gets_a_fresh_signature(
    strict_partner: PartnerClient, http: httpx.AsyncClient
) -> None:
    first = await _earning(strict_partner, await new_member(strict_partner))
    first.sign()
    second = Call(
        strict_partner, method="POST", path=EARNINGS, body=first.body, key=first.headers["idempotency-key"]
    )
    await second.prove()
    second.sign()

    done, again = await first.send(http), await second.send(http)

    assert again.headers["idempotency-replayed"] == "true"
    assert again.content == done.content
    assert again.headers["signature"] != done.headers["signature"]
    _verify_answer(second, again, await _jwks(http))


async def test_a_refusal_of_a_signed_request_is_signed_too(
    strict_partner: PartnerClient, http: httpx.AsyncClient
) -> None:
    call = await _earning(strict_partner, "nobody")
    call.sign()

    answer = await call.send(http)

    assert answer.status_code == 404
    _verify_answer(call, answer, await _jwks(http))


Spoil = Callable[[Call], Any]


def _after(spoil: Spoil, **signed: Any) -> Spoil:
    def do(call: Call) -> None:
        call.sign(**signed)
        spoil(call)

    return do


def _signed(**how: Any) -> Spoil:
    return lambda call: call.sign(**how)


def _set(name: str, value: str) -> Spoil:
    return lambda call: call.headers.__setitem__(name, value)


def _before(spoil: Spoil, **signed: Any) -> Spoil:
    def do(call: Call) -> None:
        spoil(call)
        call.sign(**signed)

    return do


def _input(pattern: str, new: str) -> Spoil:
    def do(call: Call) -> None:
        changed = re.sub(pattern, new, call.headers["signature-input"])
        assert changed != call.headers["signature-input"]
        call.headers["signature-input"] = changed

    return do


def _drop(*names: str) -> Spoil:
    return lambda call: [call.headers.pop(name) for name in names]


def _body(call: Call) -> None:
    call.body = call.body.replace(b"129900", b"999900")


def _digest_of_the_changed_body(call: Call) -> None:
    _body(call)
    call.headers["content-digest"] = _digest("sha-256", call.body)


def _two(second: dict[str, Any]) -> Spoil:
    def do(call: Call) -> None:
        call.sign(label="good")
        call.sign(label="other", append=True, **second)

    return do


def _stranger(call: Call) -> None:
    call.private = ec.generate_private_key(ec.SECP256R1())
    call.sign()


def _proof_of_another_request(call: Call) -> None:
    token_hash = call.partner._token_hash
    call.headers["dpop"] = call.partner.make_proof(call.method, call.path, token_hash=token_hash)


def _present() -> int:
    return int(datetime.now(UTC).timestamp())


NOW = _present()

#: the name of an attack, and what it does to a good signed request
ATTACKS: dict[str, Spoil] = {
    "stripped-altogether": lambda call: None,
    "stripped-of-signature": _after(_drop("signature")),
    "stripped-of-signature-input": _after(_drop("signature-input")),
    "body-changed": _after(_body),
    "body-and-digest-changed": _after(_digest_of_the_changed_body),
    "digest-not-covered": _signed(without=("content-digest",)),
    "digest-dropped": _before(_drop("content-digest")),
    "digest-of-md5": _before(lambda call: call.headers.update({"content-digest": _digest("md5", call.body)})),
    "digest-of-md5-beside-a-good-one": _before(
        lambda call: call.headers.update(
            {"content-digest": f"{_digest('sha-256', call.body)}, {_digest('md5', call.body)}"}
        )
    ),
    "digest-good-beside-a-false-one": _before(
        lambda call: call.headers.update(
            {"content-digest": f"{_digest('sha-256', call.body)}, {_digest('sha-512', b'x')}"}
        )
    ),
    "digest-empty": _before(_set("content-digest", "")),
    "digest-as-text": _before(_set("content-digest", 'sha-256="x"')),
    "digest-named-twice": _before(
        lambda call: call.headers.update(
            {"content-digest": f"{_digest('sha-256', b'x')}, {_digest('sha-256', call.body)}"}
        )
    ),
    "method-not-covered": _signed(without=("@method",)),
    "target-not-covered": _signed(without=("@target-uri",)),
    "authorization-not-covered": _signed(without=("authorization",)),
    "dpop-not-covered": _signed(without=("dpop",)),
    "idempotency-key-not-covered": _signed(without=("idempotency-key",)),
    "idempotency-key-changed": _after(_set("idempotency-key", "another")),
    "proof-exchanged": _after(_proof_of_another_request),
    "other-target": _before(lambda call: setattr(call, "url", call.url.replace("earnings", "holds"))),
    "target-of-another-host": _before(lambda call: setattr(call, "url", f"https://bank.example{call.path}")),
    "query-added": _after(lambda call: setattr(call, "path", f"{call.path}?x=1")),
    "too-old": _signed(created=NOW - 3_600),
    "from-the-future": _signed(created=NOW + 3_600),
    "expired": _signed(expires=NOW - 3_600),
    "created-missing": _after(_input(r";created=\d+", "")),
    "created-rewritten": _after(_input(r";created=\d+", f";created={NOW + 1_000}")),
    "created-as-text": _after(_input(r";created=(\d+)", r';created="\1"')),
    "tag-missing": _signed(tag=None),
    "tag-of-an-answer": _signed(tag="fapi-2-response"),
    "tag-in-capitals": _signed(tag="FAPI-2-REQUEST"),
    "tag-as-a-token": _after(_input(r'tag="fapi-2-request"', "tag=fapi-2-request")),
    "keyid-unknown": _signed(keyid="nobody"),
    "keyid-missing": _after(_input(r';keyid="[^"]*"', "")),
    "keyid-with-a-path": _signed(keyid="../../etc/passwd"),
    "key-of-a-stranger": _stranger,
    "alg-switched-to-hmac": _after(_input(r'alg="[^"]*"', 'alg="hmac-sha256"')),
    "alg-switched-to-rsa": _after(_input(r'alg="[^"]*"', 'alg="rsa-pss-sha512"')),
    "alg-none": _after(_input(r'alg="[^"]*"', 'alg="none"')),
    "parameter-unknown": _after(_input(r";created", ";crit=1;created")),
    "component-taken-away": _after(_input(r'"dpop" ', "")),
    "component-twice": _after(_input(r'"dpop" ', '"dpop" "dpop" ')),
    "component-with-a-parameter": _after(_input(r'"dpop"', '"dpop";sf')),
    "component-of-the-answer": _after(_input(r'"dpop" ', '"dpop" "@status" ')),
    "component-that-is-not-there": _after(_input(r'"dpop" ', '"dpop" "x-none" ')),
    "component-in-capitals": _after(_input(r'"dpop"', '"DPoP"')),
    "second-of-our-tag-by-a-stranger": _two({"keyid": "nobody"}),
    "second-of-our-tag-too-old": _two({"created": NOW - 3_600}),
    "second-of-our-tag-covers-nothing": _two({"without": COVERED, "also": ("content-type",)}),
    "labels-differ": _after(
        lambda call: call.headers.update(signature=call.headers["signature"].replace("sig1", "sig2"))
    ),
    "label-twice": _after(
        lambda call: call.headers.update(
            {
                "signature": f"{call.headers['signature']}, {call.headers['signature']}",
                "signature-input": f"{call.headers['signature-input']}, {call.headers['signature-input']}",
            }
        )
    ),
    "signature-empty": _after(_set("signature", "sig1=::")),
    "signature-as-text": _after(_set("signature", 'sig1="x"')),
    "signature-in-der": _after(
        lambda call: call.headers.update(
            signature=f"sig1=:{base64.b64encode(call.private.sign(b'x', ec.ECDSA(algorithms.ECDSA_P256_SHA256._hash()))).decode()}:"
        )
    ),
    "signature-input-is-no-list": _after(_set("signature-input", 'sig1="@method";tag="fapi-2-request"')),
    "nine-signatures": _after(
        lambda call: call.headers.update(
            {
                name: ", ".join(call.headers[name].replace("sig1", f"s{number}") for number in range(9))
                for name in ("signature", "signature-input")
            }
        )
    ),
    "too-long": _after(_set("signature-input", "a" * 9_000)),
    "not-ascii": _after(_set("signature-input", "\xe4=()")),
    "not-a-structured-field": _after(_set("signature-input", "((((")),
}


@pytest.mark.parametrize("name", ATTACKS)
async def test_a_request_whose_signature_was_tampered_with_does_nothing(
    strict_partner: PartnerClient, http: httpx.AsyncClient, name: str
) -> None:
    member = await new_member(strict_partner)
    call = await _earning(strict_partner, member)
    ATTACKS[name](call)

    answer = await call.send(http)

    expected = "signature_missing" if name == "stripped-altogether" else "signature_invalid"
    assert (answer.status_code, answer.json()["code"]) == (401, expected), answer.json()
    assert f'error="{expected}"' in answer.headers["www-authenticate"]
    assert "signature" not in answer.headers, "nobody is told anything in the bank's name"
    assert await available(strict_partner, member) == 0
    again = await _earning(strict_partner, member)
    again.headers["dpop"] = call.headers["dpop"]
    again.sign()
    assert (await again.send(http)).json()["code"] == "invalid_dpop_proof", "its proof stays used"


@pytest.mark.parametrize(
    "good",
    [
        pytest.param(_signed(include_alg=False), id="without an algorithm: the key's own"),
        pytest.param(_signed(also=("content-type", "@authority", "@path")), id="covering more"),
        pytest.param(_two({"tag": "proxy", "keyid": "nobody"}), id="beside another's of another tag"),
        pytest.param(_two({}), id="twice"),
        pytest.param(lambda call: call.sign(created=_present() + 5), id="a clock a little ahead"),
        pytest.param(
            _before(lambda call: call.headers.update({"content-digest": _digest("sha-512", call.body)})),
            id="with a digest of sha-512",
        ),
    ],
)
async def test_what_the_profile_leaves_open_is_taken(
    strict_partner: PartnerClient, http: httpx.AsyncClient, good: Spoil
) -> None:
    call = await _earning(strict_partner, await new_member(strict_partner))
    good(call)

    assert (await call.send(http)).status_code == 201


async def test_the_host_header_has_no_say_in_what_was_signed(
    strict_partner: PartnerClient, http: httpx.AsyncClient
) -> None:
    call = await _earning(strict_partner, await new_member(strict_partner))
    call.url = f"http://attacker.example{EARNINGS}"
    call.sign()

    answer = await call.send(http, host="attacker.example")

    assert answer.json()["code"] == "signature_invalid"


async def test_a_key_of_another_partner_signs_nothing(
    strict_partner: PartnerClient, register: Any, http: httpx.AsyncClient, runtime: Runtime
) -> None:
    other = await register("points:earn")
    key = SigningKey.generate()
    async with transaction(runtime.pool) as connection:
        client = await registry.find_client(connection, other.credentials.client_id)
        assert client is not None
        jwk = key.public_jwk | {"kid": "of-the-other", "alg": "ES256"}
        await registry.add_key(connection, app_id=client.app_id, jwk=jwk, now=runtime.clock.now())
    call = await _earning(strict_partner, await new_member(strict_partner))
    call.private = key._key
    call.sign(keyid="of-the-other")

    assert (await call.send(http)).json()["code"] == "signature_invalid"


async def test_an_app_without_the_policy_need_not_sign_but_what_it_signs_is_checked(
    partner: PartnerClient, http: httpx.AsyncClient
) -> None:
    member = await new_member(partner)
    bare, good, bad = [await _earning(partner, member) for _ in range(3)]
    good.sign()
    bad.sign()
    _body(bad)

    assert [(await call.send(http)).status_code for call in (bare, good, bad)] == [201, 201, 401]


async def test_reads_and_writes_of_a1_need_no_signature_but_it_is_checked_and_answered(
    strict_partner: PartnerClient, http: httpx.AsyncClient
) -> None:
    strict_partner._sign_requests = False
    assert (await strict_partner.get("/v1/me"))["status"] == "live"
    member = await new_member(strict_partner)  # a POST of level A1
    call = Call(strict_partner, method="GET", path=f"/v1/members/{member}/points", body=b"", key=None)
    await call.prove()
    call.sign()

    answer = await call.send(http)

    assert answer.status_code == 200
    _verify_answer(call, answer, await _jwks(http))
    await call.prove()
    assert (await call.send(http)).json()["code"] == "signature_invalid", "made for another proof"


async def test_what_may_not_be_done_at_all_is_said_before_a_signature_is_asked_for(
    register: Any, http: httpx.AsyncClient
) -> None:
    partner = await register("members:read", request_signature="fapi")
    call = Call(partner, method="POST", path=EARNINGS, body=b"{}", key=str(uuid4()))
    await call.prove()

    assert (await call.send(http)).json()["code"] == "insufficient_scope"


async def test_a_route_that_is_not_hot_asks_for_a_signature_as_well(
    strict_partner: PartnerClient, http: httpx.AsyncClient
) -> None:
    call = Call(strict_partner, method="POST", path=QUOTES, body=b"{}", key=str(uuid4()))
    await call.prove()

    assert (await call.send(http)).json()["code"] == "signature_missing"


async def test_a_stream_whose_end_is_not_known_goes_unsigned(runtime: Runtime) -> None:
    passage = Passage(request_id="req_1", base_url=runtime.base_url, now=runtime.clock.now())
    request = Request(method="GET", origin="http://bank", path="/", query="", fields={})
    passage.signed = Signed(request=request, schemes=frozenset(("fapi",)))
    start = {"type": "http.response.start", "status": 200, "headers": []}
    piece = {"type": "http.response.body", "body": b"line", "more_body": True}

    assert await Signing(runtime).answer(passage, start, piece) == (start, piece)


async def test_our_own_client_signs_when_asked_to(strict_partner: PartnerClient) -> None:
    member = await new_member(strict_partner)

    assert (await strict_partner.post(EARNINGS, earning(member)))["points"] == 1299


async def test_of_a_hundred_copies_of_a_signed_request_one_is_done(
    strict_partner: PartnerClient, http: httpx.AsyncClient
) -> None:
    member = await new_member(strict_partner)
    call = await _earning(strict_partner, member)
    call.sign()

    answers = await asyncio.gather(*(call.send(http) for _ in range(100)))

    assert sorted(answer.status_code for answer in answers) == [201] + [401] * 99
    assert await available(strict_partner, member) == 1299
