"""The JWT part of the bypass list: each forgery as a client's assertion and as an access token, none is let in."""

from typing import Any

import httpx
import jwt
import pytest
from attacks.forgeries import FORGERIES, Good
from conformance.bank import ME, Bank, RelyingParty
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from partner_client import merge

#: these are not even read to their end
TOO_LONG = ("kid of 100,000 letters", "longer than 64 kB")
#: no header field can carry it
NO_FIELD = ("a line end",)


def signs(key: ec.EllipticCurvePrivateKey) -> Any:
    def sign(data: bytes) -> bytes:
        r, s = decode_dss_signature(key.sign(data, ec.ECDSA(SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    return sign


def good_assertion(party: RelyingParty) -> Good:
    now = party.bank.clock.now()
    return Good(
        header={"alg": "ES256", "typ": "JWT", "kid": party.keys.kid},
        claims=party.keys.claims(now),
        sign=signs(party.keys.key),
        public=party.keys.key.public_key(),
        moment=int(now.timestamp()),
    )


@pytest.fixture(scope="module")
async def token(party: RelyingParty) -> str:
    return await party.token()


def good_token(bank: Bank, token: str) -> Good:
    """What only the bank can sign, with its key in the attacker's hands: what is left must do."""
    private = bank.runtime.signer._active.private
    return Good(
        header=jwt.get_unverified_header(token),
        claims=jwt.decode(token, options={"verify_signature": False}),
        sign=signs(private),
        public=private.public_key(),
        moment=int(bank.clock.now().timestamp()),
    )


async def ask(party: RelyingParty, assertion: str) -> httpx.Response:
    return await party.ask_token(client_assertion=assertion)


async def call(party: RelyingParty, token: str) -> httpx.Response:
    proof = party.proof("GET", ME, token=token) if token.isascii() else party.proof("GET", ME)
    headers = [(b"Authorization", b"DPoP " + token.encode()), (b"DPoP", proof.encode())]
    return await party.bank.http.get(ME, headers=headers)


async def test_what_the_forgeries_are_made_of_is_good(bank: Bank, party: RelyingParty, token: str) -> None:
    assert (await ask(party, good_assertion(party).make())).status_code == 200
    assert (await call(party, good_token(bank, token).make())).status_code == 200


@pytest.mark.parametrize("name", FORGERIES)
async def test_attack_01_a_forged_assertion_is_nobodys(party: RelyingParty, name: str) -> None:
    answer = await ask(party, FORGERIES[name](good_assertion(party)))
    if name in TOO_LONG:
        assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    else:
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


@pytest.mark.parametrize("name", [name for name in FORGERIES if name not in NO_FIELD])
async def test_attack_01_a_forged_access_token_opens_nothing(
    bank: Bank, party: RelyingParty, token: str, name: str
) -> None:
    answer = await call(party, FORGERIES[name](good_token(bank, token)))
    if name in TOO_LONG:
        assert answer.status_code in (400, 401, 431)
    else:
        assert (answer.status_code, answer.json()["code"]) == (401, "invalid_token")


async def test_attack_02_what_was_signed_for_something_else_is_no_access_token(
    bank: Bank, party: RelyingParty, token: str
) -> None:
    good, signer = good_token(bank, token), bank.runtime.signer
    for other in (
        party.assertion(),
        party.proof("GET", ME, token=token),
        party.assertion(headers={"typ": "oauth-authz-req+jwt"}),
        *(signer.sign(good.claims, typ=typ) for typ in ("JWT", "quote+jwt", "seal+jwt", "logout+jwt")),
        signer.sign(merge(good.claims, {"aud": party.client_id}), typ="JWT"),
    ):
        answer = await call(party, other)
        assert (answer.status_code, answer.json()["code"]) == (401, "invalid_token")


async def test_attack_02_an_access_token_or_a_proof_is_no_assertion(party: RelyingParty, token: str) -> None:
    request_object = party.assertion(headers={"typ": "oauth-authz-req+jwt"})
    for other in (token, party.proof("POST", "/oauth2/token"), request_object):
        answer = await ask(party, other)
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


async def test_attack_01_the_token_of_one_with_the_key_of_another(
    party: RelyingParty, stranger: RelyingParty, token: str
) -> None:
    answer = await stranger.call(token, proofs=[stranger.proof("GET", ME, token=token)])
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_dpop_proof")
    now = party.bank.clock.now()
    borrowed = stranger.keys.assertion(now, iss=party.client_id, sub=party.client_id)
    swapped = stranger.keys.assertion(now, sub=party.client_id)
    for assertion in (borrowed, swapped):
        answer = await ask(party, assertion)
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
