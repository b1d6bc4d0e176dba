"""The modules of the OpenID conformance suite that apply here, by the names their authors gave them.

The plan is `fapi2-security-profile-final-test-plan` with private_key_jwt, DPoP, plain responses and unsigned requests.
A test says by `@module` which of them it carries out; the name and the cited requirements become part of its id.
"""

import pytest

PREFIX = "fapi2-security-profile-final-"

#: what the certification profile "Client Credentials Grant, private key, DPoP" consists of
CLIENT_CREDENTIALS = (
    "happy-flow",
    "access-token-type-header-case-sensitivity",
    "check-dpop-proof-nbf-exp",
    "dpop-negative-tests",
    "ensure-client-assertion-in-token-endpoint",
    "ensure-client-assertion-with-exp-is-5-minutes-in-past-fails",
    "ensure-client-assertion-with-no-sub-fails",
    "ensure-client-assertion-with-wrong-aud-fails",
    "ensure-client-id-in-token-endpoint",
    "ensure-dpopproof-with-iat-10seconds-after-succeeds",
    "ensure-dpopproof-with-iat-10seconds-before-succeeds",
    "ensure-holder-of-key-required",
    "ensure-signed-client-assertion-with-RS256-fails",
)
#: later versions of the suite gather the negative assertions here
ASSERTIONS = ("ensure-invalid-client-assertions-fail",)


#: what the code flow of plain OAuth adds
CODE_FLOW = (
    "discovery-end-point-verification",
    "user-rejects-authentication",
    "ensure-authorization-request-without-state-success",
    "ensure-authorization-request-with-long-state",
    "ensure-authorization-request-without-nonce-success",
    "ensure-authorization-request-with-64-char-nonce-success",
    "ensure-authorization-request-with-long-nonce",
    "ensure-other-scope-order-succeeds",
    "ensure-different-state-inside-and-outside-request-object",
    "state-only-outside-request-object-not-used",
    "ensure-redirect-uri-in-authorization-request",
    "ensure-request-object-without-redirect-uri-fails",
    "ensure-registered-redirect-uri",
    "ensure-response-type-code-idtoken-fails",
    "ensure-response-type-token-fails",
    "ensure-unsigned-authorization-request-without-using-par-fails",
    "ensure-authorization-code-is-bound-to-client",
    "attempt-reuse-authorization-code-after-one-second",
    "ensure-token-endpoint-fails-with-expired-auth-code",
    "ensure-pkce-code-verifier-required",
    "incorrect-pkce-code-verifier-rejected",
    "refresh-token",
    "ensure-server-handles-non-matching-intent-id",
)
CODE_BINDING = (
    "ensure-mismatched-dpop-jkt-fails",
    "ensure-token-endpoint-fails-with-mismatched-dpop-jkt",
    "ensure-token-endpoint-fails-with-mismatched-dpop-proof-jkt",
    "ensure-dpopproof-at-par-endpoint-binding-success",
    "ensure-dpop-auth-code-binding-success",
)
PUSHED = (
    "par-ensure-pkce-required",
    "par-plain-pkce-rejected",
    "par-attempt-reuse-request_uri",
    "par-attempt-to-use-expired-request_uri",
    "par-attempt-to-use-request_uri-for-different-client",
    "par-ensure-reused-request-uri-prior-to-auth-completion-succeeds",
    "par-authorization-request-containing-request_uri-form-param",
    "par-attempt-invalid-http-method",
    "par-without-duplicate-parameters",
    "par-test-array-as-audience-fails",
    "par-test-par-endpoint-url-as-audience-fails",
    "par-test-token-endpoint-url-as-audience-fails",
    "par-ensure-jwt-client-assertions-nbf-8-seconds-in-the-future-is-accepted",
    "par-ensure-jwt-client-assertions-nbf-over-60-seconds-in-the-future-fails",
)
GRANT_MANAGEMENT = tuple(
    f"grant-management-{name}"
    for name in (
        "happy-flow",
        "merge",
        "replace",
        "ensure-invalid-grant-id-fails",
        "ensure-query-non-existent-grant-fails",
        "ensure-query-after-revoke-fails",
        "ensure-wrong-client-cannot-query-grant",
        "ensure-wrong-client-cannot-revoke-grant",
    )
)

#: of `fapi-ciba-id1-test-plan`, whose names have their own beginning
BACKCHANNEL = (
    "fapi-ciba-id1",
    *(
        f"fapi-ciba-id1-{name}"
        for name in (
            "multiple-call-to-token-endpoint",
            "auth-req-id-expired",
            "user-rejects-authentication",
            "ensure-wrong-auth-req-id-in-token-endpoint-request",
            "ensure-authorization-request-with-binding-message-succeeds",
            "ensure-authorization-request-with-potentially-bad-binding-message",
            "ensure-authorization-request-with-multiple-hints-fails",
            "ensure-other-scope-order-succeeds",
            "ensure-requested-expiry-as-string-succeeds",
            "ensure-without-client-assertion-in-backchannel-authorization-request",
            "ensure-without-client-assertion-in-token-endpoint-request",
            "ensure-invalid-client-assertions-in-backchannel-authorization-request-fail",
            "refresh-token",
        )
    ),
)

PLAN = frozenset(
    (*CLIENT_CREDENTIALS, *ASSERTIONS, *CODE_FLOW, *CODE_BINDING, *PUSHED, *GRANT_MANAGEMENT, *BACKCHANNEL)
)


def module(name: str, *requirements: str) -> pytest.MarkDecorator:
    """The test carries out this module of the suite; `requirements` are the clauses the module cites."""
    assert name in PLAN, f"the plan has no module {name}"
    full = name if name in BACKCHANNEL else PREFIX + name
    label = "|".join((full, *requirements))
    return pytest.mark.parametrize("module", [label], ids=[label])
