"""The annual rate of a plan: everything the borrower pays, on the principal actually occupied."""

from collections.abc import Sequence
from decimal import (
    ROUND_HALF_EVEN,
    ROUND_HALF_UP,
    Context,
    Decimal,
    DivisionByZero,
    InvalidOperation,
    Overflow,
    localcontext,
)
from fractions import Fraction
from itertools import pairwise
from typing import Literal

from msgspec import Struct

from kernel.errors import Unprocessable
from partners.credit.schedule import Schedule

Unit = Literal["month", "half_month", "week"]

UNITS_PER_YEAR: dict[Unit, int] = {"month": 12, "half_month": 24, "week": 52}
PAYMENTS_MAX = 3_000
FIRST_AFTER_UNITS_MAX = 600
PPM_MAX = 10**9

_EXACT = Context(prec=28, rounding=ROUND_HALF_EVEN, traps=[InvalidOperation, DivisionByZero, Overflow])
_CLOSE_ENOUGH = Decimal("1e-18")


class AmbiguousCashFlow(Unprocessable):
    """The payments do not have exactly one annual rate: money must first go to the borrower, then come back."""


class PaymentsBelowAdvance(Unprocessable):
    """The payments add up to less than the amount advanced, so the plan has no cost to express as a rate."""


class AnnualRateTooHigh(Unprocessable):
    """The annual rate is above 100,000 % and cannot be stated."""


class FirstPaymentOutOfRange(Unprocessable):
    """The first payment must fall after the advance and within 600 unit periods."""


class TooManyPayments(Unprocessable):
    """An annual rate is computed for between 1 and 3,000 payments."""


class PaymentRun(Struct, frozen=True, kw_only=True):
    """Equal payments at consecutive unit periods."""

    #: How many.
    count: int
    #: Each of them.
    amount_fen: int


class AnnualRates(Struct, frozen=True, kw_only=True):
    """The two ways to state one cost; whoever shows one says which."""

    #: Period rate times periods in a year (单利).
    simple_ppm: int
    #: Period rate compounded over a year (复利, internal rate of return).
    compound_ppm: int


def annual_rates(
    advance_fen: int,
    payments: Sequence[PaymentRun],
    unit: Unit,
    *,
    first_after_units: int | Fraction = 1,
) -> AnnualRates:
    """Both annual rates of one advance repaid by `payments`, the first of them `first_after_units` later."""
    count = sum(run.count for run in payments)
    if not 1 <= count <= PAYMENTS_MAX or any(run.count < 1 for run in payments):
        raise TooManyPayments(payments=count)
    if not 0 < first_after_units <= FIRST_AFTER_UNITS_MAX:
        raise FirstPaymentOutOfRange()
    if advance_fen < 1 or any(run.amount_fen < 0 for run in payments):
        raise AmbiguousCashFlow()
    flows = _lay_out(advance_fen, payments, Fraction(first_after_units))
    return _state(solve_period_rate(flows), unit)


def plan_annual_rates(schedule: Schedule, *, upfront_cost_fen: int = 0) -> AnnualRates:
    """Both annual rates of a monthly plan.

    `upfront_cost_fen` is what the borrower pays at the start beyond the down payment: a fee withheld, or the cash
    discount lost by paying in instalments. It lowers the principal actually occupied.
    """
    flows = [upfront_cost_fen - schedule.amount_financed_fen, *(row.due_fen for row in schedule.rows)]
    if flows[0] >= 0:
        raise AmbiguousCashFlow()
    return _state(solve_period_rate(flows), "month")


def solve_period_rate(flows: Sequence[int]) -> Decimal:
    """The rate per period at which `flows`, one per period from today, are worth nothing together.

    Money to the borrower is negative, money back positive. With one change of sign there is exactly one positive
    discount factor that solves it (Descartes), and it lies between the bracket's ends.
    """
    if _count_sign_changes(flows) != 1:
        raise AmbiguousCashFlow()
    starting = next(at for at, flow in enumerate(flows) if flow)
    if flows[starting] > 0:
        raise AmbiguousCashFlow()
    cost = sum(flows)
    if cost < 0:
        raise PaymentsBelowAdvance()
    with localcontext(_EXACT):
        if cost == 0:
            return Decimal(0)
        coefficients = [Decimal(flow) for flow in reversed(flows[starting:])]
        return 1 / _solve_worth(coefficients) - 1


def annualise(period_rate: Decimal, unit: Unit) -> tuple[Decimal, Decimal]:
    """The simple and the compound annual rate of a rate per unit period, unrounded."""
    per_year = UNITS_PER_YEAR[unit]
    with localcontext(_EXACT):
        return per_year * period_rate, (1 + period_rate) ** per_year - 1


def _lay_out(advance_fen: int, payments: Sequence[PaymentRun], first_after: Fraction) -> list[int]:
    """Flows per unit period from today, on a scale that keeps them whole.

    Regulation Z, Appendix J (b)(8): with the first payment t units and a fraction f away, the advance A satisfies
    A = Σ P_k / ((1 + f·i)(1 + i)^(t+k)). Written with the discount factor this is the plain equation of an advance
    made in two parts, f·A one period before (1 − f)·A, so the odd period needs no solver of its own.
    """
    whole_units, odd = divmod(first_after, 1)
    scale = odd.denominator
    flows = [-advance_fen * odd.numerator, -advance_fen * (scale - odd.numerator)]
    flows += [0] * (whole_units - 1)
    amounts = [run.amount_fen * scale for run in payments for _ in range(run.count)]
    if whole_units == 0:
        flows[1] += amounts.pop(0)
    return flows + amounts


def _state(period_rate: Decimal, unit: Unit) -> AnnualRates:
    simple, compound = annualise(period_rate, unit)
    return AnnualRates(simple_ppm=_to_ppm(simple), compound_ppm=_to_ppm(compound))


def _to_ppm(rate: Decimal) -> int:
    with localcontext(_EXACT):
        ppm = int((rate * 1_000_000).to_integral_value(rounding=ROUND_HALF_UP))
    if ppm > PPM_MAX:
        raise AnnualRateTooHigh()
    return ppm


def _count_sign_changes(flows: Sequence[int]) -> int:
    signs = [flow > 0 for flow in flows if flow]
    return sum(earlier != later for earlier, later in pairwise(signs))


def _solve_worth(coefficients: list[Decimal]) -> Decimal:
    """The worth today of one fen a period later, by Newton's method held inside a shrinking bracket.

    The value is negative at 0, positive at 1 and passes zero once in between. A step that would leave the bracket, or
    that is not at least half the one before, is replaced by halving the bracket, so the search always ends.
    """
    low, high = Decimal(0), Decimal(1)
    worth, last_step = high, high - low
    while True:
        value, slope = _evaluate(coefficients, worth)
        if value > 0:
            high = worth
        else:
            low = worth
        step = value / slope if slope else last_step
        if abs(step) < _CLOSE_ENOUGH:
            return worth - step
        if abs(step) * 2 > last_step or not low < worth - step < high:
            step = worth - (low + high) / 2
        worth, last_step = worth - step, abs(step)


def _evaluate(coefficients: list[Decimal], worth: Decimal) -> tuple[Decimal, Decimal]:
    """Value and slope of the discounted flows (Horner's scheme, last flow first)."""
    value = slope = Decimal(0)
    for coefficient in coefficients:
        slope = slope * worth + value
        value = value * worth + coefficient
    return value, slope
