"""Repayment schedules: who pays how much on which day, exact to the fen."""

from collections.abc import Callable
from datetime import date
from typing import Literal, assert_never

from msgspec import Struct

from kernel.errors import Unprocessable
from kernel.money import ORDER_FEN_MAX
from partners.credit.calendar import DayCount, list_anchors, year_fractions
from partners.credit.repayment import (
    ResidueOn,
    Rounding,
    interest_on_balances,
    repay_level,
    round_half_up,
    split_evenly,
)

Method = Literal["equal_instalment", "equal_principal", "interest_free", "bullet"]

PERIODS_MAX = 480
RATE_PPM_MAX = 10_000_000
FEE_PPM_MAX = 1_000_000
ROUNDING_UNIT_FEN_MAX = 10_000

_MILLION = 1_000_000


class ScheduleTermInvalid(Unprocessable):
    """The terms do not describe a repayment schedule."""


class PeriodsOutOfRange(ScheduleTermInvalid):
    """A plan has between 1 and 480 instalments."""


class PrincipalOutOfRange(ScheduleTermInvalid):
    """The principal must be more than zero and no more than one order may cost."""


class PrincipalTooSmall(ScheduleTermInvalid):
    """The amount financed is too small to give every instalment at least one rounding unit of principal."""


class AnnualRateOutOfRange(ScheduleTermInvalid):
    """The annual rate must lie between 0 and 1,000 %."""


class FeeRateOutOfRange(ScheduleTermInvalid):
    """The fee per period must lie between 0 and 100 % of the amount financed."""


class DownPaymentOutOfRange(ScheduleTermInvalid):
    """The down payment must be at least 0 % and less than 100 % of the principal."""


class RoundingUnitOutOfRange(ScheduleTermInvalid):
    """Instalments are rounded to a unit between 1 fen and 100 yuan."""


class InterestFreeBearsInterest(ScheduleTermInvalid):
    """An interest-free plan must state an annual rate of zero."""


class StartDateOutOfRange(ScheduleTermInvalid):
    """The start date must lie between 1990 and 2199."""


class Instalment(Struct, frozen=True, kw_only=True):
    """One row of a schedule."""

    #: Position in the plan, from 1.
    no: int
    #: The day the money is due, moved by the bank's calendar.
    due_on: date
    #: The same day before the move; interest runs from anchor to anchor, so a holiday never changes it.
    anchor_on: date
    #: Principal repaid.
    principal_fen: int
    #: Interest of the period, on the principal outstanding since the anchor before.
    interest_fen: int
    #: Fee of the period, the same in every row.
    fee_fen: int
    #: Principal, interest and fee together.
    due_fen: int


class Schedule(Struct, frozen=True, kw_only=True):
    """A whole repayment schedule with its totals."""

    #: Paid on the start date, outside the rows.
    down_payment_fen: int
    #: Principal less down payment; the principal of the rows adds up to it.
    amount_financed_fen: int
    #: The instalments in order.
    rows: tuple[Instalment, ...]
    #: Interest of all rows.
    total_interest_fen: int
    #: Fees of all rows.
    total_fee_fen: int
    #: Everything due in the rows; the down payment is not in it.
    total_payable_fen: int


def keep_date(day: date) -> date:
    """The calendar of a bank that never closes."""
    return day


def build_schedule(
    *,
    principal_fen: int,
    annual_rate_ppm: int,
    periods: int,
    method: Method,
    day_count: DayCount,
    start_on: date,
    residue_on: ResidueOn = "last",
    rounding_unit_fen: int = 1,
    rounding: Rounding | None = None,
    down_payment_ppm: int = 0,
    fee_ppm_per_period: int = 0,
    elapsed_periods: int = 0,
    shift: Callable[[date], date] = keep_date,
) -> Schedule:
    """The schedule of one plan with monthly instalments.

    Without `rounding` the regular amount goes to the nearest unit; interest-free plans round down, so that the
    residue is money still owed, never money asked too early. `elapsed_periods` serves a plan rebuilt midway: the
    rows carry on its numbers and its anchor day.
    """
    if not 1 <= periods <= PERIODS_MAX:
        raise PeriodsOutOfRange(periods=periods)
    if not 1 <= principal_fen <= ORDER_FEN_MAX:
        raise PrincipalOutOfRange(principal_fen=principal_fen)
    if not 0 <= annual_rate_ppm <= RATE_PPM_MAX:
        raise AnnualRateOutOfRange(annual_rate_ppm=annual_rate_ppm)
    if method == "interest_free" and annual_rate_ppm:
        raise InterestFreeBearsInterest(annual_rate_ppm=annual_rate_ppm)
    if not 0 <= fee_ppm_per_period <= FEE_PPM_MAX:
        raise FeeRateOutOfRange(fee_ppm_per_period=fee_ppm_per_period)
    if not 0 <= down_payment_ppm < _MILLION:
        raise DownPaymentOutOfRange(down_payment_ppm=down_payment_ppm)
    if not 1 <= rounding_unit_fen <= ROUNDING_UNIT_FEN_MAX:
        raise RoundingUnitOutOfRange(rounding_unit_fen=rounding_unit_fen)
    if not 1990 <= start_on.year <= 2199:
        raise StartDateOutOfRange(start_on=start_on.isoformat())
    assert 0 <= elapsed_periods <= PERIODS_MAX, "elapsed periods are counted by us"

    down_payment_fen = round_half_up(principal_fen * down_payment_ppm, _MILLION)
    financed_fen = principal_fen - down_payment_fen
    if financed_fen < periods * rounding_unit_fen:
        raise PrincipalTooSmall(amount_financed_fen=financed_fen, periods=periods)

    anchors = list_anchors(start_on, elapsed_periods=elapsed_periods, periods=periods)
    factors = [
        (annual_rate_ppm * share, _MILLION * whole) for share, whole in year_fractions(anchors, day_count)
    ]
    rounding = rounding or ("down" if method == "interest_free" else "nearest")
    match method:
        case "equal_instalment":
            principals = repay_level(financed_fen, factors, residue_on, rounding_unit_fen, rounding)
        case "equal_principal" | "interest_free":
            principals = split_evenly(financed_fen, periods, residue_on, rounding_unit_fen, rounding)
        case "bullet":
            principals = [0] * (periods - 1) + [financed_fen]
        case _:
            assert_never(method)
    assert len(principals) == periods
    assert sum(principals) == financed_fen

    fee_fen = round_half_up(financed_fen * fee_ppm_per_period, _MILLION)
    interests = interest_on_balances(financed_fen, principals, factors)
    rows = tuple(
        Instalment(
            no=elapsed_periods + at,
            due_on=shift(anchors[at]),
            anchor_on=anchors[at],
            principal_fen=principal,
            interest_fen=interest,
            fee_fen=fee_fen,
            due_fen=principal + interest + fee_fen,
        )
        for at, (principal, interest) in enumerate(zip(principals, interests, strict=True), start=1)
    )
    return Schedule(
        down_payment_fen=down_payment_fen,
        amount_financed_fen=financed_fen,
        rows=rows,
        total_interest_fen=sum(interests),
        total_fee_fen=fee_fen * periods,
        total_payable_fen=financed_fen + sum(interests) + fee_fen * periods,
    )
