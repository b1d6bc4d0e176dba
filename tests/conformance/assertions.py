"""Client assertions that are wrong in one way each, with a signature that is good."""

import json
from typing import Any

import jwt
from conformance.bank import ISSUER, PAR, TOKEN, RelyingParty
from partner_client import DROP, b64, forge

WRONG: dict[str, dict[str, Any]] = {
    "no sub RFC7523-3": {"sub": DROP},
    "sub of another RFC7523-3": {"sub": "app_00000000000000000000000000"},
    "no iss RFC7523-3": {"iss": DROP},
    "iss of another RFC7523-3": {"iss": "app_00000000000000000000000000"},
    "no aud RFC7523-3": {"aud": DROP},
    "aud of another server FAPI2-SP-FINAL-5.3.2.1-8": {"aud": "https://other.example"},
    "aud is the token endpoint FAPI2-SP-FINAL-5.3.2.1-8": {"aud": ISSUER + TOKEN},
    "aud is the PAR endpoint FAPI2-SP-FINAL-5.3.2.1-8": {"aud": ISSUER + PAR},
    "aud is an array FAPI2-SP-FINAL-5.3.2.1-8": {"aud": [ISSUER, "https://other.example"]},
    "aud is an array of one FAPI2-SP-FINAL-5.3.2.1-8": {"aud": [ISSUER]},
}


def signed_assertion(party: RelyingParty, **changes: Any) -> str:
    """An assertion with any claims; PyJWT would not write every one of them."""
    claims = json.dumps(party.keys.claims(party.bank.clock.now(), **changes))
    text: str = forge({"alg": "ES256", "kid": party.keys.kid}, claims).rpartition(".")[0]
    return f"{text}.{b64(jwt.get_algorithm_by_name('ES256').sign(text.encode(), party.keys.key))}"
