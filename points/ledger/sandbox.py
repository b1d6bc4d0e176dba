"""The sandbox's second type of points, so that exchanges can be tried."""

from datetime import datetime

from kernel.database import Connection
from points.ledger.exchanges import set_rate
from points.ledger.model import POINTS
from points.ledger.point_types import register_point_type

ACTOR = "sandbox"
NAME = "mall"
#: half of what the bank's own point pays for
VALUE_FEN_E6 = 500_000


async def mint_mall_points(connection: Connection, *, now: datetime) -> None:
    """Three points of the mall for two of the bank's, from now on."""
    mall = await register_point_type(connection, name=NAME, value_fen_e6=VALUE_FEN_E6, by=ACTOR, now=now)
    await set_rate(
        connection,
        from_type=POINTS,
        to_type=mall,
        numerator=3,
        denominator=2,
        valid_from=now,
        by=ACTOR,
        now=now,
    )
