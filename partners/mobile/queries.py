"""Every statement on the bank's apps, their logins, sessions and refresh tokens."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from kernel.database import Connection, read, read_if_any
from partners.mobile.model import App, CodedLogin, EndReason, Login, LoginDocument, Refresh, Session

INSERT_APP = """
INSERT INTO mobile_app (client_id, name_zh, name_en, redirect_uris, scopes, status, registered_at)
VALUES ($1, $2, $3, $4, $5, 'active', $6)
"""

FIND_APP = """
SELECT client_id, name_zh, name_en, redirect_uris, scopes, status FROM mobile_app WHERE client_id = $1
"""

# By age, as people registered them.
LIST_APPS = """
SELECT client_id, name_zh, name_en, redirect_uris, scopes, status FROM mobile_app ORDER BY registered_at, client_id
"""

SET_APP_STATUS = "UPDATE mobile_app SET status = $2 WHERE client_id = $1 RETURNING true"

INSERT_LOGIN = """
INSERT INTO mobile_login (id, client_id, handle_hash, state, document, started_at, expires_at)
VALUES ($1, $2, $3, 'open', $4, $5, $6)
"""

FIND_LOGIN = """
SELECT id, client_id, document, expires_at FROM mobile_login WHERE handle_hash = $1 AND state = 'open' AND expires_at > $2
"""

# The one statement that decides: of many answers to a page the first counts.
APPROVE_LOGIN = """
UPDATE mobile_login
   SET state = 'approved', code_hash = $2, code_expires_at = $3, member_id = $4, bucket = $5, authenticated_at = $6,
       methods = $7
 WHERE id = $1 AND state = 'open' AND expires_at > $8
RETURNING true
"""

DENY_LOGIN = """
UPDATE mobile_login SET state = 'denied' WHERE id = $1 AND state = 'open' AND expires_at > $2 RETURNING true
"""

FIND_CODE = """
SELECT id, client_id, state, document, code_expires_at, member_id, bucket, authenticated_at, methods
  FROM mobile_login
 WHERE code_hash = $1
"""

# The one statement that decides which exchange of a code succeeds.
USE_CODE = "UPDATE mobile_login SET state = 'used' WHERE id = $1 AND state = 'approved' RETURNING true"

FORGET_LOGINS = """
DELETE FROM mobile_login WHERE id IN (SELECT id FROM mobile_login WHERE started_at < $1 LIMIT 10000)
"""

# Anybody may begin a login, so what nobody completed goes soon.
FORGET_UNANSWERED = """
DELETE FROM mobile_login
 WHERE id IN (SELECT id FROM mobile_login WHERE started_at < $1 AND state IN ('open', 'denied') LIMIT 100000)
"""

INSERT_SESSION = """
INSERT INTO mobile_session (id, client_id, member_id, bucket, jkt, scopes, authenticated_at, methods, started_at,
                            refreshed_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9)
"""

FIND_SESSION = """
SELECT id, client_id, member_id, bucket, jkt, scopes, authenticated_at, methods, refreshed_at, ended_at
  FROM mobile_session
 WHERE id = $1
"""

FIND_STANDING_SESSION = """
SELECT s.id, s.client_id, s.member_id, s.bucket, s.jkt, s.scopes, s.authenticated_at, s.methods, s.refreshed_at,
       s.ended_at
  FROM mobile_session AS s
  JOIN mobile_app AS a ON a.client_id = s.client_id
 WHERE s.id = $1 AND s.ended_at IS NULL AND a.status = 'active'
"""

REFRESH_SESSION = "UPDATE mobile_session SET refreshed_at = greatest(refreshed_at, $2) WHERE id = $1"

END_SESSION = """
UPDATE mobile_session SET ended_at = $2, ended_because = $3 WHERE id = $1 AND ended_at IS NULL RETURNING true
"""

# The newest are kept.
END_OLD_SESSIONS = """
UPDATE mobile_session
   SET ended_at = $3, ended_because = 'replaced'
 WHERE id IN (SELECT id
                FROM mobile_session
               WHERE member_id = $1 AND ended_at IS NULL
               ORDER BY started_at DESC, id DESC
              OFFSET $2)
"""

FORGET_SESSIONS = """
DELETE FROM mobile_session WHERE id IN (SELECT id FROM mobile_session WHERE refreshed_at < $1 LIMIT 10000)
"""

INSERT_REFRESH = """
INSERT INTO mobile_refresh (token_hash, session_id, generation, issued_at) VALUES ($1, $2, $3, $4)
"""

FIND_REFRESH = "SELECT session_id, generation, used_at FROM mobile_refresh WHERE token_hash = $1"

# The one statement that decides which of many copies makes the successor.
USE_REFRESH = (
    "UPDATE mobile_refresh SET used_at = $2 WHERE token_hash = $1 AND used_at IS NULL RETURNING true"
)

FORGET_REFRESH = """
DELETE FROM mobile_refresh WHERE token_hash IN (SELECT token_hash FROM mobile_refresh WHERE used_at < $1 LIMIT 10000)
"""


async def insert_app(connection: Connection, app: App, *, now: datetime) -> None:
    await connection.execute(
        INSERT_APP, app.client_id, app.name_zh, app.name_en, app.redirect_uris, app.scopes, now
    )


async def find_app(connection: Connection, client_id: str) -> App | None:
    return read_if_any(await connection.fetchrow(FIND_APP, client_id), App)


async def list_apps(connection: Connection) -> list[App]:
    return [read(record, App) for record in await connection.fetch(LIST_APPS)]


async def set_app_status(connection: Connection, client_id: str, status: str) -> bool:
    return bool(await connection.fetchval(SET_APP_STATUS, client_id, status))


async def insert_login(
    connection: Connection,
    *,
    login_id: UUID,
    client_id: str,
    handle_hash: bytes,
    document: LoginDocument,
    expires_at: datetime,
    now: datetime,
) -> None:
    await connection.execute(INSERT_LOGIN, login_id, client_id, handle_hash, document, now, expires_at)


async def find_login(connection: Connection, handle_hash: bytes, *, now: datetime) -> Login | None:
    return read_if_any(await connection.fetchrow(FIND_LOGIN, handle_hash, now), Login)


async def approve_login(
    connection: Connection,
    login_id: UUID,
    *,
    code_hash: bytes,
    code_expires_at: datetime,
    member_id: int,
    bucket: int,
    authenticated_at: datetime,
    methods: Sequence[str],
    now: datetime,
) -> bool:
    """False if it was answered before, or too late."""
    approved = await connection.fetchval(
        APPROVE_LOGIN,
        login_id,
        code_hash,
        code_expires_at,
        member_id,
        bucket,
        authenticated_at,
        methods,
        now,
    )
    return bool(approved)


async def deny_login(connection: Connection, login_id: UUID, *, now: datetime) -> bool:
    """False if it was answered before, or too late."""
    return bool(await connection.fetchval(DENY_LOGIN, login_id, now))


async def find_code(connection: Connection, code_hash: bytes) -> CodedLogin | None:
    return read_if_any(await connection.fetchrow(FIND_CODE, code_hash), CodedLogin)


async def use_code(connection: Connection, login_id: UUID) -> bool:
    """True for one caller, whoever else holds a copy."""
    return bool(await connection.fetchval(USE_CODE, login_id))


async def forget_logins(connection: Connection, *, before: datetime) -> None:
    await connection.execute(FORGET_LOGINS, before)


async def forget_unanswered(connection: Connection, *, before: datetime) -> None:
    await connection.execute(FORGET_UNANSWERED, before)


async def insert_session(connection: Connection, login: CodedLogin, *, jkt: str, now: datetime) -> None:
    """It takes the login's id, so that a code that comes a second time finds what came of it."""
    await connection.execute(
        INSERT_SESSION,
        login.id,
        login.client_id,
        login.member_id,
        login.bucket,
        jkt,
        login.document.scopes,
        login.authenticated_at,
        login.methods,
        now,
    )


async def find_session(connection: Connection, session_id: UUID) -> Session | None:
    return read_if_any(await connection.fetchrow(FIND_SESSION, session_id), Session)


async def find_standing_session(connection: Connection, session_id: UUID) -> Session | None:
    """Unless it has ended, or its app was switched off."""
    return read_if_any(await connection.fetchrow(FIND_STANDING_SESSION, session_id), Session)


async def refresh_session(connection: Connection, session_id: UUID, *, now: datetime) -> None:
    await connection.execute(REFRESH_SESSION, session_id, now)


async def end_session(connection: Connection, session_id: UUID, *, because: EndReason, now: datetime) -> bool:
    """False if it had ended before."""
    return bool(await connection.fetchval(END_SESSION, session_id, now, because))


async def end_old_sessions(connection: Connection, member_id: int, *, keep: int, now: datetime) -> None:
    await connection.execute(END_OLD_SESSIONS, member_id, keep, now)


async def forget_sessions(connection: Connection, *, before: datetime) -> None:
    await connection.execute(FORGET_SESSIONS, before)


async def insert_refresh(
    connection: Connection, token_hash: bytes, *, session_id: UUID, generation: int, now: datetime
) -> None:
    await connection.execute(INSERT_REFRESH, token_hash, session_id, generation, now)


async def find_refresh(connection: Connection, token_hash: bytes) -> Refresh | None:
    return read_if_any(await connection.fetchrow(FIND_REFRESH, token_hash), Refresh)


async def use_refresh(connection: Connection, token_hash: bytes, *, now: datetime) -> bool:
    """True for one caller, whoever else holds a copy."""
    return bool(await connection.fetchval(USE_REFRESH, token_hash, now))


async def forget_refresh(connection: Connection, *, before: datetime) -> None:
    await connection.execute(FORGET_REFRESH, before)
