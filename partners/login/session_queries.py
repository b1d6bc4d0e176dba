"""Every statement on sessions, their codes, attempts and the sandbox's messages."""

from datetime import datetime, timedelta
from uuid import UUID

from kernel.database import Connection, read_if_any
from partners.login.model import AttemptKind, Session

OPEN_SESSION = """
INSERT INTO login_session (id, context_hash, browser_hash, stage, started_at, expires_at)
VALUES ($1, $2, $3, 'new', $4, $5)
ON CONFLICT (context_hash) DO NOTHING
RETURNING id, stage, account_id, methods, expires_at, authenticated_at
"""

FIND_SESSION = """
SELECT id, stage, account_id, methods, expires_at, authenticated_at
  FROM login_session
 WHERE context_hash = $1 AND browser_hash = $2 AND stage <> 'ended' AND expires_at > $3
"""

# With the new stage comes a new cookie: one that was planted before the password is worth nothing after it. A form sent
# twice in a row was right twice: the second goes where the first went, with the cookie that the browser will keep.
PASS_PASSWORD = """
UPDATE login_session
   SET stage = 'password', account_id = $2, methods = ARRAY['pwd'], browser_hash = $3
 WHERE id = $1 AND (stage = 'new' OR stage = 'password' AND account_id = $2) AND expires_at > $4
RETURNING id, stage, account_id, methods, expires_at, authenticated_at
"""

PASS_SECOND_FACTOR = """
UPDATE login_session
   SET stage = 'done', methods = methods || $2::text[], browser_hash = $3, challenge = NULL, authenticated_at = $4
 WHERE id = $1 AND stage = 'password' AND expires_at > $4
RETURNING id, stage, account_id, methods, expires_at, authenticated_at
"""

END_SESSION = """
UPDATE login_session
   SET stage = 'ended', challenge = NULL
 WHERE id = $1 AND stage = 'done' AND expires_at > $2
RETURNING id, stage, account_id, methods, expires_at, authenticated_at
"""

GIVE_UP_SESSION = """
UPDATE login_session SET stage = 'ended', challenge = NULL WHERE id = $1 AND stage <> 'ended'
"""

SET_CHALLENGE = "UPDATE login_session SET challenge = $2 WHERE id = $1 AND stage IN ('password', 'done')"

# Locked before it is read, so that of two copies only one finds it.
TAKE_CHALLENGE = """
WITH present AS (
    SELECT id, challenge FROM login_session WHERE id = $1 AND challenge IS NOT NULL FOR UPDATE
)
UPDATE login_session AS s
   SET challenge = NULL
  FROM present
 WHERE s.id = present.id
RETURNING present.challenge
"""

SET_CODE = """
INSERT INTO login_code AS c (session_id, code_hash, sends, attempts, sent_at, expires_at)
VALUES ($1, $2, 1, 0, $3, $4)
ON CONFLICT (session_id) DO UPDATE
   SET code_hash = EXCLUDED.code_hash, sends = c.sends + 1, attempts = 0, sent_at = EXCLUDED.sent_at,
       expires_at = EXCLUDED.expires_at
 WHERE c.sends < $5 AND c.used_at IS NULL
RETURNING true
"""

# Counts, compares and uses up in one statement: a hundred copies at once are a hundred in a row.
TRY_CODE = """
UPDATE login_code
   SET attempts = attempts + 1, used_at = CASE WHEN code_hash = $2 THEN $3::timestamptz END
 WHERE session_id = $1 AND used_at IS NULL AND expires_at > $3 AND attempts < $4
RETURNING used_at IS NOT NULL
"""

HAS_CODE = "SELECT true FROM login_code WHERE session_id = $1 AND used_at IS NULL"

COUNT_ATTEMPT = """
INSERT INTO login_attempt AS a (kind, subject, attempts, window_ends_at)
VALUES ($1, $2, 1, $3::timestamptz + $4::interval)
ON CONFLICT (kind, subject) DO UPDATE
   SET attempts = CASE WHEN a.window_ends_at <= $3 THEN 1 ELSE a.attempts + 1 END,
       window_ends_at = CASE WHEN a.window_ends_at <= $3 THEN EXCLUDED.window_ends_at ELSE a.window_ends_at END
RETURNING attempts
"""

RETURN_ATTEMPT = (
    "UPDATE login_attempt SET attempts = greatest(attempts - 1, 0) WHERE kind = $1 AND subject = $2"
)

CLEAR_ATTEMPTS = "UPDATE login_attempt SET attempts = 0 WHERE kind = $1 AND subject = $2"

# In the order of their index: the oldest go first, and two workers meet at the same end.
FORGET_SESSIONS = """
DELETE FROM login_session
 WHERE id IN (SELECT id FROM login_session WHERE expires_at < $1 ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED)
"""

FORGET_ATTEMPTS = """
DELETE FROM login_attempt
 WHERE (kind, subject) IN (SELECT kind, subject FROM login_attempt WHERE window_ends_at < $1
                            ORDER BY window_ends_at LIMIT $2 FOR UPDATE SKIP LOCKED)
"""

INSERT_MESSAGE = "INSERT INTO login_message (id, account_id, text_sealed, sent_at) VALUES ($1, $2, $3, $4)"

# Newest first: the code somebody waits for is the first line.
LIST_MESSAGES = """
SELECT id, text_sealed, sent_at FROM login_message WHERE account_id = $1 ORDER BY id DESC LIMIT $2
"""

FORGET_MESSAGES = """
DELETE FROM login_message
 WHERE id IN (SELECT id FROM login_message WHERE account_id = $1 ORDER BY id DESC OFFSET $2)
"""


async def open_session(
    connection: Connection,
    *,
    session_id: UUID,
    context_hash: bytes,
    browser_hash: bytes,
    expires_at: datetime,
    now: datetime,
) -> Session | None:
    """None if there is a session for this context already."""
    record = await connection.fetchrow(OPEN_SESSION, session_id, context_hash, browser_hash, now, expires_at)
    return read_if_any(record, Session)


async def find_session(
    connection: Connection, *, context_hash: bytes, browser_hash: bytes, now: datetime
) -> Session | None:
    return read_if_any(await connection.fetchrow(FIND_SESSION, context_hash, browser_hash, now), Session)


async def pass_password(
    connection: Connection, session_id: UUID, *, account_id: UUID, browser_hash: bytes, now: datetime
) -> Session | None:
    record = await connection.fetchrow(PASS_PASSWORD, session_id, account_id, browser_hash, now)
    return read_if_any(record, Session)


async def pass_second_factor(
    connection: Connection, session_id: UUID, *, methods: list[str], browser_hash: bytes, now: datetime
) -> Session | None:
    record = await connection.fetchrow(PASS_SECOND_FACTOR, session_id, methods, browser_hash, now)
    return read_if_any(record, Session)


async def end_session(connection: Connection, session_id: UUID, *, now: datetime) -> Session | None:
    return read_if_any(await connection.fetchrow(END_SESSION, session_id, now), Session)


async def give_up_session(connection: Connection, session_id: UUID) -> None:
    await connection.execute(GIVE_UP_SESSION, session_id)


async def set_challenge(connection: Connection, session_id: UUID, challenge: bytes) -> None:
    await connection.execute(SET_CHALLENGE, session_id, challenge)


async def take_challenge(connection: Connection, session_id: UUID) -> bytes | None:
    """The challenge, for whoever comes first."""
    taken: bytes | None = await connection.fetchval(TAKE_CHALLENGE, session_id)
    return taken


async def set_code(
    connection: Connection,
    session_id: UUID,
    *,
    code_hash: bytes,
    expires_at: datetime,
    sends_max: int,
    now: datetime,
) -> bool:
    """False when the session has had all its codes, or used one."""
    return bool(await connection.fetchval(SET_CODE, session_id, code_hash, now, expires_at, sends_max))


async def try_code(
    connection: Connection, session_id: UUID, *, code_hash: bytes, attempts_max: int, now: datetime
) -> bool | None:
    """Whether it was right; None if there was no code left to guess at."""
    right: bool | None = await connection.fetchval(TRY_CODE, session_id, code_hash, now, attempts_max)
    return right


async def has_code(connection: Connection, session_id: UUID) -> bool:
    return bool(await connection.fetchval(HAS_CODE, session_id))


async def count_attempt(
    connection: Connection, kind: AttemptKind, subject: bytes, *, window: timedelta, now: datetime
) -> int:
    """How many there were in this window, with this one; the row is locked until commit."""
    return int(await connection.fetchval(COUNT_ATTEMPT, kind, subject, now, window))


async def return_attempt(connection: Connection, kind: AttemptKind, subject: bytes) -> None:
    await connection.execute(RETURN_ATTEMPT, kind, subject)


async def clear_attempts(connection: Connection, kind: AttemptKind, subject: bytes) -> None:
    await connection.execute(CLEAR_ATTEMPTS, kind, subject)


async def forget_sessions(connection: Connection, *, before: datetime, limit: int) -> int:
    status = await connection.execute(FORGET_SESSIONS, before, limit)
    return int(status.rpartition(" ")[2])


async def forget_attempts(connection: Connection, *, before: datetime, limit: int) -> int:
    status = await connection.execute(FORGET_ATTEMPTS, before, limit)
    return int(status.rpartition(" ")[2])


async def insert_message(
    connection: Connection, message_id: UUID, *, account_id: UUID, text_sealed: bytes, now: datetime
) -> None:
    await connection.execute(INSERT_MESSAGE, message_id, account_id, text_sealed, now)


async def list_messages(
    connection: Connection, account_id: UUID, *, limit: int
) -> list[tuple[UUID, bytes, datetime]]:
    records = await connection.fetch(LIST_MESSAGES, account_id, limit)
    return [(record["id"], record["text_sealed"], record["sent_at"]) for record in records]


async def forget_messages(connection: Connection, account_id: UUID, *, keep: int) -> None:
    await connection.execute(FORGET_MESSAGES, account_id, keep)
