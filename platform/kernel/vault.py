"""Secrets at rest: authenticated encryption of C2 fields and keyed blind indexes to find them again.

JR/T 0171 calls names, phone numbers and balances C2: stored encrypted. A field is AES-256-GCM under a key named in
its header, with table, column and row as associated data, so a ciphertext moved to another row does not open.
All keys derive from one ring by HKDF-SHA256 (RFC 5869) with a label each.
"""

import base64
import binascii
import hashlib
import hmac
import os
from functools import cached_property

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_FORMAT = 1
_NONCE = 12


class VaultError(Exception):
    """A stored secret does not open: wrong key ring, or the row was tampered with."""


def generate_ring() -> str:
    """A new ring with one key, as `TESSERA_MASTER_KEYS` takes it."""
    return f"k1:{base64.urlsafe_b64encode(os.urandom(32)).decode()}"


class Vault:
    """The keys of one deployment, newest first."""

    def __init__(self, ring: str) -> None:
        self._masters: dict[str, bytes] = {}
        for item in ring.split(","):
            name, _, encoded = item.strip().partition(":")
            try:
                key = base64.urlsafe_b64decode(encoded)
            except (binascii.Error, ValueError):
                raise VaultError("a master key is not base64url") from None
            if not name or len(name) > 16 or len(key) != 32:
                raise VaultError("a master key needs a name of 1 to 16 characters and 32 bytes")
            self._masters[name] = key
        self._current = next(iter(self._masters))
        self._ciphers = {name: AESGCM(_derive(key, "field")) for name, key in self._masters.items()}

    def __repr__(self) -> str:
        return f"Vault({', '.join(self._masters)})"

    def encrypt(self, plain: str, *, table: str, column: str, row: str) -> bytes:
        """`plain` sealed for one field of one row."""
        return self.seal(plain.encode(), table=table, column=column, row=row)

    def decrypt(self, sealed: bytes, *, table: str, column: str, row: str) -> str:
        """What `encrypt` sealed for the same field; raises VaultError for any other bytes."""
        return self.unseal(sealed, table=table, column=column, row=row).decode()

    def seal(self, plain: bytes, *, table: str, column: str, row: str) -> bytes:
        """`encrypt` for bytes."""
        nonce = os.urandom(_NONCE)
        name = self._current.encode()
        sealed = self._ciphers[self._current].encrypt(nonce, plain, _place(table, column, row))
        return bytes((_FORMAT, len(name))) + name + nonce + sealed

    def unseal(self, sealed: bytes, *, table: str, column: str, row: str) -> bytes:
        """`decrypt` for bytes."""
        if len(sealed) < 2 or sealed[0] != _FORMAT:
            raise VaultError("the field is not in a known format")
        name_end = 2 + sealed[1]
        cipher = self._ciphers.get(sealed[2:name_end].decode("ascii", "replace"))
        if cipher is None:
            raise VaultError("the field was sealed under a key that is not in the ring")
        nonce, body = sealed[name_end : name_end + _NONCE], sealed[name_end + _NONCE :]
        try:
            return cipher.decrypt(nonce, body, _place(table, column, row))
        except (InvalidTag, ValueError):
            raise VaultError("the field does not open here: wrong row or changed bytes") from None

    def blind_index(self, label: str, value: str) -> bytes:
        """32 bytes by which an encrypted value can be looked up, useless without the oldest key of the ring."""
        return hmac.digest(self.key(f"index:{label}"), value.encode(), "sha256")

    def key(self, label: str) -> bytes:
        """A 32-byte key for one purpose that must survive rotation: derived from the oldest key of the ring."""
        return _derive(self._oldest, label)

    @cached_property
    def _oldest(self) -> bytes:
        return list(self._masters.values())[-1]


def sha256(*parts: str | bytes) -> bytes:
    """SHA-256 over the parts, each preceded by its length so that no two lists of parts collide."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(4, "big"))
        digest.update(data)
    return digest.digest()


def _derive(master: bytes, label: str) -> bytes:
    return HKDF(hashes.SHA256(), 32, salt=None, info=f"tessera:{label}".encode()).derive(master)


def _place(table: str, column: str, row: str) -> bytes:
    return f"{table}\x1f{column}\x1f{row}".encode()
