"""What takes two people: reinstating a partner, and changing how an app may come in."""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from kernel.database import Connection, Pool, transaction
from partners.registry import changes, service
from partners.registry.access import AccessInvalid, allows, check_access
from partners.registry.model import Access, App, Change

MAKER, CHECKER = "admin:maker", "admin:checker"


async def register(connection: Connection, now: datetime) -> App:
    partner_id = await service.register_partner(
        connection,
        slug=f"shop-{uuid4().hex[:12]}",
        name_zh="示例商城",
        name_en="Sample Mall",
        kind="service_provider",
        scene="ecommerce",
        status="live",
        now=now,
    )
    return await service.register_app(connection, partner_id=partner_id, scopes=["points:earn"], now=now)


async def suspended(connection: Connection, now: datetime) -> App:
    app = await register(connection, now)
    await service.set_partner_status(
        connection, partner_id=app.partner_id, status="suspended", reason="fraud", actor="admin:duty", now=now
    )
    return app


async def propose(connection: Connection, app: App, now: datetime) -> Change:
    return await changes.propose_reinstatement(
        connection, partner_id=app.partner_id, reason="cleared", by=MAKER, now=now
    )


async def test_a_partner_is_suspended_by_one_and_reinstated_by_two(
    connection: Connection, now: datetime
) -> None:
    app = await suspended(connection, now)
    change = await propose(connection, app, now)
    assert (await service.find_partner(connection, app.partner_id)).status == "suspended"
    with pytest.raises(changes.ChangeNeedsAnother):
        await changes.approve_change(connection, change_id=change.id, by=MAKER, now=now)
    approved = await changes.approve_change(connection, change_id=change.id, by=CHECKER, now=now)
    assert (approved.state, approved.decided_by) == ("approved", CHECKER)
    partner = await service.find_partner(connection, app.partner_id)
    # Neither the tokens from before the suspension nor any from before the reinstatement come back.
    assert (partner.status, partner.epoch) == ("live", 3)
    with pytest.raises(changes.ChangeDecided):
        await changes.approve_change(connection, change_id=change.id, by=CHECKER, now=now)


async def test_a_rejected_proposal_changes_nothing(connection: Connection, now: datetime) -> None:
    app = await suspended(connection, now)
    change = await propose(connection, app, now)
    await changes.reject_change(connection, change_id=change.id, by=CHECKER, now=now)
    assert (await service.find_partner(connection, app.partner_id)).status == "suspended"
    assert [one.state for one in await changes.list_changes(connection, state="rejected")] == ["rejected"]


async def test_a_proposal_waits_for_three_days(connection: Connection, now: datetime) -> None:
    app = await suspended(connection, now)
    change = await propose(connection, app, now)
    with pytest.raises(changes.ChangeOpen):
        async with connection.transaction():
            await propose(connection, app, now + timedelta(hours=71))
    late = now + timedelta(hours=72)
    assert (await changes.approve_change(connection, change_id=change.id, by=CHECKER, now=late)).state == (
        "expired"
    )
    assert (await service.find_partner(connection, app.partner_id)).status == "suspended"
    await propose(connection, app, late)


async def test_only_a_suspended_partner_is_reinstated(connection: Connection, now: datetime) -> None:
    app = await register(connection, now)
    with pytest.raises(changes.PartnerNotSuspended):
        await propose(connection, app, now)


async def test_the_schema_knows_that_it_takes_two(connection: Connection, now: datetime) -> None:
    app = await suspended(connection, now)
    change = await propose(connection, app, now)
    with pytest.raises(asyncpg.CheckViolationError):
        await connection.execute(
            "UPDATE registry_change SET state = 'approved', decided_by = proposed_by WHERE id = $1", change.id
        )


async def test_of_parallel_approvals_one_reinstates(pool: Pool, now: datetime) -> None:
    async with transaction(pool) as connection:
        app = await suspended(connection, now)
        change = await propose(connection, app, now)

    async def approve() -> bool:
        try:
            async with transaction(pool) as connection:
                await changes.approve_change(connection, change_id=change.id, by=CHECKER, now=now)
        except changes.ChangeDecided:
            return False
        return True

    assert sum(await asyncio.gather(*(approve() for _ in range(20)))) == 1
    async with transaction(pool) as connection:
        assert (await service.find_partner(connection, app.partner_id)).epoch == 3


async def test_an_access_is_what_was_approved_and_ends_the_tokens(
    connection: Connection, now: datetime
) -> None:
    app = await register(connection, now)
    access = Access(
        token_binding="certificate",
        certificate_subject="dns:api.shop.example",
        certificate_thumbprints=("A" * 43,),
        ip_allow=("10.0.0.0/8", "2001:db8::/32"),
    )
    change = await changes.propose_access(
        connection, app=app, access=access, loopback=False, reason="contract", by=MAKER, now=now
    )
    client = await service.find_client(connection, app.client_id)
    assert client is not None
    assert (client.token_binding, client.ip_allow) == ("dpop", ())
    await changes.approve_change(connection, change_id=change.id, by=CHECKER, now=now)
    client = await service.find_client(connection, app.client_id)
    assert client is not None
    assert (client.token_binding, client.certificate_subject) == ("certificate", "dns:api.shop.example")
    assert client.certificate_thumbprints == ("A" * 43,)
    assert (set(client.ip_allow), client.epoch) == ({"10.0.0.0/8", "2001:db8::/32"}, 2)


WRONG: list[Callable[[], Access]] = [
    lambda: Access(jwks_uri="http://127.0.0.1/jwks"),
    lambda: Access(jwks_uri="https://10.0.0.1/jwks"),
    lambda: Access(certificate_subject="api.shop.example"),
    lambda: Access(certificate_subject="dns:*.shop.example"),
    lambda: Access(certificate_subject="dn:"),
    lambda: Access(certificate_subject="dn:no name"),
    lambda: Access(certificate_thumbprints=("short",)),
    lambda: Access(ip_allow=("10.0.0.1/8",)),
    lambda: Access(ip_allow=("everywhere",)),
    lambda: Access(ip_allow=tuple(f"10.0.{n}.0/24" for n in range(65))),
]


@pytest.mark.parametrize("access", WRONG, ids=[str(place) for place in range(len(WRONG))])
def test_an_access_that_makes_no_sense_is_refused(access: Callable[[], Access]) -> None:
    with pytest.raises(AccessInvalid):
        check_access(access(), loopback=False)


def test_a_distinguished_name_has_one_spelling() -> None:
    access = Access(certificate_subject="dn:CN=\\41PI,O=Shop")
    assert check_access(access, loopback=False).certificate_subject == "dn:CN=API,O=Shop"


@pytest.mark.parametrize(
    ("networks", "address", "allowed"),
    [
        ((), None, True),
        ((), "192.0.2.1", True),
        (("10.0.0.0/8",), "10.255.0.1", True),
        (("10.0.0.0/8",), "11.0.0.1", False),
        (("10.0.0.0/8",), None, False),
        (("10.0.0.0/8", "2001:db8::/32"), "2001:db8::7", True),
        (("10.0.0.0/8",), "2001:db8::7", False),
    ],
)
def test_an_address_is_in_a_registered_network(
    networks: tuple[str, ...], address: Any, allowed: bool
) -> None:
    assert allows(networks, address) is allowed
