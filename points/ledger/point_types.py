"""Point types: the kinds of points there are, by name and by code; one that is there never changes."""

import re
from collections.abc import Collection, Sequence
from datetime import datetime

import asyncpg

from kernel import audit
from kernel.database import Connection
from kernel.errors import Conflict, Unprocessable
from points.ledger import point_type_queries as queries
from points.ledger.model import POINTS, PointType
from points.ledger.rules import PointTypeUnknown

VALUE_FEN_E6_MAX = 10**12
_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")


class PointTypeExists(Conflict):
    """There is a type of points with this name already."""


class PointTypeInvalid(Unprocessable):
    """A type's name is up to 32 small letters, digits and underscores; its points pay for a millionth to a million fen."""


async def register_point_type(
    connection: Connection, *, name: str, value_fen_e6: int, by: str, now: datetime
) -> PointType:
    """A new type under the next code."""
    if _NAME.fullmatch(name) is None or not 0 < value_fen_e6 <= VALUE_FEN_E6_MAX:
        raise PointTypeInvalid
    try:
        added = await queries.insert_point_type(connection, name=name, value_fen_e6=value_fen_e6)
    except asyncpg.UniqueViolationError:
        raise PointTypeExists(name=name) from None
    record = audit.AuditRecord(
        actor=by, action="point_type.register", subject=name, detail={"value_fen_e6": value_fen_e6}
    )
    await audit.append(connection, record, partner_id=None, now=now)
    return added


async def list_point_types(connection: Connection) -> Sequence[PointType]:
    """All of them, oldest first."""
    return await queries.list_point_types(connection)


async def read_point_type(connection: Connection, code: int) -> PointType:
    """The type with this code, which something refers to."""
    return POINTS if code == POINTS.code else await queries.read_point_type(connection, code)


async def find_point_type(connection: Connection, name: str) -> PointType:
    """The type with this name; refused when there is none."""
    found = (await find_point_types(connection, [name])).get(name)
    if found is None:
        raise PointTypeUnknown(point_type=name)
    return found


async def find_point_types(connection: Connection, names: Collection[str]) -> dict[str, PointType]:
    """Those that exist, by name. The one that everybody has costs no question."""
    unknown = sorted({name for name in names if name != POINTS.name and "\0" not in name})
    found = await queries.list_named(connection, unknown) if unknown else []
    return {POINTS.name: POINTS} | {point_type.name: point_type for point_type in found}
