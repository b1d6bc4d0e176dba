"""What went wrong, as the caller sees it: refusals, unreadable requests and our own failures become problem documents."""

from typing import Any

import asyncpg
import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import (
    ClientException,
    HTTPException,
    MethodNotAllowedException,
    NotFoundException,
    ValidationException,
)
from litestar.types import ExceptionHandlersMap
from msgspec import Struct

from gateway.requests import Passage
from kernel.caller import InsufficientScope
from kernel.database import AWAY, DatabaseBusy
from kernel.errors import (
    Absent,
    Exhausted,
    Failed,
    Malformed,
    Refusal,
    TooLarge,
    Unauthenticated,
    Unavailable,
    Unprocessable,
    WrongMethod,
)
from kernel.idempotency import AnsweredBefore
from kernel.problem import MEDIA_TYPE, to_problem
from partners.oauth.access import AccessRefused

log = structlog.get_logger("gateway")


class RouteUnknown(Absent):
    """There is no such route; the list of routes is at /openapi.json."""


class MethodNotAllowed(WrongMethod):
    """The route exists, but not for this method; the Allow header lists those it has."""


class BodyMalformed(Malformed):
    """The body is not well-formed JSON in UTF-8."""


class RequestMalformed(Malformed):
    """The request line, a header or a parameter cannot be read."""


class ValidationFailed(Unprocessable):
    """The body or a parameter does not match the schema of this route."""


class ValueNotStorable(Unprocessable):
    """A value in the request cannot be stored: text with a NUL character, or a number beyond 64 bits."""


class BodyTooLarge(TooLarge):
    """The body is larger than this route accepts."""


class InternalError(Failed):
    """Something failed on our side. If the call moves value, repeat it with the same Idempotency-Key."""


def exception_handlers() -> ExceptionHandlersMap:
    """Litestar's map: the most specific class wins."""
    return {
        Refusal: answer_refusal,
        AnsweredBefore: answer_again,
        ValidationException: answer_invalid,
        NotFoundException: lambda request, _: answer_refusal(request, RouteUnknown()),
        MethodNotAllowedException: answer_wrong_method,
        ClientException: answer_unreadable,
        HTTPException: answer_unreadable,
        RecursionError: lambda request, _: answer_refusal(
            request, BodyMalformed()
        ),  # nested beyond the decoder's depth
        asyncpg.DataError: lambda request, _: answer_refusal(request, ValueNotStorable()),
        asyncpg.LockNotAvailableError: answer_busy,
        asyncpg.TransactionRollbackError: answer_busy,  # a deadlock was ended at our cost
        **dict.fromkeys(AWAY, answer_busy),
        Exception: answer_failure,
    }


class Answer(Struct, frozen=True, kw_only=True):
    """A problem ready to be sent, by Litestar or by the edge."""

    status: int
    headers: dict[str, str]
    body: bytes


def render(refusal: Refusal, *, base_url: str, trace_id: str, **members: Any) -> Answer:
    """The problem document of a refusal, with the headers its kind asks for."""
    document = to_problem(refusal, base_url=base_url, trace_id=trace_id) | members
    headers = {"content-type": MEDIA_TYPE}
    if isinstance(refusal, Unauthenticated):
        # RFC 9110 §15.5.2: every 401 carries a challenge.
        headers["www-authenticate"] = (
            refusal if isinstance(refusal, AccessRefused) else AccessRefused()
        ).challenge()
    if isinstance(refusal, InsufficientScope):
        # RFC 6750 §3.1, RFC 9449 §7.1: the challenge names the scope that would do.
        wanted = str(refusal.facts.get("scope", "")).replace("|", " ")
        headers["www-authenticate"] = f'DPoP error="insufficient_scope", scope="{wanted}"'
    if isinstance(refusal, Unavailable) or refusal.code == "idempotency_in_progress":
        headers["retry-after"] = "1"
    if isinstance(refusal, Exhausted) and "retry_after_seconds" in refusal.facts:
        headers["retry-after"] = str(refusal.facts["retry_after_seconds"])
    return Answer(status=document["status"], headers=headers, body=msgspec.json.encode(document))


def _respond(request: Request[Any, Any, Any], refusal: Refusal, **members: Any) -> Response[bytes]:
    passage = Passage.of(request.scope)
    passage.refused = refusal.code
    answer = render(refusal, base_url=passage.base_url, trace_id=passage.request_id, **members)
    headers = {name: value for name, value in answer.headers.items() if name != "content-type"}
    return Response(content=answer.body, status_code=answer.status, media_type=MEDIA_TYPE, headers=headers)


def answer_refusal(request: Request[Any, Any, Any], refusal: Refusal) -> Response[bytes]:
    return _respond(request, refusal)


def answer_again(_request: Request[Any, Any, Any], replay: AnsweredBefore) -> Response[bytes]:
    """The stored answer, marked as what it is."""
    return Response(
        content=replay.answer.body,
        status_code=replay.answer.status,
        media_type="application/json",
        headers={"idempotency-replayed": "true"},
    )


def answer_invalid(request: Request[Any, Any, Any], mistake: ValidationException) -> Response[bytes]:
    """422 with a JSON pointer to every value that does not fit."""
    extra = mistake.extra if isinstance(mistake.extra, list) else []
    errors = [
        {"pointer": _pointer(item), "message": _plain(str(item.get("message", "")))}
        for item in extra
        if isinstance(item, dict)
    ]
    return _respond(request, ValidationFailed(), errors=errors)


def answer_wrong_method(
    request: Request[Any, Any, Any], mistake: MethodNotAllowedException
) -> Response[bytes]:
    response = answer_refusal(request, MethodNotAllowed())
    response.headers.update(mistake.headers or {})
    return response


def answer_unreadable(request: Request[Any, Any, Any], mistake: HTTPException) -> Response[bytes]:
    if mistake.status_code == 413:
        return answer_refusal(request, BodyTooLarge())
    if mistake.status_code >= 500:
        return answer_failure(request, mistake)
    return answer_refusal(request, BodyMalformed() if request.method != "GET" else RequestMalformed())


def answer_busy(request: Request[Any, Any, Any], failure: Exception) -> Response[bytes]:
    """The database did not answer in time, or went away before the commit: nothing happened."""
    log.warning("database_busy", route=request.scope.get("path_template"), error=type(failure).__name__)
    return answer_refusal(request, DatabaseBusy())


def answer_failure(request: Request[Any, Any, Any], failure: Exception) -> Response[bytes]:
    """A bug of ours: logged with its trace, told to the caller without any of it."""
    request_id = Passage.of(request.scope).request_id
    log.error(
        "request_failed", request_id=request_id, route=request.scope.get("path_template"), exc_info=failure
    )
    return _respond(request, InternalError())


def _pointer(item: dict[str, Any]) -> str:
    """Litestar's `key` is a dotted path with indexes; RFC 6901 wants slashes."""
    key = str(item.get("key", ""))
    steps = key.replace("[", ".").replace("]", "").split(".")
    return "".join(f"/{step.replace('~', '~0').replace('/', '~1')}" for step in steps if step)


def _plain(message: str) -> str:
    return message if len(message) <= 300 else message[:297] + "…"
