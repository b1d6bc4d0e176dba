"""Bank staff: how an admin account comes to be. The console is where it is used."""

import base64
import os
import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import asyncpg
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from msgspec import Struct

from kernel import audit
from kernel.database import Connection
from kernel.errors import Conflict, Forbidden
from kernel.ids import new_id, to_wire
from kernel.vault import Vault

Role = Literal["viewer", "maker", "checker", "duty_officer"]

TABLE = "gateway_admin"


class AdminExists(Conflict):
    """There is an admin with this login already."""


class AdminNotAllowed(Forbidden):
    """There is no admin with this login, or not one with the role this takes."""


class NewAdmin(Struct, frozen=True, kw_only=True):
    """A fresh account, with the secrets that are shown once and kept nowhere in the clear."""

    login: str
    roles: list[str]
    password: str
    #: base32, as authenticator apps take it (RFC 6238)
    totp_secret: str


INSERT_ADMIN = """
INSERT INTO gateway_admin (id, login, roles, password_hash, totp_sealed, created_at)
VALUES ($1, $2, $3, $4, $5, $6)
"""

HAS_ROLE = "SELECT true FROM gateway_admin WHERE login = $1 AND $2 = ANY (roles) AND disabled_at IS NULL"


async def require_admin(connection: Connection, login: str, role: Role) -> str:
    """The name under which the admin acts on record; refused unless `login` is an active account with that role."""
    if not await connection.fetchval(HAS_ROLE, login, role):
        raise AdminNotAllowed(login=login, role=role)
    return f"admin:{login}"


async def create_admin(
    connection: Connection, *, login: str, roles: Sequence[Role], vault: Vault, now: datetime
) -> NewAdmin:
    """Create an account with a random password and TOTP secret, and put it on record."""
    admin_id = new_id(now)
    created = NewAdmin(
        login=login,
        roles=list(roles),
        password=secrets.token_urlsafe(18),
        totp_secret=base64.b32encode(os.urandom(20)).decode(),
    )
    sealed = vault.encrypt(created.totp_secret, table=TABLE, column="totp_sealed", row=str(admin_id))
    try:
        await connection.execute(
            INSERT_ADMIN, admin_id, login, created.roles, hash_password(created.password), sealed, now
        )
    except asyncpg.UniqueViolationError:
        raise AdminExists(login=login) from None
    record = audit.AuditRecord(
        actor="operator:command-line",
        action="admin.create",
        subject=to_wire("adm", admin_id),
        detail={"login": login, "roles": created.roles},
    )
    await audit.append(connection, record, partner_id=None, now=now)
    return created


def hash_password(password: str) -> str:
    """Argon2id in PHC form, at the first recommended cost of RFC 9106 §4 scaled to 64 MiB."""
    derivation = Argon2id(salt=os.urandom(16), length=32, iterations=3, lanes=4, memory_cost=65_536)
    return derivation.derive_phc_encoded(password.encode())
