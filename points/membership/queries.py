"""Membership's statements."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from kernel.caller import MemberRef
from kernel.database import Connection, read
from points.membership.model import MATRIX_VERSION, BankLevel, Entitlement, ShopLevel, Standing

INSERT_MEMBERS = """
INSERT INTO membership_member (bank_level, shop_level, created_at)
SELECT $2, $3, $4 FROM generate_series(1, $1::int)
RETURNING member_id, bucket
"""

INSERT_MEMBER = """
INSERT INTO membership_member (bank_level, shop_level, created_at) VALUES ($1, $2, $3) RETURNING member_id, bucket
"""

# A second statement, because the seal is bound to the row's number.
SEAL_MEMBER = """
UPDATE membership_member
   SET name_sealed = $3, phone_sealed = $4, phone_index = $5
 WHERE bucket = $1 AND member_id = $2
"""

# The lateral subquery keeps any plan to one key lookup per member.
LIST_STANDINGS = """
SELECT standing.*
  FROM unnest($1::smallint[], $2::bigint[]) AS asked (bucket, member_id)
 CROSS JOIN LATERAL (
       SELECT member.member_id, matrix.tier, member.bank_level, member.shop_level, matrix.multiplier_pct,
              matrix.version AS matrix_version
         FROM membership_member AS member
         JOIN membership_matrix AS matrix
           ON matrix.version = $3 AND matrix.bank_level = member.bank_level
          AND matrix.shop_level = member.shop_level
        WHERE member.bucket = asked.bucket AND member.member_id = asked.member_id
       OFFSET 0) AS standing
"""

INSERT_ENTITLEMENT = """
INSERT INTO membership_entitlement (
    bucket, member_id, id, partner_id, kind, source, quantity, expires_at, granted_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
"""

REVOKE_ENTITLEMENTS = """
UPDATE membership_entitlement
   SET revoked_at = $4
 WHERE bucket = $1 AND member_id = $2 AND source = $3 AND used < quantity AND revoked_at IS NULL
RETURNING id
"""

# Newest first; the id is time-ordered, so it breaks ties and is the cursor.
LIST_ENTITLEMENTS = """
SELECT bucket, member_id, id, partner_id, kind, source, quantity, used, expires_at, revoked_at, granted_at
  FROM membership_entitlement
 WHERE bucket = $1 AND member_id = $2 AND partner_id = $3 AND ($4::uuid IS NULL OR id < $4)
 ORDER BY id DESC
 LIMIT $5
"""

LOCK_ENTITLEMENT = """
SELECT bucket, member_id, id, partner_id, kind, source, quantity, used, expires_at, revoked_at, granted_at
  FROM membership_entitlement
 WHERE id = $1 AND partner_id = $2
   FOR UPDATE
"""

INSERT_USE = """
INSERT INTO membership_entitlement_use (bucket, member_id, entitlement_id, use_ref, quantity, used_at)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (bucket, member_id, entitlement_id, use_ref) DO NOTHING
RETURNING true
"""

MOVE_USED = """
UPDATE membership_entitlement SET used = used + $4 WHERE bucket = $1 AND member_id = $2 AND id = $3
"""


async def insert_members(
    connection: Connection, *, count: int, bank_level: BankLevel, shop_level: ShopLevel, now: datetime
) -> list[MemberRef]:
    records = await connection.fetch(INSERT_MEMBERS, count, bank_level, shop_level, now)
    return [read(record, MemberRef) for record in records]


async def insert_member(
    connection: Connection, *, bank_level: BankLevel, shop_level: ShopLevel, now: datetime
) -> MemberRef:
    return read(await connection.fetchrow(INSERT_MEMBER, bank_level, shop_level, now), MemberRef)


async def seal_member(
    connection: Connection,
    member: MemberRef,
    *,
    name_sealed: bytes | None,
    phone_sealed: bytes | None,
    phone_index: bytes | None,
) -> None:
    await connection.execute(
        SEAL_MEMBER, member.bucket, member.member_id, name_sealed, phone_sealed, phone_index
    )


async def list_standings(connection: Connection, members: Sequence[MemberRef]) -> dict[int, Standing]:
    records = await connection.fetch(
        LIST_STANDINGS,
        [member.bucket for member in members],
        [member.member_id for member in members],
        MATRIX_VERSION,
    )
    return {
        member_id: Standing(
            tier=tier,
            bank_level=bank_level,
            shop_level=shop_level,
            multiplier_pct=multiplier_pct,
            matrix_version=version,
        )
        for member_id, tier, bank_level, shop_level, multiplier_pct, version in records
    }


async def insert_entitlement(connection: Connection, entitlement: Entitlement) -> None:
    await connection.execute(
        INSERT_ENTITLEMENT,
        entitlement.member.bucket,
        entitlement.member.member_id,
        entitlement.id,
        entitlement.partner_id,
        entitlement.kind,
        entitlement.source,
        entitlement.quantity,
        entitlement.expires_at,
        entitlement.granted_at,
    )


async def revoke_entitlements(
    connection: Connection, member: MemberRef, *, source: str, now: datetime
) -> int:
    """Revoke what is still unused; returns how many."""
    return len(await connection.fetch(REVOKE_ENTITLEMENTS, member.bucket, member.member_id, source, now))


async def list_entitlements(
    connection: Connection, member: MemberRef, *, partner_id: UUID, before: UUID | None, limit: int
) -> list[Entitlement]:
    records = await connection.fetch(
        LIST_ENTITLEMENTS, member.bucket, member.member_id, partner_id, before, limit
    )
    return [_entitlement(dict(record)) for record in records]


async def lock_entitlement(
    connection: Connection, entitlement_id: UUID, *, partner_id: UUID
) -> Entitlement | None:
    record = await connection.fetchrow(LOCK_ENTITLEMENT, entitlement_id, partner_id)
    return None if record is None else _entitlement(dict(record))


async def insert_use(
    connection: Connection, entitlement: Entitlement, *, use_ref: str, quantity: int, now: datetime
) -> bool:
    """False when this use_ref was counted before."""
    key = entitlement.member.bucket, entitlement.member.member_id, entitlement.id
    return bool(await connection.fetchval(INSERT_USE, *key, use_ref, quantity, now))


async def move_used(connection: Connection, entitlement: Entitlement, *, quantity: int) -> None:
    member = entitlement.member
    await connection.execute(MOVE_USED, member.bucket, member.member_id, entitlement.id, quantity)


def _entitlement(row: dict[str, Any]) -> Entitlement:
    member = MemberRef(member_id=row.pop("member_id"), bucket=row.pop("bucket"))
    return msgspec.convert(row | {"member": member}, Entitlement)
