"""The composition root: the only place where the parts are joined."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from litestar import Litestar
from litestar.di import Provide
from litestar.openapi.config import OpenAPIConfig
from litestar.types import Scope

import partners.credit.handlers
import partners.mobile.handlers
import partners.oauth.handlers
import partners.oauth.handlers_backchannel
import partners.oauth.handlers_flow
import partners.offers.handlers
import partners.registry.handlers
import partners.settlement.handlers
import partners.webhooks.handlers
import points.earning.handlers
import points.earning.handlers_dry_runs
import points.ledger.handlers
import points.ledger.handlers_mobile
import points.membership.handlers
import points.membership.handlers_mobile
import points.rewards.handlers
from gateway import health
from gateway import reference as reference_pages
from gateway.bodies import BodyGuard
from gateway.direct import DirectRoutes, direct_paths
from gateway.edge import Edge
from gateway.openapi import build_document
from gateway.pages import handlers as member_pages
from gateway.pages.look import MemberErrorPages
from gateway.problems import exception_handlers
from gateway.reference import Reference
from gateway.requests import Passage
from gateway.runtime import Runtime
from gateway.scopes import ScopeGuard
from gateway.unit_of_work import UnitOfWork, provide_connection, provide_writer
from kernel.caller import Caller, MemberCaller, Subjects
from kernel.pages import CursorSeal
from kernel.sender import Sender
from kernel.settings import Settings
from kernel.vault import Vault
from partners.mobile.tokens import Bank
from partners.oauth.error_page import ErrorPages
from partners.oauth.keys import Signer
from partners.oauth.quote_terms import Quotes
from partners.oauth.scopes import SCOPES
from partners.oauth.sm2_keys import Sm2Signer
from partners.offers.authorizing import OfferedQuotes

ROUTES: list[Any] = [
    *partners.oauth.handlers.routes,
    *partners.oauth.handlers_flow.routes,
    *partners.oauth.handlers_backchannel.routes,
    *partners.mobile.handlers.routes,
    *partners.registry.handlers.routes,
    *points.membership.handlers.routes,
    *points.membership.handlers_mobile.routes,
    *points.ledger.handlers.routes,
    *points.ledger.handlers_mobile.routes,
    *points.earning.handlers.routes,
    *points.rewards.handlers.routes,
    *points.earning.handlers_dry_runs.routes,
    *partners.offers.handlers.routes,
    *partners.credit.handlers.routes,
    *partners.webhooks.handlers.routes,
    *partners.settlement.handlers.routes,
    *health.routes,
    *reference_pages.routes,
    *member_pages.routes,
]


def build_app(settings: Settings) -> Edge:
    """The whole gateway of one process, as an ASGI application."""
    runtime = Runtime(settings)
    return build_edge(runtime, build_litestar(runtime, openapi=None))


def build_edge(runtime: Runtime, litestar: Litestar) -> Edge:
    """The routes behind the edge, the hottest of them by the direct way."""
    app = DirectRoutes(litestar, runtime, direct_paths(litestar, runtime))
    return Edge(app, runtime, batch_paths=batch_paths(litestar))


def build_litestar(runtime: Runtime, *, openapi: OpenAPIConfig | None) -> Litestar:
    """Routes, dependencies and the layers every route runs through."""

    @asynccontextmanager
    async def lifespan(_app: Litestar) -> AsyncGenerator[None, None]:
        async with runtime.open():
            yield

    return Litestar(
        route_handlers=ROUTES,
        lifespan=[lifespan],
        dependencies=_dependencies(runtime),
        middleware=[ScopeGuard(), BodyGuard(), UnitOfWork(runtime)],
        exception_handlers=exception_handlers(),
        openapi_config=openapi,
        request_max_body_size=None,  # the edge has read and bounded the body
        logging_config=None,
        debug=False,
    )


def describe(runtime: Runtime) -> dict[str, Any]:
    """The OpenAPI document of the routes."""
    described = build_litestar(runtime, openapi=OpenAPIConfig(title="Tessera", version="1"))
    scopes = {name: sentence.en for name, sentence in SCOPES.items()}
    return build_document(
        described, base_url=runtime.base_url, scopes=scopes, bank_code=runtime.settings.bank_code
    )


def batch_paths(litestar: Litestar) -> frozenset[str]:
    """The paths that declare `batch=True`: they take the larger body."""
    return frozenset(
        path
        for route in litestar.routes
        for handler in getattr(route, "route_handlers", [])
        if handler.opt.get("batch") is True
        for path in handler.paths
    )


def _dependencies(runtime: Runtime) -> dict[str, Provide]:
    """What handlers may ask for, by name."""

    def caller(scope: Scope) -> Caller:
        found = Passage.of(scope).caller
        assert found is not None, "the scope guard lets nobody else in"
        return found

    def member_caller(scope: Scope) -> MemberCaller:
        found = Passage.of(scope).member
        assert found is not None, "the scope guard lets nobody else in"
        return found

    def now(scope: Scope) -> datetime:
        return Passage.of(scope).now

    def sender(scope: Scope) -> Sender:
        return Passage.of(scope).sender

    def subjects() -> Subjects:
        return runtime.subjects

    def vault() -> Vault:
        return runtime.vault

    def cursors() -> CursorSeal:
        return runtime.cursors

    def signer() -> Signer:
        return runtime.signer

    def bank() -> Bank:
        return runtime.bank

    def sm2_signer() -> Sm2Signer | None:
        return runtime.sm2_signer

    def settings() -> Settings:
        return runtime.settings

    def base_url() -> str:
        return runtime.base_url

    offered = OfferedQuotes()

    def quotes() -> Quotes:
        return offered

    def itself() -> Runtime:
        return runtime

    document = Reference(lambda: describe(runtime))

    def reference() -> Reference:
        return document

    pages = MemberErrorPages()

    def error_pages() -> ErrorPages:
        return pages

    given: dict[str, Callable[..., object]] = {
        "caller": caller,
        "member_caller": member_caller,
        "bank": bank,
        "now": now,
        "sender": sender,
        "subjects": subjects,
        "vault": vault,
        "cursors": cursors,
        "signer": signer,
        "sm2_signer": sm2_signer,
        "settings": settings,
        "base_url": base_url,
        "quotes": quotes,
        "runtime": itself,
        "reference": reference,
        "error_pages": error_pages,
    }
    provided = {name: Provide(function, sync_to_thread=False) for name, function in given.items()}
    return provided | {"connection": Provide(provide_connection), "writer": Provide(provide_writer)}
