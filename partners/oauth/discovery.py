"""The metadata documents: what the authorization server and the partner API say of themselves, exact and complete."""

from typing import Any

from partners.oauth.backchannel import BACKCHANNEL_PATH
from partners.oauth.details import DETAIL_TYPES
from partners.oauth.grant_types import GRANTS
from partners.oauth.introspection import INTROSPECTION_PATH, REVOCATION_PATH
from partners.oauth.pushing import PAR_PATH
from partners.oauth.scopes import SCOPES
from partners.oauth.token import RESOURCE_PATH, TOKEN_PATH
from partners.registry.jwk import ALGORITHMS

AUTHORIZE_PATH = "/oauth2/authorize"
GRANTS_PATH = "/oauth2/grants"

#: how a client authenticates, at every endpoint that asks
AUTHENTICATION_METHODS = ("private_key_jwt",)
#: endpoints with metadata of their own for that (RFC 8414 §2)
_AUTHENTICATED = ("token", "introspection", "revocation")


def describe_server(issuer: str, *, base_url: str, mtls_base_url: str | None = None) -> dict[str, Any]:
    """RFC 8414 §2, RFC 9126 §5, RFC 9207 §3, RFC 9396 §10, RFC 9449 §5.1, CIBA §4, Grant Management §7, OpenID Discovery §3."""
    document: dict[str, Any] = {
        "issuer": issuer,
        "authorization_endpoint": base_url + AUTHORIZE_PATH,
        "token_endpoint": base_url + TOKEN_PATH,
        "pushed_authorization_request_endpoint": base_url + PAR_PATH,
        "require_pushed_authorization_requests": True,
        "introspection_endpoint": base_url + INTROSPECTION_PATH,
        "revocation_endpoint": base_url + REVOCATION_PATH,
        "backchannel_authentication_endpoint": base_url + BACKCHANNEL_PATH,
        "backchannel_token_delivery_modes_supported": ["poll"],
        "backchannel_user_code_parameter_supported": False,
        "grant_management_endpoint": base_url + GRANTS_PATH,
        "grant_management_actions_supported": ["query", "revoke", "create", "merge", "replace"],
        "grant_management_action_required": False,
        "jwks_uri": f"{base_url}/oauth2/jwks",
        "grant_types_supported": list(GRANTS),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": True,
        "dpop_signing_alg_values_supported": list(ALGORITHMS),
        "scopes_supported": sorted(SCOPES),
        "authorization_details_types_supported": list(DETAIL_TYPES),
        "subject_types_supported": ["pairwise"],
        # OpenID Discovery requires the member; no ID tokens are issued, and access tokens are signed with this one.
        "id_token_signing_alg_values_supported": ["ES256"],
        "request_parameter_supported": False,
        "request_uri_parameter_supported": False,
        "claims_parameter_supported": False,
        "ui_locales_supported": ["zh-CN", "en"],
    }
    for endpoint in _AUTHENTICATED:
        document[f"{endpoint}_endpoint_auth_methods_supported"] = list(AUTHENTICATION_METHODS)
        document[f"{endpoint}_endpoint_auth_signing_alg_values_supported"] = list(ALGORITHMS)
    if mtls_base_url is not None:
        document |= _describe_certificates(mtls_base_url)
    return document


def _describe_certificates(mtls_base_url: str) -> dict[str, Any]:
    """RFC 8705 §3.3 and §5: published only where clients can come with certificates."""
    paths = {
        "token_endpoint": TOKEN_PATH,
        "pushed_authorization_request_endpoint": PAR_PATH,
        "introspection_endpoint": INTROSPECTION_PATH,
        "revocation_endpoint": REVOCATION_PATH,
    }
    methods = [*AUTHENTICATION_METHODS, "tls_client_auth"]
    return {
        **{f"{endpoint}_endpoint_auth_methods_supported": methods for endpoint in _AUTHENTICATED},
        "tls_client_certificate_bound_access_tokens": True,
        "mtls_endpoint_aliases": {name: mtls_base_url + path for name, path in paths.items()},
    }


def describe_resource(issuer: str, *, base_url: str) -> dict[str, Any]:
    """RFC 9728 §2."""
    return {
        "resource": base_url + RESOURCE_PATH,
        "authorization_servers": [issuer],
        "scopes_supported": sorted(SCOPES),
        "authorization_details_types_supported": list(DETAIL_TYPES),
        "bearer_methods_supported": ["header"],
        "dpop_signing_alg_values_supported": list(ALGORITHMS),
        "dpop_bound_access_tokens_required": True,
    }
