"""Membership: enrolling members, where they stand, and the rights they hold."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from msgspec.structs import replace

from kernel.caller import MemberRef
from kernel.database import Connection
from kernel.errors import Conflict
from kernel.ids import new_id
from kernel.vault import Vault
from points.membership import queries
from points.membership.model import BankLevel, Entitlement, ShopLevel, Standing
from points.membership.rules import EntitlementUnknown, check_use

TABLE = "membership_member"


class EntitlementUseAlreadyCounted(Conflict):
    """A use with this use_ref has already been counted for this entitlement."""


async def enrol_members(
    connection: Connection,
    *,
    count: int,
    bank_level: BankLevel = "express",
    shop_level: ShopLevel = "iron",
    now: datetime,
) -> list[MemberRef]:
    """`count` members about whom nothing else is known."""
    return await queries.insert_members(
        connection, count=count, bank_level=bank_level, shop_level=shop_level, now=now
    )


async def enrol_member(
    connection: Connection,
    *,
    bank_level: BankLevel = "express",
    shop_level: ShopLevel = "iron",
    name: str | None = None,
    phone: str | None = None,
    vault: Vault,
    now: datetime,
) -> MemberRef:
    """One member; name and phone are stored sealed, the phone can be found by its blind index."""
    member = await queries.insert_member(connection, bank_level=bank_level, shop_level=shop_level, now=now)
    if name is None and phone is None:
        return member
    row = str(member.member_id)
    await queries.seal_member(
        connection,
        member,
        name_sealed=None if name is None else vault.encrypt(name, table=TABLE, column="name", row=row),
        phone_sealed=None if phone is None else vault.encrypt(phone, table=TABLE, column="phone", row=row),
        phone_index=None if phone is None else vault.blind_index("member.phone", phone),
    )
    return member


async def list_standings(connection: Connection, members: Sequence[MemberRef]) -> dict[int, Standing]:
    """Where these members stand by the matrix in force, by member id."""
    return await queries.list_standings(connection, members)


async def grant_entitlement(
    connection: Connection,
    *,
    member: MemberRef,
    partner_id: UUID,
    kind: str,
    source: str,
    quantity: int,
    expires_at: datetime | None,
    now: datetime,
) -> UUID:
    """Give `member` the right to `quantity` uses; `source` is what undoing would revoke it."""
    entitlement = Entitlement(
        id=new_id(now),
        member=member,
        partner_id=partner_id,
        kind=kind,
        source=source,
        quantity=quantity,
        used=0,
        expires_at=expires_at,
        revoked_at=None,
        granted_at=now,
    )
    await queries.insert_entitlement(connection, entitlement)
    return entitlement.id


async def revoke_entitlements(
    connection: Connection, *, member: MemberRef, source: str, now: datetime
) -> int:
    """Take back what `source` gave and is not used up; returns how many."""
    return await queries.revoke_entitlements(connection, member, source=source, now=now)


async def list_entitlements(
    connection: Connection, member: MemberRef, *, partner_id: UUID, before: UUID | None = None, limit: int
) -> list[Entitlement]:
    """The member's rights at this partner, newest first, those older than `before`."""
    return await queries.list_entitlements(
        connection, member, partner_id=partner_id, before=before, limit=limit
    )


async def use_entitlement(
    connection: Connection,
    *,
    entitlement_id: UUID,
    partner_id: UUID,
    use_ref: str,
    quantity: int,
    now: datetime,
) -> Entitlement:
    """Count a use; the row is locked, so two checkouts cannot share the last one."""
    entitlement = await queries.lock_entitlement(connection, entitlement_id, partner_id=partner_id)
    if entitlement is None:
        raise EntitlementUnknown
    check_use(entitlement, quantity, now)
    if not await queries.insert_use(connection, entitlement, use_ref=use_ref, quantity=quantity, now=now):
        raise EntitlementUseAlreadyCounted(use_ref=use_ref)
    await queries.move_used(connection, entitlement, quantity=quantity)
    return replace(entitlement, used=entitlement.used + quantity)
