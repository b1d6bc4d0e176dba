"""The OpenAPI document as partners get it: Litestar's, with what our edge adds and what it cannot know.

Added: the security scheme and scope of each route, its JR/T 0185 level, the headers the edge reads and writes, the
problem documents it may answer with. Corrected: integer bounds written as floats.
"""

from collections.abc import Iterator
from typing import Any

from litestar import Litestar

from gateway.api_ids import find_api_id
from gateway.openapi_oauth import finish_oauth, mobile_scheme
from kernel.pages import LIMIT_MAX

SCHEMAS = "#/components/schemas/"

PROBLEM_STATUSES = {
    "400": "The request cannot be understood.",
    "401": "The request does not prove who is asking.",
    "403": "Known, but not allowed.",
    "404": "Not there, or not yours.",
    "405": "The route exists, but not for this method.",
    "409": "The present state does not allow this.",
    "413": "The body is too large.",
    "422": "Well formed, but a rule is broken.",
    "429": "Over the limit; see Retry-After.",
    "500": "A failure of ours; nothing was changed.",
    "503": "Cannot answer now; with `outcome_unknown`, repeat with the same Idempotency-Key.",
}

PROBLEM = {
    "type": "object",
    "description": "RFC 9457 problem document.",
    "required": ["type", "title", "status", "code"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string", "description": "Stable; the catalogue is in docs/errors.md."},
        "trace_id": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["pointer", "message"],
                "properties": {"pointer": {"type": "string"}, "message": {"type": "string"}},
            },
        },
    },
}

IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": True,
    "description": "The same key gives the same answer and one effect.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
}

PROOF = {
    "name": "DPoP",
    "in": "header",
    "required": True,
    "description": "RFC 9449 proof of possession, fresh for each request.",
    "schema": {"type": "string"},
}

#: not as parameters: what they hold depends on everything else in the request, no generator could make them up
SIGNATURES = {
    "fapi": "RFC 9421 with the tag fapi-2-request: Content-Digest, Signature-Input, Signature.",
    "sm2": "TESSERA-SM2-WITH-SM3: Tessera-Signature.",
}

INTRODUCTION = (
    "A bank's open partner platform: points, membership tiers and instalments in partners' own scenes. "
    "Get a token at `/oauth2/token` with `private_key_jwt` and DPoP; send `Authorization: DPoP` and a fresh proof with "
    "every call, and an `Idempotency-Key` with every call that creates or moves value."
)

#: sections of the reference, in reading order, with the paths that belong to each
SECTIONS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("Getting in", "Tokens, keys and metadata.", ("/oauth2/", "/.well-known/")),
    ("Self", "Who the platform takes you for.", ("/v1/keys", "/v1/me")),
    ("Members", "The bank's customers as you know them, and what they do.", ("/v1/members", "/v1/activity")),
    ("Points", "Earn, hold, spend, undo.", ("/v1/points",)),
    ("Rewards", "What points buy.", ("/v1/rewards", "/v1/redemptions")),
    ("Offers", "Search, quote, disclose, accept.", ("/v1/offers", "/v1/quotes")),
    ("Plans", "Instalment plans and what happens to them.", ("/v1/applications", "/v1/plans")),
    ("Entitlements", "Rights of a tier or an offer.", ("/v1/entitlements",)),
    ("Events", "What happened, by webhook or on request.", ("/v1/events", "/v1/webhook_endpoints")),
    ("Settlement", "What bank and partner owe each other.", ("/v1/settlement_batches",)),
    ("Mobile app", "What a member may do with the bank's own app; an issuer of its own.", ("/mobile/",)),
    ("Health", "Is it alive, is it ready, what does a code mean.", ("/livez", "/readyz", "/problems")),
)


def build_document(
    litestar: Litestar, *, base_url: str, scopes: dict[str, str], bank_code: str
) -> dict[str, Any]:
    """The finished document."""
    document: dict[str, Any] = litestar.openapi_schema.to_schema()
    document["servers"] = [{"url": base_url}]
    components = document.setdefault("components", {})
    components.setdefault("schemas", {})["Problem"] = PROBLEM
    components["securitySchemes"] = {
        "dpop": {
            "type": "oauth2",
            "description": "RFC 9068 access token, bound by DPoP (RFC 9449), got with private_key_jwt (RFC 7523).",
            "flows": {
                "clientCredentials": {"tokenUrl": f"{base_url}/oauth2/token", "scopes": scopes},
                "authorizationCode": {
                    "authorizationUrl": f"{base_url}/oauth2/authorize",
                    "tokenUrl": f"{base_url}/oauth2/token",
                    "scopes": scopes,
                },
            },
        },
        "mobile": mobile_scheme(base_url),
    }
    document["info"] |= {
        "description": INTRODUCTION,
        "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
    }
    document["tags"] = [{"name": name, "description": about} for name, about, _ in SECTIONS]
    handlers = dict(_handlers(litestar))
    # Litestar keeps a handler's paths in a set: without an order of ours the document would differ from start to start.
    reading_order = [name for name, _, _ in SECTIONS]
    paths = document.get("paths", {})
    document["paths"] = {
        path: paths[path]
        for path in sorted(paths, key=lambda path: (reading_order.index(section_of(path)), path))
    }
    for path, item in document["paths"].items():
        for method, operation in item.items():
            handler = handlers[method, path]
            _describe_operation(operation, handler, path)
            _finish_operation(operation, handler.opt)
            _identify(operation, handler.opt, method=method, path=path, bank_code=bank_code)
    finish_oauth(document["paths"], PROOF)
    names = {name: _short(name) for name in components["schemas"]}
    components["schemas"] = {names[name]: schema for name, schema in components["schemas"].items()}
    return {key: _cleaned(value, names) for key, value in document.items()}


def _handlers(litestar: Litestar) -> Iterator[tuple[tuple[str, str], Any]]:
    """Every route's handler, by method and path as OpenAPI writes them."""
    for route in litestar.routes:
        for handler in getattr(route, "route_handlers", []):
            for method in handler.http_methods:
                yield (str(method).lower(), route.path_format), handler


def _describe_operation(operation: dict[str, Any], handler: Any, path: str) -> None:
    """The handler's own sentence as summary, its name as the operation's, the resource as its section."""
    sentence, _, more = (handler.fn.__doc__ or "").strip().partition("\n\n")
    operation["summary"] = " ".join(sentence.split()).removesuffix(".")
    operation.pop("description", None)
    if more:
        operation["description"] = " ".join(more.split())
    operation["operationId"] = handler.handler_name + (
        "_at_path" if path.endswith(("protected-resource/v1", "openid-configuration")) else ""
    )
    operation["tags"] = [section_of(path)]


def section_of(path: str) -> str:
    """The section with the longest prefix of `path`."""
    fitting = [
        (len(prefix), name)
        for name, _, prefixes in SECTIONS
        for prefix in prefixes
        if path.startswith(prefix)
    ]
    return max(fitting)[1]


def _finish_operation(operation: dict[str, Any], opt: dict[str, Any]) -> None:
    responses = operation.setdefault("responses", {})
    responses.pop("400", None)
    public = opt.get("public") is True
    for status, meaning in PROBLEM_STATUSES.items():
        responses.setdefault(
            status,
            {
                "description": meaning,
                "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
            },
        )
    parameters = operation.setdefault("parameters", [])
    for parameter in parameters:
        if parameter["name"] == "limit":
            parameter["schema"] |= {"minimum": 1, "maximum": LIMIT_MAX}
    if not public:
        declared = opt.get("scope")
        needed = [] if declared in (None, "self") else str(declared).split("|")
        scheme = "mobile" if opt.get("audience") == "mobile" else "dpop"
        operation["security"] = [{scheme: [scope]} for scope in needed] or [{scheme: []}]
        operation["x-api-level"] = opt.get("level", "A1")
        parameters.append(PROOF)
    if opt.get("idempotent") is True:
        parameters.append(IDEMPOTENCY_KEY)


def _identify(
    operation: dict[str, Any], opt: dict[str, Any], *, method: str, path: str, bank_code: str
) -> None:
    """JR/T 0185: level and unified identifier; a write of A2 may have to be signed."""
    api_id = find_api_id(method, path)
    if "level" not in opt or api_id is None:
        return
    operation["x-security-level"] = opt["level"]
    operation["x-u-api-id"] = api_id.written(bank_code)
    if opt["level"] == "A2" and method != "get":
        operation["x-request-signature"] = SIGNATURES


def _short(name: str) -> str:
    """`Page_points.ledger.bodies.EntryView_` is EntryViewPage: a partner has no use for our module names."""
    return f"{name.rpartition('.')[2].rstrip('_')}Page" if name.startswith("Page_") else name


def _cleaned(node: Any, names: dict[str, str]) -> Any:
    """Whole numbers as integers (our schemas have no others), references under the short names."""
    if isinstance(node, dict):
        return {
            key: f"{SCHEMAS}{names[value.removeprefix(SCHEMAS)]}" if key == "$ref" else _cleaned(value, names)
            for key, value in node.items()
        }
    if isinstance(node, list):
        return [_cleaned(value, names) for value in node]
    return int(node) if isinstance(node, float) and node.is_integer() else node
