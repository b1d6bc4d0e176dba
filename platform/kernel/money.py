"""Units: money in integer fen, points in whole points, rates in integer millionths; never a float.

The aliases carry the bounds that request structs check on decoding. Amounts stop at 2**53 - 1, the largest integer
every JSON reader keeps exact.
"""

from typing import Annotated

from msgspec import Meta

AMOUNT_MAX = 2**53 - 1
ORDER_FEN_MAX = 10**13

Fen = Annotated[int, Meta(ge=0, le=AMOUNT_MAX, description="Money in fen (1/100 yuan).")]
OrderFen = Annotated[int, Meta(ge=0, le=ORDER_FEN_MAX, description="An order's amount in fen (1/100 yuan).")]
PositiveFen = Annotated[int, Meta(gt=0, le=ORDER_FEN_MAX, description="Money in fen, more than zero.")]
Points = Annotated[int, Meta(ge=0, le=AMOUNT_MAX, description="Whole points.")]
PositivePoints = Annotated[int, Meta(gt=0, le=ORDER_FEN_MAX, description="Whole points, more than zero.")]
