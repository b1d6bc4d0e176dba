"""The modules about pushed authorization requests: what may be pushed, by whom, and how long it opens a page."""

import pytest
from conformance.bank import ISSUER, PAR, TOKEN, Bank, RelyingParty, refused
from conformance.code_flow import CALLBACK, CALLBACK_WITH_QUERY, CodeFlow
from conformance.plan import module
from partner_client import DROP


@pytest.fixture
async def flow(bank: Bank, first: RelyingParty) -> CodeFlow:
    """A request of the first client."""
    return CodeFlow(first, await bank.enrol())


@module("par-without-duplicate-parameters", "PAR-2.2", "PAR-4", "FAPI2-SP-FINAL-5.3.2.2-11")
async def test_a_pushed_request_is_named_and_nothing_else(flow: CodeFlow) -> None:
    answer = await flow.push()
    assert (answer.status_code, answer.headers["content-type"]) == (201, "application/json")
    assert "no-store" in answer.headers["cache-control"]
    assert 0 < answer.json()["expires_in"] < 600
    secret = answer.json()["request_uri"].removeprefix("urn:ietf:params:oauth:request_uri:")
    assert len(secret) * 6 >= 128
    assert await flow.handle(answer.json()["request_uri"])


@module("par-ensure-pkce-required", "FAPI2-SP-FINAL-5.3.2.2-5", "RFC7636-4.4.1")
async def test_a_request_without_pkce_is_refused(flow: CodeFlow) -> None:
    refused(await flow.push(code_challenge=DROP, code_challenge_method=DROP), 400, "invalid_request")
    refused(await flow.push(code_challenge=DROP), 400, "invalid_request")


@module("par-plain-pkce-rejected", "FAPI2-SP-FINAL-5.3.2.2-5", "RFC7636-4.4.1")
async def test_plain_pkce_is_refused(flow: CodeFlow) -> None:
    refused(
        await flow.push(code_challenge=flow.verifier, code_challenge_method="plain"), 400, "invalid_request"
    )
    # RFC 7636 §4.3: without a method it is plain
    refused(await flow.push(code_challenge_method=DROP), 400, "invalid_request")


@module("ensure-redirect-uri-in-authorization-request", "FAPI2-SP-FINAL-5.3.2.2-6")
async def test_a_request_without_redirect_uri_is_refused(flow: CodeFlow) -> None:
    refused(await flow.push(redirect_uri=DROP), 400, "invalid_request")


@module("ensure-request-object-without-redirect-uri-fails", "FAPI2-SP-FINAL-5.3.2.2-6")
async def test_an_empty_redirect_uri_is_none(flow: CodeFlow) -> None:
    refused(await flow.push(redirect_uri=""), 400, "invalid_request")


@module("ensure-registered-redirect-uri", "PAR-2.1-3", "PAR-2.3")
@pytest.mark.parametrize(
    "wrong",
    [
        f"{CALLBACK}/more",
        f"{CALLBACK}?x=y",
        CALLBACK_WITH_QUERY,
        CALLBACK.replace("https", "http"),
        CALLBACK.replace("rp.example", "rp.example@other.example"),
        CALLBACK.replace("rp.example", "RP.example"),
        CALLBACK.replace("rp.example", "rp.example:443"),
        CALLBACK.replace("/callback", "/x/../callback"),
        "https://other.example/callback",
        "//rp.example/callback",
    ],
)
async def test_a_redirect_uri_that_is_not_registered_is_refused(wrong: str, flow: CodeFlow) -> None:
    refused(await flow.push(redirect_uri=wrong), 400, "invalid_request")


@module("ensure-response-type-code-idtoken-fails", "FAPI2-SP-FINAL-5.3.2.2-1")
async def test_code_and_id_token_are_refused(flow: CodeFlow) -> None:
    refused(await flow.push(response_type="code id_token"), 400, "unsupported_response_type")


@module("ensure-response-type-token-fails", "FAPI2-SP-FINAL-5.3.2.2-1")
async def test_a_token_by_redirect_is_refused(flow: CodeFlow) -> None:
    refused(await flow.push(response_type="token"), 400, "unsupported_response_type")


@module("ensure-unsigned-authorization-request-without-using-par-fails", "FAPI2-SP-FINAL-5.3.2.2-3")
async def test_a_request_that_was_not_pushed_goes_nowhere(flow: CodeFlow) -> None:
    answer = await flow.visit({"client_id": flow.party.client_id, **flow.request()})
    assert answer.status_code == 400
    assert answer.headers["content-type"].startswith("text/html")
    assert "location" not in answer.headers


@module("par-attempt-reuse-request_uri", "PAR-7.3", "FAPI2-SP-FINAL-5.3.2.2-13")
async def test_an_answered_request_uri_opens_nothing(bank: Bank, flow: CodeFlow) -> None:
    request_uri = await flow.request_uri()
    assert "code" in await flow.approve(await flow.handle(request_uri))
    assert (await flow.open(request_uri)).status_code == 400


@module("par-attempt-to-use-expired-request_uri", "PAR-2.2")
async def test_a_request_uri_ends_when_it_was_said_to(bank: Bank, flow: CodeFlow) -> None:
    pushed = (await flow.push()).json()
    with bank.later(seconds=pushed["expires_in"] - 1):
        assert (await flow.open(pushed["request_uri"])).status_code == 303
    other = (await flow.push()).json()
    with bank.later(seconds=other["expires_in"] + 1):
        assert (await flow.open(other["request_uri"])).status_code == 400


@module("par-attempt-to-use-request_uri-for-different-client", "PAR-2.2", "PAR-4")
async def test_a_request_uri_is_bound_to_its_client(flow: CodeFlow, second: RelyingParty) -> None:
    request_uri = await flow.request_uri()
    assert (await flow.open(request_uri, client_id=second.client_id)).status_code == 400
    assert (await flow.open(request_uri)).status_code == 303


@module("par-ensure-reused-request-uri-prior-to-auth-completion-succeeds", "FAPI2-SP-FINAL-5.3.2.2-13.1")
async def test_loading_the_page_uses_nothing_up(bank: Bank, flow: CodeFlow) -> None:
    request_uri = await flow.request_uri()
    handles = [await flow.handle(request_uri) for _ in range(3)]
    assert len(set(handles)) == 1
    assert "code" in await flow.approve(handles[0])


@module("par-authorization-request-containing-request_uri-form-param", "PAR-2.1")
async def test_a_request_uri_is_not_pushed(flow: CodeFlow) -> None:
    refused(await flow.push(request_uri="urn:example:x"), 400, "invalid_request")


@module("par-attempt-invalid-http-method", "PAR-2.3-3")
@pytest.mark.parametrize("method", ["PUT", "GET", "DELETE", "PATCH"])
async def test_requests_are_pushed_by_post_alone(method: str, bank: Bank) -> None:
    assert (await bank.http.request(method, PAR)).status_code == 405


@module("par-test-array-as-audience-fails", "FAPI2-SP-FINAL-5.3.2.1-8")
async def test_an_array_is_no_audience(first: RelyingParty, flow: CodeFlow) -> None:
    for audience in ([ISSUER], [ISSUER, "https://other.example"]):
        refused(await flow.push(client_assertion=first.assertion(aud=audience)), 401, "invalid_client")


@module("par-test-par-endpoint-url-as-audience-fails", "FAPI2-SP-FINAL-5.3.2.1-8")
async def test_the_par_endpoint_is_no_audience(first: RelyingParty, flow: CodeFlow) -> None:
    refused(await flow.push(client_assertion=first.assertion(aud=ISSUER + PAR)), 401, "invalid_client")


@module("par-test-token-endpoint-url-as-audience-fails", "FAPI2-SP-FINAL-5.3.2.1-8")
async def test_the_token_endpoint_is_no_audience(first: RelyingParty, flow: CodeFlow) -> None:
    refused(await flow.push(client_assertion=first.assertion(aud=ISSUER + TOKEN)), 401, "invalid_client")


@module(
    "par-ensure-jwt-client-assertions-nbf-8-seconds-in-the-future-is-accepted", "FAPI2-SP-FINAL-5.3.2.1-13"
)
async def test_a_clock_eight_seconds_ahead_may_push(bank: Bank, first: RelyingParty, flow: CodeFlow) -> None:
    moment = int(bank.clock.now().timestamp()) + 8
    assert (await flow.push(client_assertion=first.assertion(iat=moment, nbf=moment))).status_code == 201


@module(
    "par-ensure-jwt-client-assertions-nbf-over-60-seconds-in-the-future-fails", "FAPI2-SP-FINAL-5.3.2.1-13"
)
async def test_a_clock_a_minute_ahead_may_not(bank: Bank, first: RelyingParty, flow: CodeFlow) -> None:
    moment = int(bank.clock.now().timestamp()) + 61
    assertion = first.assertion(iat=moment, nbf=moment, exp=moment + 60)
    refused(await flow.push(client_assertion=assertion), 401, "invalid_client")


@module("ensure-authorization-request-with-long-state", "FAPI2-SP-FINAL-5.3.2.2")
async def test_a_state_of_a_thousand_letters_is_refused_and_of_half_comes_back(flow: CodeFlow) -> None:
    refused(await flow.push(state="s" * 1_000), 400, "invalid_request")
    flow.state = "s" * 500
    assert (await flow.answer())["state"] == flow.state


@module("ensure-authorization-request-with-long-nonce", "FAPI2-SP-FINAL-5.3.2.2")
async def test_a_nonce_of_a_thousand_letters_is_refused(flow: CodeFlow) -> None:
    refused(await flow.push(nonce="n" * 1_000), 400, "invalid_request")


@module("ensure-authorization-request-with-64-char-nonce-success", "FAPI2-SP-FINAL-5.3.2.2-14")
async def test_a_nonce_of_64_letters_is_accepted(flow: CodeFlow) -> None:
    assert (await flow.push(nonce="n" * 64)).status_code == 201


@module("ensure-authorization-request-without-nonce-success", "FAPI2-SP-FINAL-5.3.2.2")
async def test_no_nonce_is_needed(flow: CodeFlow) -> None:
    assert "nonce" not in flow.request()
    assert (await flow.push()).status_code == 201
