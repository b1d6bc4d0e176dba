"""A login from the first visit to the proof of who it is: accounts, sessions and passwords.

One login is several requests. Each step is one conditional UPDATE of the session, and what failed is told as a Step, because
its count has to stay.
"""

import secrets
from datetime import datetime
from uuid import UUID

import asyncpg

from kernel import audit
from kernel.audit import AuditRecord
from kernel.caller import MemberRef
from kernel.database import Connection
from kernel.errors import Conflict
from kernel.ids import new_id, to_wire
from kernel.vault import Vault, sha256
from partners.login import attempts, queries, session_queries
from partners.login.model import Authentication, Device, Session, Step, Trial
from partners.login.passwords import Verdict
from partners.login.rules import DEVICE_LIFE, DEVICES_MAX, SESSION_LIFE, login_name

ACCOUNTS = "login_account"
SECRET_BYTES = 32


class LoginNameTaken(Conflict):
    """This login name, or this member's login, exists already."""


class LoginOver(Conflict):
    """This login has expired, has moved on, or belongs to another browser; begin again at the partner."""


def new_secret() -> str:
    """What a cookie carries: 256 bits; only its hash is stored."""
    return secrets.token_urlsafe(SECRET_BYTES)


async def open_account(
    connection: Connection,
    *,
    member: MemberRef,
    login: str,
    password_hash: str,
    totp_secret: str | None = None,
    vault: Vault,
    now: datetime,
) -> UUID:
    """A member's login with its password, hashed by the caller, who has the threads for it."""
    account_id = new_id(now)
    name, row = login_name(login), str(account_id)
    totp = totp_secret and vault.encrypt(totp_secret, table=ACCOUNTS, column="totp_sealed", row=row)
    try:
        await queries.insert_account(
            connection,
            account_id=account_id,
            member=member,
            name_index=vault.blind_index("login-name", name),
            name_sealed=vault.encrypt(name, table=ACCOUNTS, column="name_sealed", row=row),
            totp_sealed=totp or None,
            now=now,
        )
    except asyncpg.UniqueViolationError:
        raise LoginNameTaken from None
    await queries.insert_password(connection, account_id, password_hash, now=now)
    return account_id


async def begin(connection: Connection, *, context: str, browser: str, now: datetime) -> Session:
    """A session for `context` in the browser that will carry `browser`; the first browser has it for good."""
    opened = await session_queries.open_session(
        connection,
        session_id=new_id(now),
        context_hash=sha256(context),
        browser_hash=sha256(browser),
        expires_at=now + SESSION_LIFE,
        now=now,
    )
    if opened is None:
        raise LoginOver
    return opened


async def find(connection: Connection, *, context: str, browser: str, now: datetime) -> Session:
    """The session for `context`, for the browser it began in."""
    found = await session_queries.find_session(
        connection, context_hash=sha256(context), browser_hash=sha256(browser), now=now
    )
    if found is None:
        raise LoginOver
    return found


async def try_password(
    connection: Connection,
    *,
    login: str,
    device_secret: str | None,
    address: str,
    vault: Vault,
    now: datetime,
) -> Trial | Step:
    """Count the attempt and find what to compare with; commit this before looking at the password.

    A bound device of the account counts for itself alone: neither strangers' guesses at the name nor those of others in
    the same network lock the member out.
    """
    name_index = vault.blind_index("login-name", login_name(login))
    stored = await queries.find_password(connection, name_index)
    device = await find_device(connection, device_secret, now=now)
    counted: tuple[attempts.Counted, ...]
    if stored is not None and device is not None and device.account_id == stored.account_id:
        counted = (attempts.of_device(device.id),)
    else:
        counted = (attempts.of_address(address, vault=vault), attempts.of_name(name_index))
    if not await attempts.count(connection, *counted, now=now):
        return Step.LOCKED
    if stored is None:
        return Trial(account_id=None, stored=None, counted=counted)
    return Trial(account_id=stored.account_id, stored=stored.hash, counted=counted)


async def pass_password(
    connection: Connection, session: Session, trial: Trial, verdict: Verdict, *, browser: str, now: datetime
) -> Session | Step:
    """What the look at the password came to; `browser` is the cookie from now on."""
    if not verdict.right or trial.account_id is None or trial.stored is None:
        return Step.WRONG
    passed = await session_queries.pass_password(
        connection, session.id, account_id=trial.account_id, browser_hash=sha256(browser), now=now
    )
    if passed is None:
        raise LoginOver
    await attempts.clear(connection, *trial.counted)
    if verdict.renewed is not None:
        await queries.renew_password(
            connection, trial.account_id, present=trial.stored, renewed=verdict.renewed, now=now
        )
    return passed


async def pass_second_factor(
    connection: Connection, session: Session, *, methods: list[str], browser: str, now: datetime
) -> Session:
    """The member has shown the second factor; `browser` is the cookie from now on."""
    passed = await session_queries.pass_second_factor(
        connection, session.id, methods=methods, browser_hash=sha256(browser), now=now
    )
    if passed is None:
        raise LoginOver
    return passed


async def finish(connection: Connection, session: Session, *, now: datetime) -> Authentication:
    """Who it is; ends the session, in the transaction that makes use of it."""
    ended = await session_queries.end_session(connection, session.id, now=now)
    account = ended and ended.account_id and await queries.find_account(connection, ended.account_id)
    if not ended or not account:
        raise LoginOver
    assert ended.authenticated_at is not None, "a session is done when the second factor was shown"
    return Authentication(member=account.member, at=ended.authenticated_at, methods=ended.methods)


async def give_up(connection: Connection, session: Session) -> None:
    """The member does not want to: at any stage."""
    await session_queries.give_up_session(connection, session.id)


async def find_device(connection: Connection, secret: str | None, *, now: datetime) -> Device | None:
    """The device whose cookie this is."""
    return await queries.find_device(connection, sha256(secret), now=now) if secret else None


async def bind_device(connection: Connection, *, account_id: UUID, secret: str, now: datetime) -> Device:
    """Know this browser again, after a complete login only; the oldest binding too many is given up."""
    device = Device(id=new_id(now), account_id=account_id)
    await queries.insert_device(
        connection, device, secret_hash=sha256(secret), ends_at=now + DEVICE_LIFE, now=now
    )
    await queries.revoke_old_devices(connection, account_id, keep=DEVICES_MAX, now=now)
    subject = to_wire("dev", device.id)
    record = AuditRecord(
        actor=f"account:{to_wire('lgn', account_id)}", action="login.device_bound", subject=subject, detail={}
    )
    await audit.append(connection, record, partner_id=None, now=now)
    return device


async def forget_old(connection: Connection, *, limit: int = 1_000, now: datetime) -> int:
    """Drop sessions, codes and counters that decide nothing any more; returns how many."""
    forgotten = await session_queries.forget_sessions(connection, before=now - SESSION_LIFE, limit=limit)
    return forgotten + await session_queries.forget_attempts(connection, before=now, limit=limit)
