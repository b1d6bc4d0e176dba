"""The OAuth endpoints in the OpenAPI document: forms come in, refusals have the shape of RFC 6749, a page answers browsers."""

from typing import Any

from partners.mobile.scopes import MOBILE_SCOPES
from partners.mobile.tokens import GRANT_TYPES
from partners.oauth.backchannel import BACKCHANNEL_PATH
from partners.oauth.backchannel_rules import BINDING_MESSAGE_MAX, EXPIRY_SECONDS_MAX, EXPIRY_SECONDS_MIN
from partners.oauth.details import DETAIL_TYPES
from partners.oauth.grant_types import GRANTS

_ASSERTION = {
    "client_assertion_type": {
        "type": "string",
        "const": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    },
    "client_assertion": {"type": "string", "description": "private_key_jwt; `aud` is the issuer."},
}

_TOKEN = {
    "grant_type": {"type": "string", "enum": list(GRANTS)},
    "scope": {
        "type": "string",
        "description": "Scopes separated by spaces; all of the app's by default, or of the member's grant.",
    },
    "resource": {"type": "string", "format": "uri"},
    "code": {"type": "string"},
    "redirect_uri": {"type": "string", "description": "The one that was pushed."},
    "code_verifier": {"type": "string", "minLength": 43, "maxLength": 128},
    "refresh_token": {"type": "string"},
    "auth_req_id": {"type": "string", "description": "Of a request to the member's phone."},
}

_PUSHED = {
    "response_type": {"type": "string", "const": "code"},
    "redirect_uri": {"type": "string", "description": "Registered for the app, character by character."},
    "code_challenge": {"type": "string", "minLength": 43, "maxLength": 43},
    "code_challenge_method": {"type": "string", "const": "S256"},
    "scope": {"type": "string"},
    "authorization_details": {
        "type": "string",
        "description": f"RFC 9396, a JSON array. Types: {', '.join(DETAIL_TYPES)}.",
    },
    "state": {"type": "string", "maxLength": 512},
    "nonce": {"type": "string", "maxLength": 512},
    "dpop_jkt": {"type": "string", "description": "Thumbprint of the key the code is bound to."},
    "resource": {"type": "string", "format": "uri"},
    "grant_management_action": {"type": "string", "enum": ["create", "merge", "replace"]},
    "grant_id": {"type": "string", "description": "The grant to merge into or to replace."},
    "grant_ends_on": {"type": "string", "format": "date", "description": "The last day; a year by default."},
    "ui_locales": {"type": "string", "maxLength": 64},
}

_BACKCHANNEL = {
    "login_hint": {"type": "string", "description": "The member's subject at your organisation."},
    "binding_message": {
        "type": "string",
        "maxLength": BINDING_MESSAGE_MAX,
        "description": "Shown to the member, so that phone and counter speak of the same thing.",
    },
    "requested_expiry": {
        "type": "string",
        "description": f"Seconds, held between {EXPIRY_SECONDS_MIN} and {EXPIRY_SECONDS_MAX}.",
    },
    **{
        name: _PUSHED[name]
        for name in (
            "scope",
            "authorization_details",
            "resource",
            "grant_management_action",
            "grant_id",
            "grant_ends_on",
            "ui_locales",
        )
    },
}

_CLIENT_ID = {"client_id": {"type": "string", "description": "The app's name, `mob_…`; it has no secret."}}

_MOBILE_TOKEN = {
    **{
        name: _TOKEN[name]
        for name in ("code", "redirect_uri", "code_verifier", "refresh_token", "scope", "resource")
    },
    "grant_type": {"type": "string", "enum": list(GRANT_TYPES)},
}

_MOBILE_QUERY = {
    "client_id": True,
    "redirect_uri": True,
    "response_type": True,
    "code_challenge": True,
    "code_challenge_method": True,
    "scope": False,
    "state": False,
    "dpop_jkt": False,
    "ui_locales": False,
}

_QUESTION = {
    "token": {"type": "string"},
    "token_type_hint": {"type": "string"},
}

#: path → parameters beside the assertion, those that are required, whether a DPoP proof is
FORMS: dict[str, tuple[dict[str, Any], tuple[str, ...], bool | None]] = {
    "/oauth2/token": (_TOKEN, ("grant_type",), True),
    "/oauth2/par": (
        _PUSHED,
        ("response_type", "redirect_uri", "code_challenge", "code_challenge_method"),
        False,
    ),
    BACKCHANNEL_PATH: (_BACKCHANNEL, ("login_hint",), None),
    "/oauth2/introspect": (_QUESTION, ("token",), None),
    "/oauth2/revoke": (_QUESTION, ("token",), None),
}

#: the same of the mobile issuer, whose clients have no assertion
MOBILE_FORMS: dict[str, tuple[dict[str, Any], tuple[str, ...], bool | None]] = {
    "/mobile/oauth2/token": (_MOBILE_TOKEN, ("grant_type",), True),
    "/mobile/oauth2/revoke": (_QUESTION, ("token",), None),
}

_ERROR = {
    "type": "object",
    "description": "RFC 6749 §5.2.",
    "required": ["error"],
    "properties": {"error": {"type": "string"}, "error_description": {"type": "string"}},
}


def finish_oauth(paths: dict[str, Any], proof: dict[str, Any]) -> None:
    """Say of each OAuth endpoint what the framework cannot know."""
    for identity, forms in ((_ASSERTION, FORMS), (_CLIENT_ID, MOBILE_FORMS)):
        for path, (properties, required, proved) in forms.items():
            _finish_form(paths[path]["post"], {**identity, **properties}, [*identity, *required])
            if proved is not None:
                paths[path]["post"]["parameters"] = [{**proof, "required": proved}]
    # CIBA §13: what would flood a member is denied
    paths[BACKCHANNEL_PATH]["post"]["responses"]["403"] = _refusal("Denied (CIBA §13).")
    _finish_authorize(paths["/oauth2/authorize"]["get"], {"client_id": True, "request_uri": True})
    _finish_authorize(paths["/mobile/oauth2/authorize"]["get"], _MOBILE_QUERY)


def mobile_scheme(base_url: str) -> dict[str, Any]:
    """How members with the bank's own app prove who they are."""
    return {
        "type": "oauth2",
        "description": "RFC 9068 access token of the mobile issuer, bound by DPoP (RFC 9449) to the phone's key.",
        "flows": {
            "authorizationCode": {
                "authorizationUrl": f"{base_url}/mobile/oauth2/authorize",
                "tokenUrl": f"{base_url}/mobile/oauth2/token",
                "refreshUrl": f"{base_url}/mobile/oauth2/token",
                "scopes": {name: label.en for name, label in MOBILE_SCOPES.items()},
            }
        },
    }


def _finish_form(operation: dict[str, Any], properties: dict[str, Any], required: list[str]) -> None:
    form = {"type": "object", "required": required, "properties": properties}
    operation["requestBody"] = {
        "required": True,
        "content": {"application/x-www-form-urlencoded": {"schema": form}},
    }
    for status in ("400", "401"):
        operation["responses"][status] = _refusal("Refused (RFC 6749 §5.2).")


def _refusal(description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": _ERROR}}}


def _finish_authorize(operation: dict[str, Any], parameters: dict[str, bool]) -> None:
    operation["parameters"] = [
        {"name": name, "in": "query", "required": required, "schema": {"type": "string"}}
        for name, required in parameters.items()
    ]
    operation["responses"]["303"] = {"description": "To the bank's own pages."}
    operation["responses"]["400"] = {
        "description": "A page: there is nothing to follow, and nowhere to send the member back to.",
        "content": {"text/html": {"schema": {"type": "string"}}},
    }
    operation["responses"].pop("200", None)
