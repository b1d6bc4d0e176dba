"""The statements on point types."""

from collections.abc import Sequence

from kernel.database import Connection, read
from points.ledger.model import PointType

INSERT_POINT_TYPE = """
INSERT INTO ledger_point_type (code, name, value_fen_e6)
SELECT max(code) + 1, $1, $2 FROM ledger_point_type
RETURNING code, name, value_fen_e6
"""

# In the order in which they came.
LIST_POINT_TYPES = "SELECT code, name, value_fen_e6 FROM ledger_point_type ORDER BY code"

READ_POINT_TYPE = "SELECT code, name, value_fen_e6 FROM ledger_point_type WHERE code = $1"

# Whichever order: they are found by name.
LIST_NAMED = "SELECT code, name, value_fen_e6 FROM ledger_point_type WHERE name = ANY($1::text[])"


async def insert_point_type(connection: Connection, *, name: str, value_fen_e6: int) -> PointType:
    return read(await connection.fetchrow(INSERT_POINT_TYPE, name, value_fen_e6), PointType)


async def list_point_types(connection: Connection) -> Sequence[PointType]:
    return [read(record, PointType) for record in await connection.fetch(LIST_POINT_TYPES)]


async def read_point_type(connection: Connection, code: int) -> PointType:
    return read(await connection.fetchrow(READ_POINT_TYPE, code), PointType)


async def list_named(connection: Connection, names: Sequence[str]) -> Sequence[PointType]:
    return [read(record, PointType) for record in await connection.fetch(LIST_NAMED, names)]
