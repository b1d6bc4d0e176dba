"""Every statement on accounts, passwords, devices and passkeys."""

from datetime import datetime
from uuid import UUID

from msgspec import Struct

from kernel.caller import MemberRef
from kernel.database import Connection, read, read_if_any
from partners.login.model import Account, Device, Passkey

INSERT_ACCOUNT = """
INSERT INTO login_account (id, member_id, bucket, name_index, name_sealed, totp_sealed, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)
"""

FIND_ACCOUNT = """
SELECT id, member_id, bucket, totp_sealed FROM login_account WHERE id = $1 AND disabled_at IS NULL
"""

FIND_ACCOUNT_BY_NAME = """
SELECT id, member_id, bucket, totp_sealed FROM login_account WHERE name_index = $1
"""

INSERT_PASSWORD = "INSERT INTO login_password (account_id, hash, changed_at) VALUES ($1, $2, $3)"

FIND_PASSWORD = """
SELECT a.id AS account_id, p.hash
  FROM login_account AS a
  JOIN login_password AS p ON p.account_id = a.id
 WHERE a.name_index = $1 AND a.disabled_at IS NULL
"""

# Only while it is still the hash that was looked at: a password changed meanwhile stays changed.
RENEW_PASSWORD = """
UPDATE login_password SET hash = $3, changed_at = $4 WHERE account_id = $1 AND hash = $2
"""

# A step is good once: of two copies of a code one finds the other's mark.
USE_TOTP_STEP = """
UPDATE login_account
   SET totp_step = $2
 WHERE id = $1 AND disabled_at IS NULL AND (totp_step IS NULL OR totp_step < $2)
RETURNING true
"""

INSERT_DEVICE = """
INSERT INTO login_device (id, account_id, secret_hash, bound_at, ends_at) VALUES ($1, $2, $3, $4, $5)
"""

FIND_DEVICE = """
SELECT id, account_id FROM login_device WHERE secret_hash = $1 AND revoked_at IS NULL AND ends_at > $2
"""

# Newest first: what is beyond the number a member may have is given up, the oldest binding before the others.
REVOKE_OLD_DEVICES = """
UPDATE login_device
   SET revoked_at = $3
 WHERE revoked_at IS NULL
   AND id IN (SELECT id FROM login_device WHERE account_id = $1 AND revoked_at IS NULL ORDER BY id DESC OFFSET $2)
"""

INSERT_PASSKEY = """
INSERT INTO login_passkey (credential_id, account_id, device_id, public_key, sign_count, hardware, added_at)
SELECT $1, $2, $3, $4, $5, $6, $7
 WHERE (SELECT count(*) FROM login_passkey WHERE device_id = $3 AND revoked_at IS NULL) < $8
ON CONFLICT (credential_id) DO NOTHING
RETURNING true
"""

# Oldest first: the order in which the member made them.
LIST_PASSKEYS = """
SELECT p.credential_id, p.public_key, p.sign_count, p.hardware
  FROM login_passkey AS p
  JOIN login_device AS d ON d.id = p.device_id
 WHERE p.device_id = $1 AND p.account_id = $2 AND p.revoked_at IS NULL AND d.revoked_at IS NULL AND d.ends_at > $3
 ORDER BY p.added_at, p.credential_id
"""

# WebAuthn §7.2 step 22: a counter that did not grow means a copy, except where the authenticator keeps none.
USE_PASSKEY = """
UPDATE login_passkey
   SET sign_count = $2, used_at = $3
 WHERE credential_id = $1 AND revoked_at IS NULL AND (sign_count < $2 OR (sign_count = 0 AND $2 = 0))
RETURNING true
"""


class StoredPassword(Struct, frozen=True, kw_only=True):
    """Whose it is and its hash in PHC form."""

    account_id: UUID
    hash: str


async def insert_account(
    connection: Connection,
    *,
    account_id: UUID,
    member: MemberRef,
    name_index: bytes,
    name_sealed: bytes,
    totp_sealed: bytes | None,
    now: datetime,
) -> None:
    await connection.execute(
        INSERT_ACCOUNT,
        account_id,
        member.member_id,
        member.bucket,
        name_index,
        name_sealed,
        totp_sealed,
        now,
    )


async def find_account(connection: Connection, account_id: UUID) -> Account | None:
    return read_if_any(await connection.fetchrow(FIND_ACCOUNT, account_id), Account)


async def find_account_by_name(connection: Connection, name_index: bytes) -> Account | None:
    return read_if_any(await connection.fetchrow(FIND_ACCOUNT_BY_NAME, name_index), Account)


async def insert_password(connection: Connection, account_id: UUID, hashed: str, *, now: datetime) -> None:
    await connection.execute(INSERT_PASSWORD, account_id, hashed, now)


async def find_password(connection: Connection, name_index: bytes) -> StoredPassword | None:
    return read_if_any(await connection.fetchrow(FIND_PASSWORD, name_index), StoredPassword)


async def renew_password(
    connection: Connection, account_id: UUID, *, present: str, renewed: str, now: datetime
) -> None:
    await connection.execute(RENEW_PASSWORD, account_id, present, renewed, now)


async def use_totp_step(connection: Connection, account_id: UUID, step: int) -> bool:
    """Whether no code of this step or a later one was used before."""
    return bool(await connection.fetchval(USE_TOTP_STEP, account_id, step))


async def insert_device(
    connection: Connection,
    device: Device,
    *,
    secret_hash: bytes,
    ends_at: datetime,
    now: datetime,
) -> None:
    await connection.execute(INSERT_DEVICE, device.id, device.account_id, secret_hash, now, ends_at)


async def find_device(connection: Connection, secret_hash: bytes, *, now: datetime) -> Device | None:
    return read_if_any(await connection.fetchrow(FIND_DEVICE, secret_hash, now), Device)


async def revoke_old_devices(connection: Connection, account_id: UUID, *, keep: int, now: datetime) -> None:
    await connection.execute(REVOKE_OLD_DEVICES, account_id, keep, now)


async def insert_passkey(
    connection: Connection, passkey: Passkey, *, device: Device, limit: int, now: datetime
) -> bool:
    """False if the device has `limit` of them, or somebody registered this very credential before."""
    added = await connection.fetchval(
        INSERT_PASSKEY,
        passkey.credential_id,
        device.account_id,
        device.id,
        passkey.public_key,
        passkey.sign_count,
        passkey.hardware,
        now,
        limit,
    )
    return bool(added)


async def list_passkeys(connection: Connection, device: Device, *, now: datetime) -> list[Passkey]:
    records = await connection.fetch(LIST_PASSKEYS, device.id, device.account_id, now)
    return [read(record, Passkey) for record in records]


async def use_passkey(
    connection: Connection, credential_id: bytes, *, sign_count: int, now: datetime
) -> bool:
    """Whether the counter grew, as decided by the row itself."""
    return bool(await connection.fetchval(USE_PASSKEY, credential_id, sign_count, now))
