"""Canonical JSON, so that both sides hash and sign the same bytes."""

import hashlib
from typing import Any

import msgspec


def canonical_json(value: Any) -> bytes:
    """Members sorted, no white space, UTF-8: RFC 8785 for our values, which hold ASCII names and integers only."""
    return msgspec.json.encode(msgspec.to_builtins(value), order="sorted")


def canonical_hash(value: Any) -> str:
    """SHA-256 of the canonical JSON, in hex."""
    return hashlib.sha256(canonical_json(value)).hexdigest()
