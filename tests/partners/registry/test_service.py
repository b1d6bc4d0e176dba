"""The registry on its tables."""

from datetime import date, datetime, timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest
from partner_client import PartnerClient, generate, public_jwk

from kernel.caller import MemberRef
from kernel.database import Connection
from kernel.errors import Absent
from partners.registry import client_keys, queries, service
from partners.registry.model import App, PartnerStatus
from partners.registry.rules import KeyLimitReached, PartnerMoveNotAllowed


async def register(connection: Connection, now: datetime, *, status: PartnerStatus = "live") -> App:
    partner_id = await service.register_partner(
        connection,
        slug=f"shop-{uuid4().hex[:12]}",
        name_zh="示例商城",
        name_en="Sample Mall",
        kind="service_provider",
        scene="ecommerce",
        status=status,
        now=now,
    )
    return await service.register_app(
        connection, partner_id=partner_id, scopes=["points:earn"], rate_per_second=5, burst=10, now=now
    )


async def add_key(connection: Connection, app: App, kid: str, now: datetime) -> None:
    jwk = {**public_jwk("ES256", generate("ES256")), "kid": kid}
    await service.add_key(connection, app_id=app.id, jwk=jwk, now=now)


async def test_every_statement_is_valid_on_the_schema(connection: Connection) -> None:
    statements = [value for name, value in vars(queries).items() if name.isupper() and isinstance(value, str)]
    assert statements
    for statement in statements:
        await connection.prepare(statement)


async def test_a_slug_names_one_partner(connection: Connection, now: datetime) -> None:
    app = await register(connection, now)
    partner = await service.find_partner(connection, app.partner_id)
    assert await service.find_partner_by_slug(connection, partner.slug) == partner
    with pytest.raises(service.SlugTaken):
        await service.register_partner(
            connection,
            slug=partner.slug,
            name_zh="别家",
            name_en="Other",
            kind="product_supplier",
            scene="tax",
            now=now,
        )


async def test_strangers_are_absent(connection: Connection) -> None:
    with pytest.raises(Absent):
        await service.find_partner(connection, UUID(int=1))
    with pytest.raises(Absent):
        await service.find_partner_by_slug(connection, "nobody")
    assert await service.find_client(connection, "app_nobody") is None


async def test_a_move_raises_the_epoch_tells_the_partner_and_is_audited(
    connection: Connection, now: datetime
) -> None:
    app = await register(connection, now)
    partner = await service.set_partner_status(
        connection, partner_id=app.partner_id, status="suspended", actor="admin:duty", now=now
    )
    assert (partner.status, partner.epoch) == ("suspended", 2)
    event = await connection.fetchrow("SELECT * FROM outbox_event WHERE partner_id = $1", app.partner_id)
    assert event is not None
    assert (event["type"], event["payload"]["was"]) == ("partner.suspended", "live")
    action = await connection.fetchval("SELECT action FROM audit_record WHERE actor = 'admin:duty'")
    assert action == "partner.suspended"


async def test_a_move_that_is_not_allowed_changes_nothing(connection: Connection, now: datetime) -> None:
    app = await register(connection, now, status="draft")
    with pytest.raises(PartnerMoveNotAllowed):
        await service.set_partner_status(
            connection, partner_id=app.partner_id, status="live", actor="admin:duty", now=now
        )
    partner = await service.find_partner(connection, app.partner_id)
    assert (partner.status, partner.epoch) == ("draft", 1)


async def test_termination_removes_the_apps_for_ever(connection: Connection, now: datetime) -> None:
    app = await register(connection, now, status="terminating")
    await service.set_partner_status(
        connection, partner_id=app.partner_id, status="terminated", actor="admin:duty", now=now
    )
    assert (await service.find_app(connection, app.id)).status == "removed"
    with pytest.raises(Absent):
        await service.set_app_status(connection, app_id=app.id, status="active", actor="admin:duty", now=now)


async def test_authentication_sees_usable_keys_only(connection: Connection, now: datetime) -> None:
    app = await register(connection, now)
    for kid in ("old", "stolen"):
        await add_key(connection, app, kid, now)
    await queries.move_key(connection, app.id, "old", present="active", wanted="retiring")
    await client_keys.revoke_key(connection, app_id=app.id, kid="stolen", actor="app:test", now=now)
    await add_key(connection, app, "new", now)
    client = await service.find_client(connection, app.client_id)
    assert client is not None
    assert set(client.keys) == {"old", "new"}
    assert client.epoch == 2  # the revocation ended the tokens
    assert (client.partner_status, client.app_status) == ("live", "active")


async def test_a_third_active_key_is_refused(connection: Connection, now: datetime) -> None:
    app = await register(connection, now)
    await add_key(connection, app, "a", now)
    await add_key(connection, app, "b", now)
    with pytest.raises(KeyLimitReached):
        await add_key(connection, app, "c", now)


async def test_the_schema_refuses_a_private_key_as_well(connection: Connection, now: datetime) -> None:
    app = await register(connection, now)
    with pytest.raises(asyncpg.CheckViolationError):
        await queries.insert_key(connection, app.id, kid="x", jwk={"d": "secret"}, status="active", now=now)


async def test_an_agreement_holds_on_its_days(connection: Connection, now: datetime) -> None:
    app = await register(connection, now)
    for starts_on, scenario in ((date(2026, 1, 1), "medical"), (date(2026, 11, 20), "ecom_checkout")):
        await service.record_agreement(
            connection,
            partner_id=app.partner_id,
            scenarios=[scenario],
            funding={"points": "bank"},
            starts_on=starts_on,
            ends_on=date(2026, 11, 20),
            now=now,
        )
    agreement = await service.find_agreement(connection, app.partner_id, now=now)
    assert agreement is not None
    assert (agreement.scenarios, agreement.funding) == (["ecom_checkout"], {"points": "bank"})
    # 16:00 UTC is midnight in Shanghai
    end = now.replace(hour=16)
    assert await service.find_agreement(connection, app.partner_id, now=end - timedelta(seconds=1))
    assert await service.find_agreement(connection, app.partner_id, now=end) is None


async def test_a_customer_number_belongs_to_one_partner(connection: Connection, now: datetime) -> None:
    app, other = await register(connection, now), await register(connection, now)
    customers = {bytes(32): MemberRef(member_id=7, bucket=3)}
    await service.link_customers(connection, partner_id=app.partner_id, customers=customers, now=now)
    found = [
        await service.list_customers(connection, partner_id=one.partner_id, ref_hashes=[bytes(32), b"x"])
        for one in (app, other)
    ]
    assert found == [customers, {}]


def test_the_partner_client_presents_its_key() -> None:
    client = PartnerClient(client_id="app_x", issuer="https://bank.example")
    assert client.public_jwk["kid"] == "k1"
