"""Second factors that are typed: one-time codes that are sent, and codes of an authenticator app."""

import hmac
import secrets
from datetime import datetime

from kernel.database import Connection
from kernel.vault import Vault, sha256
from partners.login import attempts, queries, service, session_queries
from partners.login.delivery import CodeMessage, CodeSender
from partners.login.model import Account, Factors, Session, Step
from partners.login.rules import (
    CODE_ATTEMPTS_MAX,
    CODE_DIGITS,
    CODE_LIFE,
    CODE_SENDS_MAX,
    totp_step,
    typed_code,
)


async def list_factors(
    connection: Connection, session: Session, *, sender: CodeSender | None, passkey: bool
) -> Factors:
    """What the member may show; `passkey`: whether this device has one."""
    account = await account_of(connection, session)
    return Factors(
        passkey=passkey,
        code=sender is not None,
        app=account.totp_sealed is not None,
        code_sent=await session_queries.has_code(connection, session.id),
    )


async def send_code(
    connection: Connection, session: Session, *, sender: CodeSender | None, vault: Vault, now: datetime
) -> Step:
    """A new code for the session, which makes the one before worthless."""
    account = await account_of(connection, session)
    if sender is None:
        return Step.UNAVAILABLE
    if not await attempts.count(connection, attempts.of_account("send", account.id), now=now):
        return Step.LOCKED
    code = f"{secrets.randbelow(10**CODE_DIGITS):0{CODE_DIGITS}}"
    replaced = await session_queries.set_code(
        connection,
        session.id,
        code_hash=_code_hash(session, code, vault),
        expires_at=now + CODE_LIFE,
        sends_max=CODE_SENDS_MAX,
        now=now,
    )
    if not replaced:
        return Step.LOCKED
    minutes = int(CODE_LIFE.total_seconds()) // 60
    message = CodeMessage(account_id=account.id, code=code, minutes=minutes)
    await sender.accept(connection, message, now=now)
    return Step.PASSED


async def try_code(
    connection: Connection, session: Session, *, code: str, browser: str, vault: Vault, now: datetime
) -> Session | Step:
    """One guess at the code that was sent; the right one is good once."""
    account = await account_of(connection, session)
    guessed = attempts.of_account("code", account.id)
    if not await attempts.count(connection, guessed, now=now):
        return Step.LOCKED
    right = await session_queries.try_code(
        connection,
        session.id,
        code_hash=_code_hash(session, typed_code(code), vault),
        attempts_max=CODE_ATTEMPTS_MAX,
        now=now,
    )
    if not right:
        return Step.SPENT if right is None else Step.WRONG
    await attempts.clear(connection, guessed)
    return await service.pass_second_factor(connection, session, methods=["otp"], browser=browser, now=now)


async def try_app_code(
    connection: Connection, session: Session, *, code: str, browser: str, vault: Vault, now: datetime
) -> Session | Step:
    """One guess at what the authenticator app shows (RFC 6238); a code that was used is wrong (§5.2)."""
    account = await account_of(connection, session)
    if account.totp_sealed is None:
        return Step.UNAVAILABLE
    guessed = attempts.of_account("app", account.id)
    if not await attempts.count(connection, guessed, now=now):
        return Step.LOCKED
    secret = vault.decrypt(
        account.totp_sealed, table=service.ACCOUNTS, column="totp_sealed", row=str(account.id)
    )
    step = totp_step(secret, typed_code(code), now)
    if step is None or not await queries.use_totp_step(connection, account.id, step):
        return Step.WRONG
    await attempts.clear(connection, guessed)
    return await service.pass_second_factor(connection, session, methods=["otp"], browser=browser, now=now)


async def account_of(connection: Connection, session: Session) -> Account:
    """Whose password was right in this session."""
    account = session.account_id and await queries.find_account(connection, session.account_id)
    if not account:
        raise service.LoginOver
    return account


def _code_hash(session: Session, code: str, vault: Vault) -> bytes:
    """Keyed: six digits would be found behind any plain hash at once."""
    return hmac.digest(vault.key("login-code"), sha256(session.id.bytes, code), "sha256")
