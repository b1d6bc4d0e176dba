"""The DPoP part of the bypass list: each thing that may be wrong with a proof, by name, and none is let in."""

import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any

import httpx
import jwt
import pytest
from attacks.forgeries import as_der, pair
from conformance.bank import ISSUER, ME, TOKEN, RelyingParty
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from partner_client import DROP, b64, forge, generate, merge, public_jwk

Change = dict[str, Any]


@pytest.fixture(scope="module")
async def token(party: RelyingParty) -> str:
    return await party.token()


def parts(party: RelyingParty, token: str | None) -> tuple[Change, Change]:
    """Header and claims of a good proof for reading about oneself."""
    proof = party.proof("GET", ME, token=token)
    return jwt.get_unverified_header(proof), jwt.decode(proof, options={"verify_signature": False})


def seal(party: RelyingParty, header: Any, claims: Any, key: Any = None) -> str:
    text = forge(header, claims).rpartition(".")[0]
    return f"{text}.{b64(raw(key or party.keys.proof_key, text.encode()))}"


def raw(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    return pair(*decode_dss_signature(key.sign(data, ec.ECDSA(SHA256()))))


def digest(token: str) -> str:
    return b64(hashlib.sha256(token.encode()).digest())


async def call(party: RelyingParty, token: str, *proofs: str, **more: Any) -> httpx.Response:
    headers = [("Authorization", f"DPoP {token}"), *(("DPoP", proof) for proof in proofs)]
    return await party.bank.http.get(more.pop("path", ME), headers=[*headers, *more.pop("headers", [])])


def refused(answer: httpx.Response, code: str = "invalid_dpop_proof") -> None:
    assert (answer.status_code, answer.json()["code"]) == (401, code), answer.text
    assert answer.headers["www-authenticate"].startswith("DPoP ")


#: claims of a proof for GET https://bank.example/v1/me, of a moment that is added
CLAIMS: dict[str, Change] = {
    "htm in small letters": {"htm": "get"},
    "htm of another method": {"htm": "POST"},
    "htm HEAD": {"htm": "HEAD"},
    "htm with a space": {"htm": "GET "},
    "htm is a list": {"htm": ["GET"]},
    "htm is empty": {"htm": ""},
    "htu with a slash at the end": {"htu": f"{ISSUER}{ME}/"},
    "htu with a slash in capitals of percent": {"htu": f"{ISSUER}/v1%2Fme"},
    "htu with an encoded letter": {"htu": f"{ISSUER}/v1/%6De"},
    "htu with a dot segment": {"htu": f"{ISSUER}/v1/./me"},
    "htu with a step back": {"htu": f"{ISSUER}/v1/keys/../me"},
    "htu with two slashes": {"htu": f"{ISSUER}//v1/me"},
    "htu with the path in capitals": {"htu": f"{ISSUER}/V1/ME"},
    "htu of a shorter path": {"htu": f"{ISSUER}/v1"},
    "htu of a longer path": {"htu": f"{ISSUER}{ME}/keys"},
    "htu of another host": {"htu": f"https://evil.example{ME}"},
    "htu of a longer host": {"htu": f"{ISSUER}.evil.example{ME}"},
    "htu with a dot after the host": {"htu": f"{ISSUER}.{ME}"},
    "htu with a user": {"htu": f"https://bank.example@evil.example{ME}"},
    "htu with the bank for a user": {"htu": f"https://evil@bank.example{ME}"},
    "htu of another scheme": {"htu": f"http://bank.example{ME}"},
    "htu of another port": {"htu": f"https://bank.example:8443{ME}"},
    "htu with port 80": {"htu": f"https://bank.example:80{ME}"},
    "htu with backslashes": {"htu": "https:\\\\bank.example\\v1\\me"},
    "htu without a host": {"htu": ME},
    "htu with a NUL": {"htu": f"{ISSUER}{ME}\0"},
    "htu with a line end": {"htu": f"{ISSUER}{ME}\n"},
    "htu is a list": {"htu": [f"{ISSUER}{ME}"]},
    "ath is missing": {"ath": DROP},
    "ath of another token": {"ath": digest("another")},
    "ath is empty": {"ath": ""},
    "ath with padding": {"ath": "="},
    "ath in hexadecimal": {"ath": hashlib.sha256(b"x").hexdigest()},
    "jti is missing": {"jti": DROP},
    "jti is empty": {"jti": ""},
    "jti is a number": {"jti": 1},
    "jti of 129 letters": {"jti": "x" * 129},
    "jti with a NUL": {"jti": "a\0b"},
    "iat is missing": {"iat": DROP},
    "iat is a text": {"iat": "now"},
    "iat is negative": {"iat": -1},
    "iat is 1e308": {"iat": 1e308},
    "exp has passed": {"exp": 1_700_000_000},
    "nbf has not come": {"nbf": 4_000_000_000},
}


@pytest.mark.parametrize("name", CLAIMS)
async def test_attack_04_a_proof_that_claims_anything_else_is_refused(
    party: RelyingParty, token: str, name: str
) -> None:
    header, claims = parts(party, token)
    refused(await call(party, token, seal(party, header, merge(claims, CLAIMS[name]))))


@pytest.mark.parametrize("seconds", [-3600, -61, 31, 61, 3600])
async def test_attack_04_a_proof_of_another_time_is_refused(
    party: RelyingParty, token: str, seconds: int
) -> None:
    header, claims = parts(party, token)
    refused(await call(party, token, seal(party, header, claims | {"iat": claims["iat"] + seconds})))


HEADERS: dict[str, Change] = {
    "typ is missing": {"typ": DROP},
    "typ JWT": {"typ": "JWT"},
    "typ of an access token": {"typ": "at+jwt"},
    "typ in full": {"typ": "application/dpop+jwt"},
    "jwk is missing": {"jwk": DROP},
    "jwk is a text": {"jwk": "key"},
    "jwk is empty": {"jwk": {}},
    "jwk is a secret": {"jwk": {"kty": "oct", "k": "c2VjcmV0"}},
    "a kid in place of the key": {"jwk": DROP, "kid": "k1"},
    "jku": {"jku": "https://evil.example/keys"},
    "x5c": {"x5c": ["MIIB"]},
    "crit": {"crit": ["exp"]},
    "b64": {"b64": True},
    "alg none": {"alg": "none"},
    "alg HS256": {"alg": "HS256"},
    "alg RS256": {"alg": "RS256"},
    "alg that is not the key's": {"alg": "EdDSA"},
}


@pytest.mark.parametrize("name", HEADERS)
async def test_attack_04_a_proof_with_another_header_is_refused(
    party: RelyingParty, token: str, name: str
) -> None:
    header, claims = parts(party, token)
    refused(await call(party, token, seal(party, merge(header, HEADERS[name]), claims)))


Make = Callable[[RelyingParty, str], list[str]]


def by_hmac(party: RelyingParty, token: str) -> list[str]:
    header, claims = parts(party, token)
    text = forge(header | {"alg": "HS256"}, claims).rpartition(".")[0]
    return [f"{text}.{b64(hmac.digest(json.dumps(header['jwk']).encode(), text.encode(), 'sha256'))}"]


def in_der(party: RelyingParty, token: str) -> list[str]:
    text = forge(*parts(party, token)).rpartition(".")[0]
    return [
        f"{text}.{b64(as_der(*decode_dss_signature(party.keys.proof_key.sign(text.encode(), ec.ECDSA(SHA256())))))}"
    ]


def by_another_key(party: RelyingParty, token: str) -> list[str]:
    return [seal(party, *parts(party, token), key=generate("ES256"))]


def with_another_key(party: RelyingParty, token: str) -> list[str]:
    header, claims = parts(party, token)
    key = generate("ES256")
    return [seal(party, header | {"jwk": public_jwk("ES256", key)}, claims, key=key)]


def of_small_order(party: RelyingParty, token: str) -> list[str]:
    """Anybody's signature verifies with this key: the token is bound to another all the same."""
    header, claims = parts(party, token)
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": b64((1).to_bytes(32, "little"))}
    return [forge(header | {"alg": "EdDSA", "jwk": jwk}, claims, (1).to_bytes(32, "little") + bytes(32))]


def good(party: RelyingParty, token: str) -> str:
    return party.proof("GET", ME, token=token)


MAKES: dict[str, Make] = {
    "none at all": lambda _party, _token: [],
    "two different ones": lambda party, token: [good(party, token), good(party, token)],
    "the same one twice": lambda party, token: [good(party, token)] * 2,
    "two in one field": lambda party, token: [f"{good(party, token)}, {good(party, token)}"],
    "an empty one": lambda _party, _token: [""],
    "the access token": lambda _party, token: [token],
    "a client's assertion": lambda party, _token: [party.assertion()],
    "the proof of the token endpoint": lambda party, _token: [party.proof("POST", TOKEN)],
    "by HMAC with the public key": by_hmac,
    "with a signature in DER": in_der,
    "by another key than it shows": by_another_key,
    "by another key than the token's": with_another_key,
    "by a key of small order": of_small_order,
    "showing the private key": lambda party, token: [
        party.proof("GET", ME, token=token, headers={"jwk": party.private_proof_jwk})
    ],
    "without a signature": lambda party, token: [good(party, token).rpartition(".")[0] + "."],
}


@pytest.mark.parametrize("name", MAKES)
async def test_attack_04_what_is_no_single_good_proof_is_refused(
    party: RelyingParty, token: str, name: str
) -> None:
    refused(await call(party, token, *MAKES[name](party, token)))


async def test_attack_04_a_proof_for_one_path_is_none_for_another(party: RelyingParty, token: str) -> None:
    refused(await call(party, token, good(party, token), path="/v1/keys"))


@pytest.mark.parametrize(
    "headers",
    [
        [("Host", "evil.example")],
        [("X-Forwarded-Host", "evil.example")],
        [("X-Forwarded-Proto", "http"), ("X-Forwarded-Host", "evil.example")],
        [("Forwarded", "host=evil.example;proto=http")],
        [("X-Original-URL", "/v1/keys")],
        [("X-Rewrite-URL", "/v1/keys")],
    ],
    ids=lambda headers: headers[0][0],
)
async def test_attack_23_the_address_is_the_configured_one_whatever_a_header_says(
    party: RelyingParty, token: str, headers: list[tuple[str, str]]
) -> None:
    elsewhere = party.proof("GET", ME, token=token, htu="http://evil.example/v1/me")
    refused(await call(party, token, elsewhere, headers=headers))
    assert (await call(party, token, good(party, token), headers=headers)).status_code == 200


async def test_attack_04_a_jti_is_used_up_whatever_it_was_used_for(party: RelyingParty, token: str) -> None:
    assert (await call(party, token, party.proof("GET", ME, token=token, jti="once"))).status_code == 200
    elsewhere = party.proof("GET", "/v1/keys", token=token, jti="once")
    refused(await call(party, token, elsewhere, path="/v1/keys"))


async def test_attack_04_a_jti_stays_used_when_redis_has_forgotten_everything(
    party: RelyingParty, token: str
) -> None:
    nonce = party.bank.runtime.nonces.offered(party.bank.clock.now())
    proof = party.proof("POST", "/v1/keys", token=token, nonce=nonce)

    async def write() -> httpx.Response:
        headers = [("Authorization", f"DPoP {token}"), ("DPoP", proof), ("Content-Type", "application/json")]
        return await party.bank.http.post("/v1/keys", content=b'{"jwk":{}}', headers=headers)

    # The one-time proofs of writes are in PostgreSQL: this is refused for its content, and used up.
    assert (await write()).status_code == 422
    await party.bank.runtime.redis.flushdb()
    refused(await write())


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Basic", "MAC", "DPoP DPoP", "DPoP,"])
async def test_attack_04_a_bound_token_is_taken_under_no_other_scheme(
    party: RelyingParty, token: str, scheme: str
) -> None:
    for proofs in ([], [good(party, token)]):
        answer = await party.call(token, scheme=scheme, proofs=proofs)
        refused(answer, "invalid_token")


@pytest.mark.parametrize("place", ["query", "form", "cookie", "x-header"])
async def test_attack_04_a_token_is_read_from_the_header_alone(
    party: RelyingParty, token: str, place: str
) -> None:
    headers = {"DPoP": good(party, token)}
    headers |= {"Cookie": f"access_token={token}"} if place == "cookie" else {}
    headers |= {"X-Authorization": f"DPoP {token}"} if place == "x-header" else {}
    params = {"access_token": token} if place == "query" else {}
    body = f"access_token={token}".encode() if place == "form" else b""
    answer = await party.bank.http.request("GET", ME, params=params, content=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "token_missing")
