"""The modules of the authorization code flow: what a member's answer gives, once, to whom it was given."""

import re
from typing import Any

import jwt
import pytest
from conformance.bank import ISSUER, PAR, Bank, RelyingParty, refused
from conformance.code_flow import CALLBACK_WITH_QUERY, SCOPE, CodeFlow
from conformance.plan import module
from partner_client import DROP, PartnerClient, b64, generate

POINTS = "/v1/members/{}/points"


@pytest.fixture
async def flow(bank: Bank, first: RelyingParty) -> CodeFlow:
    """A request of the first client."""
    return CodeFlow(first, await bank.enrol())


def claims_of(token: str) -> dict[str, Any]:
    return dict(jwt.decode(token, options={"verify_signature": False}))


async def reads_points(party: RelyingParty, token: str) -> int:
    """The status of the member's points, asked with the member's token."""
    return (await party.call(token, path=POINTS.format(claims_of(token)["sub"]))).status_code


@module("discovery-end-point-verification", "RFC8414-3", "FAPI2-SP-FINAL-5.3.2.1-1", "FAPI2-SP-FINAL-5.4-1")
async def test_the_metadata_is_complete_and_right(bank: Bank) -> None:
    answer = await bank.http.get("/.well-known/oauth-authorization-server")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    found = answer.json()
    assert found["issuer"] == ISSUER
    for name in ("authorization", "token", "pushed_authorization_request", "introspection", "revocation"):
        assert found[f"{name}_endpoint"].startswith(f"{ISSUER}/oauth2/")
    assert found["require_pushed_authorization_requests"] is True
    assert found["authorization_response_iss_parameter_supported"] is True
    assert found["code_challenge_methods_supported"] == ["S256"]
    assert found["response_types_supported"] == ["code"]
    assert {"authorization_code", "client_credentials", "refresh_token"} <= set(
        found["grant_types_supported"]
    )
    assert not {"password", "implicit"} & set(found["grant_types_supported"])
    assert set(found["token_endpoint_auth_methods_supported"]) <= {"private_key_jwt", "tls_client_auth"}
    for name in ("token_endpoint_auth_signing_alg_values_supported", "dpop_signing_alg_values_supported"):
        assert set(found[name]) == {"ES256", "PS256", "EdDSA"}
    jwks = (await bank.http.get(found["jwks_uri"].removeprefix(ISSUER))).json()["keys"]
    assert jwks and len({key["kid"] for key in jwks}) == len(jwks)
    assert not any({"d", "x5u", "x5c"} & set(key) for key in jwks)


@module("happy-flow", "FAPI2-SP-FINAL-5.3.2.2", "RFC9207-2", "RFC6749-5.1")
async def test_a_member_agrees_and_the_client_reads(flow: CodeFlow, first: RelyingParty) -> None:
    answer = await flow.answer()
    assert set(answer) == {"code", "state", "iss"}
    assert (answer["state"], answer["iss"]) == (flow.state, ISSUER)
    assert len(answer["code"]) * 6 >= 128
    given = await flow.redeem(answer["code"])
    assert given.headers["cache-control"] == "no-store"
    body = given.json()
    assert (body["token_type"], body["expires_in"]) == ("DPoP", 300)
    assert set(body["scope"].split()) == set(SCOPE.split())
    assert re.fullmatch("[!-~]+", body["refresh_token"])
    assert "id_token" not in body
    assert claims_of(body["access_token"])["sub"] != first.client_id
    assert await reads_points(first, body["access_token"]) == 200


@module("happy-flow", "FAPI2-SP-FINAL-5.3.4")
async def test_the_second_clients_member_is_somebody_else_to_it(
    bank: Bank, first: RelyingParty, second: RelyingParty
) -> None:
    member = await bank.enrol()
    mine = await CodeFlow(first, member).tokens()
    theirs = await CodeFlow(second, member, redirect_uri=CALLBACK_WITH_QUERY).tokens()
    # the same member, by two names: subjects are pairwise
    assert claims_of(mine["access_token"])["sub"] != claims_of(theirs["access_token"])["sub"]
    assert await reads_points(second, mine["access_token"]) == 401


@module("user-rejects-authentication", "RFC6749-4.1.2.1")
async def test_a_member_who_does_not_agree_is_sent_back_with_an_error(
    bank: Bank, first: RelyingParty, second: RelyingParty
) -> None:
    member = await bank.enrol()
    for flow in (CodeFlow(first, member), CodeFlow(second, member, redirect_uri=CALLBACK_WITH_QUERY)):
        flow.state = "s" * 128
        answer = flow.read(await bank.deny(await flow.handle(await flow.request_uri())))
        assert answer["error"] == "access_denied"
        assert (answer["state"], answer["iss"]) == (flow.state, ISSUER)
        assert set(answer) <= {"error", "error_description", "error_uri", "state", "iss"}


@module("ensure-authorization-request-without-state-success", "RFC6749-4.1.2")
async def test_no_state_is_needed_and_none_comes_back(flow: CodeFlow) -> None:
    answer = await flow.answer(state=DROP)
    assert set(answer) == {"code", "iss"}
    assert (await flow.redeem(answer["code"])).status_code == 200


@module("ensure-other-scope-order-succeeds", "RFC6749-3.3")
async def test_the_order_of_scopes_does_not_matter(flow: CodeFlow) -> None:
    tokens = await flow.tokens(scope=" ".join(reversed(SCOPE.split())))
    assert set(tokens["scope"].split()) == set(SCOPE.split())


@module("ensure-different-state-inside-and-outside-request-object", "PAR-4", "JAR-6.3")
async def test_what_was_pushed_counts_and_not_what_stands_in_the_address(bank: Bank, flow: CodeFlow) -> None:
    handle = await flow.handle(await flow.request_uri(), state="other", scope="members:read")
    answer = await flow.approve(handle)
    assert answer["state"] == flow.state
    assert set((await flow.redeem(answer["code"])).json()["scope"].split()) == set(SCOPE.split())


@module("state-only-outside-request-object-not-used", "PAR-4", "JAR-6.3")
async def test_a_state_in_the_address_alone_is_not_used(bank: Bank, flow: CodeFlow) -> None:
    handle = await flow.handle(await flow.request_uri(state=DROP), state="outside")
    assert "state" not in await flow.approve(handle)


@module("ensure-authorization-code-is-bound-to-client", "RFC6749-4.1.3", "FAPI2-SP-FINAL-5.3.2.2")
async def test_a_code_is_of_no_use_to_another_client(
    flow: CodeFlow, first: RelyingParty, second: RelyingParty
) -> None:
    code = await flow.code()
    flow.party = second
    refused(await flow.redeem(code), 400, "invalid_grant")
    flow.party = first
    assert (await flow.redeem(code)).status_code == 200


@module("attempt-reuse-authorization-code-after-one-second", "FAPI2-SP-FINAL-5.3.2.2-9", "RFC6749-4.1.2")
async def test_a_code_used_again_is_refused_and_ends_what_came_of_it(
    bank: Bank, flow: CodeFlow, first: RelyingParty
) -> None:
    code = await flow.code()
    tokens = (await flow.redeem(code)).json()
    with bank.later(seconds=1):
        refused(await flow.redeem(code), 400, "invalid_grant")
    assert await refused_soon(first, tokens["access_token"])
    refused(await flow.refresh(tokens["refresh_token"]), 400, "invalid_grant")


@module("ensure-token-endpoint-fails-with-expired-auth-code", "FAPI2-SP-FINAL-5.3.2.1-11")
async def test_a_code_lives_no_longer_than_a_minute(bank: Bank, flow: CodeFlow) -> None:
    fresh, stale = await flow.code(), await flow.code()
    with bank.later(seconds=50):
        assert (await flow.redeem(fresh)).status_code == 200
    with bank.later(seconds=61):
        refused(await flow.redeem(stale), 400, "invalid_grant")


@module("ensure-pkce-code-verifier-required", "RFC7636-4.6", "FAPI2-SP-FINAL-5.3.2.2-5")
async def test_a_code_needs_its_verifier(flow: CodeFlow) -> None:
    refused(await flow.redeem(await flow.code(), code_verifier=DROP), 400, "invalid_grant", "invalid_request")


@module("incorrect-pkce-code-verifier-rejected", "RFC7636-4.6")
@pytest.mark.parametrize("verifier", ["x" * 64, "x", "x" * 129])
async def test_another_verifier_does_not_do(verifier: str, flow: CodeFlow) -> None:
    refused(await flow.redeem(await flow.code(), code_verifier=verifier), 400, "invalid_grant")


@module("ensure-client-id-in-token-endpoint", "RFC6749-5.2")
async def test_a_code_of_the_first_with_the_name_of_the_second(
    flow: CodeFlow, first: RelyingParty, second: RelyingParty
) -> None:
    assertion = second.assertion(key=first.keys.key)
    answer = await flow.redeem(await flow.code(), client_id=second.client_id, client_assertion=assertion)
    refused(answer, 401, "invalid_client")


@module("ensure-mismatched-dpop-jkt-fails", "DPOP-10.1")
async def test_a_named_key_and_a_shown_key_must_be_one(flow: CodeFlow, first: RelyingParty) -> None:
    answer = await flow.push(proofs=[first.proof("POST", PAR)], dpop_jkt=b64(bytes(32)))
    refused(answer, 400, "invalid_dpop_proof", "invalid_request")


@module("ensure-token-endpoint-fails-with-mismatched-dpop-jkt", "DPOP-10", "DPOP-10.1")
async def test_a_code_is_bound_to_the_key_that_was_named(flow: CodeFlow) -> None:
    answer = await flow.redeem(await flow.code(dpop_jkt=b64(bytes(32))))
    refused(answer, 400, "invalid_grant", "invalid_dpop_proof")


@module("ensure-token-endpoint-fails-with-mismatched-dpop-proof-jkt", "DPOP-10.1")
async def test_a_code_is_bound_to_the_key_that_was_shown(flow: CodeFlow, first: RelyingParty) -> None:
    code = await flow.code(proofs=[another_key(first).proof("POST", ISSUER + PAR, first.bank.clock.now())])
    refused(await flow.redeem(code), 400, "invalid_grant", "invalid_dpop_proof")


@module("ensure-dpopproof-at-par-endpoint-binding-success", "DPOP-10.1")
async def test_the_key_that_was_shown_redeems(flow: CodeFlow, first: RelyingParty) -> None:
    await flow.tokens(proofs=[first.proof("POST", PAR)])


@module("ensure-dpop-auth-code-binding-success", "DPOP-10", "FAPI2-SP-FINAL-5.3.2.1-12")
async def test_the_key_that_was_named_redeems(flow: CodeFlow, first: RelyingParty) -> None:
    jkt = claims_of(await first.token())["cnf"]["jkt"]
    await flow.tokens(dpop_jkt=jkt)
    await flow.tokens(dpop_jkt=jkt, proofs=[first.proof("POST", PAR)])


@module("refresh-token", "FAPI2-SP-FINAL-5.3.2.1-9", "RFC6749-6", "RFC6749-A.17")
async def test_a_refresh_token_is_not_rotated_and_gives_again_and_again(
    flow: CodeFlow, first: RelyingParty
) -> None:
    tokens = await flow.tokens()
    for _ in range(2):
        again = await flow.refresh(tokens["refresh_token"])
        assert again.status_code == 200
        assert again.json().get("refresh_token", tokens["refresh_token"]) == tokens["refresh_token"]
        assert again.json()["access_token"] != tokens["access_token"]
        assert await reads_points(first, again.json()["access_token"]) == 200


@module("refresh-token", "DPOP-5", "RFC6749-5.2")
async def test_a_refresh_token_needs_a_proof(flow: CodeFlow) -> None:
    tokens = await flow.tokens()
    # The suite would also take invalid_request, invalid_grant or invalid_client; RFC 9449 §5 has a word for it.
    refused(await flow.refresh(tokens["refresh_token"], proofs=[]), 400, "invalid_dpop_proof")


@module("refresh-token", "RFC6749-6", "RFC6749-10.4")
async def test_a_refresh_token_is_bound_to_its_client_and_its_scope(
    flow: CodeFlow, second: RelyingParty
) -> None:
    tokens = await flow.tokens(scope="members:read")
    refused(await flow.refresh(tokens["refresh_token"], scope=SCOPE), 400, "invalid_scope")
    flow.party = second
    refused(await flow.refresh(tokens["refresh_token"]), 400, "invalid_grant")


def another_key(party: RelyingParty) -> PartnerClient:
    """The same client with another key for its proofs."""
    keys = PartnerClient(client_id=party.client_id, issuer=ISSUER, key=party.keys.key)
    keys.proof_key = generate("ES256")
    return keys


async def refused_soon(party: RelyingParty, token: str) -> bool:
    """Whether the token is refused before the promised second is over."""
    with party.bank.later(seconds=1):
        return await reads_points(party, token) == 401
