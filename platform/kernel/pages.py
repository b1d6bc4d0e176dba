"""Lists in pages: cursors that are opaque, authenticated and bound to one caller and one list."""

import base64
import binascii
import os
from typing import Any, Generic, TypeVar

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import Struct

from kernel.errors import Malformed, Unprocessable

T = TypeVar("T")

LIMIT_MAX = 100


class InvalidCursor(Malformed):
    """The cursor was not issued to this caller for this list."""


class LimitOutOfRange(Unprocessable):
    """`limit` is a number from 1 to 100."""


def check_limit(limit: int) -> None:
    """Refuse a page of none, or of more than a page holds."""
    if not 1 <= limit <= LIMIT_MAX:
        raise LimitOutOfRange


class Page(Struct, Generic[T], frozen=True, kw_only=True):
    """One page of a list."""

    data: list[T]
    #: pass as `cursor` for the next page; null on the last
    next_cursor: str | None = None


class CursorSeal:
    """Seals a position in a list so that only the same caller can bring it back, for the same list."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def seal(self, binding: str, position: Any) -> str:
        """`binding` names caller and list; `position` is any JSON value."""
        nonce = os.urandom(12)
        sealed = self._cipher.encrypt(nonce, msgspec.json.encode(position), binding.encode())
        return base64.urlsafe_b64encode(nonce + sealed).rstrip(b"=").decode()

    def open(self, binding: str, cursor: str) -> Any:
        """The position behind `cursor`, or InvalidCursor."""
        try:
            data = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
            return msgspec.json.decode(self._cipher.decrypt(data[:12], data[12:], binding.encode()))
        except (InvalidTag, binascii.Error, ValueError):
            raise InvalidCursor from None
