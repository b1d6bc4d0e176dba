"""What went wrong, as a member sees it: every refusal and every failure of these routes becomes a page."""

from typing import Any

import asyncpg
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException
from litestar.types import ExceptionHandlersMap

from gateway.pages.browser import read_visit
from gateway.pages.look import render_error_page
from gateway.problems import exception_handlers
from gateway.requests import Passage
from kernel.database import AWAY
from kernel.errors import Absent, Forbidden, Malformed, Refusal, Unavailable
from kernel.problem import status_of
from partners.login.service import LoginOver

log = structlog.get_logger("pages")

BUSY = (*AWAY, asyncpg.LockNotAvailableError, asyncpg.TransactionRollbackError)


def answer_trouble(request: Request[Any, Any, Any], trouble: Exception) -> Response[str]:
    """The page, and word to the unit of work that nothing of this request may stay."""
    passage = Passage.of(request.scope)
    code, status = _kind_of(trouble)
    passage.refused = code
    if code == "failed":
        log.error("page_failed", request_id=passage.request_id, exc_info=trouble)
    locale = read_visit(request, "").locale()
    return render_error_page(code, locale=locale, status=status, reference=passage.request_id)


def _kind_of(trouble: Exception) -> tuple[str, int]:
    """Which page, and which status."""
    if isinstance(trouble, LoginOver):
        return "login_over", status_of(trouble)
    if isinstance(trouble, Refusal):
        pages: tuple[tuple[type[Refusal], str], ...] = (
            (Absent, "request_unknown"),
            (Forbidden, "form_refused"),
            (Malformed, "form_refused"),
            (Unavailable, "busy"),
        )
        code = next((code for kind, code in pages if isinstance(trouble, kind)), "request_unknown")
        return code, status_of(trouble)
    if isinstance(trouble, BUSY):
        return "busy", 503
    if isinstance(trouble, HTTPException) and trouble.status_code < 500:
        return "form_refused", trouble.status_code
    return "failed", 500


#: for a route's `exception_handlers`: everything the gateway answers with a problem document, as a page
TROUBLES: ExceptionHandlersMap = dict.fromkeys(exception_handlers(), answer_trouble)
