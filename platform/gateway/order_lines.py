"""Order files, line by line: what a good line says, and the code of what is wrong with a bad one.

One line of the file is one record, whatever is in it: a stray quote or a missing line end costs that line and no other.
"""

import re
from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import IO

from msgspec import Struct

from kernel.money import ORDER_FEN_MAX

REQUIRED = ("order_id", "customer_ref", "ordered_at", "quantity", "amount_fen")
OPTIONAL = ("category", "refund_of")

LINE_BYTES_MAX = 8_192
REF_LENGTH_MAX = 128
CATEGORY_LENGTH_MAX = 64
QUANTITY_MAX = 10**9

_BOM = b"\xef\xbb\xbf"
_FIELD = '(?:"(?:[^"]|"")*"|[^",]*)'
_RECORD = re.compile(f"{_FIELD}(?:,{_FIELD})*")
_FIELDS = re.compile('(?:^|,)(?:"((?:[^"]|"")*)"|([^",]*))')
_NUMBER = re.compile(r"[0-9]{1,15}")
_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)", re.ASCII)
# Control characters, and what some programs take for the end of a line.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff]")


class HeaderRefused(Exception):
    """The first line is not the header of an order file."""


class _Broken(Exception):
    """What is wrong with a line, as a code."""


class OrderLine(Struct, frozen=True, kw_only=True):
    """One order, or one refund of an earlier order."""

    order_id: str
    customer_ref: str
    #: RFC 3339, as written in the file
    ordered_at: str
    amount_fen: int
    category: str | None
    #: the order that this line refunds
    refund_of: str | None


class BrokenLine(Struct, frozen=True, kw_only=True):
    """A line that cannot be understood."""

    #: the first column as far as it can be shown
    order_id: str
    code: str


def count_lines(path: Path) -> int:
    """How many lines follow the header; reads the file once, without looking into it."""
    count, last = 0, b"\n"
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            count += block.count(b"\n")
            last = block[-1:]
    return max(0, count + (last != b"\n") - 1)


def read_header(file: IO[bytes]) -> tuple[str, ...]:
    """The columns of the file; raises HeaderRefused."""
    line = file.readline(LINE_BYTES_MAX).removeprefix(_BOM)
    columns = tuple(line.decode(errors="replace").rstrip("\r\n").split(","))
    optional = columns[len(REQUIRED) :]
    if columns[: len(REQUIRED)] != REQUIRED or optional not in ((), OPTIONAL[:1], OPTIONAL[1:], OPTIONAL):
        raise HeaderRefused(f"the first line must be {','.join(REQUIRED)}[,category][,refund_of]")
    return columns


def read_lines(file: IO[bytes], columns: tuple[str, ...]) -> Iterator[OrderLine | BrokenLine]:
    """What each line after the header says, in order; holds one line at a time."""
    while line := file.readline(LINE_BYTES_MAX + 1):
        if len(line) > LINE_BYTES_MAX and not line.endswith(b"\n"):
            while (rest := file.readline(1 << 16)) and not rest.endswith(b"\n"):
                pass
        yield read_line(line, columns)


def read_line(line: bytes, columns: tuple[str, ...]) -> OrderLine | BrokenLine:
    """What `line` says; a line that says nothing clear is refused with the first fault from the left."""
    try:
        return _read(_split(line, columns), columns)
    except _Broken as fault:
        shown = line.decode(errors="replace").partition(",")[0].rstrip("\r\n")
        return BrokenLine(order_id=_UNPRINTABLE.sub("", shown)[:REF_LENGTH_MAX], code=str(fault))


def _split(line: bytes, columns: tuple[str, ...]) -> list[str]:
    if len(line) > LINE_BYTES_MAX:
        raise _Broken("line_too_long")
    try:
        text = line.decode()
    except UnicodeDecodeError:
        raise _Broken("line_not_utf8") from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise _Broken("line_empty")
    values = _unquote(text) if '"' in text else text.split(",")
    if len(values) != len(columns):
        raise _Broken("columns_missing" if len(values) < len(columns) else "columns_extra")
    return values


def _unquote(text: str) -> list[str]:
    """RFC 4180 §2.5-2.7: a quoted field begins and ends with the field, and doubles the quotes inside."""
    if not _RECORD.fullmatch(text):
        raise _Broken("quotes_stray")
    return [quoted.replace('""', '"') or plain for quoted, plain in _FIELDS.findall(text)]


def _read(values: list[str], columns: tuple[str, ...]) -> OrderLine:
    order_id, customer_ref, ordered_at, quantity, amount = values[: len(REQUIRED)]
    optional = dict(zip(columns[len(REQUIRED) :], values[len(REQUIRED) :], strict=True))
    category, refund_of = optional.get("category", ""), optional.get("refund_of", "")
    if not _is_name(order_id, REF_LENGTH_MAX):
        raise _Broken("order_id_invalid")
    if not _is_name(customer_ref, REF_LENGTH_MAX):
        raise _Broken("customer_ref_invalid")
    if not _is_instant(ordered_at):
        raise _Broken("ordered_at_invalid")
    if not _NUMBER.fullmatch(quantity) or int(quantity) > QUANTITY_MAX:
        raise _Broken("quantity_invalid")
    if not _NUMBER.fullmatch(amount) or int(amount) > ORDER_FEN_MAX:
        raise _Broken("amount_fen_invalid")
    if category and not _is_name(category, CATEGORY_LENGTH_MAX):
        raise _Broken("category_invalid")
    if refund_of and not _is_name(refund_of, REF_LENGTH_MAX):
        raise _Broken("refund_of_invalid")
    return OrderLine(
        order_id=order_id,
        customer_ref=customer_ref,
        ordered_at=ordered_at,
        amount_fen=int(amount),
        category=category or None,
        refund_of=refund_of or None,
    )


def _is_name(text: str, length_max: int) -> bool:
    return 0 < len(text) <= length_max and text == text.strip() and not _UNPRINTABLE.search(text)


@lru_cache(maxsize=4_096)
def _is_instant(text: str) -> bool:
    """Whether `text` is a moment with its offset from UTC; orders of one day often share one."""
    if not _INSTANT.fullmatch(text):
        return False
    try:
        datetime.fromisoformat(text).utctimetuple()
    except (ValueError, OverflowError):
        return False
    return True
