"""The credit arithmetic on the command line: flags in, figures out, refusals on one line."""

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.cli.arithmetic import register

VECTORS = Path(__file__).parents[1] / "vectors"
SCHEDULES = json.loads((VECTORS / "instalments.json").read_text())
RATES = json.loads((VECTORS / "annual_rates.json").read_text())
#: The odd first periods of Appendix J (c)(1)(iii) and (v), which the data leaves out (see test_annual_rate.py).
ODD_FIRST_PERIODS = {"V20-iii": "6/15", "V20-v": "32/7"}
LOAN = ["schedule", "--principal-fen", "10000", "--annual-rate-ppm", "70000", "--periods", "6"]


class StoppedClock:
    """One evening in UTC, already the next day in Shanghai."""

    def now(self) -> datetime:
        return datetime(2026, 1, 30, 20, 0, tzinfo=UTC)


def run(*words: str) -> int:
    parser = argparse.ArgumentParser(prog="tessera")
    register(parser.add_subparsers(required=True), clock=StoppedClock())
    args = parser.parse_args(words)
    code: int = args.run(args)
    return code


def run_json(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert run(*words, "--json") == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("vector", SCHEDULES, ids=lambda vector: vector["id"])
def test_schedule_takes_the_flags_of_the_published_figures(
    vector: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        word
        for name, value in vector["input"].items()
        for word in ("--" + name.replace("_", "-"), str(value))
    ]
    printed = run_json(capsys, "schedule", *words)
    assert len(printed["rows"]) == vector["input"]["periods"]
    for name, expected in vector["expect"].items():
        if name in ("due_fen", "interest_fen"):
            assert [row[name] for row in printed["rows"]] == expected
        elif name == "last_due_fen":
            assert printed["rows"][-1]["due_fen"] == expected
        elif name in ("down_payment_fen", "total_interest_fen"):
            assert abs(printed[name] - expected) <= (2 if vector["id"] == "V2" else 0)


@pytest.mark.parametrize(
    "vector", [vector for vector in RATES if vector["id"] != "V25"], ids=lambda vector: vector["id"]
)
def test_annual_rate_takes_the_flags_of_the_published_figures(
    vector: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    figures = vector["input"]
    payments = ",".join(f"{payment['amount_fen']}x{payment['count']}" for payment in figures["payments"])
    words = ["--advance-fen", str(figures["advance_fen"]), "--payments", payments, "--unit", figures["unit"]]
    words += ["--first-after-units", ODD_FIRST_PERIODS.get(vector["id"], str(figures["first_after_units"]))]
    printed = run_json(capsys, "annual-rate", *words)
    assert set(printed) == {"simple_ppm", "compound_ppm"}
    match vector["expect"]:
        case {"apr_percent_2dp": text}:
            assert (printed["simple_ppm"] + 50) // 100 == int(text.replace(".", ""))
        case {"apr_percent_6dp": text}:
            assert printed["compound_ppm"] == (int(text.replace(".", "")) + 50) // 100
        case expected:
            assert printed == expected


def test_schedule_has_one_shape_with_and_without_a_down_payment(capsys: pytest.CaptureFixture[str]) -> None:
    plain = run_json(capsys, *LOAN)
    assert list(plain) == [
        "down_payment_fen",
        "amount_financed_fen",
        "rows",
        "total_interest_fen",
        "total_fee_fen",
        "total_payable_fen",
    ]
    assert list(plain["rows"][0]) == [
        "no",
        "due_on",
        "anchor_on",
        "principal_fen",
        "interest_fen",
        "fee_fen",
        "due_fen",
    ]
    assert list(run_json(capsys, *LOAN, "--down-payment-ppm", "250000")) == list(plain)


def test_schedule_starts_today_in_shanghai(capsys: pytest.CaptureFixture[str]) -> None:
    printed = run_json(capsys, *LOAN)
    assert [row["due_on"] for row in printed["rows"][:2]] == ["2026-02-28", "2026-03-31"]


def test_schedule_is_a_table_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*LOAN, "--start-on", "2024-01-01", "--down-payment-ppm", "250000") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "down payment 25.00, not in the rows"
    assert lines[1].split("  ")[-1].strip() == "due"
    assert len({len(line) for line in lines[1:]}) == 1
    assert lines[2].split() == ["1", "2024-02-01", "12.32", "0.44", "0.00", "12.76"]
    assert lines[-1].split() == ["total", "75.00", "1.54", "0.00", "76.54"]


def test_annual_rate_is_two_labelled_lines_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("annual-rate", "--advance-fen", "1200000", "--payments", "107200x12") == 0
    assert capsys.readouterr().out == "simple    13.0342 %\ncompound  13.8418 %\n"


def test_runs_of_payments_follow_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["annual-rate", "--advance-fen", "19600000", "--payments", "150000x220,40770x1"]
    assert run_json(capsys, *words)["compound_ppm"] == 64_528


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            [*LOAN[:-1], "0"],
            "tessera: periods_out_of_range: A plan has between 1 and 480 instalments.\n",
        ),
        (
            ["annual-rate", "--advance-fen", "100", "--payments", "40x2"],
            "tessera: payments_below_advance: The payments add up to less than the amount advanced, so the plan "
            + "has no cost to express as a rate.\n",
        ),
    ],
)
def test_refusal_is_one_line_and_exit_code_two(
    words: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", line)


@pytest.mark.parametrize(
    "payments", ["", "230", "230x", "x24", "230x2.5", "-230x24", "2.3x24", "230x24,,1x1"]
)
def test_payments_that_cannot_be_read_are_refused_with_usage(
    payments: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run("annual-rate", "--advance-fen", "100", f"--payments={payments}")
    assert stopped.value.code == 2
    assert "is not FENxCOUNT" in capsys.readouterr().err


@pytest.mark.parametrize("units", ["", "1.5", "-1", "6/0", "1e9", "6/15/2"])
def test_first_period_that_cannot_be_read_is_refused_with_usage(
    units: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run("annual-rate", "--advance-fen", "100", "--payments=60x2", f"--first-after-units={units}")
    assert stopped.value.code == 2
    assert "is not N or N/M" in capsys.readouterr().err
