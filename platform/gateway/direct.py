"""The hottest routes answered without the framework's routing: those that declare `together`, and plain reads.

The handler, its scope, its body type and its answers are the same; only the way to it is shorter. Whatever is not a
plain good request (unknown path, wrong scope, a query, a body that does not decode, key missing) goes the long way, which
says why: nothing has happened by then.
"""

import inspect
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, cast, get_origin

import asyncpg
import msgspec
import structlog
from litestar import Litestar
from litestar._asgi.utils import is_valid_host  # the router's own judgement, which is all that counts here
from litestar.handlers import HTTPRouteHandler
from litestar.serialization import encode_json
from litestar.types import Empty
from msgspec import Struct

from gateway.bodies import decoder_of
from gateway.paths import Paths
from gateway.problems import Answer, InternalError, ValueNotStorable, render
from gateway.requests import Passage
from gateway.runtime import Runtime
from gateway.scopes import check_scope
from gateway.signing import check_signed
from gateway.tokens import TokenDesk
from gateway.unit_of_work import Desk, Work, keyed_request
from kernel.database import BUSY, DatabaseBusy
from kernel.errors import Refusal
from kernel.idempotency import AnsweredBefore
from partners.oauth.token import TOKEN_PATH

log = structlog.get_logger("direct")

JSON = (b"content-type", b"application/json")
_PARAMETER = re.compile(r"\{(\w+):str\}")

Reply = tuple[int, list[tuple[bytes, bytes]], bytes]

#: what a read may ask for besides a connection and segments of its path
_GIVEN: dict[str, Callable[[Runtime, Passage], object]] = {
    "base_url": lambda runtime, _: runtime.base_url,
    "caller": lambda _, passage: passage.caller,
    "cursors": lambda runtime, _: runtime.cursors,
    "now": lambda _, passage: passage.now,
    "settings": lambda runtime, _: runtime.settings,
    "subjects": lambda runtime, _: runtime.subjects,
    "vault": lambda runtime, _: runtime.vault,
}


class DirectRead(Struct, frozen=True, kw_only=True):
    """A read: one struct as JSON, of what the gateway knows and the path says."""

    template: str
    #: the same as the framework's metrics and logs name it
    label: str
    handler: HTTPRouteHandler
    function: Callable[..., Any]
    #: which of `_GIVEN` it asks for
    given: tuple[str, ...]
    #: whether it asks for a connection
    connected: bool


class DirectRoute(Struct, frozen=True, kw_only=True):
    """A write that is posted together with others."""

    template: str
    label: str
    handler: HTTPRouteHandler
    #: the handler's function, called with data, writer and the path's parameters
    function: Callable[..., Any]
    decoder: msgspec.json.Decoder[Any] | None
    #: whether a request without a body is a good one
    bare: bool
    #: whether the handler takes what was decoded
    reads: bool


Direct = DirectRoute | DirectRead | TokenDesk


class DirectRoutes:
    """An ASGI application in front of the framework's."""

    def __init__(self, app: Any, runtime: Runtime, paths: "Paths[Direct]") -> None:
        self._app = app
        self._runtime = runtime
        self._paths = paths

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        found = self._paths.find(scope["method"], scope["path"]) if _is_plain(scope) else None
        reply = None if found is None else await self._reply(scope, *found)
        if reply is None:
            await self._app(scope, receive, send)
            return
        status, headers, body = reply
        headers.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    async def _reply(self, scope: Any, route: Direct, named: dict[str, Any]) -> Reply | None:
        """The answer, or None if the framework is to give it."""
        passage = Passage.of(scope)
        if isinstance(route, TokenDesk):
            scope["path_template"] = TOKEN_PATH
            try:
                return await route.reply(scope, passage)
            except Exception as failure:  # noqa: BLE001  # answered as what it is
                return _refused(failure, TOKEN_PATH, passage)
        try:
            check_scope(passage.caller, route.handler.opt)
            if isinstance(route, DirectRead):
                if scope["query_string"] or passage.body:
                    return None
                scope["path_template"] = route.label
                return await self._read(route, named, passage)
            check_signed(passage, route.handler.opt, "POST")
            if route.decoder is not None and (passage.body or not route.bare):
                data = route.decoder.decode(passage.body)
                if route.reads:
                    named["data"] = data
            desk = Desk(self._runtime, passage, keyed_request(scope, passage), route.handler.status_code)
        except (Refusal, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        scope["path_template"] = route.label
        return await self._post(route, desk, named, passage)

    async def _post(self, route: DirectRoute, desk: Desk, named: dict[str, Any], passage: Passage) -> Reply:
        """The handler's answer as it was committed, or why there is none."""
        try:
            await route.function(writer=desk, **named)
        except AnsweredBefore as replay:
            return replay.answer.status, [JSON, (b"idempotency-replayed", b"true")], replay.answer.body
        except Exception as failure:  # noqa: BLE001  # answered as what it is
            return _refused(failure, route.label, passage)
        assert desk.stored is not None, "a handler of these routes posts one item"
        return desk.stored.status, [JSON], desk.stored.body

    async def _read(self, route: DirectRead, named: dict[str, Any], passage: Passage) -> Reply:
        """The handler's answer, in one transaction if it asks for a connection."""
        for name in route.given:
            named[name] = _GIVEN[name](self._runtime, passage)
        if not route.connected:
            return await _call(route, named, passage)
        work = Work(self._runtime, passage)
        try:
            try:
                named["connection"] = await work.connection()
                reply = await _call(route, named, passage)
                await work.end()
            except Exception as failure:  # noqa: BLE001  # answered as what it is
                reply = _refused(failure, route.label, passage)
                await work.end()
        except BaseException:
            await work.abandon()
            raise
        return reply


def _is_plain(scope: Any) -> bool:
    """RFC 9112 §3.2: a request whose Host is none is refused; the framework does so."""
    if scope["type"] != "http":
        return False
    return all(_is_host(value) for name, value in scope["headers"] if name == b"host")


_is_host = lru_cache(maxsize=1_024)(is_valid_host)


async def _call(route: DirectRead, named: dict[str, Any], passage: Passage) -> Reply:
    try:
        return route.handler.status_code, [JSON], encode_json(await route.function(**named))
    except Exception as failure:  # noqa: BLE001  # answered as what it is
        return _refused(failure, route.label, passage)


def _refused(failure: Exception, label: str, passage: Passage) -> Reply:
    """What gateway.problems makes of exceptions."""
    match failure:
        case Refusal():
            return _rendered(failure, passage)
        case asyncpg.DataError():
            return _rendered(ValueNotStorable(), passage)
        case _ if isinstance(failure, BUSY):
            log.warning("database_busy", route=label, error=type(failure).__name__)
            return _rendered(DatabaseBusy(), passage)
    log.error("request_failed", request_id=passage.request_id, route=label, exc_info=failure)
    return _rendered(InternalError(), passage)


def direct_routes(litestar: Litestar) -> list[DirectRoute]:
    """Every route that declares `together`."""
    return [
        _direct(handler, template)
        for handler, template in _handlers(litestar)
        if handler.opt.get("together") is True
    ]


def direct_reads(litestar: Litestar) -> list[DirectRead]:
    """Every read that asks for no more than a direct one has, and answers one struct."""
    return [
        read
        for handler, template in _handlers(litestar)
        if "GET" in handler.http_methods and ("scope" in handler.opt or handler.opt.get("public") is True)
        if (read := _direct_read(handler, template)) is not None
    ]


def direct_paths(litestar: Litestar, runtime: Runtime) -> Paths[Direct]:
    """The ways to all of them, with every other route in its place."""
    paths: Paths[Direct] = Paths(template for _, template in _handlers(litestar))
    paths.add(TOKEN_PATH, "POST", TokenDesk(runtime))
    for route in direct_routes(litestar):
        paths.add(route.template, "POST", route)
    for read in direct_reads(litestar):
        paths.add(read.template, "GET", read)
    return paths


def _handlers(litestar: Litestar) -> list[tuple[HTTPRouteHandler, str]]:
    return [
        (handler, template)
        for route in litestar.routes
        for handler in getattr(route, "route_handlers", [])
        for template in sorted(handler.paths)
    ]


def _direct_read(handler: HTTPRouteHandler, template: str) -> DirectRead | None:
    signature = handler.parsed_fn_signature
    names = set(_PARAMETER.findall(template))
    asked = {name for name, one in signature.parameters.items() if one.default is Empty} - names
    function = cast("Callable[..., Any]", handler.fn)
    answer = get_origin(signature.return_type.annotation) or signature.return_type.annotation
    plain = isinstance(answer, type) and issubclass(answer, Struct) and inspect.iscoroutinefunction(function)
    open_parts = [signature.parameters[name].annotation for name in names if name in signature.parameters]
    if not plain or not asked <= {"connection", *_GIVEN} or any(part is not str for part in open_parts):
        return None
    return DirectRead(
        template=template,
        label=_PARAMETER.sub(r"{\1}", template),
        handler=handler,
        function=function,
        given=tuple(sorted(asked - {"connection"})),
        connected="connection" in asked,
    )


def _direct(handler: HTTPRouteHandler, template: str) -> DirectRoute:
    parameters = handler.parsed_fn_signature.parameters
    names = set(_PARAMETER.findall(template))
    assert parameters.keys() - names <= {"data", "writer"}, (
        f"{template} asks for more than a direct route has"
    )
    return DirectRoute(
        template=template,
        label=_PARAMETER.sub(r"{\1}", template),
        handler=handler,
        function=cast("Callable[..., Any]", handler.fn),
        decoder=decoder_of(handler),
        bare="data" not in parameters or parameters["data"].default is not Empty,
        reads="data" in parameters,
    )


def _rendered(refusal: Refusal, passage: Passage) -> Reply:
    passage.refused = refusal.code
    answer: Answer = render(refusal, base_url=passage.base_url, trace_id=passage.request_id)
    return (
        answer.status,
        [(name.encode(), value.encode()) for name, value in answer.headers.items()],
        answer.body,
    )
