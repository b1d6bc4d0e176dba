"""Every statement on what an app signs with besides its JWKs: its policy and its SM2 keys."""

from datetime import datetime
from uuid import UUID

from msgspec import Struct

from kernel.database import Connection, read
from partners.registry.model import RequestSignature

MOVE_REQUEST_SIGNATURE = "UPDATE registry_app SET request_signature = $2 WHERE id = $1 RETURNING true"

FIND_APP_OF_CLIENT = "SELECT id FROM registry_app WHERE client_id = $1"

INSERT_SM2_KEY = """
INSERT INTO registry_sm2_key (app_id, serial_no, x, y, status, added_at)
VALUES ($1, $2, $3, $4, 'active', $5)
"""

LIST_SM2_KEYS = """
SELECT serial_no, x, y, status
  FROM registry_sm2_key
 WHERE app_id = $1
 ORDER BY serial_no
"""

REVOKE_SM2_KEY = """
UPDATE registry_sm2_key
   SET status = 'revoked'
 WHERE app_id = $1 AND serial_no = $2 AND status = 'active'
RETURNING true
"""


class Sm2Key(Struct, frozen=True, kw_only=True):
    """A public key on the SM2 curve, under the number the partner gave it."""

    serial_no: str
    x: bytes
    y: bytes
    status: str


async def move_request_signature(connection: Connection, app_id: UUID, policy: RequestSignature) -> bool:
    """False if there is no such app."""
    return bool(await connection.fetchval(MOVE_REQUEST_SIGNATURE, app_id, policy))


async def find_app_of_client(connection: Connection, client_id: str) -> UUID | None:
    found: UUID | None = await connection.fetchval(FIND_APP_OF_CLIENT, client_id)
    return found


async def insert_sm2_key(
    connection: Connection, app_id: UUID, *, serial_no: str, x: bytes, y: bytes, now: datetime
) -> None:
    await connection.execute(INSERT_SM2_KEY, app_id, serial_no, x, y, now)


async def list_sm2_keys(connection: Connection, app_id: UUID) -> list[Sm2Key]:
    """By serial number, as people look for them."""
    return [read(record, Sm2Key) for record in await connection.fetch(LIST_SM2_KEYS, app_id)]


async def revoke_sm2_key(connection: Connection, app_id: UUID, serial_no: str) -> bool:
    """False if there is no active one of this number."""
    return bool(await connection.fetchval(REVOKE_SM2_KEY, app_id, serial_no))
