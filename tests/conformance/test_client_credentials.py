"""The modules of the client credentials profile, except the proofs: what the token endpoint gives and refuses."""

from typing import Any
from uuid import uuid4

import jwt
import pytest
from conformance.assertions import WRONG, signed_assertion
from conformance.bank import INTROSPECT, ME, PAR, REVOKE, TOKEN, Bank, RelyingParty, refused
from conformance.plan import module
from partner_client import DROP, forge

ENTROPY_BITS = 128


@module("happy-flow", "FAPI2-SP-FINAL-5.3.2.1", "RFC6749-5.1", "RFC6749-4.4.3", "DPOP-5")
@pytest.mark.parametrize("alg", ["ES256", "PS256", "EdDSA"])
async def test_a_token_is_fetched_and_used(alg: str, bank: Bank) -> None:
    party = await bank.register(alg=alg)
    answer = await party.ask_token(scope="points:earn members:read")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert (answer.headers["cache-control"], answer.headers["pragma"]) == ("no-store", "no-cache")
    body = answer.json()
    assert (body["token_type"], body["expires_in"]) == ("DPoP", 300)
    # RFC 6749 §4.4.3: no refresh token for a client that can ask again
    assert "refresh_token" not in body
    assert set(body["scope"].split()) == {"points:earn", "members:read"}
    claims = jwt.decode(body["access_token"], options={"verify_signature": False})
    assert len(claims["jti"]) * 6 >= ENTROPY_BITS
    assert claims["sub"] == claims["client_id"] == party.client_id
    interaction = str(uuid4())
    me = await bank.http.get(
        ME,
        headers={
            "Authorization": f"DPoP {body['access_token']}",
            "DPoP": party.proof("GET", ME, token=body["access_token"]),
            "X-FAPI-Interaction-ID": interaction,
        },
    )
    assert me.status_code == 200
    assert me.headers["x-fapi-interaction-id"] == interaction
    assert me.json()["app"]["client_id"] == party.client_id


@module("happy-flow", "FAPI2-SP-FINAL-5.3.4", "DPOP-7.1")
async def test_the_second_client_cannot_use_the_firsts_token(
    first: RelyingParty, second: RelyingParty
) -> None:
    stolen = await first.token()
    assert (await second.call(await second.token())).status_code == 200
    answer = await second.call(stolen)
    assert answer.status_code == 401
    assert 'error="invalid_dpop_proof"' in answer.headers["www-authenticate"]


@module("access-token-type-header-case-sensitivity", "RFC9110-11.1", "RFC6749-7.1")
@pytest.mark.parametrize("scheme", ["DPoP", "dpop", "DPOP", "dPOP"])
async def test_the_case_of_the_scheme_does_not_matter(scheme: str, first: RelyingParty) -> None:
    assert (await first.call(await first.token(), scheme=scheme)).status_code == 200


@module("ensure-client-assertion-in-token-endpoint", "FAPI2-SP-FINAL-5.3.2.1-6", "RFC6749-5.2")
@pytest.mark.parametrize("form", [{"client_assertion": DROP}, {"client_assertion_type": DROP}], ids=str)
async def test_nobody_gets_a_token_without_an_assertion(form: dict[str, Any], first: RelyingParty) -> None:
    refused(await first.ask_token(client_id=first.client_id, **form), 401, "invalid_client")


@module("ensure-client-assertion-with-exp-is-5-minutes-in-past-fails", "RFC7523-3")
async def test_an_expired_assertion_is_refused(bank: Bank, first: RelyingParty) -> None:
    past = int(bank.clock.now().timestamp()) - 300
    assertion = first.assertion(iat=past - 60, exp=past)
    refused(await first.ask_token(client_assertion=assertion), 401, "invalid_client")


@module("ensure-client-assertion-with-no-sub-fails", "RFC7523-3")
async def test_an_assertion_without_sub_is_refused(first: RelyingParty) -> None:
    refused(await first.ask_token(client_assertion=first.assertion(sub=DROP)), 401, "invalid_client")


@module("ensure-client-assertion-with-wrong-aud-fails", "RFC7523-3", "FAPI2-SP-FINAL-5.3.2.1-8")
async def test_an_assertion_for_somebody_else_is_refused(first: RelyingParty) -> None:
    assertion = first.assertion(aud="https://other.example")
    refused(await first.ask_token(client_assertion=assertion), 401, "invalid_client")


@module("ensure-client-id-in-token-endpoint", "RFC6749-5.2")
async def test_the_second_clients_name_on_the_firsts_key_is_refused(
    first: RelyingParty, second: RelyingParty
) -> None:
    assertion = second.assertion(key=first.keys.key)
    answer = await first.ask_token(client_id=second.client_id, client_assertion=assertion)
    refused(answer, 401, "invalid_client")
    refused(await first.ask_token(client_id=second.client_id), 401, "invalid_client")


@module("ensure-holder-of-key-required", "FAPI2-SP-FINAL-5.3.2.1-5", "RFC6749-5.2", "DPOP-5")
async def test_there_is_no_token_that_is_bound_to_nothing(first: RelyingParty) -> None:
    refused(await first.ask_token(proofs=[]), 400, "invalid_dpop_proof")


@module("ensure-signed-client-assertion-with-RS256-fails", "FAPI2-SP-FINAL-5.4")
async def test_an_assertion_signed_with_RS256_is_refused(bank: Bank) -> None:
    party = await bank.register(alg="PS256")
    refused(await party.ask_token(client_assertion=party.assertion(alg="RS256")), 401, "invalid_client")
    assert (await party.ask_token(client_assertion=party.assertion())).status_code == 200


@module("ensure-invalid-client-assertions-fail")
@pytest.mark.parametrize("endpoint", [TOKEN, PAR, INTROSPECT, REVOKE])
@pytest.mark.parametrize("changes", WRONG.values(), ids=WRONG)
async def test_an_assertion_that_is_wrong_in_one_way_is_refused_everywhere(
    changes: dict[str, Any], endpoint: str, first: RelyingParty
) -> None:
    proofs = [first.proof("POST", TOKEN)] if endpoint == TOKEN else []
    answer = await first.send_form(
        endpoint, proofs=proofs, client_assertion=signed_assertion(first, **changes)
    )
    refused(answer, 401, "invalid_client")


@module("ensure-invalid-client-assertions-fail", "RFC7521-4.2")
async def test_another_type_of_assertion_is_refused(first: RelyingParty) -> None:
    wrong = "urn:ietf:params:oauth:client-assertion-type:saml2-bearer"
    refused(await first.ask_token(client_assertion_type=wrong), 401, "invalid_client")


@module(
    "ensure-invalid-client-assertions-fail", "RFC7519-4.1.5", "RFC7519-4.1.6", "FAPI2-SP-FINAL-5.3.2.1-13"
)
@pytest.mark.parametrize(("seconds", "accepted"), [(8, True), (10, True), (61, False), (120, False)])
async def test_a_clock_ahead_is_tolerated_for_ten_seconds_and_never_for_sixty(
    seconds: int, accepted: bool, bank: Bank, first: RelyingParty
) -> None:
    moment = int(bank.clock.now().timestamp()) + seconds
    answer = await first.ask_token(client_assertion=first.assertion(iat=moment, nbf=moment, exp=moment + 60))
    if accepted:
        assert answer.status_code == 200
    else:
        refused(answer, 401, "invalid_client")


@module("ensure-invalid-client-assertions-fail", "RFC7523-3", "FAPI2-SP-FINAL-5.4")
async def test_an_assertion_nobody_signed_is_refused(bank: Bank, first: RelyingParty) -> None:
    claims = first.keys.claims(bank.clock.now())
    good = first.assertion()
    head, body, signature = good.split(".")
    broken = f"{head}.{body}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}"
    for assertion in (forge({"alg": "none", "kid": "k1"}, claims), broken):
        refused(await first.ask_token(client_assertion=assertion), 401, "invalid_client")
    assert (await first.ask_token(client_assertion=good)).status_code == 200
