"""What belongs to one partner, one of each kind, and how another one of a kind is made."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

from attacks.house import House, MemberClient
from msgspec import structs
from phone import Phone
from points_routes import Scene, prepare

from gateway.client import PartnerClient
from gateway.credentials import SigningKey
from kernel.calendar import business_date, rfc3339
from kernel.database import transaction
from kernel.ids import to_wire
from partners.oauth import service as oauth
from partners.registry import service as registry
from partners.settlement.service import close_batch
from partners.webhooks.service import relay

RECEIVER = "http://127.0.0.1:9/in"


class Things(Scene, frozen=True, kw_only=True):
    """The names of everything a partner's requests may contain."""

    grant: str
    kid: str
    offer_version: str
    quote: str
    quote_hash: str
    application: str
    plan: str
    endpoint: str
    event: str
    batch: str
    #: what a member finds on its phone: two requests with what they show, and what it once allowed
    authorization: str = "aut_" + "0" * 26
    another: str = "aut_" + "0" * 26
    details_hash: str = "A" * 43
    consent: str = "grt_" + "0" * 26

    def names(self) -> set[str]:
        """Everything by which a request can name these things."""
        return set(structs.asdict(self).values())

    def private(self) -> set[str]:
        """By which it could be told that they exist; what all partners offer alike tells nothing."""
        return self.names() - {self.reward, self.quote_hash} - NOTHING.names()


def _absent(prefix: str) -> str:
    return prefix + "_" + "0" * 26


#: names that nobody has
NOTHING = Things(
    member="A" * 43,
    other="B" * 43,
    earning=_absent("ent"),
    hold=_absent("hld"),
    spend=_absent("hld"),
    transfer=_absent("trf"),
    reward=_absent("rwd"),
    redemption=_absent("rdm"),
    right=_absent("etl"),
    grant=_absent("grt"),
    kid="no-such-key",
    offer_version=_absent("ofv"),
    quote=_absent("qte"),
    quote_hash="0" * 64,
    application=_absent("apl"),
    plan=_absent("pln"),
    endpoint=_absent("whe"),
    event=_absent("evt"),
    batch=_absent("stb"),
)


def cart() -> dict[str, Any]:
    line = {"sku": "tv", "quantity": 1, "unit_fen": 20_000}
    return {"order_ref": str(uuid4()), "lines": [line], "total_fen": 20_000}


async def make_quote(partner: PartnerClient, member: str) -> dict[str, Any]:
    wanted = cart()
    search = {"scenario": "ecom_checkout", "member": member, "cart": wanted, "personalised": False}
    [offer, *_] = (await partner.post("/v1/offers/search", search))["offers"]
    periods = offer["terms"][0]["periods"]
    body = {"offer_version": offer["offer_version"], "member": member, "cart": wanted, "periods": periods}
    made: dict[str, Any] = await partner.post("/v1/quotes", body)
    return made


def evidence(house: House, hash: str) -> dict[str, Any]:
    confirmed_at = rfc3339(house.runtime.clock.now())
    return {"hash": hash, "displayed_seconds": 60, "confirmed_at": confirmed_at}


async def make_disclosed_quote(house: House, partner: PartnerClient, member: str) -> dict[str, Any]:
    made = await make_quote(partner, member)
    shown = evidence(house, made["disclosure"]["hash"])
    await partner.post(f"/v1/quotes/{made['id']}/disclosure", shown)
    return made


async def make_plan(house: House, partner: PartnerClient, member: str) -> dict[str, Any]:
    made = await make_disclosed_quote(house, partner, member)
    accepted: dict[str, Any] = await partner.post(f"/v1/quotes/{made['id']}/accept")
    return accepted


async def ask_on_the_phone(house: House, partner: PartnerClient, phone: Phone, things: Things) -> Things:
    """The same, and what the member of `phone` has there: two requests of the partner's and a consent."""
    partner_id, now = await house.partner_id(partner), house.runtime.clock.now()
    member = phone.member.ref
    async with transaction(house.runtime.pool) as connection:
        await registry.allow_backchannel(
            connection, client_id=partner.credentials.client_id, allowed=True, actor="test", now=now
        )
        sub = await oauth.subject_for(
            connection, partner_id=partner_id, member=member, vault=house.runtime.vault, now=now
        )
        consent = await oauth.grant_consent(
            connection,
            partner_id=partner_id,
            member=member,
            scopes=["members:read"],
            ends_on=business_date(now) + timedelta(days=300),
            now=now,
        )
    client = MemberClient(partner.credentials, http=house.http)
    asked = [
        (await client.form("/oauth2/bc-authorize", login_hint=sub, scope="members:read")).json()
        for _ in range(2)
    ]
    shown = (await phone.call("GET", "/mobile/v1/authorizations")).json()["data"]
    [first] = [one for one in shown if one["id"] == asked[0]["authorization"]]
    return structs.replace(
        things,
        authorization=first["id"],
        another=asked[1]["authorization"],
        details_hash=first["details_hash"],
        consent=to_wire("grt", consent),
    )


async def prepare_things(house: House, partner: PartnerClient) -> Things:
    """One of everything, with a grant of the member."""
    scene = await prepare(house.runtime, partner)
    quote = await make_quote(partner, scene.member)
    accepted = await make_plan(house, partner, scene.member)
    hook = await partner.post("/v1/webhook_endpoints", {"url": RECEIVER, "event_types": ["*"]})
    partner_id, now = await house.partner_id(partner), house.runtime.clock.now()
    async with transaction(house.runtime.pool) as connection:
        batch = await close_batch(connection, partner_id=partner_id, business_on=business_date(now), now=now)
        await relay(connection, limit=1_000, now=now)
    [event, *_] = (await partner.get("/v1/events?limit=1"))["data"]
    return Things(
        **structs.asdict(scene),
        grant=(await house.grant(partner, scene.member)).grant_id,
        kid=partner.credentials.kid,
        offer_version=quote["offer_version"],
        quote=quote["id"],
        quote_hash=quote["disclosure"]["hash"],
        application=accepted["application"]["id"],
        plan=accepted["plan"]["id"],
        endpoint=hook["id"],
        event=event["id"],
        batch=to_wire("stb", batch.id),
    )


def new_jwk() -> dict[str, Any]:
    return SigningKey.generate().public_jwk | {"kid": f"k-{uuid4().hex[:12]}"}


async def withdraw_pending_keys(partner: PartnerClient) -> None:
    for key in (await partner.get("/v1/keys?limit=100"))["data"]:
        if key["status"] == "pending":
            await partner.post(f"/v1/keys/{key['kid']}/revoke")
