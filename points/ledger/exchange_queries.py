"""The statements on exchange rates and exchanges."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from kernel.caller import MemberRef
from kernel.database import Connection, read, read_if_any
from points.ledger.deeds import ExchangeRate

# The next version of the pair.
INSERT_RATE = """
INSERT INTO ledger_exchange_rate (from_type, to_type, version, numerator, denominator, valid_from, set_by, set_at)
SELECT $1, $2, coalesce(max(version), 0) + 1, $3, $4, $5, $6, $7
  FROM ledger_exchange_rate
 WHERE from_type = $1 AND to_type = $2
RETURNING from_type, to_type, version, numerator, denominator, valid_from
"""

# The last whose moment has come; of two for one moment the later version.
FIND_RATE = """
SELECT from_type, to_type, version, numerator, denominator, valid_from
  FROM ledger_exchange_rate
 WHERE from_type = $1 AND to_type = $2 AND valid_from <= $3
 ORDER BY valid_from DESC, version DESC
 LIMIT 1
"""

# By pair, then in the order in which they were set.
LIST_RATES = """
SELECT from_type, to_type, version, numerator, denominator, valid_from
  FROM ledger_exchange_rate
 ORDER BY from_type, to_type, version
"""

FIND_EXCHANGE = """
SELECT id FROM ledger_operation
 WHERE bucket = $1 AND member_id = $2 AND partner_id = $3 AND source_ref = $4 AND kind = 'exchange'
"""


async def insert_rate(
    connection: Connection,
    *,
    from_type: int,
    to_type: int,
    numerator: int,
    denominator: int,
    valid_from: datetime,
    by: str,
    now: datetime,
) -> ExchangeRate:
    found = await connection.fetchrow(
        INSERT_RATE, from_type, to_type, numerator, denominator, valid_from, by, now
    )
    return read(found, ExchangeRate)


async def find_rate(
    connection: Connection, *, from_type: int, to_type: int, now: datetime
) -> ExchangeRate | None:
    return read_if_any(await connection.fetchrow(FIND_RATE, from_type, to_type, now), ExchangeRate)


async def list_rates(connection: Connection) -> Sequence[ExchangeRate]:
    return [read(record, ExchangeRate) for record in await connection.fetch(LIST_RATES)]


async def find_exchange(
    connection: Connection, member: MemberRef, *, partner_id: UUID, exchange_ref: str
) -> UUID | None:
    found: UUID | None = await connection.fetchval(
        FIND_EXCHANGE, member.bucket, member.member_id, partner_id, exchange_ref
    )
    return found
