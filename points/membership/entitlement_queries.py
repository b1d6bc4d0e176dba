"""The statements about rights: granted, booked, used, withdrawn, revoked."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID

import msgspec

from kernel.caller import MemberRef
from kernel.database import Connection, read_if_any
from points.membership.model import Booking, DueRight, Entitlement

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
SELECT bucket, member_id, id, partner_id, kind, source, quantity, used, booked, withdrawn, expires_at,
       revoked_at, granted_at
  FROM membership_entitlement
 WHERE bucket = $1 AND member_id = $2 AND partner_id = $3 AND ($4::uuid IS NULL OR id < $4)
 ORDER BY id DESC
 LIMIT $5
"""

FIND_ENTITLEMENT = """
SELECT bucket, member_id, id, partner_id, kind, source, quantity, used, booked, withdrawn, expires_at,
       revoked_at, granted_at
  FROM membership_entitlement
 WHERE id = $1 AND partner_id = $2
"""

LOCK_ENTITLEMENT = """
SELECT bucket, member_id, id, partner_id, kind, source, quantity, used, booked, withdrawn, expires_at,
       revoked_at, granted_at
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

# Of the tier each member has now, by the version of the day, in the period that holds it: what is not there yet, or less.
LIST_DUE_RIGHTS = """
SELECT member.bucket, member.member_id, privilege.partner_id, privilege.kind, privilege.quantity, privilege.period_on,
       privilege.ends_on::timestamp AT TIME ZONE 'Asia/Shanghai' AS expires_at,
       privilege.version AS privilege_version
  FROM (SELECT p.version, p.tier, p.partner_id, p.kind, p.quantity, date_trunc(p.period, $3::date::timestamp)::date AS period_on,
               (date_trunc(p.period, $3::date::timestamp)
                + CASE p.period WHEN 'quarter' THEN interval '3 months' ELSE ('1 ' || p.period)::interval END)::date AS ends_on
          FROM membership_privilege AS p
         WHERE p.version = membership_version_on('privileges', $3)) AS privilege
 CROSS JOIN unnest($1::smallint[], $2::bigint[]) AS asked (bucket, member_id)
 CROSS JOIN LATERAL (
       SELECT m.bucket, m.member_id
         FROM membership_member AS m
        WHERE m.bucket = asked.bucket AND m.member_id = asked.member_id AND m.tier = privilege.tier
       OFFSET 0) AS member
 WHERE NOT EXISTS (
       SELECT FROM membership_entitlement AS e
        WHERE e.bucket = member.bucket AND e.member_id = member.member_id AND e.partner_id = privilege.partner_id
          AND e.kind = privilege.kind AND e.period_on = privilege.period_on
          AND (e.quantity >= privilege.quantity OR e.withdrawn > 0 OR e.revoked_at IS NOT NULL))
 ORDER BY member.bucket, member.member_id
"""

# Once for a period; a better tier in the same period raises what was given. In key order, as everywhere.
INSERT_RIGHTS = """
INSERT INTO membership_entitlement AS e (
       bucket, member_id, id, partner_id, kind, source, quantity, expires_at, granted_at, period_on, privilege_version)
SELECT r.bucket, r.member_id, r.id, r.partner_id, r.kind, 'tier', r.quantity, r.expires_at, $10, r.period_on,
       r.privilege_version
  FROM unnest($1::smallint[], $2::bigint[], $3::uuid[], $4::uuid[], $5::text[], $6::int[], $7::timestamptz[], $8::date[],
              $9::int[])
       AS r (bucket, member_id, id, partner_id, kind, quantity, expires_at, period_on, privilege_version)
 ORDER BY r.bucket, r.member_id, r.partner_id, r.kind
    ON CONFLICT (bucket, member_id, partner_id, kind, period_on) WHERE period_on IS NOT NULL DO UPDATE
   SET quantity = excluded.quantity, privilege_version = excluded.privilege_version
 WHERE e.quantity < excluded.quantity AND e.withdrawn = 0 AND e.revoked_at IS NULL
"""

# What is used or booked stays.
WITHDRAW_RIGHTS = """
UPDATE membership_entitlement AS e
   SET withdrawn = e.quantity - e.used - e.booked
  FROM unnest($1::smallint[], $2::bigint[]) AS asked (bucket, member_id)
 WHERE e.bucket = asked.bucket AND e.member_id = asked.member_id AND e.period_on IS NOT NULL AND e.revoked_at IS NULL
"""

INSERT_BOOKING = """
INSERT INTO membership_booking (bucket, member_id, entitlement_id, booking_ref, booked_for, quantity, booked_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (bucket, member_id, entitlement_id, booking_ref) DO NOTHING
RETURNING true
"""

FIND_BOOKING = """
SELECT booking_ref, booked_for, quantity, state
  FROM membership_booking
 WHERE bucket = $1 AND member_id = $2 AND entitlement_id = $3 AND booking_ref = $4
"""

CLOSE_BOOKING = """
UPDATE membership_booking
   SET state = $5, closed_at = $6
 WHERE bucket = $1 AND member_id = $2 AND entitlement_id = $3 AND booking_ref = $4 AND state = 'booked'
"""

MOVE_USES = """
UPDATE membership_entitlement
   SET used = used + $4, booked = booked + $5, withdrawn = withdrawn + $6
 WHERE bucket = $1 AND member_id = $2 AND id = $3
"""


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


async def find_entitlement(
    connection: Connection, entitlement_id: UUID, *, partner_id: UUID
) -> Entitlement | None:
    record = await connection.fetchrow(FIND_ENTITLEMENT, entitlement_id, partner_id)
    return None if record is None else _entitlement(dict(record))


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


async def move_uses(
    connection: Connection, entitlement: Entitlement, *, used: int = 0, booked: int = 0, withdrawn: int = 0
) -> None:
    """Count so many more of each, or fewer when below zero."""
    await connection.execute(MOVE_USES, *_key(entitlement), used, booked, withdrawn)


async def list_due_rights(
    connection: Connection, members: Sequence[MemberRef], *, day: date
) -> list[DueRight]:
    records = await connection.fetch(LIST_DUE_RIGHTS, *_keys(members), day)
    return [_due_right(dict(record)) for record in records]


async def insert_rights(
    connection: Connection, due: Sequence[DueRight], *, ids: Sequence[UUID], now: datetime
) -> None:
    await connection.execute(
        INSERT_RIGHTS,
        *_keys([right.member for right in due]),
        list(ids),
        [right.partner_id for right in due],
        [right.kind for right in due],
        [right.quantity for right in due],
        [right.expires_at for right in due],
        [right.period_on for right in due],
        [right.privilege_version for right in due],
        now,
    )


async def withdraw_rights(connection: Connection, members: Sequence[MemberRef]) -> None:
    await connection.execute(WITHDRAW_RIGHTS, *_keys(members))


async def insert_booking(
    connection: Connection, entitlement: Entitlement, booking: Booking, *, now: datetime
) -> bool:
    """False when there is a booking with this booking_ref."""
    b = booking
    return bool(
        await connection.fetchval(
            INSERT_BOOKING, *_key(entitlement), b.booking_ref, b.booked_for, b.quantity, now
        )
    )


async def find_booking(
    connection: Connection, entitlement: Entitlement, *, booking_ref: str
) -> Booking | None:
    return read_if_any(await connection.fetchrow(FIND_BOOKING, *_key(entitlement), booking_ref), Booking)


async def close_booking(
    connection: Connection, entitlement: Entitlement, booking: Booking, *, now: datetime
) -> None:
    """Into the state it names; whoever does so holds the entitlement's lock."""
    await connection.execute(CLOSE_BOOKING, *_key(entitlement), booking.booking_ref, booking.state, now)


def _key(entitlement: Entitlement) -> tuple[int, int, UUID]:
    return entitlement.member.bucket, entitlement.member.member_id, entitlement.id


def _keys(members: Sequence[MemberRef]) -> tuple[list[int], list[int]]:
    return [member.bucket for member in members], [member.member_id for member in members]


def _due_right(row: dict[str, Any]) -> DueRight:
    member = MemberRef(member_id=row.pop("member_id"), bucket=row.pop("bucket"))
    return msgspec.convert(row | {"member": member}, DueRight)


def _entitlement(row: dict[str, Any]) -> Entitlement:
    member = MemberRef(member_id=row.pop("member_id"), bucket=row.pop("bucket"))
    return msgspec.convert(row | {"member": member}, Entitlement)
