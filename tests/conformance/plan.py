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

PLAN = frozenset((*CLIENT_CREDENTIALS, *ASSERTIONS))


def module(name: str, *requirements: str) -> pytest.MarkDecorator:
    """The test carries out this module of the suite; `requirements` are the clauses the module cites."""
    assert name in PLAN, f"the plan has no module {name}"
    return pytest.mark.parametrize("module", ["|".join((PREFIX + name, *requirements))])
