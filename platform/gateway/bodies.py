"""Bodies are read strictly, before anything else happens: `"100"` is no amount, and `1700000000` no moment.

Litestar converts leniently, as query strings need it. For JSON that would let a text pass as a number.
"""

import re
from typing import Any

import msgspec
from litestar.exceptions import ValidationException
from litestar.handlers import BaseRouteHandler, HTTPRouteHandler
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Empty, Receive, Scope, Send
from msgspec import Struct

from gateway.problems import BodyMalformed
from gateway.requests import Passage

_PLACE = re.compile(r"^(?P<message>.*) - at `\$\.?(?P<key>.*)`$", re.DOTALL)


class NoBody(Struct, frozen=True, forbid_unknown_fields=True):
    """What may be sent to a route that reads nothing: a wish it would not fulfil is refused, not ignored."""


class BodyGuard(ASGIMiddleware):
    """Refuses a body that is not what its route declares."""

    def __init__(self) -> None:
        self._decoders: dict[BaseRouteHandler, msgspec.json.Decoder[Any] | None] = {}

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        handler: BaseRouteHandler = scope["route_handler"]
        if handler not in self._decoders:
            self._decoders[handler] = decoder_of(handler)
        decoder = self._decoders[handler]
        body = Passage.of(scope).body
        if decoder is not None and (body or not _may_be_absent(handler)):
            check_body(decoder, body)
        await next_app(scope, receive, send)


def check_body(decoder: msgspec.json.Decoder[Any], body: bytes) -> None:
    """Refuse `body` unless it decodes."""
    try:
        decoder.decode(body)
    except msgspec.ValidationError as mistake:
        found = _PLACE.match(str(mistake))
        message, key = (found["message"], found["key"]) if found else (str(mistake), "")
        raise ValidationException(detail=message, extra=[{"message": message, "key": key}]) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BodyMalformed from None


def decoder_of(handler: BaseRouteHandler) -> msgspec.json.Decoder[Any] | None:
    """What reads the route's body; None where the route itself does, or where nobody looks at it."""
    parameters = handler.parsed_fn_signature.parameters
    if "data" in parameters:
        return msgspec.json.Decoder(parameters["data"].annotation)
    return msgspec.json.Decoder(NoBody) if _reads_nothing(handler) else None


def _reads_nothing(handler: BaseRouteHandler) -> bool:
    """A partner's POST without a body; forms are read from the request by their own routes."""
    return (
        isinstance(handler, HTTPRouteHandler)
        and "POST" in handler.http_methods
        and all(path.startswith("/v1/") for path in handler.paths)
        and "request" not in handler.parsed_fn_signature.parameters
    )


def _may_be_absent(handler: BaseRouteHandler) -> bool:
    parameters = handler.parsed_fn_signature.parameters
    return "data" not in parameters or parameters["data"].default is not Empty
