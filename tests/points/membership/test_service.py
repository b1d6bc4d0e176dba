"""Members, their tiers and their rights on real PostgreSQL."""

from datetime import datetime, timedelta
from typing import get_args
from uuid import uuid4

import pytest

from kernel.caller import MemberRef
from kernel.database import Connection
from kernel.vault import Vault, generate_ring
from points.membership import service
from points.membership.model import BankLevel, ShopLevel
from points.membership.rules import (
    EntitlementExpired,
    EntitlementRevoked,
    EntitlementUnknown,
    EntitlementUsedUp,
)

PARTNER = uuid4()


async def test_enrolled_members_know_their_bucket(connection: Connection, now: datetime) -> None:
    members = await service.enrol_members(connection, count=3, now=now)
    for member in members:
        assert member.bucket == await connection.fetchval("SELECT bucket_of($1)", member.member_id)
    assert len({member.member_id for member in members}) == 3


async def test_name_and_phone_are_sealed_and_the_phone_can_be_found(
    connection: Connection, now: datetime
) -> None:
    vault = Vault(generate_ring())
    member = await service.enrol_member(connection, name="示例", phone="+8613900000000", vault=vault, now=now)
    row = await connection.fetchrow(
        "SELECT name_sealed, phone_sealed, phone_index FROM membership_member WHERE member_id = $1",
        member.member_id,
    )
    assert row is not None
    place = {"table": "membership_member", "row": str(member.member_id)}
    assert vault.decrypt(row["name_sealed"], column="name", **place) == "示例"
    assert vault.decrypt(row["phone_sealed"], column="phone", **place) == "+8613900000000"
    assert row["phone_index"] == vault.blind_index("member.phone", "+8613900000000")


async def test_the_matrix_has_a_tier_for_every_pair_of_levels(connection: Connection, now: datetime) -> None:
    pairs = [(bank, shop) for bank in get_args(BankLevel) for shop in get_args(ShopLevel)]
    members: list[MemberRef] = []
    for bank_level, shop_level in pairs:
        members += await service.enrol_members(
            connection, count=1, bank_level=bank_level, shop_level=shop_level, now=now
        )
    standings = await service.list_standings(connection, members)
    found = [standings[member.member_id] for member in members]
    assert [(standing.bank_level, standing.shop_level) for standing in found] == pairs
    assert (found[0].tier, found[0].multiplier_pct) == ("start", 100)
    assert (found[-1].tier, found[-1].multiplier_pct) == ("platinum", 200)
    for place, standing in enumerate(found):
        # a better level never earns less
        if place % 4:
            assert standing.multiplier_pct >= found[place - 1].multiplier_pct
        if place >= 4:
            assert standing.multiplier_pct >= found[place - 4].multiplier_pct


async def grant(connection: Connection, now: datetime, quantity: int = 2) -> tuple[MemberRef, object]:
    (member,) = await service.enrol_members(connection, count=1, now=now)
    entitlement_id = await service.grant_entitlement(
        connection,
        member=member,
        partner_id=PARTNER,
        kind="airport_lane",
        source="plan-1",
        quantity=quantity,
        expires_at=now + timedelta(days=1),
        now=now,
    )
    return member, entitlement_id


async def use(connection: Connection, entitlement_id: object, ref: str, **changes: object) -> int:
    arguments = {"partner_id": PARTNER, "quantity": 1, "use_ref": ref} | changes
    used = await service.use_entitlement(connection, entitlement_id=entitlement_id, **arguments)  # type: ignore[arg-type]  # arguments vary by test
    return used.left


async def test_a_right_is_used_as_often_as_it_was_given(connection: Connection, now: datetime) -> None:
    _, entitlement_id = await grant(connection, now)
    assert await use(connection, entitlement_id, "u1", now=now) == 1
    with pytest.raises(service.EntitlementUseAlreadyCounted):
        await use(connection, entitlement_id, "u1", now=now)
    with pytest.raises(EntitlementUsedUp) as refused:
        await use(connection, entitlement_id, "u2", quantity=2, now=now)
    assert refused.value.facts == {"left": 1}
    with pytest.raises(EntitlementExpired):
        await use(connection, entitlement_id, "u2", now=now + timedelta(days=1))
    with pytest.raises(EntitlementUnknown):
        await use(connection, entitlement_id, "u2", partner_id=uuid4(), now=now)


async def test_undoing_the_cause_revokes_what_is_left(connection: Connection, now: datetime) -> None:
    member, entitlement_id = await grant(connection, now)
    assert await service.revoke_entitlements(connection, member=member, source="plan-2", now=now) == 0
    assert await service.revoke_entitlements(connection, member=member, source="plan-1", now=now) == 1
    assert await service.revoke_entitlements(connection, member=member, source="plan-1", now=now) == 0
    with pytest.raises(EntitlementRevoked):
        await use(connection, entitlement_id, "u1", now=now)


async def test_rights_are_listed_newest_first_per_partner(connection: Connection, now: datetime) -> None:
    member, first = await grant(connection, now)
    second = await service.grant_entitlement(
        connection,
        member=member,
        partner_id=PARTNER,
        kind="golf",
        source="plan-2",
        quantity=1,
        expires_at=None,
        now=now + timedelta(seconds=1),
    )
    listed = await service.list_entitlements(connection, member, partner_id=PARTNER, limit=10)
    assert [entitlement.id for entitlement in listed] == [second, first]
    rest = await service.list_entitlements(connection, member, partner_id=PARTNER, before=second, limit=10)
    assert [entitlement.id for entitlement in rest] == [first]
    assert await service.list_entitlements(connection, member, partner_id=uuid4(), limit=10) == []
