"""The statements about members themselves: enrolment, sealed fields, where they stand."""

from collections.abc import Sequence
from datetime import datetime

from kernel.caller import MemberRef
from kernel.database import Connection, read
from points.membership.model import BankLevel, Cell, Rules, ShopLevel, Standing

# A member and the first tier period, which protects the levels given.
INSERT_MEMBERS = """
WITH member AS (
    INSERT INTO membership_member (
           bank_level, shop_level, created_at, enrolled_bank_level, tier, multiplier_pct, matrix_version, period_no,
           valid_until)
    SELECT $2, $3, $4, $2, $5, $6, $7, 1, $8 FROM generate_series(1, $1::int)
    RETURNING member_id, bucket
), period AS (
    INSERT INTO membership_tier_period (
           bucket, member_id, no, tier, multiplier_pct, bank_level, shop_level, judged_tier, reason, matrix_version,
           scheme_version, judged_on, starts_at, valid_until)
    SELECT bucket, member_id, 1, $5, $6, $2, $3, $5, 'enrolled', $7, $9, ($4 AT TIME ZONE 'Asia/Shanghai')::date, $4, $8
      FROM member
)
SELECT member_id, bucket FROM member
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
       SELECT member.member_id, member.tier, member.bank_level, member.shop_level, member.multiplier_pct,
              member.matrix_version
         FROM membership_member AS member
        WHERE member.bucket = asked.bucket AND member.member_id = asked.member_id
       OFFSET 0) AS standing
"""

# The first member has the lowest number.
FIND_FIRST_MEMBER = "SELECT created_at FROM membership_member ORDER BY member_id LIMIT 1"


async def find_first_enrolment(connection: Connection) -> datetime | None:
    found: datetime | None = await connection.fetchval(FIND_FIRST_MEMBER)
    return found


async def insert_members(
    connection: Connection,
    *,
    count: int,
    bank_level: BankLevel,
    shop_level: ShopLevel,
    rules: Rules,
    valid_until: datetime,
    now: datetime,
) -> list[MemberRef]:
    cell: Cell = rules.matrix.cells[bank_level, shop_level]
    records = await connection.fetch(
        INSERT_MEMBERS,
        count,
        bank_level,
        shop_level,
        now,
        cell.tier,
        cell.multiplier_pct,
        rules.matrix.version,
        valid_until,
        rules.scheme.version,
    )
    return [read(record, MemberRef) for record in records]


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
    )
    return {record["member_id"]: read(record, Standing) for record in records}
