"""The modules about DPoP proofs: at the token endpoint and at the partner API, case by case."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import httpx
import jwt
import pytest
from conformance.bank import ISSUER, ME, TOKEN, Bank, RelyingParty
from conformance.plan import module
from partner_client import DROP, b64, forge, generate, merge, public_jwk


def accepted(answer: httpx.Response) -> None:
    assert answer.status_code == 200, answer.text


def refused(answer: httpx.Response) -> None:
    """RFC 9449 §7.1: 401, what is wrong, and which algorithms would be right."""
    assert answer.status_code == 401
    challenge = answer.headers["www-authenticate"]
    assert challenge.startswith("DPoP ") and 'error="invalid_dpop_proof"' in challenge
    assert 'algs="ES256 PS256 EdDSA"' in challenge
    assert answer.json()["code"] == "invalid_dpop_proof"


def moment(party: RelyingParty, seconds: int) -> int:
    return int(party.bank.clock.now().timestamp()) + seconds


@module("check-dpop-proof-nbf-exp", "DPOP-4.2", "RFC7519-4.1")
async def test_a_proof_may_say_from_when_to_when_it_holds(first: RelyingParty) -> None:
    life = {"nbf": moment(first, 0), "exp": moment(first, 300)}
    token = await first.token()
    accepted(await first.ask_token(proofs=[first.proof("POST", TOKEN, **life)]))
    accepted(await first.call(token, proofs=[first.proof("GET", ME, token=token, **life)]))


@module("ensure-dpopproof-with-iat-10seconds-before-succeeds", "DPOP-11.1")
async def test_a_clock_ten_seconds_behind_is_tolerated(first: RelyingParty) -> None:
    await off_by(-10, first)


@module("ensure-dpopproof-with-iat-10seconds-after-succeeds", "FAPI2-SP-FINAL-5.3.2.1-13")
async def test_a_clock_ten_seconds_ahead_is_tolerated(first: RelyingParty) -> None:
    await off_by(10, first)


async def off_by(seconds: int, party: RelyingParty) -> None:
    """A token and a call with proofs of a client whose clock is wrong."""
    token = await party.token()
    iat = moment(party, seconds)
    accepted(await party.ask_token(proofs=[party.proof("POST", TOKEN, iat=iat)]))
    accepted(await party.call(token, proofs=[party.proof("GET", ME, token=token, iat=iat)]))


@module("dpop-negative-tests")
@pytest.mark.parametrize("header", ["DPOP", "dpop", "dPoP"], ids="name of the header is {} DPOP-4.1".format)
async def test_the_case_of_the_headers_name_does_not_matter(header: str, first: RelyingParty) -> None:
    accepted(await first.call(await first.token(), header=header))


@module("dpop-negative-tests", "DPOP-7.1")
async def test_two_proofs_are_one_too_many(first: RelyingParty) -> None:
    token = await first.token()
    refused(await first.call(token, proofs=[first.proof("GET", ME, token=token) for _ in range(2)]))
    same = first.proof("GET", ME, token=token)
    refused(await first.call(token, proofs=[same, same]))


#: changes of claims, then of the header
WRONG: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "jti missing DPOP-4.2": ({"jti": DROP}, {}),
    "htm missing DPOP-4.2": ({"htm": DROP}, {}),
    "htu missing DPOP-4.2": ({"htu": DROP}, {}),
    "iat missing DPOP-4.2": ({"iat": DROP}, {}),
    "ath missing DPOP-4.2": ({"ath": DROP}, {}),
    "ath of another token DPOP-7.1": ({"ath": b64(bytes(32))}, {}),
    "htm PUT DPOP-4.3": ({"htm": "PUT"}, {}),
    "htu of another path DPOP-7.1": ({"htu": f"{ISSUER}/v1/keys"}, {}),
    "htu of another host DPOP-7.1": ({"htu": f"https://other.example{ME}"}, {}),
    "typ missing DPOP-4.2": ({}, {"typ": DROP}),
    "typ JWT DPOP-4.2": ({}, {"typ": "JWT"}),
    "alg missing DPOP-4.2": ({}, {"alg": DROP}),
    "alg none FAPI2-SP-FINAL-5.4": ({}, {"alg": "none"}),
    "alg RS256 FAPI2-SP-FINAL-5.4": ({}, {"alg": "RS256"}),
    "jwk missing DPOP-4.2": ({}, {"jwk": DROP}),
}


@module("dpop-negative-tests")
@pytest.mark.parametrize(("claims", "header"), WRONG.values(), ids=WRONG)
async def test_a_proof_that_is_wrong_in_one_way_is_refused(
    claims: dict[str, Any], header: dict[str, Any], first: RelyingParty
) -> None:
    token = await first.token()
    refused(await first.call(token, proofs=[signed(first, token, claims, header)]))


@module("dpop-negative-tests", "DPOP-4.3")
async def test_a_proof_that_shows_the_private_key_is_refused(first: RelyingParty) -> None:
    token = await first.token()
    proof = signed(first, token, {}, {"jwk": first.private_proof_jwk})
    refused(await first.call(token, proofs=[proof]))


@module("dpop-negative-tests", "FAPI2-SP-FINAL-5.4")
async def test_a_proof_really_signed_with_RS256_is_refused(bank: Bank) -> None:
    party = await bank.register()
    party.keys.proof_alg, party.keys.proof_key = "PS256", generate("PS256")
    token = await party.token()
    accepted(await party.call(token))
    claims = jwt.decode(party.proof("GET", ME, token=token), options={"verify_signature": False})
    jwk = public_jwk("PS256", party.keys.proof_key) | {"alg": "RS256"}
    proof = jwt.encode(
        claims, party.keys.proof_key, algorithm="RS256", headers={"typ": "dpop+jwt", "jwk": jwk}
    )
    refused(await party.call(token, proofs=[proof]))


@module("dpop-negative-tests")
@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda proof: "x" + proof, id="first letter DPOP-4.2"),
        pytest.param(lambda proof: proof.replace(".", ""), id="no dots DPOP-4.2"),
        pytest.param(lambda proof: proof + "." + proof, id="five parts DPOP-4.2"),
        pytest.param(lambda proof: proof.rpartition(".")[0], id="two parts DPOP-4.2"),
        pytest.param(lambda proof: proof[:-8] + "AAAAAAAA", id="signature FAPI2-SP-FINAL-5.4"),
    ],
)
async def test_a_proof_that_is_no_good_jwt_is_refused(
    spoil: Callable[[str], str], first: RelyingParty
) -> None:
    token = await first.token()
    refused(await first.call(token, proofs=[spoil(first.proof("GET", ME, token=token))]))


SAME_ADDRESS = {
    "with query and fragment DPOP-4.3": f"{ISSUER}{ME}?a=b#c",
    "without the query of the request DPOP-4.3": f"{ISSUER}{ME}",
    "scheme and host in capitals RFC3986-6.2.2": f"HTTPS://BANK.EXAMPLE{ME}",
    "with the default port RFC3986-6.2.3": f"https://bank.example:443{ME}",
}


@module("dpop-negative-tests")
@pytest.mark.parametrize("htu", SAME_ADDRESS.values(), ids=SAME_ADDRESS)
async def test_an_address_may_be_written_in_several_ways(htu: str, first: RelyingParty) -> None:
    token = await first.token()
    proof = first.proof("GET", ME, token=token, htu=htu)
    accepted(await first.call(token, path=f"{ME}?x=y" if "?" not in htu else ME, proofs=[proof]))


@module("dpop-negative-tests", "DPOP-7.1")
@pytest.mark.parametrize("seconds", [-3600, 3600], ids="iat {} s from now".format)
async def test_a_proof_of_another_hour_is_refused(seconds: int, first: RelyingParty) -> None:
    token = await first.token()
    proof = first.proof("GET", ME, token=token, iat=moment(first, seconds))
    refused(await first.call(token, proofs=[proof]))


@module("dpop-negative-tests", "DPOP-7.1")
async def test_a_jti_is_good_once(first: RelyingParty) -> None:
    token = await first.token()
    accepted(await first.call(token, proofs=[first.proof("GET", ME, token=token, jti="fixed")]))
    refused(await first.call(token, proofs=[first.proof("GET", ME, token=token, jti="fixed")]))


@module("dpop-negative-tests", "DPOP-7.1")
async def test_a_proof_by_another_key_is_refused(first: RelyingParty) -> None:
    token = await first.token()
    other = generate("ES256")
    with_its_jwk = first.proof("GET", ME, token=token, key=other, headers={"jwk": public_jwk("ES256", other)})
    refused(await first.call(token, proofs=[with_its_jwk]))
    refused(await first.call(token, proofs=[first.proof("GET", ME, token=token, key=other)]))


@module("dpop-negative-tests", "DPOP-7.2")
async def test_what_a_proof_says_besides_is_ignored(first: RelyingParty) -> None:
    token = await first.token()
    proof = first.proof("GET", ME, token=token, note="x", sub="y", headers={"note": "z"})
    accepted(await first.call(token, proofs=[proof]))


@module("dpop-negative-tests", "FAPI2-SP-FINAL-5.3.4")
async def test_a_token_without_a_proof_is_worth_nothing(first: RelyingParty) -> None:
    refused(await first.call(await first.token(), proofs=[]))


@module("dpop-negative-tests", "DPOP-7.1", "DPOP-7.2")
@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
async def test_a_bound_token_is_not_taken_as_a_bearers(scheme: str, first: RelyingParty) -> None:
    token = await first.token()
    proof = first.proof("GET", ME, token=token)
    for proofs in ([], [proof]):
        answer = await first.call(token, scheme=scheme, proofs=proofs)
        assert (answer.status_code, answer.json()["code"]) == (401, "invalid_token")
        assert answer.headers["www-authenticate"].startswith("DPoP ")
    accepted(await first.call(token))


AT_THE_TOKEN_ENDPOINT: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    name: changes for name, changes in WRONG.items() if not name.startswith(("ath", "htu of another path"))
} | {"htu is the API DPOP-4.3": ({"htu": ISSUER + ME}, {})}


@module("dpop-negative-tests")
@pytest.mark.parametrize(("claims", "header"), AT_THE_TOKEN_ENDPOINT.values(), ids=AT_THE_TOKEN_ENDPOINT)
async def test_the_token_endpoint_refuses_the_same_proofs(
    claims: dict[str, Any], header: dict[str, Any], first: RelyingParty
) -> None:
    proof = signed(first, None, {"htm": "POST", "htu": ISSUER + TOKEN} | claims, header)
    answer = await first.ask_token(proofs=[proof])
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_dpop_proof")


def signed(party: RelyingParty, token: str | None, claims: dict[str, Any], header: dict[str, Any]) -> str:
    """A proof of any content with a signature that is good for it."""
    now: datetime = party.bank.clock.now()
    good = party.keys.proof("GET", ISSUER + ME, now, token=token)
    content = merge(jwt.decode(good, options={"verify_signature": False}), claims)
    text: str = forge(merge(jwt.get_unverified_header(good), header), content).rpartition(".")[0]
    return f"{text}.{b64(jwt.get_algorithm_by_name('ES256').sign(text.encode(), party.keys.proof_key))}"
