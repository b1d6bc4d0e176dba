"""The items of a batch, each decoded by itself: a bad one has its own answer and leaves the others alone."""

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from kernel.errors import Unprocessable

BATCH_MAX = 1_000
T = TypeVar("T")


class ItemInvalid(Unprocessable):
    """The item does not match the schema of a single request."""


def decode_items(items: Sequence[Any], kind: type[T]) -> list[T | ItemInvalid]:
    """Each item as `kind`, or what is wrong with it, in their order."""
    return [_decode(item, kind) for item in items]


def _decode(item: Any, kind: type[T]) -> T | ItemInvalid:
    try:
        decoded = msgspec.convert(item, kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as mistake:
        return ItemInvalid(message=str(mistake))
    # What the database cannot store must not fail the statement that the others are in.
    if any(isinstance(value, str) and not _is_storable(value) for value in item.values()):
        return ItemInvalid(message="Text without a NUL character is expected")
    return decoded


def _is_storable(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)
