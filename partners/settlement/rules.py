"""The rules of settlement: which day may be closed, and how a line is written into a file."""

import csv
import io
from collections.abc import Iterable, Sequence
from datetime import date

from kernel.errors import Conflict, Unprocessable
from kernel.ids import to_wire
from partners.settlement.model import Line

CSV_HEADER = (
    "no",
    "business_on",
    "recorded_at",
    "source",
    "kind",
    "operation_id",
    "entry_ref",
    "funder",
    "direction",
    "points",
    "amount_fen",
)

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_PREFIXES = {
    "capture": "cap",
    "discount": "cap",
    "merchant_subsidy": "cap",
    "refund": "rfd",
    "discount_reversal": "rfd",
    "subsidy_reversal": "rfd",
}


class DayNotOver(Unprocessable):
    """A day that has not begun cannot be settled."""


class SettlementOutOfOrder(Conflict):
    """A later day of this partner is closed already; what is left of earlier days goes into the next batch."""


class SettlementRuleMissing(Conflict):
    """There is a kind of entry for which nobody has decided who owes whom."""


def check_day(business_on: date, *, today: date, latest: date | None) -> None:
    """Days are closed in order, each as often as there is something new; the running day may be closed too."""
    if business_on > today:
        raise DayNotOver(today=today.isoformat())
    if latest is not None and business_on < latest:
        raise SettlementOutOfOrder(latest=latest.isoformat())


def wire_operation(line: Line) -> str:
    """The public id of what the line is about."""
    if line.kind == "prepaid_bought":
        return to_wire("blk", line.operation_id)
    if line.source == "ledger":
        return to_wire("ent", line.operation_id)
    return to_wire(_PREFIXES.get(line.kind, "ent"), line.operation_id)


def write_csv(lines: Iterable[Line], *, header: bool) -> bytes:
    """The lines as RFC 4180 text."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    if header:
        writer.writerow(CSV_HEADER)
    writer.writerows(map(_cells, lines))
    return buffer.getvalue().encode()


def _cells(line: Line) -> Sequence[str | int]:
    return (
        line.no,
        line.business_on.isoformat(),
        line.recorded_at.isoformat().replace("+00:00", "Z"),
        line.source,
        guard_cell(line.kind),
        wire_operation(line),
        guard_cell(line.entry_ref),
        guard_cell(line.funder),
        line.direction,
        line.points,
        line.amount_fen,
    )


def guard_cell(text: str) -> str:
    """A spreadsheet takes a cell that begins like a formula for one; a leading apostrophe makes it text."""
    return f"'{text}" if text.startswith(_FORMULA) else text
