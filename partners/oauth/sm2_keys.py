"""The key the bank signs its answers with under the SM2 scheme: made on first start, sealed, its public half published."""

import secrets
from datetime import datetime

from msgspec import Struct

from kernel import audit, sm2
from kernel.audit import AuditRecord
from kernel.database import Connection, read
from kernel.vault import Vault
from partners.registry.jwk import encode

LIST_KEYS = """
SELECT serial_no, private_der, public_spki, status
  FROM oauth_sm2_key
 ORDER BY created_at DESC, serial_no
"""

INSERT_KEY = """
INSERT INTO oauth_sm2_key (serial_no, private_der, public_spki, status, created_at)
VALUES ($1, $2, $3, 'active', $4)
ON CONFLICT DO NOTHING
"""

RETIRE_KEYS = "UPDATE oauth_sm2_key SET status = 'retired' WHERE status = 'active'"


class _StoredKey(Struct, frozen=True, kw_only=True):
    """A key as it lies in the database."""

    serial_no: str
    private_der: bytes
    public_spki: bytes
    status: str


class Sm2Signer:
    """Signs with the active key, shows the public half of every one."""

    def __init__(self, *, serial_no: str, key: sm2.PrivateKey, published: list[dict[str, str]]) -> None:
        self.serial_no = serial_no
        self._key = key
        self.published = published

    def sign(self, signed: bytes) -> bytes:
        return self._key.sign(signed)


async def load_sm2_signer(connection: Connection, *, vault: Vault, now: datetime) -> Sm2Signer | None:
    """The signer; of several processes that start one makes the first key. None where the scheme is off."""
    if not sm2.is_available():
        return None
    keys = await _list_keys(connection)
    if not any(key.status == "active" for key in keys):
        await _insert_key(connection, vault, now=now)
        keys = await _list_keys(connection)
    active = next(key for key in keys if key.status == "active")
    private = sm2.PrivateKey(vault.unseal(active.private_der, **_place(active.serial_no)))
    return Sm2Signer(serial_no=active.serial_no, key=private, published=[_shown(key) for key in keys])


async def replace_sm2_key(connection: Connection, *, vault: Vault, actor: str, now: datetime) -> str:
    """Sign with a new key from the next start on; the one before stays published for whoever keeps signed answers."""
    await connection.execute(RETIRE_KEYS)
    serial_no = await _insert_key(connection, vault, now=now)
    record = AuditRecord(actor=actor, action="bank.sm2_key_replaced", subject=serial_no, detail={})
    await audit.append(connection, record, partner_id=None, now=now)
    return serial_no


async def _list_keys(connection: Connection) -> list[_StoredKey]:
    """Newest first, as they are published."""
    return [read(record, _StoredKey) for record in await connection.fetch(LIST_KEYS)]


async def _insert_key(connection: Connection, vault: Vault, *, now: datetime) -> str:
    private = sm2.PrivateKey.generate()
    serial_no = f"bank-{secrets.token_hex(8)}"
    sealed = vault.seal(private.to_der(), **_place(serial_no))
    await connection.execute(INSERT_KEY, serial_no, sealed, private.public().spki, now)
    return serial_no


def _shown(key: _StoredKey) -> dict[str, str]:
    x, y = sm2.PublicKey(key.public_spki).point
    return {"serial_no": key.serial_no, "kty": "EC", "crv": "SM2", "x": encode(x), "y": encode(y)}


def _place(serial_no: str) -> dict[str, str]:
    return {"table": "oauth_sm2_key", "column": "private_der", "row": serial_no}
