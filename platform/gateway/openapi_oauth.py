"""The OAuth endpoints in the OpenAPI document: forms come in, refusals have the shape of RFC 6749, a page answers browsers."""

from typing import Any

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
    "/oauth2/introspect": (_QUESTION, ("token",), None),
    "/oauth2/revoke": (_QUESTION, ("token",), None),
}

_ERROR = {
    "type": "object",
    "description": "RFC 6749 §5.2.",
    "required": ["error"],
    "properties": {"error": {"type": "string"}, "error_description": {"type": "string"}},
}


def finish_oauth(paths: dict[str, Any], proof: dict[str, Any]) -> None:
    """Say of each OAuth endpoint what the framework cannot know."""
    for path, (properties, required, proved) in FORMS.items():
        _finish_form(paths[path]["post"], {**_ASSERTION, **properties}, [*_ASSERTION, *required])
        if proved is not None:
            paths[path]["post"]["parameters"] = [{**proof, "required": proved}]
    _finish_authorize(paths["/oauth2/authorize"]["get"])


def _finish_form(operation: dict[str, Any], properties: dict[str, Any], required: list[str]) -> None:
    form = {"type": "object", "required": required, "properties": properties}
    operation["requestBody"] = {
        "required": True,
        "content": {"application/x-www-form-urlencoded": {"schema": form}},
    }
    for status in ("400", "401"):
        operation["responses"][status] = {
            "description": "Refused (RFC 6749 §5.2).",
            "content": {"application/json": {"schema": _ERROR}},
        }


def _finish_authorize(operation: dict[str, Any]) -> None:
    operation["parameters"] = [
        {"name": name, "in": "query", "required": True, "schema": {"type": "string"}}
        for name in ("client_id", "request_uri")
    ]
    operation["responses"]["303"] = {"description": "To the bank's own pages."}
    operation["responses"]["400"] = {
        "description": "A page: there is nothing to follow, and nowhere to send the member back to.",
        "content": {"text/html": {"schema": {"type": "string"}}},
    }
    operation["responses"].pop("200", None)
