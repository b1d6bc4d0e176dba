"""A shop and a hospital with their offers, a member both know, and a signer."""

from collections.abc import Awaitable, Callable
from datetime import date, datetime
from typing import Literal
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec import Struct

from kernel.caller import Caller, MemberRef
from kernel.database import Connection
from kernel.ids import new_id
from kernel.vault import Vault, generate_ring
from partners.credit import capturing
from partners.credit.model import Plan
from partners.credit.service import Answer
from partners.oauth.keys import Signer, SigningKey
from partners.oauth.service import PairwiseSubjects, grant_consent, subject_for
from partners.offers import acceptance, quoting
from partners.offers.model import Cart, CartLine, Evidence, OfferDefinition, Quote
from partners.offers.sandbox import ecommerce_offer, hospital_offer, publish_definition
from partners.registry import service as registry
from partners.registry.jwk import encode
from points.earning.model import Activity
from points.earning.service import earn
from points.membership.service import enrol_members

SUBJECTS = PairwiseSubjects()
SCOPES = ("members:read", "offers:read", "offers:write", "plans:read", "plans:write", "points:earn")


class Scene(Struct, frozen=True, kw_only=True):
    """One partner, one offer on sale there, one member it knows."""

    partner_id: UUID
    caller: Caller
    version_id: UUID
    definition: OfferDefinition
    member: MemberRef
    sub: str
    signer: Signer

    def cart(self, total_fen: int, *, order_ref: str = "order-1") -> Cart:
        line = CartLine(sku="sku-1", name="Washing machine", quantity=1, unit_fen=total_fen)
        return Cart(order_ref=order_ref, lines=[line], total_fen=total_fen)

    async def quote(
        self,
        connection: Connection,
        cart: Cart,
        *,
        periods: int = 12,
        points: int = 0,
        down_payment_fen: int = 0,
        now: datetime,
    ) -> Quote:
        request = quoting.QuoteRequest(
            version_id=self.version_id,
            member=self.member,
            member_sub=self.sub,
            cart=cart,
            periods=periods,
            points=points,
            down_payment_fen=down_payment_fen,
            sales_code=None,
        )
        return await quoting.issue_quote(
            connection, request, partner_id=self.partner_id, signer=self.signer, now=now
        )

    async def disclose(
        self,
        connection: Connection,
        quote: Quote,
        *,
        hash: str | None = None,
        displayed_seconds: int = 8,
        confirmed_at: datetime | None = None,
        now: datetime,
    ) -> None:
        evidence = Evidence(
            hash=quote.disclosure_hash if hash is None else hash,
            displayed_seconds=displayed_seconds,
            confirmed_at=confirmed_at or now,
        )
        await acceptance.disclose_quote(connection, evidence, quote_id=quote.id, caller=self.caller, now=now)

    async def accept(
        self,
        connection: Connection,
        quote: Quote,
        *,
        cart: Cart | None = None,
        jws: str | None = None,
        mode: Literal["sandbox", "live"] = "sandbox",
        now: datetime,
    ) -> Answer:
        return await acceptance.accept_quote(
            connection,
            quote_id=quote.id,
            caller=self.caller,
            subjects=SUBJECTS,
            cart=cart,
            jws=jws,
            mode=mode,
            now=now,
        )

    async def authorise(
        self, connection: Connection, cart: Cart, *, periods: int = 12, points: int = 0, now: datetime
    ) -> Plan:
        """The whole way to an authorised plan."""
        quote = await self.quote(connection, cart, periods=periods, points=points, now=now)
        await self.disclose(connection, quote, now=now)
        plan = (await self.accept(connection, quote, now=now)).plan
        assert plan is not None
        return plan

    async def capture(
        self, connection: Connection, plan: Plan, amount_fen: int | None = None, *, now: datetime
    ) -> Plan:
        captured, _ = await capturing.capture_plan(
            connection, plan_id=plan.id, partner_id=self.partner_id, amount_fen=amount_fen, now=now
        )
        return captured

    async def give_points(self, connection: Connection, points: int, *, now: datetime) -> None:
        """Earn at least `points` for the member."""
        activity = Activity(
            member=self.member,
            source_ref=new_id(now).hex,
            kind="purchase",
            occurred_at=now,
            amount_fen=points * 100,
        )
        [earned] = await earn(connection, [activity], partner_id=self.partner_id, now=now)
        assert not isinstance(earned, Exception)


def make_signer() -> Signer:
    private = ec.generate_private_key(ec.SECP256R1())
    numbers = private.public_key().public_numbers()
    x, y = (encode(number.to_bytes(32, "big")) for number in (numbers.x, numbers.y))
    public = {"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": "k1", "alg": "ES256", "use": "sig"}
    key = SigningKey(kid="k1", status="active", private=private, public_jwk=public)
    return Signer(issuer="https://bank.example", keys=[key])


async def set_scene(connection: Connection, definition: OfferDefinition, *, now: datetime) -> Scene:
    """Everything a first quote needs."""
    partner_id = await registry.register_partner(
        connection,
        slug=f"p{new_id(now).hex[-12:]}",
        name_zh="合作方",
        name_en="Partner",
        kind="service_provider",
        scene="ecommerce",
        status="live",
        now=now,
    )
    await registry.record_agreement(
        connection,
        partner_id=partner_id,
        scenarios=[definition.scenario],
        funding={},
        starts_on=date(2026, 1, 1),
        ends_on=date(2027, 12, 31),
        now=now,
    )
    [member] = await enrol_members(connection, count=1, now=now)
    vault = Vault(generate_ring())
    sub = await subject_for(connection, partner_id=partner_id, member=member, vault=vault, now=now)
    await grant_consent(
        connection,
        partner_id=partner_id,
        member=member,
        scopes=SCOPES,
        ends_on=date(2027, 12, 31),
        now=now,
    )
    caller = Caller(
        partner_id=partner_id,
        app_id=new_id(now),
        client_id="app_1",
        scopes=frozenset(SCOPES),
        key_thumbprint="thumbprint",
    )
    return Scene(
        partner_id=partner_id,
        caller=caller,
        version_id=await publish_definition(connection, definition, partner_id=partner_id, now=now),
        definition=definition,
        member=member,
        sub=sub,
        signer=make_signer(),
    )


@pytest.fixture
async def shop(connection: Connection, now: datetime) -> Scene:
    return await set_scene(connection, ecommerce_offer(now), now=now)


@pytest.fixture
async def hospital(connection: Connection, now: datetime) -> Scene:
    return await set_scene(connection, hospital_offer(now), now=now)


@pytest.fixture
def scene_maker() -> Callable[..., Awaitable[Scene]]:
    """For tests that need their scene committed."""
    return set_scene
