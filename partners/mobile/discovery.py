"""The metadata documents of the mobile issuer and API, exact and complete."""

from typing import Any

from partners.mobile import rules
from partners.mobile.scopes import MOBILE_SCOPES
from partners.mobile.tokens import GRANT_TYPES
from partners.registry.jwk import ALGORITHMS


def describe_server(*, base_url: str) -> dict[str, Any]:
    """RFC 8414 §2, RFC 9207 §3, RFC 9449 §5.1: one kind of client, which keeps no secret."""
    return {
        "issuer": base_url + rules.ISSUER_PATH,
        "authorization_endpoint": base_url + rules.AUTHORIZE_PATH,
        "token_endpoint": base_url + rules.TOKEN_PATH,
        "revocation_endpoint": base_url + rules.REVOCATION_PATH,
        "jwks_uri": f"{base_url}/oauth2/jwks",
        "grant_types_supported": list(GRANT_TYPES),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": ["none"],
        "revocation_endpoint_auth_methods_supported": ["none"],
        "authorization_response_iss_parameter_supported": True,
        "dpop_signing_alg_values_supported": list(ALGORITHMS),
        "scopes_supported": sorted(MOBILE_SCOPES),
        "ui_locales_supported": ["zh-CN", "en"],
    }


def describe_resource(*, base_url: str) -> dict[str, Any]:
    """RFC 9728 §2."""
    return {
        "resource": base_url + rules.RESOURCE_PATH,
        "authorization_servers": [base_url + rules.ISSUER_PATH],
        "scopes_supported": sorted(MOBILE_SCOPES),
        "bearer_methods_supported": ["header"],
        "dpop_signing_alg_values_supported": list(ALGORITHMS),
        "dpop_bound_access_tokens_required": True,
    }
