"""FAPI 2.0 Security Profile Final §5.3.2.2: pushed requests and the authorization endpoint, clause by clause (docs/fapi.md)."""

from datetime import timedelta
from typing import Any

import pytest
from partner_client import DROP, b64, generate

from kernel.database import Connection
from partners.oauth import interaction
from partners.oauth.model import TokenRefused
from partners.oauth.pushing import RequestPushed
from partners.registry import service as registry
from partners.registry.model import App
from partners.registry.rules import RedirectUriInvalid

from .member_flow import BASE_URL, REDIRECT, VERIFIER, Flow, details, error_of

PAR = f"{BASE_URL}/oauth2/par"


async def test_happy_flow(flow: Flow, connection: Connection, app: App) -> None:
    pushed = await flow.push()
    assert isinstance(pushed, RequestPushed)
    # FAPI 2.0 §5.3.2.2: less than 600 s; 128 bits of entropy (§5.4.1)
    assert pushed.expires_in < 600
    assert len(pushed.request_uri) >= len("urn:ietf:params:oauth:request_uri:") + 43
    handle = await flow.open(pushed.request_uri)
    assert handle is not None and handle not in pushed.request_uri
    found = await interaction.find_interaction(connection, handle=handle, now=flow.now)
    assert found is not None
    assert (found.partner_name_zh, found.partner_name_en) == ("示例商城", "Sample Mall")
    assert found.scopes == ["members:read", "points:earn"]
    assert found.purposes == ["membership", "points"]
    assert found.data_kinds == ["member_level", "points_balance", "purchases"]
    assert not found.sensitive
    answer = await flow.approve(handle)
    assert set(answer) == {"code", "state", "iss"}
    assert answer["state"] == "s-1"
    assert len(answer["code"]) >= 43


@pytest.mark.parametrize(
    ("clause", "changes", "error"),
    [
        ("ensure-response-type-token-fails", {"response_type": "token"}, "unsupported_response_type"),
        (
            "ensure-response-type-code-idtoken-fails",
            {"response_type": "code id_token"},
            "unsupported_response_type",
        ),
        ("response_type missing", {"response_type": DROP}, "invalid_request"),
        ("par-ensure-pkce-required", {"code_challenge": DROP}, "invalid_request"),
        ("par-plain-pkce-rejected", {"code_challenge_method": "plain"}, "invalid_request"),
        ("pkce method defaults to plain", {"code_challenge_method": DROP}, "invalid_request"),
        ("a short challenge", {"code_challenge": "x" * 42}, "invalid_request"),
        (
            "par-authorization-request-containing-request_uri-form-param",
            {"request_uri": "urn:x"},
            "invalid_request",
        ),
        ("request object", {"request": "e30.e30."}, "request_not_supported"),
        ("response_mode fragment", {"response_mode": "fragment"}, "invalid_request"),
        ("prompt none", {"prompt": "none"}, "login_required"),
        ("redirect_uri required", {"redirect_uri": DROP}, "invalid_request"),
        ("unknown scope", {"scope": "members:read admin"}, "invalid_scope"),
        ("scope that is not a member's", {"scope": "settlement:read"}, "invalid_scope"),
        ("nothing asked", {"scope": DROP}, "invalid_scope"),
        ("openid is not offered", {"scope": "openid members:read"}, "invalid_scope"),
        ("another resource", {"resource": "https://other.example"}, "invalid_target"),
        ("dpop_jkt malformed", {"dpop_jkt": "x"}, "invalid_request"),
        ("state too long", {"state": "x" * 513}, "invalid_request"),
        ("state with a line break", {"state": "a\r\nLocation: x"}, "invalid_request"),
        ("nonce too long", {"nonce": "x" * 513}, "invalid_request"),
        ("ui_locales", {"ui_locales": "<script>"}, "invalid_request"),
        ("grant without action", {"grant_id": "grt_" + "0" * 26}, "invalid_request"),
        ("action without grant", {"grant_management_action": "merge"}, "invalid_request"),
        ("unknown action", {"grant_management_action": "drop"}, "invalid_request"),
        (
            "unknown grant",
            {"grant_management_action": "merge", "grant_id": "grt_" + "0" * 26},
            "invalid_grant_id",
        ),
        ("end in the past", {"grant_ends_on": "2026-11-19"}, "invalid_request"),
        ("end too far", {"grant_ends_on": "2036-11-19"}, "invalid_request"),
        ("end no date", {"grant_ends_on": "tomorrow"}, "invalid_request"),
        ("end in another shape", {"grant_ends_on": "20270101"}, "invalid_request"),
        ("client_secret", {"client_secret": "x"}, "invalid_client"),
        ("no assertion", {"client_assertion": DROP}, "invalid_client"),
        ("client_id of another", {"client_id": "app_0"}, "invalid_client"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_request_that_breaks_a_rule_is_not_kept(
    clause: str, changes: dict[str, Any], error: str, flow: Flow
) -> None:
    assert error_of(await flow.push(**changes)) == error, clause


@pytest.mark.parametrize(
    "redirect_uri",
    [
        "https://mall.example/back",
        "https://mall.example/back?shop=1&x=1",
        "https://MALL.example/back?shop=1",
        "https://mall.example:443/back?shop=1",
        "https://mall.example/back?shop=1#",
        "https://mall.example/x/../back?shop=1",
        "https://mall.example@evil.example/back?shop=1",
        "//mall.example/back?shop=1",
        "http://mall.example/back?shop=1",
        "https://evil.example/",
        "javascript:alert(1)",
    ],
)
async def test_ensure_registered_redirect_uri(redirect_uri: str, flow: Flow) -> None:
    assert error_of(await flow.push(redirect_uri=redirect_uri)) == "invalid_request"


@pytest.mark.parametrize(
    "uri",
    ["http://mall.example/", "https://u@mall.example/", "https://mall.example/#x", "https://*.example/", "https:///x",
     "https://mall.example/a/../b", "https://mall.example/ü", "ftp://mall.example/", "https://MALL.example/", "x" * 300,
     "http://127.0.0.1:1/"],
)  # fmt: skip
async def test_only_https_addresses_are_registered(
    uri: str, connection: Connection, app: App, flow: Flow
) -> None:
    with pytest.raises(RedirectUriInvalid):
        await registry.add_redirect_uri(
            connection, client_id=app.client_id, uri=uri, sandbox=False, actor="test", now=flow.now
        )


async def test_the_sandbox_takes_loopback_addresses_and_no_other_plain_ones(
    connection: Connection, app: App, flow: Flow
) -> None:
    async def add(uri: str) -> None:
        await registry.add_redirect_uri(
            connection, client_id=app.client_id, uri=uri, sandbox=True, actor="test", now=flow.now
        )

    await add("http://127.0.0.1:8765/callback")
    await add("http://[::1]:8765/callback")
    for uri in ("http://localhost/callback", "http://10.0.0.1/", "http://127.0.0.1.evil.example/"):
        with pytest.raises(RedirectUriInvalid):
            await add(uri)


async def test_par_without_duplicate_parameters(flow: Flow) -> None:
    assert error_of(await flow.push(body=flow.asked() + b"&state=s-2")) == "invalid_request"
    twice = await flow.push(body=flow.asked() + b"&redirect_uri=https%3A%2F%2Fevil.example%2F")
    assert error_of(twice) == "invalid_request"


@pytest.mark.parametrize(
    ("module", "claims"),
    [
        ("par-test-array-as-audience-fails", {"aud": [BASE_URL]}),
        ("par-test-token-endpoint-url-as-audience-fails", {"aud": f"{BASE_URL}/oauth2/token"}),
        ("par-test-par-endpoint-url-as-audience-fails", {"aud": PAR}),
        ("ensure-client-assertion-with-no-sub-fails", {"sub": DROP}),
        ("nbf-over-60-seconds-in-the-future-fails", {"nbf": 70}),
        ("exp-is-5-minutes-in-past-fails", {"exp": -300}),
    ],
)
async def test_par_asks_as_much_of_an_assertion_as_the_token_endpoint(
    module: str, claims: dict[str, Any], flow: Flow
) -> None:
    moved: dict[str, Any] = {
        name: int((flow.now + timedelta(seconds=value)).timestamp()) if isinstance(value, int) else value
        for name, value in claims.items()
    }
    assertion = flow.client.assertion(flow.now, **moved)
    assert error_of(await flow.push(client_assertion=assertion)) == "invalid_client", module


async def test_nbf_8_seconds_in_the_future_is_accepted(flow: Flow) -> None:
    nbf = int((flow.now + timedelta(seconds=8)).timestamp())
    assertion = flow.client.assertion(flow.now, nbf=nbf, iat=nbf)
    assert isinstance(await flow.push(client_assertion=assertion), RequestPushed)


async def test_an_assertion_pushes_once_and_stays_used_after_a_refusal(flow: Flow) -> None:
    assertion = flow.client.assertion(flow.now)
    assert error_of(await flow.push(client_assertion=assertion, response_type="token")) != "invalid_client"
    assert error_of(await flow.push(client_assertion=assertion)) == "invalid_client"


async def test_an_app_without_the_grant_type_pushes_nothing(
    flow_of: Any, register: Any, connection: Connection, app: App, flow: Flow
) -> None:
    await connection.execute(
        "UPDATE registry_app SET grant_types = '{client_credentials}' WHERE id = $1", app.id
    )
    assert error_of(await flow.push()) == "unauthorized_client"


async def test_a_suspended_partner_pushes_nothing_and_gets_nobody_back(
    flow: Flow, connection: Connection, app: App
) -> None:
    handle = await flow.ask()
    await registry.set_partner_status(
        connection, partner_id=app.partner_id, status="suspended", actor="test", now=flow.now
    )
    assert error_of(await flow.push()) == "unauthorized_client"
    with pytest.raises(interaction.InteractionGone):
        await flow.approve(handle)
    with pytest.raises(interaction.InteractionGone):
        await flow.deny(handle)


async def test_nobody_is_sent_back_to_an_address_that_was_struck(
    flow: Flow, connection: Connection, app: App
) -> None:
    handle = await flow.ask()
    await registry.remove_redirect_uri(
        connection, client_id=app.client_id, uri=REDIRECT, actor="test", now=flow.now
    )
    with pytest.raises(interaction.InteractionGone):
        await flow.approve(handle)


async def test_par_ensure_reused_request_uri_prior_to_auth_completion_succeeds(flow: Flow) -> None:
    pushed = await flow.push()
    assert isinstance(pushed, RequestPushed)
    first = await flow.open(pushed.request_uri)
    again = await flow.open(pushed.request_uri)
    assert first is not None and first == again
    assert "code" in await flow.approve(first)


async def test_par_attempt_reuse_request_uri(flow: Flow) -> None:
    pushed = await flow.push()
    assert isinstance(pushed, RequestPushed)
    handle = await flow.open(pushed.request_uri)
    assert handle is not None
    await flow.approve(handle)
    assert await flow.open(pushed.request_uri) is None
    for answer in (flow.approve, flow.deny):
        with pytest.raises(interaction.InteractionGone):
            await answer(handle)


async def test_par_attempt_to_use_expired_request_uri(flow: Flow) -> None:
    pushed = await flow.push()
    assert isinstance(pushed, RequestPushed)
    assert await flow.later(89).open(pushed.request_uri) is not None
    assert await flow.later(90).open(pushed.request_uri) is None


async def test_a_page_waits_ten_minutes_and_no_longer(flow: Flow) -> None:
    handle = await flow.ask()
    with pytest.raises(interaction.InteractionGone):
        await flow.later(600).approve(handle)
    assert "code" in await flow.later(599).approve(handle)


async def test_par_attempt_to_use_request_uri_for_different_client(
    flow: Flow, flow_of: Any, register: Any, connection: Connection
) -> None:
    other, _ = await register(connection, flow.now)
    pushed = await flow.push()
    assert isinstance(pushed, RequestPushed)
    assert await flow.open(pushed.request_uri, client_id=other.client_id) is None
    for client_id in ("", "x", "app_" + "0" * 26):
        assert await flow.open(pushed.request_uri, client_id=client_id or "-") is None


@pytest.mark.parametrize(
    "request_uri",
    ["", "urn:ietf:params:oauth:request_uri:", "https://evil.example/r", "urn:ietf:params:oauth:request_uri:é",
     "urn:ietf:params:oauth:request_uri:" + "x" * 43, "x" * 10_000, "urn:ietf:params:oauth:request_uri:\0"],
)  # fmt: skip
async def test_a_request_uri_that_was_not_pushed_opens_nothing(request_uri: str, flow: Flow) -> None:
    assert await flow.open(request_uri) is None


@pytest.mark.parametrize("handle", ["", "x", "é" * 43, "\0" * 43, "x" * 10_000])
async def test_a_handle_that_was_not_given_out_finds_nothing(
    handle: str, flow: Flow, connection: Connection
) -> None:
    assert await interaction.find_interaction(connection, handle=handle, now=flow.now) is None
    with pytest.raises(interaction.InteractionGone):
        await flow.approve(handle)


async def test_the_request_uri_is_no_handle_and_the_database_knows_neither(
    flow: Flow, connection: Connection
) -> None:
    pushed = await flow.push()
    assert isinstance(pushed, RequestPushed)
    handle = await flow.open(pushed.request_uri)
    assert handle is not None
    with pytest.raises(interaction.InteractionGone):
        await flow.approve(pushed.request_uri.rpartition(":")[2])
    row = str(
        await connection.fetchrow("SELECT * FROM oauth_request WHERE client_id = $1", flow.client.client_id)
    )
    assert handle not in row and pushed.request_uri.rpartition(":")[2] not in row


async def test_user_rejects_authentication(flow: Flow) -> None:
    answer = await flow.deny(await flow.ask())
    assert answer["error"] == "access_denied"
    assert set(answer) == {"error", "error_description", "state", "iss"}


async def test_a_request_without_state_is_answered_without(flow: Flow) -> None:
    assert set(await flow.approve(await flow.ask(state=DROP))) == {"code", "iss"}


async def test_state_and_nonce_may_be_long(flow: Flow) -> None:
    state = "".join(chr(33 + n % 94) for n in range(512))
    answer = await flow.approve(await flow.ask(state=state, nonce="n" * 64))
    assert answer["state"] == state


async def test_ensure_other_scope_order_succeeds(flow: Flow) -> None:
    issued = await flow.issued(scope="points:earn members:read")
    assert issued.scope == "members:read points:earn"


async def test_ensure_dpop_auth_code_binding_by_a_proof_at_par(flow: Flow) -> None:
    proof = flow.client.proof("POST", PAR, flow.now)
    code = await flow.code(proofs=[proof])
    assert error_of(await flow.push(proofs=[proof])) == "invalid_dpop_proof"
    flow.client.proof_key = generate("ES256")
    assert error_of(await flow.exchange(code)) == "invalid_grant"


async def test_ensure_mismatched_dpop_jkt_fails(flow: Flow) -> None:
    proof = flow.client.proof("POST", PAR, flow.now)
    assert error_of(await flow.push(proofs=[proof], dpop_jkt=b64(b"\0" * 32))) == "invalid_dpop_proof"
    for wrong in (["x"], [proof, proof], [flow.client.proof("POST", f"{BASE_URL}/oauth2/token", flow.now)]):
        assert error_of(await flow.push(proofs=wrong)) == "invalid_dpop_proof"


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "{}", "null", "[1]", "[[]]", '[{"type": "unknown"}]', "[{}]",
        details({"type": "tax_data"}),
        details({"type": "tax_data", "tax_years": [2025], "datatypes": ["salary"]}),
        details({"type": "tax_data", "tax_years": [1999], "datatypes": ["paid_tax"]}),
        details({"type": "tax_data", "tax_years": [2025], "datatypes": ["paid_tax"], "more": 1}),
        details({"type": "points_spend", "max_points": 0}),
        details({"type": "points_spend", "max_points": "1"}),
        details({"type": "points_spend", "max_points": 1.5}),
        details({"type": "points_spend", "max_points": 1}, {"type": "points_spend", "max_points": 2}),
        details({"type": "instalment_plan", "quote_id": "qte_x"}),
        details({"type": "instalment_plan", "quote_id": "qte_" + "Z" * 26}),
        details({"type": "instalment_plan", "quote_id": "qte_" + "0" * 26}),
        details({"type": "instalment_plan", "quote_id": "qte_" + "0" * 26, "amount_fen": 1}),
        details(*[{"type": "account_open", "product": "edu_savings"}] * 9),
        "[" * 5_000,
    ],
)  # fmt: skip
async def test_authorization_details_that_are_not_understood_whole_are_refused(
    text: str, flow: Flow, connection: Connection, app: App
) -> None:
    await allow(connection, app, "offers:write", "data:write", "points:spend")
    # an empty parameter counts as omitted
    expected = "invalid_authorization_details" if text else None
    outcome = await flow.push(authorization_details=text)
    assert (error_of(outcome) if expected else None) == expected


async def test_a_description_repeats_nothing_that_may_not_stand_in_it(flow: Flow) -> None:
    outcome = await flow.push(authorization_details='[{"type": "\\u00e9\\"<\\u0000' + "x" * 5_000 + '"}]')
    assert error_of(outcome) == "invalid_authorization_details"
    assert isinstance(outcome, TokenRefused)
    assert len(outcome.description) < 300
    assert set(outcome.description) <= {chr(c) for c in range(0x20, 0x7F)} - {'"', "\\"}


async def allow(connection: Connection, app: App, *scopes: str) -> None:
    await connection.execute(
        "UPDATE registry_app SET scopes = scopes || $2::text[] WHERE id = $1", app.id, list(scopes)
    )


async def test_a_type_needs_its_scope(flow: Flow, connection: Connection, app: App) -> None:
    asked = details({"type": "points_spend", "max_points": 5})
    assert error_of(await flow.push(authorization_details=asked)) == "invalid_authorization_details"
    await allow(connection, app, "points:spend")
    issued = await flow.issued(authorization_details=asked, scope="points:spend")
    assert issued.authorization_details == [{"type": "points_spend", "max_points": 5}]


async def test_sensitive_data_takes_a_separate_consent(flow: Flow, connection: Connection, app: App) -> None:
    await allow(connection, app, "data:write")
    handle = await flow.ask(
        scope=DROP,
        authorization_details=details({"type": "tax_data", "tax_years": [2025], "datatypes": ["paid_tax"]}),
    )
    found = await interaction.find_interaction(connection, handle=handle, now=flow.now)
    assert found is not None and found.sensitive
    assert (found.purposes, found.data_kinds) == (["tax_credit"], ["tax"])
    with pytest.raises(interaction.SensitiveConsentMissing):
        await flow.approve(handle)
    assert "code" in await flow.approve(handle, sensitive_given=True)


async def test_what_was_shown_and_agreed_to_is_kept_for_ever(flow: Flow, connection: Connection) -> None:
    issued = await flow.issued()
    given = await connection.fetchrow(
        "SELECT * FROM oauth_consent_given WHERE client_id = $1", flow.client.client_id
    )
    assert given is not None
    assert (given["scopes"], given["methods"]) == (["members:read", "points:earn"], ["pwd", "otp"])
    assert issued.grant_id is not None
    for statement in ("UPDATE oauth_consent_given SET methods = '{}'", "DELETE FROM oauth_consent_given"):
        with pytest.raises(Exception, match="permission denied"):
            async with connection.transaction():
                await connection.execute(statement)


def test_the_verifier_of_these_tests_is_as_long_as_it_must_be() -> None:
    assert 43 <= len(VERIFIER) <= 128
