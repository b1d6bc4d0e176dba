"""Order files: what each line means, what is wrong with it, and in which chunks the lines travel."""

import io
from pathlib import Path

import pytest

from gateway.order_lines import (
    LINE_BYTES_MAX,
    OPTIONAL,
    REQUIRED,
    BrokenLine,
    HeaderRefused,
    OrderLine,
    count_lines,
    read_header,
    read_line,
    read_lines,
)
from gateway.orders import Line, Result, ResultsFile, Totals, chunks_of
from gateway.progress import Progress

COLUMNS = REQUIRED + OPTIONAL
AT = "2026-11-11T20:00:00+08:00"


@pytest.mark.parametrize(
    ("line", "order_id", "category", "refund_of"),
    [
        (f"a,c,{AT},1,100,,", "a", None, None),
        (f"a,c,{AT},1,100,books,b", "a", "books", "b"),
        (f'"a","c","{AT}","1","100","x, ""y""",""', "a", 'x, "y"', None),
        (f'"""",c,{AT},1,100,,', '"', None, None),
        (f"a,c,{AT},1,100,,\r\n", "a", None, None),
        (f"订单一,顾客,{AT},1,100,家电,", "订单一", "家电", None),
        ("a,c,2026-11-11T12:00:00.123456Z,0,0,,", "a", None, None),
    ],
)
def test_a_good_line(line: str, order_id: str, category: str | None, refund_of: str | None) -> None:
    read = read_line(line.encode(), COLUMNS)
    assert isinstance(read, OrderLine)
    assert (read.order_id, read.category, read.refund_of) == (order_id, category, refund_of)


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("", "line_empty"),
        ("\r\n", "line_empty"),
        ("a,c", "columns_missing"),
        (f"a,c,{AT},1,100", "columns_missing"),
        (f"a,c,{AT},1,100,,,", "columns_extra"),
        (f'a"b,c,{AT},1,100,,', "quotes_stray"),
        (f'"a,c,{AT},1,100,,', "quotes_stray"),
        (f'"a"b,c,{AT},1,100,,', "quotes_stray"),
        (f",c,{AT},1,100,,", "order_id_invalid"),
        (f"{'x' * 129},c,{AT},1,100,,", "order_id_invalid"),
        (f" a,c,{AT},1,100,,", "order_id_invalid"),
        (f"a\0,c,{AT},1,100,,", "order_id_invalid"),
        (f"a,,{AT},1,100,,", "customer_ref_invalid"),
        (f"a,{'x' * 129},{AT},1,100,,", "customer_ref_invalid"),
        ("a,c,2026-11-11,1,100,,", "ordered_at_invalid"),
        ("a,c,2026-11-11T20:00:00,1,100,,", "ordered_at_invalid"),
        ("a,c,2026-02-30T20:00:00Z,1,100,,", "ordered_at_invalid"),
        ("a,c,2026-11-11T25:00:00Z,1,100,,", "ordered_at_invalid"),
        ("a,c,yesterday,1,100,,", "ordered_at_invalid"),
        ("a,c,0001-01-01T00:00:00+23:00,1,100,,", "ordered_at_invalid"),
        (f"a,c,{AT},,100,,", "quantity_invalid"),
        (f"a,c,{AT},-1,100,,", "quantity_invalid"),
        (f"a,c,{AT},1.5,100,,", "quantity_invalid"),
        (f"a,c,{AT},1000000001,100,,", "quantity_invalid"),
        (f"a,c,{AT},1,,,", "amount_fen_invalid"),
        (f"a,c,{AT},1,-100,,", "amount_fen_invalid"),
        (f"a,c,{AT},1,12.50,,", "amount_fen_invalid"),
        (f"a,c,{AT},1,1e3,,", "amount_fen_invalid"),
        (f"a,c,{AT},1,1_000,,", "amount_fen_invalid"),
        (f"a,c,{AT},1, 100,,", "amount_fen_invalid"),
        (f"a,c,{AT},1,１００,,", "amount_fen_invalid"),
        (f"a,c,{AT},1,10000000000001,,", "amount_fen_invalid"),
        (f"a,c,{AT},1,{'9' * 400},,", "amount_fen_invalid"),
        (f"a,c,{AT},1,100,{'x' * 65},", "category_invalid"),
        (f"a,c,{AT},1,100,,{'x' * 129}", "refund_of_invalid"),
    ],
)
def test_a_broken_line_has_a_code(line: str, code: str) -> None:
    read = read_line(line.encode(), COLUMNS)
    assert isinstance(read, BrokenLine)
    assert read.code == code
    assert len(read.order_id) <= 128
    assert "\0" not in read.order_id


def test_a_broken_line_costs_no_other() -> None:
    good = f"a,c,{AT},1,100".encode()
    parts = [good, b"\xff\xfe,c", b'"open,c,', b"x" * (LINE_BYTES_MAX + 1), b"y" * 1_000_000, good]
    read = list(read_lines(io.BytesIO(b"\n".join(parts)), REQUIRED))
    codes = [line.code if isinstance(line, BrokenLine) else "" for line in read]
    assert codes == ["", "line_not_utf8", "quotes_stray", "line_too_long", "line_too_long", ""]


@pytest.mark.parametrize("columns", [REQUIRED, (*REQUIRED, "category"), (*REQUIRED, "refund_of"), COLUMNS])
def test_the_optional_columns_may_be_left_out(columns: tuple[str, ...]) -> None:
    header = ",".join(columns)
    assert read_header(io.BytesIO(f"{header}\n".encode())) == columns
    assert read_header(io.BytesIO(f"\ufeff{header}\r\nrest".encode())) == columns


@pytest.mark.parametrize(
    "header", ["", "order_id", "a,b,c,d,e", ",".join(COLUMNS[::-1]), ",".join((*REQUIRED, *OPTIONAL[::-1]))]
)
def test_another_header_is_refused(header: str) -> None:
    with pytest.raises(HeaderRefused):
        read_header(io.BytesIO(f"{header}\n".encode()))


@pytest.mark.parametrize(
    ("text", "lines"), [("", 0), ("h", 0), ("h\n", 0), ("h\na", 1), ("h\na\n", 1), ("h\n\n\n", 2)]
)
def test_lines_are_counted_as_they_are_read(tmp_path: Path, text: str, lines: int) -> None:
    file = tmp_path / "orders.csv"
    file.write_text(text)
    assert count_lines(file) == lines
    with file.open("rb") as opened:
        opened.readline()
        assert len(list(read_lines(opened, REQUIRED))) == lines


def order(number: str, refund_of: str | None = None) -> OrderLine:
    return OrderLine(
        order_id=number, customer_ref="c", ordered_at=AT, amount_fen=100, category=None, refund_of=refund_of
    )


@pytest.mark.parametrize(
    ("lines", "sizes"),
    [
        ([], []),
        ([order("1"), order("2"), order("3")], [2, 1]),
        ([order("1"), order("r", "1"), order("2")], [2, 1]),
        ([order("r", "1"), order("1")], [1, 1]),
        ([BrokenLine(order_id="", code="x"), order("1"), order("2")], [2, 1]),
    ],
)
def test_an_order_never_travels_with_a_refund_that_came_before_it(
    lines: list[Line], sizes: list[int]
) -> None:
    assert [len(chunk) for chunk in chunks_of(lines, size=2)] == sizes


def test_results_appear_when_they_are_complete(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    with ResultsFile(path) as results:
        results.add([Result(order_id="a,b", status="earned", points=12)])
        assert not path.exists()
        results.add([Result(order_id="r", status="reversed", points=-5)])
    assert path.read_text() == 'order_id,status,points,code\n"a,b",earned,12,\nr,reversed,-5,\n'
    assert list(tmp_path.iterdir()) == [path]


def test_results_of_an_import_that_stopped_do_not_appear(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), ResultsFile(tmp_path / "results.csv"):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_totals_count_what_became_of_the_lines() -> None:
    totals = Totals()
    totals.add(
        [Result(order_id="1", status="earned", points=12), Result(order_id="2", status="refused", code="x")]
    )
    totals.add(
        [Result(order_id="3", status="reversed", points=-2), Result(order_id="4", status="refused", code="x")]
    )
    assert (totals.lines, totals.points, totals.refusals) == (4, 10, {"x": 2})


def test_the_bar_is_one_line_redrawn_in_place() -> None:
    out, moments = io.StringIO(), iter(float(n) for n in range(100))
    progress = Progress("importing", 2_000, out, monotonic=lambda: next(moments))
    progress.advance(500)
    progress.advance(1_500)
    progress.finish()
    drawn = out.getvalue()
    assert drawn.count("\n") == 1
    assert drawn.split("\r\x1b[K")[1].startswith("importing ▕██████░░░░░░░░░░░░░░░░░░▏ 500/2,000  25 %")
    assert drawn.endswith("lines/s\n")
    assert "2,000/2,000  100 %" in drawn
