"""The scope guard: a route that declares neither a scope nor `public=True` is closed to everybody.

`scope="points:earn"` needs that scope, `scope="points:earn|points:spend"` either of them, `scope="self"` any proved
caller. A member's token enters only routes that say `member_token=True`: those that look its member up by the token's
own subject; a member who uses the bank's app enters only routes with `audience="mobile"`, and nobody else does. Declared in the route's decorator, checked here and nowhere else.
"""

from collections.abc import Mapping
from typing import Any

from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Receive, Scope, Send

from gateway.requests import Passage
from gateway.signing import check_signed
from kernel.caller import Caller, InsufficientScope, MemberCaller
from kernel.errors import Forbidden
from partners.oauth.access import TokenMissing

ANY_CALLER = "self"
#: the audience of routes for members with the bank's app; those without one are for partners
MOBILE = "mobile"


class RouteClosed(Forbidden):
    """This route is not open to anybody."""


class MemberTokenNotAccepted(Forbidden):
    """This route takes the app's own token (client_credentials), not a member's."""


def check_scope(caller: Caller | None, opt: Mapping[str, Any], member: MemberCaller | None = None) -> None:
    """Refuse unless the route is public or whoever its audience is holds a scope it declares."""
    if opt.get("public") is True:
        return
    asking = member if opt.get("audience") == MOBILE else caller
    if asking is None:
        raise TokenMissing
    if isinstance(asking, Caller) and asking.subject is not None and opt.get("member_token") is not True:
        raise MemberTokenNotAccepted
    declared = opt.get("scope")
    if not isinstance(declared, str) or not declared:
        raise RouteClosed
    if declared == ANY_CALLER:
        return
    # RFC 6750 §3.1: the challenge names the scope that would do.
    if asking.scopes.isdisjoint(declared.split("|")):
        raise InsufficientScope(scope=declared)


class ScopeGuard(ASGIMiddleware):
    """Runs before everything else a route does."""

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        if scope["method"] != "OPTIONS":  # type: ignore[typeddict-item]  # only http scopes come here
            passage, opt = Passage.of(scope), scope["route_handler"].opt
            check_scope(passage.caller, opt, passage.member)
            check_signed(passage, opt, scope["method"])  # type: ignore[typeddict-item]  # as above
        await next_app(scope, receive, send)
