"""Same key, same answer: the record of a request commits with its effect.

The answer is kept sealed, a long one compressed: it may hold what only the caller was to see, such as a new secret.

`begin` waits (bounded by lock_timeout) for a request in flight under the same key, so parallel copies of one request
get one effect and equal answers. A refused request leaves no record: nothing happened, it may be tried again.
"""

import zlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

import asyncpg
from msgspec import Struct

from kernel.calendar import start_of_day
from kernel.database import Connection, read_if_any
from kernel.errors import Conflict, Malformed, Unprocessable
from kernel.jobs import Job, Run, Step
from kernel.vault import Vault, sha256

KEY_LENGTH_MAX = 255
TABLE = "kernel_idempotency"
#: answers up to this size are not deflated
PLAIN_MAX = 1_024


class IdempotencyKeyMissing(Malformed):
    """This call moves value, so it needs an Idempotency-Key header of 1 to 255 visible ASCII characters."""


class IdempotencyKeyReused(Unprocessable):
    """The Idempotency-Key was used before with another request."""


class IdempotencyInProgress(Conflict):
    """A request with this Idempotency-Key is still being worked on; repeat in a moment."""


class KeyedRequest(Struct, frozen=True, kw_only=True):
    """A request and the key it came under."""

    app_id: UUID
    key_hash: bytes
    fingerprint: bytes

    @property
    def row(self) -> str:
        """The record's own name, to which its answer is sealed."""
        return f"{self.app_id}:{self.key_hash.hex()}"


class StoredAnswer(Struct, frozen=True, kw_only=True):
    """The answer the first request got."""

    status: int
    body: bytes


class AnsweredBefore(Exception):
    """The request was answered before: the stored answer is to be given again. Raised where many are posted together."""

    def __init__(self, answer: StoredAnswer) -> None:
        super().__init__("answered before")
        self.answer = answer


class _Record(Struct, frozen=True, kw_only=True):
    """The answer as it is kept."""

    fingerprint: bytes
    status: int
    #: sealed for its own row; deflated when it is long
    body: bytes


BEGIN = "SELECT * FROM kernel_idempotency_begin($1, $2)"

# Only those that are not simply new, by their place in the arrays.
BEGIN_EACH = "SELECT * FROM kernel_idempotency_begin_each($1, $2)"

REMEMBER = """
INSERT INTO kernel_idempotency (app_id, key_hash, fingerprint, status, body, created_at)
SELECT answered.*, $6
  FROM unnest($1::uuid[], $2::bytea[], $3::bytea[], $4::smallint[], $5::bytea[]) AS answered
"""

#: how long an answer is kept under its key; settlement disputes take longer than a day
KEPT = timedelta(days=90)
#: of answers dropped in one transaction
FORGET_ROWS = 2_000

FORGET_OLD = """
DELETE FROM kernel_idempotency
 WHERE (app_id, key_hash) IN (SELECT app_id, key_hash FROM kernel_idempotency WHERE created_at < $1 LIMIT $2)
"""


def check_key(key: str | None) -> str:
    """The key as sent, bare or as a quoted structured-field string."""
    bare = (key or "").strip().removeprefix('"').removesuffix('"')
    if not 0 < len(bare) <= KEY_LENGTH_MAX or not all("!" <= character <= "~" for character in bare):
        raise IdempotencyKeyMissing
    return bare


def keyed(*, app_id: UUID, key: str, fingerprint: bytes) -> KeyedRequest:
    """A request under the key it was sent with."""
    return KeyedRequest(app_id=app_id, key_hash=sha256(key), fingerprint=fingerprint)


def fingerprint(method: str, path: str, body: bytes) -> bytes:
    """What makes two requests the same: method, path and the client's bytes."""
    return sha256(method, path, body)


async def begin(connection: Connection, request: KeyedRequest, *, vault: Vault) -> StoredAnswer | None:
    """The stored answer if this request was answered before; None if it is new, and then it is ours until commit."""
    try:
        found = await connection.fetchrow(BEGIN, request.app_id, request.key_hash)
    except asyncpg.LockNotAvailableError:
        raise IdempotencyInProgress from None
    record = read_if_any(found, _Record)
    return None if record is None else _open(record, request, vault)


async def begin_each(
    connection: Connection, requests: Sequence[KeyedRequest], *, vault: Vault
) -> dict[int, StoredAnswer | IdempotencyKeyReused | IdempotencyInProgress]:
    """`begin` for many without waiting; what is not new, by place. No two of `requests` have the same key."""
    records = await connection.fetch(
        BEGIN_EACH, [request.app_id for request in requests], [request.key_hash for request in requests]
    )
    found: dict[int, StoredAnswer | IdempotencyKeyReused | IdempotencyInProgress] = {}
    for place, locked, mark, status, body in records:
        request = requests[place - 1]
        if not locked:
            found[place - 1] = IdempotencyInProgress()
            continue
        try:
            found[place - 1] = _open(_Record(fingerprint=mark, status=status, body=body), request, vault)
        except IdempotencyKeyReused as refusal:
            found[place - 1] = refusal
    return found


async def remember_each(
    connection: Connection,
    answered: Sequence[tuple[KeyedRequest, StoredAnswer]],
    *,
    vault: Vault,
    now: datetime,
) -> None:
    """Keep many answers in one statement, in the transaction of their effects."""
    if not answered:
        return
    await connection.execute(
        REMEMBER,
        [request.app_id for request, _ in answered],
        [request.key_hash for request, _ in answered],
        [request.fingerprint for request, _ in answered],
        [answer.status for _, answer in answered],
        [_close(request, answer, vault) for request, answer in answered],
        now,
    )


async def _forget_next(connection: Connection, run: Run, now: datetime) -> Step:
    before = start_of_day(run.business_on + timedelta(days=1)) - KEPT
    forgotten = await forget_old(connection, before=before, limit=FORGET_ROWS)
    return Step(done=forgotten, cursor=None if forgotten < FORGET_ROWS else before.isoformat())


#: drops what was too old at the end of the business date
FORGETTING = Job(name="forget_answers", lanes=1, step=_forget_next)


async def forget_old(connection: Connection, *, before: datetime, limit: int = 1_000) -> int:
    """Drop records older than the contract keeps them; returns how many."""
    result = await connection.execute(FORGET_OLD, before, limit)
    return int(result.rpartition(" ")[2])


def _open(record: _Record, request: KeyedRequest, vault: Vault) -> StoredAnswer:
    if record.fingerprint != request.fingerprint:
        raise IdempotencyKeyReused
    packed = vault.unseal(record.body, table=TABLE, column="body", row=request.row)
    return StoredAnswer(status=record.status, body=_unpack(packed))


def _close(request: KeyedRequest, answer: StoredAnswer, vault: Vault) -> bytes:
    return vault.seal(_pack(answer.body), table=TABLE, column="body", row=request.row)


def _pack(body: bytes) -> bytes:
    """A short answer as it is behind a zero byte, which zlib never begins with: to deflate it costs more than to keep it."""
    return b"\0" + body if len(body) <= PLAIN_MAX else zlib.compress(body, 1)


def _unpack(packed: bytes) -> bytes:
    return packed[1:] if packed.startswith(b"\0") else zlib.decompress(packed)
