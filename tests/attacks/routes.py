"""Every route of the application with a sound request of it, and what its declaration says about who may ask it what.

The points routes are those of points_routes; this adds all others. Statuses are not written down here: they follow
from `public`, `scope` and `member_token` of the route itself, except where the owner of a thing is refused for a
reason that has nothing to do with authority.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from uuid import uuid4

from attacks.house import House, MemberClient
from attacks.things import (
    RECEIVER,
    Things,
    cart,
    evidence,
    make_disclosed_quote,
    make_plan,
    make_quote,
    new_jwk,
    withdraw_pending_keys,
)
from msgspec import Struct, structs
from points_routes import MATRIX

from gateway.app import ROUTES
from gateway.client import PartnerClient

Body = Mapping[str, Any] | None
Route = tuple[str, str]
Verdict = tuple[int, str]
#: makes a thing anew that asking uses up, and whoever can ask for it when that is not the usual client
Fresh = Callable[[House, PartnerClient, Things], Awaitable[tuple[Things, MemberClient | None]]]

SUCCESS: Verdict = (200, "")
ABSENT: Verdict = (404, "*")
#: what the public routes' parameters are called here
EXAMPLES = frozenset(("nothing", "nobody", "not_found"))


class Ask(Struct, frozen=True, kw_only=True):
    """How a route is asked about things."""

    body: Callable[[House, Things], Body] = lambda _house, _things: None
    #: what its owner is told in place of success
    own: Verdict = SUCCESS
    #: what its member's token is told in place of that
    member: Verdict | None = None
    fresh: Fresh | None = None
    #: the items of a batch are refused one by one, in a 200
    batch: bool = False
    #: names nothing that belongs to anybody: whoever may enter is answered about itself
    unnamed: bool = False
    #: of a public route: what everybody is told who comes without the form or the query it wants
    public: int = 200


async def fresh_hold(
    house: House, partner: PartnerClient, things: Things
) -> tuple[Things, MemberClient | None]:
    wish = {"member": things.member, "points": 1, "order_ref": str(uuid4())}
    held = await partner.post("/v1/points/holds", wish)
    return structs.replace(things, hold=held["id"]), None


async def fresh_quote(
    house: House, partner: PartnerClient, things: Things
) -> tuple[Things, MemberClient | None]:
    made = await make_quote(partner, things.member)
    return structs.replace(things, quote=made["id"], quote_hash=made["disclosure"]["hash"]), None


async def fresh_disclosed_quote(
    house: House, partner: PartnerClient, things: Things
) -> tuple[Things, MemberClient | None]:
    made = await make_disclosed_quote(house, partner, things.member)
    return structs.replace(things, quote=made["id"]), None


async def fresh_plan(
    house: House, partner: PartnerClient, things: Things
) -> tuple[Things, MemberClient | None]:
    made = await make_plan(house, partner, things.member)
    return structs.replace(things, plan=made["plan"]["id"]), None


async def fresh_captured_plan(
    house: House, partner: PartnerClient, things: Things
) -> tuple[Things, MemberClient | None]:
    made, client = await fresh_plan(house, partner, things)
    await partner.post(f"/v1/plans/{made.plan}/captures")
    return made, client


async def fresh_grant(
    house: House, partner: PartnerClient, things: Things
) -> tuple[Things, MemberClient | None]:
    client = await house.grant(partner, things.member)
    return structs.replace(things, grant=client.grant_id), client


async def fresh_key(
    house: House, partner: PartnerClient, things: Things
) -> tuple[Things, MemberClient | None]:
    await withdraw_pending_keys(partner)
    added = await partner.post("/v1/keys", {"jwk": new_jwk()})
    return structs.replace(things, kid=added["kid"]), None


async def no_pending_key(
    house: House, partner: PartnerClient, things: Things
) -> tuple[Things, MemberClient | None]:
    await withdraw_pending_keys(partner)
    return things, None


def _points() -> dict[Route, Ask]:
    used_up = ("/capture", "/release", "/captures/batch", "/releases/batch")
    return {
        (method, path): Ask(
            body=lambda _house, things, body=probe.body: body(things),  # type: ignore[misc]  # bound early
            own=SUCCESS if not probe.own else (probe.own, "*"),
            fresh=fresh_hold if path.endswith(used_up) else None,
            batch=probe.batch,
        )
        for (method, path), probe in MATRIX.items()
    }


def _offers() -> dict[Route, Ask]:
    def search(_house: House, things: Things) -> Body:
        return {"scenario": "ecom_checkout", "member": things.member, "cart": cart()}

    def quote(_house: House, things: Things) -> Body:
        wanted = {"offer_version": things.offer_version, "member": things.member, "cart": cart()}
        return wanted | {"periods": 12}

    def refund(_house: House, _things: Things) -> Body:
        return {"refund_ref": str(uuid4()), "amount_fen": 1_000}

    def nothing(_house: House, _things: Things) -> Body:
        return {}

    quotes, plans = "/v1/quotes/{quote}", "/v1/plans/{plan}"
    not_agreed = (403, "authorization_details_insufficient")
    return {
        ("POST", "/v1/offers/search"): Ask(body=search),
        ("POST", "/v1/quotes"): Ask(body=quote),
        ("GET", quotes): Ask(),
        ("POST", f"{quotes}/disclosure"): Ask(
            body=lambda house, things: evidence(house, things.quote_hash), fresh=fresh_quote
        ),
        ("POST", f"{quotes}/accept"): Ask(body=nothing, member=not_agreed, fresh=fresh_disclosed_quote),
        ("GET", "/v1/applications/{application}"): Ask(),
        ("GET", plans): Ask(),
        ("GET", f"{plans}/schedule"): Ask(),
        ("POST", f"{plans}/captures"): Ask(body=nothing, fresh=fresh_plan),
        ("POST", f"{plans}/void"): Ask(fresh=fresh_plan),
        ("POST", f"{plans}/refunds"): Ask(body=refund, fresh=fresh_captured_plan),
        ("POST", f"{plans}/refunds/preview"): Ask(body=refund, fresh=fresh_captured_plan),
    }


def _own_affairs() -> dict[Route, Ask]:
    hooks, batches = "/v1/webhook_endpoints", "/v1/settlement_batches"
    hook = hooks + "/{endpoint}"
    return {
        ("GET", "/v1/me"): Ask(unnamed=True),
        ("GET", "/v1/keys"): Ask(unnamed=True),
        ("POST", "/v1/keys"): Ask(body=lambda *_: {"jwk": new_jwk()}, unnamed=True, fresh=no_pending_key),
        ("POST", "/v1/keys/{kid}/revoke"): Ask(fresh=fresh_key),
        ("GET", "/v1/members/{member}"): Ask(),
        ("POST", "/v1/members/bindings"): Ask(
            body=lambda *_: {"customer_refs": [str(uuid4())]}, unnamed=True
        ),
        ("GET", "/oauth2/grants/{grant}"): Ask(fresh=fresh_grant),
        ("DELETE", "/oauth2/grants/{grant}"): Ask(fresh=fresh_grant),
        ("GET", hooks): Ask(unnamed=True),
        ("POST", hooks): Ask(
            body=lambda *_: {"url": RECEIVER, "event_types": ["plan.captured"]}, unnamed=True
        ),
        ("POST", f"{hook}/rotate_secret"): Ask(),
        ("GET", f"{hook}/deliveries"): Ask(),
        ("POST", f"{hook}/replay"): Ask(
            body=lambda _house, things: {"event_id": things.event}, own=(409, "delivery_in_progress")
        ),
        ("POST", f"{hook}/test"): Ask(),
        ("POST", f"{hook}/verify"): Ask(),
        ("GET", "/v1/events?after={event}"): Ask(),
        ("GET", batches): Ask(unnamed=True),
        ("GET", f"{batches}/{{batch}}"): Ask(),
        ("GET", f"{batches}/{{batch}}/lines"): Ask(),
    }


def _phone() -> dict[Route, Ask]:
    """What the bank's own app asks for its member."""

    def approval(_house: House, things: Things) -> Body:
        return {"details_hash": things.details_hash, "binding_message": None}

    asked, consents = "/mobile/v1/authorizations", "/mobile/v1/consents"
    own = ("me", "points", "points/entries", "points/expiring", "membership", "authorizations", "consents")
    return {("GET", f"/mobile/v1/{name}"): Ask(unnamed=True) for name in own} | {
        ("POST", f"{asked}/{{authorization}}/approve"): Ask(body=approval),
        ("POST", f"{asked}/{{another}}/deny"): Ask(),
        ("GET", f"{consents}/{{consent}}"): Ask(),
        ("DELETE", f"{consents}/{{consent}}"): Ask(),
    }


def _public() -> dict[Route, Ask]:
    read = {path: Ask() for path in ("/oauth2/jwks", "/livez", "/readyz", "/openapi.json", "/docs")}
    read |= {
        f"/.well-known/{name}": Ask()
        for name in (
            "oauth-authorization-server",
            "openid-configuration",
            "oauth-protected-resource",
            "oauth-protected-resource/v1",
            "oauth-authorization-server/mobile",
            "oauth-protected-resource/mobile/v1",
        )
    }
    read |= {
        "/oauth2/sm2_keys": Ask(),
        "/oauth2/authorize": Ask(public=400),
        "/mobile/oauth2/authorize": Ask(public=400),
        "/static/nothing": Ask(public=404),
        "/problems/not_found": Ask(),
    }
    page = "/oauth2/interactions/nobody"
    read |= {
        page: Ask(public=404),
        f"{page}/decline": Ask(public=404),
        f"{page}/new_passkey": Ask(public=404),
    }
    read["/static/pages/nothing"] = Ask(public=404)
    forms = {
        f"{page}/{step}": Ask(public=403)
        for step in ("password", "new_code", "app_code", "code", "consent", "passkey", "new_passkey")
    } | {
        "/oauth2/token": Ask(public=400),
        "/oauth2/par": Ask(public=400),
        "/oauth2/introspect": Ask(public=400),
        "/oauth2/revoke": Ask(public=400),
        "/oauth2/bc-authorize": Ask(public=400),
        "/mobile/oauth2/token": Ask(public=400),
        "/mobile/oauth2/revoke": Ask(public=400),
    }
    return {("GET", path): ask for path, ask in read.items()} | {
        ("POST", path): ask for path, ask in forms.items()
    }


ASKS: dict[Route, Ask] = {**_public(), **_own_affairs(), **_points(), **_offers(), **_phone()}


def shape(path: str) -> str:
    """A path with whatever its parameters are called; a name that stands for one in a public example counts too."""
    parts = path.partition("?")[0].split("/")
    return "/".join("{}" if part.startswith("{") or part in EXAMPLES else part for part in parts)


def declared() -> dict[Route, Mapping[str, Any]]:
    """What every served route says about itself, by method and shape."""
    return {
        (method, shape(path)): route.opt
        for route in ROUTES
        for method in route.http_methods - {"OPTIONS", "HEAD"}
        for path in route.paths
    }
