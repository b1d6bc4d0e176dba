"""Which day may be closed, and what a line looks like in a file."""

import csv
import io
from datetime import UTC, date, datetime
from uuid import UUID

import pytest
from msgspec.structs import replace

from kernel.errors import Refusal
from partners.settlement.model import Line
from partners.settlement.rules import (
    CSV_HEADER,
    DayNotOver,
    SettlementOutOfOrder,
    check_day,
    guard_cell,
    wire_operation,
    write_csv,
)

TODAY = date(2026, 11, 20)


@pytest.mark.parametrize(
    ("day", "latest", "refusal"),
    [
        (date(2026, 11, 20), None, None),
        (date(2026, 11, 19), None, None),
        (date(2026, 11, 20), date(2026, 11, 20), None),
        (date(2026, 11, 20), date(2026, 11, 18), None),
        (date(2026, 11, 21), None, DayNotOver),
        (date(2026, 11, 18), date(2026, 11, 19), SettlementOutOfOrder),
    ],
)
def test_days_are_closed_in_order(day: date, latest: date | None, refusal: type[Refusal] | None) -> None:
    if refusal is None:
        check_day(day, today=TODAY, latest=latest)
    else:
        with pytest.raises(refusal):
            check_day(day, today=TODAY, latest=latest)


LINE = Line(
    no=1,
    source="credit",
    entry_ref="plan/1",
    operation_id=UUID(int=1),
    kind="capture",
    funder="bank",
    direction="bank_owes_partner",
    points=0,
    amount_fen=129_900,
    business_on=TODAY,
    recorded_at=datetime(2026, 11, 20, 4, 0, tzinfo=UTC),
)


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "\nx", "=cmd|' /C calc'!A0"])
def test_a_cell_that_a_spreadsheet_would_run_becomes_text(text: str) -> None:
    assert guard_cell(text) == "'" + text
    written = write_csv([replace(LINE, funder=text, entry_ref=text)], header=False).decode()
    [row] = csv.reader(io.StringIO(written, newline=""))
    assert row[6:8] == ["'" + text, "'" + text]


def test_a_file_reads_back_as_it_was_written() -> None:
    written = write_csv([LINE, replace(LINE, no=2, funder='merchant:"a", b')], header=True).decode()
    header, first, second = csv.reader(io.StringIO(written, newline=""))
    assert tuple(header) == CSV_HEADER
    assert first == [
        *("1", "2026-11-20", "2026-11-20T04:00:00Z", "credit", "capture", wire_operation(LINE), "plan/1"),
        *("bank", "bank_owes_partner", "0", "129900"),
    ]
    assert second[7] == 'merchant:"a", b'


@pytest.mark.parametrize(
    ("source", "kind", "prefix"),
    [
        ("ledger", "points_issued", "ent_"),
        ("credit", "capture", "cap_"),
        ("credit", "merchant_subsidy", "cap_"),
        ("credit", "refund", "rfd_"),
        ("credit", "subsidy_reversal", "rfd_"),
    ],
)
def test_a_line_names_what_it_is_about(source: str, kind: str, prefix: str) -> None:
    line = replace(LINE, source=source, kind=kind)
    assert wire_operation(line).startswith(prefix)
