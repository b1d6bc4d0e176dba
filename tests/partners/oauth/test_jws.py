"""Signatures are taken apart strictly."""

import json
from typing import Any

import jwt
import pytest
from msgspec import Struct
from partner_client import b64, forge, generate, private_jwk, public_jwk

from partners.oauth.jws import LENGTH_MAX, JwsInvalid, convert, parse
from partners.oauth.model import AssertionClaims, OneTimeId, Seconds
from partners.registry.jwk import read_jwk

ES256 = {"alg": "ES256"}


@pytest.mark.parametrize("alg", ["ES256", "PS256", "EdDSA"])
def test_what_another_library_signed_verifies(alg: str) -> None:
    key, other = generate(alg), generate(alg)
    jws = parse(jwt.encode({"sub": "x"}, key, algorithm=alg, headers={"kid": "k"}))
    assert (jws.claims, jws.header.kid) == ({"sub": "x"}, "k")
    assert read_jwk(public_jwk(alg, key)).verifies(jws.signature, jws.signed)
    assert not read_jwk(public_jwk(alg, other)).verifies(jws.signature, jws.signed)
    assert not read_jwk(public_jwk(alg, key)).verifies(jws.signature, jws.signed + b"x")
    for signature in (b"", jws.signature[:-1], jws.signature + b"\0", bytes(len(jws.signature))):
        assert not read_jwk(public_jwk(alg, key)).verifies(signature, jws.signed)


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        pytest.param("", "compact", id="empty"),
        pytest.param("a.b", "compact", id="two parts"),
        pytest.param("a.b.c.d", "compact", id="four parts"),
        pytest.param("é.é.é", "compact", id="not ASCII"),
        pytest.param("a" * (LENGTH_MAX + 1), "longer", id="too long"),
        pytest.param(forge(ES256, {}) + "=", "base64url", id="padding"),
        pytest.param(f"{b64(b'{')}.{b64(b'{}')}.", "not JSON", id="broken JSON"),
        pytest.param(f"{b64(bytes([0xFF]))}.{b64(b'{}')}.", "not JSON", id="not UTF-8"),
        pytest.param(forge("[" * 5000, {}), "not JSON", id="deep"),
        pytest.param(forge(ES256, "9" * 5000), "not JSON", id="endless number"),
        pytest.param(forge("[]", {}), "object", id="list for a header"),
        pytest.param(forge(ES256, '"x"'), "object", id="text for claims"),
        pytest.param(forge('{"alg":"ES256","alg":"none"}', {}), "twice", id="alg twice"),
        pytest.param(forge(ES256, '{"sub":"a","sub":"b"}'), "twice", id="sub twice"),
        pytest.param(forge(ES256, '{"a":{"b":1,"b":2}}'), "twice", id="nested member twice"),
        pytest.param(forge(ES256, '{"exp":NaN}'), "number", id="NaN"),
        pytest.param(forge(ES256, '{"exp":Infinity}'), "number", id="infinity"),
        pytest.param(forge({}, {}), "alg", id="no alg"),
        pytest.param(forge({"alg": "none"}, {}), "alg", id="none"),
        pytest.param(forge({"alg": "HS256"}, {}), "alg", id="HS256"),
        pytest.param(forge({"alg": "RS256"}, {}), "alg", id="RS256"),
        pytest.param(forge({"alg": "es256"}, {}), "alg", id="alg in lower case"),
        pytest.param(forge({"alg": ["ES256"]}, {}), "alg", id="list for alg"),
        pytest.param(forge({**ES256, "typ": 1}, {}), "type", id="number for typ"),
        pytest.param(forge({**ES256, "kid": {}}, {}), "type", id="object for kid"),
        pytest.param(forge({**ES256, "jwk": "x"}, {}), "type", id="text for jwk"),
        *(
            pytest.param(forge({**ES256, name: []}, {}), name, id=name)
            for name in ("crit", "jku", "x5u", "x5c", "b64")
        ),
        pytest.param(
            forge({**ES256, "jwk": private_jwk("ES256", generate("ES256"))}, {}), "private", id="private jwk"
        ),
        pytest.param(
            forge({**ES256, "jwk": public_jwk("EdDSA", generate("EdDSA"))}, {}),
            "fit",
            id="jwk of another alg",
        ),
        pytest.param(forge({**ES256, "jwk": {"kty": "oct"}}, {}), "EC on P-256", id="secret for jwk"),
    ],
)
def test_anything_else_is_refused(token: str, reason: str) -> None:
    with pytest.raises(JwsInvalid, match=reason):
        parse(token)


class Times(Struct, frozen=True):
    at: Seconds
    id: OneTimeId = "x"


@pytest.mark.parametrize(
    "claims",
    [
        {"at": True},
        {"at": "1"},
        {"at": -1},
        {"at": 10**400},
        {"at": float("inf")},
        {"at": 1, "id": ""},
        {"at": 1, "id": "x" * 129},
        {"at": 1, "id": "a\0"},
        {"at": 1, "id": "\ud800"},
        {"at": 1, "id": "x\n"},
        {"at": 1, "id": 7},
        {},
    ],
    ids=str,
)
def test_claims_have_their_types_and_bounds(claims: dict[str, Any]) -> None:
    with pytest.raises(JwsInvalid, match="claims are wrong"):
        convert(claims, Times)


def test_times_may_have_fractions() -> None:
    assert convert(json.loads('{"at": 1.5}'), Times).at == 1.5
    assert convert({"iss": "a", "sub": "a", "aud": [], "exp": 1, "jti": "j"}, AssertionClaims).iat is None
