"""How a principal comes back: splitting it over the rows, and the interest on what is still outstanding."""

from decimal import (
    ROUND_CEILING,
    ROUND_FLOOR,
    ROUND_HALF_EVEN,
    ROUND_HALF_UP,
    Context,
    Decimal,
    DivisionByZero,
    InvalidOperation,
    Overflow,
    localcontext,
)
from itertools import accumulate
from typing import Literal

ResidueOn = Literal["first", "last"]
Rounding = Literal["nearest", "down", "up"]

#: Interest one fen bears in a period, as an exact (numerator, denominator).
Factor = tuple[int, int]

_MODES: dict[Rounding, str] = {"nearest": ROUND_HALF_UP, "down": ROUND_FLOOR, "up": ROUND_CEILING}
_EXACT = Context(prec=40, rounding=ROUND_HALF_EVEN, traps=[InvalidOperation, DivisionByZero, Overflow])
#: around the first row that arithmetic finds, in fen
NEIGHBOURS = (-1, 1, -2, 2, -3, 3)


def round_half_up(numerator: int, denominator: int) -> int:
    """The quotient to the nearest integer, halves upward."""
    return (2 * numerator + denominator) // (2 * denominator)


def interest_on_balances(financed_fen: int, principals: list[int], factors: list[Factor]) -> list[int]:
    """Interest of every period on the principal outstanding at its start, each rounded half-up to the fen."""
    balances = accumulate(principals, lambda balance, paid: balance - paid, initial=financed_fen)
    return [
        round_half_up(balance * numerator, denominator)
        for balance, (numerator, denominator) in zip(balances, factors, strict=False)
    ]


def split_evenly(
    financed_fen: int, periods: int, residue_on: ResidueOn, unit: int, rounding: Rounding
) -> list[int]:
    """The same principal in every row; the named row takes the whole residue."""
    with localcontext(_EXACT):
        regular = _round_to_unit(Decimal(financed_fen) / periods, unit, rounding)
    if financed_fen - (periods - 1) * regular < 1:
        # Rounding up ate the named row (100 fen over 60): rounding down always leaves it at least one unit.
        regular -= unit
    residue_row = [financed_fen - (periods - 1) * regular]
    others = [regular] * (periods - 1)
    return residue_row + others if residue_on == "first" else others + residue_row


def repay_level(
    financed_fen: int, factors: list[Factor], residue_on: ResidueOn, unit: int, rounding: Rounding
) -> list[int]:
    """Principal of rows that, with their interest, all come to the same amount.

    An amount of one unit repays at most one unit a row and so always leaves principal for the last: the loop ends.
    """
    with localcontext(_EXACT):
        level = _round_to_unit(financed_fen / _annuity(factors), unit, rounding)
    principals = _repay(financed_fen, factors, level=level, first=level)
    while principals[-1] < 1:
        level -= unit
        assert level > 0, "one unit per row always fits"
        principals = _repay(financed_fen, factors, level=level, first=level)
    if residue_on == "first" and len(factors) > 1:
        return _move_residue_to_first(financed_fen, factors, level, principals)
    return principals


def _repay(financed_fen: int, factors: list[Factor], *, level: int, first: int) -> list[int]:
    """Principal paid by `first`, then by `level` a row; the last row repays what is left, negative if too much.

    A row never pays less than its interest.
    """
    balance, due, principals = financed_fen, first, []
    for numerator, denominator in factors[:-1]:
        principal = max(due - round_half_up(balance * numerator, denominator), 0)
        principals.append(principal)
        balance -= principal
        due = level
    return [*principals, balance]


def _move_residue_to_first(
    financed_fen: int, factors: list[Factor], level: int, principals: list[int]
) -> list[int]:
    """The same rows with the last brought as near to `level` as a whole fen in the first can bring it.

    A fen paid in the first row counts with its interest in the last. As each row's interest is rounded, there is not
    always a first row that closes at `level` exactly; what is left over, about one such fen, stays with the last.
    """
    with localcontext(_EXACT):
        growth = 1 / _discount_factors(factors[1:])[-1]
    first, residue = level, _last_due(principals, factors) - level
    while step := _nearest(residue, growth):
        moved = _repay(financed_fen, factors, level=level, first=first + step)
        left_over = _last_due(moved, factors) - level
        if first + step < 1 or moved[-1] < 1 or abs(left_over) >= abs(residue):
            break
        first, residue, principals = first + step, left_over, moved
    return _nearest_to_level(financed_fen, factors, level, first, principals)


def _nearest_to_level(
    financed_fen: int, factors: list[Factor], level: int, first: int, principals: list[int]
) -> list[int]:
    """From the first row found, on to whichever next to it leaves less: rounded interest makes small steps uneven."""
    left_over = abs(_last_due(principals, factors) - level)
    improved = True
    while improved:
        improved = False
        for other in [first + step for step in NEIGHBOURS]:
            moved = _repay(financed_fen, factors, level=level, first=other)
            left = abs(_last_due(moved, factors) - level)
            if other >= 1 and moved[-1] >= 1 and left < left_over:
                first, left_over, principals, improved = other, left, moved, True
    return principals


def _last_due(principals: list[int], factors: list[Factor]) -> int:
    numerator, denominator = factors[-1]
    return principals[-1] + round_half_up(principals[-1] * numerator, denominator)


def _discount_factors(factors: list[Factor]) -> list[Decimal]:
    """What one fen at the end of each period is worth at the start of the first."""
    growths = (1 + Decimal(numerator) / denominator for numerator, denominator in factors)
    return list(accumulate(growths, lambda worth, growth: worth / growth, initial=Decimal(1)))[1:]


def _annuity(factors: list[Factor]) -> Decimal:
    return sum(_discount_factors(factors), Decimal(0))


def _nearest(amount: int, divisor: Decimal) -> int:
    with localcontext(_EXACT):
        return int((amount / divisor).to_integral_value(rounding=ROUND_HALF_UP))


def _round_to_unit(amount: Decimal, unit: int, rounding: Rounding) -> int:
    return int((amount / unit).to_integral_value(rounding=_MODES[rounding])) * unit
