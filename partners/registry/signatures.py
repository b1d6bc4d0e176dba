"""What an app must sign and with which SM2 keys: the bank's staff decides and registers, every change is on record."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import asyncpg

from kernel import audit, sm2
from kernel.audit import AuditRecord
from kernel.database import Connection
from kernel.errors import Absent, Unprocessable
from partners.registry import queries, queries_signatures
from partners.registry.jwk import PRIVATE_MEMBERS, PrivateKeySent, decode
from partners.registry.model import App, RequestSignature
from partners.registry.rules import ACTIVE_KEYS_MAX, KeyAlreadyRegistered, KeyLimitReached

SERIAL_NO = re.compile(r"[0-9A-Za-z._-]{1,64}", re.ASCII)


class SerialNoInvalid(Unprocessable):
    """An SM2 key needs a serial number of 1 to 64 letters, digits, dots, hyphens or underscores."""


async def find_app_of_client(connection: Connection, client_id: str) -> App:
    """The app behind a `client_id`."""
    app_id = await queries_signatures.find_app_of_client(connection, client_id)
    app = None if app_id is None else await queries.find_app(connection, app_id)
    if app is None:
        raise Absent
    return app


async def set_request_signature(
    connection: Connection, *, app: App, policy: RequestSignature, actor: str, now: datetime
) -> None:
    """From a second after the commit on, writes of level A2 are asked for what `policy` says."""
    if not await queries_signatures.move_request_signature(connection, app.id, policy):
        raise Absent
    await _record(
        connection, app, actor=actor, action="app.request_signature", detail={"policy": policy}, now=now
    )


async def add_sm2_key(
    connection: Connection, *, app: App, serial_no: str, key: sm2.PublicKey, actor: str, now: datetime
) -> None:
    """Register a public key; a number and a key are registered once and never return."""
    if not SERIAL_NO.fullmatch(serial_no):
        raise SerialNoInvalid
    if not await queries.lock_app(connection, app.id):
        raise Absent
    known = await queries_signatures.list_sm2_keys(connection, app.id)
    if sum(one.status == "active" for one in known) >= ACTIVE_KEYS_MAX:
        raise KeyLimitReached(active_keys_max=ACTIVE_KEYS_MAX)
    x, y = key.point
    try:
        await queries_signatures.insert_sm2_key(connection, app.id, serial_no=serial_no, x=x, y=y, now=now)
    except asyncpg.UniqueViolationError:
        raise KeyAlreadyRegistered(kid=serial_no) from None
    detail = {"serial_no": serial_no, "sm3": sm2.sm3(x + y).hex()}
    await _record(connection, app, actor=actor, action="app.sm2_key_added", detail=detail, now=now)


async def revoke_sm2_key(
    connection: Connection, *, app: App, serial_no: str, actor: str, now: datetime
) -> None:
    """The key is good for nothing any more, within a second everywhere."""
    if not await queries_signatures.revoke_sm2_key(connection, app.id, serial_no):
        raise Absent
    detail = {"serial_no": serial_no}
    await _record(connection, app, actor=actor, action="app.sm2_key_revoked", detail=detail, now=now)


def read_sm2_jwk(jwk: Mapping[str, Any]) -> sm2.PublicKey:
    """The key behind `{"kty": "EC", "crv": "SM2", "x", "y"}`; RFC 7518 §6.2 has no name for the curve, so this one is ours."""
    if PRIVATE_MEMBERS & jwk.keys():
        raise PrivateKeySent
    match jwk:
        case {"kty": "EC", "crv": "SM2", "x": str(x), "y": str(y)}:
            try:
                return sm2.PublicKey.at(decode(x), decode(y))
            except ValueError:
                raise sm2.Sm2KeyInvalid from None
    raise sm2.Sm2KeyInvalid


async def _record(
    connection: Connection, app: App, *, actor: str, action: str, detail: dict[str, Any], now: datetime
) -> None:
    record = AuditRecord(actor=actor, action=action, subject=app.client_id, detail=detail)
    await audit.append(connection, record, partner_id=app.partner_id, now=now)
