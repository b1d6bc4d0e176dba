"""Files of bank levels, line by line: what a good line says, and the code of what is wrong with a bad one."""

import re
from collections.abc import Iterator
from datetime import date
from typing import IO, get_args

from msgspec import Struct

from points.membership.model import BankLevel

HEADER = "member_id,bank_level,valid_from"
LINE_BYTES_MAX = 256
MEMBER_ID_MAX = 2**63 - 1

_BOM = b"\xef\xbb\xbf"
_NUMBER = re.compile(r"[1-9][0-9]{0,18}", re.ASCII)
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


class LevelHeaderRefused(Exception):
    """The first line is not the header of a file of bank levels."""


class LevelLine(Struct, frozen=True, kw_only=True):
    """What the bank says of one member."""

    member_id: int
    bank_level: BankLevel
    valid_from: date


class BrokenLevelLine(Struct, frozen=True, kw_only=True):
    """A line that cannot be understood."""

    code: str


class _Broken(Exception):
    """What is wrong with a line, as a code."""


def read_levels(file: IO[bytes]) -> Iterator[LevelLine | BrokenLevelLine]:
    """What each line after the header says, in order; holds one line at a time."""
    header = file.readline(LINE_BYTES_MAX).removeprefix(_BOM).decode(errors="replace").rstrip("\r\n")
    if header != HEADER:
        raise LevelHeaderRefused(f"the first line must be {HEADER}")
    while line := file.readline(LINE_BYTES_MAX + 1):
        if len(line) > LINE_BYTES_MAX and not line.endswith(b"\n"):
            while (rest := file.readline(1 << 16)) and not rest.endswith(b"\n"):
                pass
        yield read_level(line)


def read_level(line: bytes) -> LevelLine | BrokenLevelLine:
    """What `line` says; a line that says nothing clear is refused with the first fault from the left."""
    try:
        return _read(line)
    except _Broken as fault:
        return BrokenLevelLine(code=str(fault))


def _read(line: bytes) -> LevelLine:
    if len(line) > LINE_BYTES_MAX:
        raise _Broken("line_too_long")
    try:
        values = line.decode().removesuffix("\n").removesuffix("\r").split(",")
    except UnicodeDecodeError:
        raise _Broken("line_not_utf8") from None
    if len(values) != 3:
        raise _Broken("columns_missing" if len(values) < 3 else "columns_extra")
    member_id, bank_level, valid_from = values
    if not _NUMBER.fullmatch(member_id) or int(member_id) > MEMBER_ID_MAX:
        raise _Broken("member_id_invalid")
    if bank_level not in get_args(BankLevel):
        raise _Broken("bank_level_invalid")
    try:
        if not _DAY.fullmatch(valid_from):
            raise ValueError
        day = date.fromisoformat(valid_from)
    except ValueError:
        raise _Broken("valid_from_invalid") from None
    return LevelLine(member_id=int(member_id), bank_level=bank_level, valid_from=day)  # type: ignore[arg-type]  # one of its words
