"""Annual rates: published figures, agreement with an independent solver, refusals."""

import json
from collections.abc import Sequence
from datetime import date
from decimal import ROUND_HALF_UP, ROUND_UP, Context, Decimal, Inexact, localcontext
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

import pytest
import pyxirr
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import Refusal
from partners.credit.annual_rate import (
    AmbiguousCashFlow,
    AnnualRates,
    AnnualRateTooHigh,
    FirstPaymentOutOfRange,
    PaymentRun,
    PaymentsBelowAdvance,
    TooManyPayments,
    Unit,
    annual_rates,
    annualise,
    plan_annual_rates,
    solve_period_rate,
)
from partners.credit.schedule import Method, Schedule, build_schedule

VECTORS = {
    vector["id"]: vector
    for vector in json.loads((Path(__file__).parents[2] / "vectors" / "annual_rates.json").read_text())
}


def rates_of_vector(given_input: dict[str, Any], first_after: Fraction | None = None) -> AnnualRates:
    return annual_rates(
        given_input["advance_fen"],
        read_runs(given_input),
        given_input["unit"],
        first_after_units=first_after or given_input["first_after_units"],
    )


def read_runs(given_input: dict[str, Any]) -> list[PaymentRun]:
    return [PaymentRun(**run) for run in given_input["payments"]]


def spread(given_input: dict[str, Any]) -> list[int]:
    flows = [-given_input["advance_fen"]]
    for run in read_runs(given_input):
        flows += [run.amount_fen] * run.count
    return flows


def percent(rate: Decimal, places: str) -> str:
    return str((rate * 100).quantize(Decimal(places), rounding=ROUND_HALF_UP))


def build(method: Method = "equal_instalment", **changes: Any) -> Schedule:
    terms: dict[str, Any] = {
        "principal_fen": 1_200_000,
        "annual_rate_ppm": 0,
        "periods": 12,
        "day_count": "30/360",
        "start_on": date(2026, 1, 31),
    }
    return build_schedule(method=method, **{**terms, **changes})


#: The first periods of the regulation's examples. The data says one unit for each; examples (iii) and (v) are titled
#: "short" and "long first period", and without it their figures cannot come out.
FIRST_PERIODS = {
    "V20-i": Fraction(1),
    "V20-iii": Fraction(6, 15),  # 23 February to 1 March 1978, half-months of 15 days
    "V20-v": Fraction(32, 7),  # 20 March to 21 April 1978
}


@pytest.mark.parametrize("name", FIRST_PERIODS)
def test_regulation_z_actuarial_rates_are_met_to_two_decimals(name: str) -> None:
    rates = rates_of_vector(VECTORS[name]["input"], FIRST_PERIODS[name])
    assert (
        percent(Decimal(rates.simple_ppm) / 1_000_000, "0.01") == VECTORS[name]["expect"]["apr_percent_2dp"]
    )


@pytest.mark.parametrize(("name", "regular"), [("V20-iii", "9.83"), ("V20-v", "18.47")])
def test_a_regular_first_period_is_another_loan(name: str, regular: str) -> None:
    rates = rates_of_vector(VECTORS[name]["input"])
    assert percent(Decimal(rates.simple_ppm) / 1_000_000, "0.01") == regular


def test_long_first_month_matches_the_regulation() -> None:
    """Example (c)(1)(ii): 6,000 on 10 February, 36 payments of 200 from 1 April: a month and 19 days, 11.82 %."""
    rates = annual_rates(
        600_000, [PaymentRun(count=36, amount_fen=20_000)], "month", first_after_units=1 + Fraction(19, 30)
    )
    assert percent(Decimal(rates.simple_ppm) / 1_000_000, "0.01") == "11.82"


def test_european_annual_rate_is_met_to_six_decimals() -> None:
    vector = VECTORS["V22-1"]
    _, compound = annualise(solve_period_rate(spread(vector["input"])), vector["input"]["unit"])
    assert percent(compound, "0.000001") == vector["expect"]["apr_percent_6dp"]
    assert rates_of_vector(vector["input"]).compound_ppm == 64_344


def test_fee_plan_states_the_published_simple_and_compound_rates() -> None:
    vector = VECTORS["V24"]
    rates = rates_of_vector(vector["input"])
    assert {"simple_ppm": rates.simple_ppm, "compound_ppm": rates.compound_ppm} == vector["expect"]
    assert plan_annual_rates(build("interest_free", fee_ppm_per_period=6_000)) == rates


def test_fee_per_period_states_the_computed_rates() -> None:
    given_input, expect = VECTORS["V25"]["input"], VECTORS["V25"]["expect"]
    rates = [
        plan_annual_rates(
            build("interest_free", periods=periods, fee_ppm_per_period=given_input["fee_ppm_per_period"])
        )
        for periods in given_input["periods"]
    ]
    assert [rate.simple_ppm for rate in rates] == expect["simple_ppm"]
    assert [rate.compound_ppm for rate in rates] == expect["compound_ppm"]


def test_every_published_rate_is_tried() -> None:
    assert set(VECTORS) == {"V20-i", "V20-iii", "V20-v", "V22-1", "V24", "V25"}


def test_irregular_last_payment_matches_the_european_example() -> None:
    """220 payments of 1,500 and one of 407.70 (Markt/2014/107, example 11): 6.452756 %."""
    flows = [-19_600_000, *([150_000] * 220), 40_770]
    assert percent(annualise(solve_period_rate(flows), "month")[1], "0.000001") == "6.452756"


def test_equal_principal_matches_the_european_example() -> None:
    """200,000 at 6 % in 240 equal parts of principal, 4,000 of costs at the start (example 13): 6.476009 %."""
    schedule = build(
        "equal_principal", principal_fen=20_000_000, annual_rate_ppm=60_000, periods=240, rounding="nearest"
    )
    assert plan_annual_rates(schedule, upfront_cost_fen=400_000).compound_ppm == 64_760


def test_rates_agree_with_an_independent_solver() -> None:
    """Floats stand only here, for the comparison."""
    random = Random(20261111)
    methods: list[Method] = ["equal_instalment", "equal_principal", "bullet"]
    for _ in range(3_000):
        schedule = build(
            random.choice(methods),
            principal_fen=random.randint(10_000, 10_000_000),
            annual_rate_ppm=random.randint(0, 360_000),
            periods=random.choice([1, 3, 6, 12, 24, 36]),
            day_count=random.choice(["30/360", "act/365", "act/act"]),
            residue_on=random.choice(["first", "last"]),
            fee_ppm_per_period=random.choice([0, 0, 3_000, 6_000]),
        )
        upfront_fen = random.choice([0, 0, schedule.amount_financed_fen // 50])
        assert_independent_agreement(
            [upfront_fen - schedule.amount_financed_fen, *(row.due_fen for row in schedule.rows)],
            plan_annual_rates(schedule, upfront_cost_fen=upfront_fen),
        )


def assert_independent_agreement(flows: Sequence[int], rates: AnnualRates) -> None:
    if sum(flows) == 0:
        assert rates == AnnualRates(simple_ppm=0, compound_ppm=0)
        return
    period_rate = pyxirr.irr([float(flow) for flow in flows])
    assert period_rate is not None
    assert abs(rates.simple_ppm - 12 * period_rate * 1e6) < 0.51
    assert abs(rates.compound_ppm - ((1 + period_rate) ** 12 - 1) * 1e6) < 0.51


def test_several_advances_agree_with_an_independent_solver() -> None:
    """A group order captured in parts: the curve is not convex and Newton alone might run away."""
    random = Random(20260618)
    for _ in range(500):
        advances = [-random.randint(0, 10**6) for _ in range(random.randint(1, 10))]
        advances[0] -= 1
        returned = [random.randint(0, 10**6) for _ in range(random.randint(1, 24))]
        returned[-1] += max(0, -sum(advances) - sum(returned)) + random.randint(1, 10**5)
        rate = solve_period_rate([*advances, *returned])
        assert_worth_nothing([*advances, *returned], rate)


def assert_worth_nothing(flows: Sequence[int], rate: Decimal) -> None:
    with localcontext(Context(prec=60)):
        for nearby, sign in ((rate * Decimal("0.999999999999"), 1), (rate * Decimal("1.000000000001"), -1)):
            assert sign * sum(flow / (1 + nearby) ** at for at, flow in enumerate(flows)) > 0


@given(
    advance_fen=st.integers(1, 10**10),
    cost_ppm=st.integers(0, 3_000_000),
    count=st.integers(1, 60),
    unit=st.sampled_from(["month", "half_month", "week"]),
    wait=st.integers(1, 6),
)
def test_rate_found_discounts_the_payments_to_the_advance(
    advance_fen: int, cost_ppm: int, count: int, unit: Unit, wait: int
) -> None:
    amount_fen = -(-advance_fen * (1_000_000 + cost_ppm) // (1_000_000 * count))
    flows = [-advance_fen, *([0] * (wait - 1)), *([amount_fen] * count)]
    rate = solve_period_rate(flows)
    if sum(flows) == 0:
        assert rate == 0
    else:
        assert_worth_nothing(flows, rate)


def test_interest_free_plan_costs_nothing() -> None:
    for periods in (1, 3, 12, 36):
        schedule = build("interest_free", principal_fen=499_900, periods=periods, residue_on="first")
        assert plan_annual_rates(schedule) == AnnualRates(simple_ppm=0, compound_ppm=0)


def test_cash_discount_lost_is_a_cost() -> None:
    rates = plan_annual_rates(build("interest_free"), upfront_cost_fen=36_000)
    assert rates.simple_ppm > 50_000


def test_nominal_rate_comes_back_as_the_simple_rate() -> None:
    schedule = build(principal_fen=10**11, annual_rate_ppm=138_418, periods=24)
    assert plan_annual_rates(schedule).simple_ppm == 138_418


def test_first_payment_later_lowers_the_rate() -> None:
    runs = [PaymentRun(count=12, amount_fen=107_200)]
    soon, later = (annual_rates(1_200_000, runs, "month", first_after_units=after) for after in (1, 3))
    assert later.compound_ppm < soon.compound_ppm


def test_callers_decimal_context_has_no_say() -> None:
    schedule = build("interest_free", fee_ppm_per_period=6_000)
    with localcontext(Context(prec=3, rounding=ROUND_UP, traps=[Inexact])):
        assert plan_annual_rates(schedule) == AnnualRates(simple_ppm=130_342, compound_ppm=138_418)


@pytest.mark.parametrize(
    ("flows", "refusal"),
    [
        ([], AmbiguousCashFlow),
        ([0, 0], AmbiguousCashFlow),
        ([-100], AmbiguousCashFlow),
        ([100, 10], AmbiguousCashFlow),
        ([100, -110], AmbiguousCashFlow),
        ([-100, 230, -132], AmbiguousCashFlow),
        ([-100, 0, 60, 0, -10, 90], AmbiguousCashFlow),
        ([-100, 99], PaymentsBelowAdvance),
    ],
)
def test_flows_without_exactly_one_rate_are_refused(flows: list[int], refusal: type[Refusal]) -> None:
    with pytest.raises(refusal):
        solve_period_rate(flows)


@pytest.mark.parametrize(
    ("advance_fen", "runs", "first_after_units", "refusal"),
    [
        (0, [(12, 100)], 1, AmbiguousCashFlow),
        (-100, [(12, 100)], 1, AmbiguousCashFlow),
        (100, [(12, -100)], 1, AmbiguousCashFlow),
        (100, [(12, 0)], 1, AmbiguousCashFlow),
        (100, [], 1, TooManyPayments),
        (100, [(0, 100)], 1, TooManyPayments),
        (100, [(5, 30), (-1, 30)], 1, TooManyPayments),
        (100, [(3_001, 1)], 1, TooManyPayments),
        (100, [(1, 110)], 0, FirstPaymentOutOfRange),
        (100, [(1, 110)], 601, FirstPaymentOutOfRange),
        (1_200, [(11, 100)], 1, PaymentsBelowAdvance),
        (1, [(36, 10**13)], 1, AnnualRateTooHigh),
        (1, [(1, 10**13)], 1, AnnualRateTooHigh),
    ],
)
def test_advances_without_a_rate_are_refused(
    advance_fen: int, runs: list[tuple[int, int]], first_after_units: int, refusal: type[Refusal]
) -> None:
    payments = [PaymentRun(count=count, amount_fen=amount_fen) for count, amount_fen in runs]
    with pytest.raises(refusal):
        annual_rates(advance_fen, payments, "week", first_after_units=first_after_units)


def test_upfront_cost_that_eats_the_advance_is_refused() -> None:
    with pytest.raises(AmbiguousCashFlow):
        plan_annual_rates(build("interest_free"), upfront_cost_fen=1_200_000)
