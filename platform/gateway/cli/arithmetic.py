"""`tessera schedule` and `tessera annual-rate`: the credit arithmetic on the command line."""

import argparse
import re
import sys
from collections.abc import Sequence
from datetime import date
from fractions import Fraction
from typing import get_args

import msgspec

from kernel.calendar import business_date
from kernel.clock import Clock, SystemClock
from kernel.errors import Refusal
from partners.credit.annual_rate import PaymentRun, Unit, annual_rates
from partners.credit.calendar import DayCount
from partners.credit.repayment import ResidueOn, Rounding
from partners.credit.schedule import Instalment, Method, Schedule, build_schedule

_WALL_CLOCK = SystemClock()
_RUN = re.compile(r"(\d{1,16})x(\d{1,9})", re.ASCII)
_UNITS = re.compile(r"(\d{1,6})(?:/([1-9]\d{0,3}))?", re.ASCII)
_COLUMNS = ("no", "due on", "principal", "interest", "fee", "due")


def register(
    subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]", *, clock: Clock = _WALL_CLOCK
) -> None:
    """Add the two commands; `clock` says what today is where no start date is given."""
    schedule = subparsers.add_parser("schedule", help="print a repayment schedule")
    schedule.add_argument("--principal-fen", type=int, required=True, metavar="FEN")
    schedule.add_argument("--annual-rate-ppm", type=int, required=True, metavar="PPM")
    schedule.add_argument("--periods", type=int, required=True, metavar="N")
    schedule.add_argument("--method", choices=get_args(Method), default="equal_instalment")
    schedule.add_argument("--day-count", choices=get_args(DayCount), default="30/360")
    schedule.add_argument(
        "--start-on", type=date.fromisoformat, metavar="YYYY-MM-DD", help="default: today in Shanghai"
    )
    schedule.add_argument("--residue-on", choices=get_args(ResidueOn), default="last")
    schedule.add_argument("--rounding-unit-fen", type=int, default=1, metavar="FEN")
    schedule.add_argument(
        "--rounding", choices=get_args(Rounding), help="default: down for interest_free, else nearest"
    )
    schedule.add_argument("--down-payment-ppm", type=int, default=0, metavar="PPM")
    schedule.add_argument("--fee-ppm-per-period", type=int, default=0, metavar="PPM")
    schedule.add_argument("--json", action="store_true", help="print one JSON object")
    schedule.set_defaults(run=run_schedule, clock=clock)

    rate = subparsers.add_parser("annual-rate", help="print the simple and the compound annual rate")
    rate.add_argument("--advance-fen", type=int, required=True, metavar="FEN")
    rate.add_argument("--payments", type=parse_payments, required=True, metavar="FENxCOUNT[,FENxCOUNT…]")
    rate.add_argument("--unit", choices=get_args(Unit), default="month")
    rate.add_argument(
        "--first-after-units",
        type=parse_units,
        default=1,
        metavar="N[/M]",
        help="unit periods to the first payment; 32/7 is four weeks and four days (default: 1)",
    )
    rate.add_argument("--json", action="store_true", help="print one JSON object")
    rate.set_defaults(run=run_annual_rate)


def run_schedule(args: argparse.Namespace) -> int:
    """Print the schedule the flags describe; 2 if the terms are refused."""
    try:
        schedule = build_schedule(
            principal_fen=args.principal_fen,
            annual_rate_ppm=args.annual_rate_ppm,
            periods=args.periods,
            method=args.method,
            day_count=args.day_count,
            start_on=args.start_on or business_date(args.clock.now()),
            residue_on=args.residue_on,
            rounding_unit_fen=args.rounding_unit_fen,
            rounding=args.rounding,
            down_payment_ppm=args.down_payment_ppm,
            fee_ppm_per_period=args.fee_ppm_per_period,
        )
    except Refusal as refusal:
        return _print_refusal(refusal)
    print(msgspec.json.encode(schedule).decode() if args.json else _draw_table(schedule))
    return 0


def run_annual_rate(args: argparse.Namespace) -> int:
    """Print both annual rates of the flows the flags describe; 2 if they have none."""
    try:
        rates = annual_rates(
            args.advance_fen, args.payments, args.unit, first_after_units=args.first_after_units
        )
    except Refusal as refusal:
        return _print_refusal(refusal)
    if args.json:
        print(msgspec.json.encode(rates).decode())
    else:
        print(f"simple    {_percent(rates.simple_ppm)}\ncompound  {_percent(rates.compound_ppm)}")
    return 0


def parse_payments(text: str) -> list[PaymentRun]:
    """`23000x24,143x1` as runs: twenty-four payments of 230.00, then one of 1.43."""
    runs = []
    for part in text.split(","):
        match = _RUN.fullmatch(part.strip())
        if match is None:
            raise argparse.ArgumentTypeError(f"{part!r} is not FENxCOUNT, such as 23000x24")
        runs.append(PaymentRun(amount_fen=int(match[1]), count=int(match[2])))
    return runs


def parse_units(text: str) -> Fraction:
    """`1`, or an odd first period such as `6/15`: six days of a half-month."""
    match = _UNITS.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not N or N/M, such as 1 or 32/7")
    return Fraction(int(match[1]), int(match[2] or 1))


def _print_refusal(refusal: Refusal) -> int:
    print(f"tessera: {refusal.code}: {refusal.sentence()}", file=sys.stderr)
    return 2


def _draw_table(schedule: Schedule) -> str:
    lines: list[Sequence[str]] = [_COLUMNS]
    lines += [(str(row.no), row.due_on.isoformat(), *map(_yuan, _amounts(row))) for row in schedule.rows]
    totals = (schedule.amount_financed_fen, schedule.total_interest_fen, schedule.total_fee_fen)
    lines.append(("", "total", *map(_yuan, (*totals, schedule.total_payable_fen))))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    if schedule.down_payment_fen:
        table.insert(0, f"down payment {_yuan(schedule.down_payment_fen)}, not in the rows")
    return "\n".join(table)


def _amounts(row: Instalment) -> tuple[int, int, int, int]:
    return row.principal_fen, row.interest_fen, row.fee_fen, row.due_fen


def _yuan(fen: int) -> str:
    return f"{fen // 100:,}.{fen % 100:02d}"


def _percent(ppm: int) -> str:
    return f"{ppm // 10_000}.{ppm % 10_000:04d} %"
