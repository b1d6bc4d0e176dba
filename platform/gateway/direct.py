"""The hottest routes answered without the framework's routing: those that declare `together`.

The handler, its scope, its body type and its answers are the same; only the way to it is shorter. Whatever is not a
plain good request (unknown path, wrong scope, body that does not decode, key missing) goes the long way, which says why:
nothing has happened by then.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any, cast

import asyncpg
import msgspec
import structlog
from litestar import Litestar
from litestar.handlers import HTTPRouteHandler
from litestar.types import Empty
from msgspec import Struct

from gateway.bodies import decoder_of
from gateway.problems import Answer, InternalError, ValueNotStorable, render
from gateway.requests import Passage
from gateway.runtime import Runtime
from gateway.scopes import check_scope
from gateway.signing import check_signed
from gateway.unit_of_work import Desk, keyed_request
from kernel.database import AWAY, DatabaseBusy
from kernel.errors import Refusal
from kernel.idempotency import AnsweredBefore

log = structlog.get_logger("direct")

JSON = (b"content-type", b"application/json")
_PARAMETER = re.compile(r"\{(\w+):str\}")


class DirectRoute(Struct, frozen=True, kw_only=True):
    """A hot route: how its path is recognised, and the handler behind it."""

    template: str
    #: the same as the framework's metrics and logs name it
    label: str
    path: re.Pattern[str]
    handler: HTTPRouteHandler
    #: the handler's function, called with data, writer and the path's parameters
    function: Callable[..., Any]
    decoder: msgspec.json.Decoder[Any] | None
    #: whether a request without a body is a good one
    bare: bool
    #: whether the handler takes what was decoded
    reads: bool


class DirectRoutes:
    """An ASGI application in front of the framework's."""

    def __init__(self, app: Any, runtime: Runtime, routes: Iterable[DirectRoute]) -> None:
        self._app = app
        self._runtime = runtime
        self._fixed = {route.template: route for route in routes if "{" not in route.template}
        self._open = [route for route in routes if "{" in route.template]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        route, named = self._find(scope) if scope["type"] == "http" else (None, {})
        if route is None:
            await self._app(scope, receive, send)
            return
        passage = Passage.of(scope)
        try:
            check_scope(passage.caller, route.handler.opt)
            check_signed(passage, route.handler.opt, "POST")
            if route.decoder is not None and (passage.body or not route.bare):
                data = route.decoder.decode(passage.body)
                if route.reads:
                    named["data"] = data
            desk = Desk(self._runtime, passage, keyed_request(scope, passage), route.handler.status_code)
        except (Refusal, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            await self._app(scope, receive, send)
            return
        scope["path_template"] = route.label
        status, headers, body = await self._answer(route, desk, named, passage)
        headers.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    def _find(self, scope: Any) -> tuple[DirectRoute | None, dict[str, Any]]:
        if scope["method"] != "POST":
            return None, {}
        path = scope["path"]
        if route := self._fixed.get(path):
            return route, {}
        for route in self._open:
            if found := route.path.fullmatch(path):
                return route, found.groupdict()
        return None, {}

    async def _answer(
        self, route: DirectRoute, desk: Desk, named: dict[str, Any], passage: Passage
    ) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        """The handler's answer as it was committed, or why there is none: what gateway.problems makes of exceptions."""
        try:
            await route.function(writer=desk, **named)
        except AnsweredBefore as replay:
            return replay.answer.status, [JSON, (b"idempotency-replayed", b"true")], replay.answer.body
        except Refusal as refusal:
            return _rendered(refusal, passage)
        except asyncpg.DataError:
            return _rendered(ValueNotStorable(), passage)
        except (asyncpg.LockNotAvailableError, asyncpg.TransactionRollbackError, *AWAY) as failure:
            log.warning("database_busy", route=route.label, error=type(failure).__name__)
            return _rendered(DatabaseBusy(), passage)
        except Exception as failure:
            log.error("request_failed", request_id=passage.request_id, route=route.label, exc_info=failure)
            return _rendered(InternalError(), passage)
        assert desk.stored is not None, "a handler of these routes posts one item"
        return desk.stored.status, [JSON], desk.stored.body


def direct_routes(litestar: Litestar) -> list[DirectRoute]:
    """Every route that declares `together`."""
    return [
        _direct(handler, template)
        for route in litestar.routes
        for handler in getattr(route, "route_handlers", [])
        if handler.opt.get("together") is True
        for template in sorted(handler.paths)
    ]


def _direct(handler: HTTPRouteHandler, template: str) -> DirectRoute:
    parameters = handler.parsed_fn_signature.parameters
    names = set(_PARAMETER.findall(template))
    assert parameters.keys() - names <= {"data", "writer"}, (
        f"{template} asks for more than a direct route has"
    )
    return DirectRoute(
        template=template,
        label=_PARAMETER.sub(r"{\1}", template),
        path=re.compile(_PARAMETER.sub(r"(?P<\1>[^/]+)", template)),
        handler=handler,
        function=cast("Callable[..., Any]", handler.fn),
        decoder=decoder_of(handler),
        bare="data" not in parameters or parameters["data"].default is not Empty,
        reads="data" in parameters,
    )


def _rendered(refusal: Refusal, passage: Passage) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    passage.refused = refusal.code
    answer: Answer = render(refusal, base_url=passage.base_url, trace_id=passage.request_id)
    return (
        answer.status,
        [(name.encode(), value.encode()) for name, value in answer.headers.items()],
        answer.body,
    )
