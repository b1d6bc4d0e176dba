"""Identifiers: UUIDv7 in the database, a prefix and 26 Crockford characters on the wire."""

import os
import struct
from collections.abc import Iterator
from datetime import datetime
from uuid import UUID

from kernel.errors import Absent

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [high + low for high in _ALPHABET for low in _ALPHABET]
_TRIPLES = [pair + low for pair in _PAIRS for low in _ALPHABET]
_SHIFTS = tuple(range(105, -1, -15))
_VALUE = {character: value for value, character in enumerate(_ALPHABET)}
_LENGTH = 26
_VERSION_AND_VARIANT = 0x7 << 76 | 0x2 << 62
_RANDOM = 0xFFF << 64 | (1 << 62) - 1


def new_id(now: datetime) -> UUID:
    """A UUIDv7 (RFC 9562 §5.7): 48 bits of Unix milliseconds, then 74 random bits."""
    milliseconds = int(now.timestamp() * 1000) & (1 << 48) - 1
    random = int.from_bytes((next(_bits, None) or _draw())[0], "big")
    value = milliseconds << 80 | _VERSION_AND_VARIANT | random & _RANDOM
    return UUID(int=value)


def _draw() -> tuple[bytes]:
    """Ten random bytes, and as many again for many ids to come: one call of the system instead of hundreds."""
    global _bits  # what a process has drawn is its own
    _bits = struct.iter_unpack("10s", os.urandom(5_120))
    return (os.urandom(10),)


def _forget() -> None:
    """A child process must not use its parent's bytes."""
    global _bits
    _bits = iter(())


#: read by the interpreter in one step, so threads may share it
_bits: Iterator[tuple[bytes]] = iter(())
os.register_at_fork(after_in_child=_forget)


def to_wire(prefix: str, identifier: UUID) -> str:
    """`hld_01J…`: what a partner sees."""
    value = identifier.int
    return (
        f"{prefix}_{_PAIRS[value >> 120]}{''.join([_TRIPLES[value >> shift & 32767] for shift in _SHIFTS])}"
    )


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
