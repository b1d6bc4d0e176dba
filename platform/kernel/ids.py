"""Identifiers: UUIDv7 in the database, a prefix and 26 Crockford characters on the wire."""

import os
from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from kernel.errors import Absent

NewId = Callable[[datetime], UUID]

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [high + low for high in _ALPHABET for low in _ALPHABET]
_SHIFTS = tuple(range(120, -1, -10))
_VALUE = {character: value for value, character in enumerate(_ALPHABET)}
_LENGTH = 26


def new_id(now: datetime) -> UUID:
    """A UUIDv7 (RFC 9562 §5.7): 48 bits of Unix milliseconds, then 74 random bits."""
    milliseconds = int(now.timestamp() * 1000)
    random = int.from_bytes(os.urandom(10), "big")
    value = (milliseconds & (1 << 48) - 1) << 80
    value |= 0x7 << 76 | (random >> 68 & 0xFFF) << 64 | 0x2 << 62 | random & (1 << 62) - 1
    return UUID(int=value)


def to_wire(prefix: str, identifier: UUID) -> str:
    """`hld_01J…`: what a partner sees."""
    value = identifier.int
    return f"{prefix}_{''.join([_PAIRS[value >> shift & 1023] for shift in _SHIFTS])}"


def from_wire(prefix: str, text: str) -> UUID:
    """The identifier behind `text`; one of another kind or shape is as absent as an unknown one."""
    head, _, tail = text.partition("_")
    if head != prefix or len(tail) != _LENGTH or not tail.isascii():
        raise Absent
    value = 0
    for character in tail:
        digit = _VALUE.get(character)
        if digit is None:
            raise Absent
        value = value << 5 | digit
    if value >> 128:
        raise Absent
    return UUID(int=value)
