"""The books as a file that anyone can verify: JSON Lines in one snapshot of the database, streamed.

docs/verify/tessera_verify.py reads it. Wallets come in key order, each with its entries and statements; after a bucket's
wallets come its house slots; the seals are last, so that a reader needs no more memory than one wallet. Members are
numbers here as in the ledger: the file has no personal data, and who a number is stays in the membership tables.
"""

import json
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from typing import Any, TextIO

import asyncpg

from kernel.calendar import rfc3339
from kernel.database import Connection

FORMAT = "tessera-books-1"
#: of entries fetched at a time
PREFETCH = 2_000
SECONDS = 600.0

PREPARE = """
SELECT set_config('statement_timeout', $1, true), set_config('enable_sort', 'off', true),
       set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true)
"""

READ_REFERENCE = """
SELECT (SELECT json_object_agg(code, json_build_object('name', name, 'nature', nature)) FROM ledger_account) AS accounts,
       (SELECT json_object_agg(id, json_build_object('code', code, 'kind', kind)) FROM ledger_funder) AS funders,
       (SELECT json_object_agg(code, json_build_object('name', name, 'value_fen_e6', value_fen_e6))
          FROM ledger_point_type) AS point_types,
       (SELECT json_object_agg(version, json_build_object('fen_per_point', fen_per_point)) FROM books_earning_rule)
           AS earning_rules,
       (SELECT max(business_on) FROM kernel_job_state
         WHERE job = 'statements' AND finished_at IS NOT NULL
           AND business_on + interval '1 month' <= $1::date + 1)
           AS statements_until,
       (SELECT max(business_on) FROM ledger_seal WHERE business_on <= $1) AS sealed_until
"""

# Every ORDER BY here is a primary key: the file is written as the indexes are read, and the parts are merged by it. A
# wallet as of a day is what its last entry of that day or before left.
STREAM_WALLETS = """
SELECT w.bucket, w.member_id, w.point_type, cut.seq, cut.available, cut.held, cut.pending, cut.arrears, cut.head_hash
  FROM ledger_wallet AS w
 CROSS JOIN LATERAL (
       SELECT w.seq, w.available_points AS available, w.held_points AS held, w.pending_points AS pending,
              w.arrears_points AS arrears, w.head_hash
        WHERE $1::date IS NULL
       UNION ALL
       (SELECT e.seq, e.available_after, e.held_after, e.pending_after, e.arrears_after, e.hash
          FROM ledger_entry AS e
         WHERE e.bucket = w.bucket AND e.member_id = w.member_id AND e.point_type = w.point_type
           AND e.business_on <= $1
         ORDER BY e.seq DESC
         LIMIT 1)) AS cut
 ORDER BY w.bucket, w.member_id, w.point_type
"""

STREAM_ENTRIES = """
SELECT bucket, member_id, point_type, seq, operation_id, debit_account, credit_account, points, funder_id, value_fen,
       available_after, held_after, pending_after, arrears_after, recorded_at, business_on, hash
  FROM ledger_entry
 ORDER BY bucket, member_id, point_type, seq
"""

STREAM_STATEMENTS = """
SELECT bucket, member_id, point_type, period, opening_points, earned_points, restored_points, spent_points,
       expired_points, clawed_points, repaid_points, closing_points, closing_held_points, opening_arrears_points,
       owed_points, closing_arrears_points, first_seq, last_seq, head_hash, adjusted_in_points, adjusted_out_points,
       transferred_in_points, transferred_out_points, exchanged_in_points, exchanged_out_points
  FROM ledger_statement
 WHERE $1::date IS NULL OR period + interval '1 month' <= $1::date + 1
 ORDER BY bucket, member_id, point_type, period
"""

STREAM_SLOTS = """
SELECT bucket, account, funder_id, point_type, business_on, debit_points, credit_points
  FROM ledger_house_slot
 WHERE $1::date IS NULL OR business_on <= $1
 ORDER BY bucket, account, funder_id, point_type, business_on
"""

STREAM_SEALS = """
SELECT lane, business_on, leaves, root, previous_hash, hash, signature, signing_jwk, sealed_at
  FROM ledger_seal
 WHERE $1::date IS NULL OR business_on <= $1
 ORDER BY lane, business_on
"""


class Parts:
    """One ordered stream, read up to a key at a time."""

    def __init__(self, records: AsyncIterator[asyncpg.Record], width: int) -> None:
        self._records = records
        self._width = width
        self._waiting: asyncpg.Record | None = None

    async def of(self, key: tuple[int, ...]) -> AsyncIterator[asyncpg.Record]:
        """The next records, as long as they begin with `key`; what lies before it belongs to nothing in the file."""
        while True:
            if self._waiting is None:
                self._waiting = await anext(self._records, None)
            if self._waiting is None:
                return
            found = tuple(self._waiting)[: self._width]
            if found > key:
                return
            record, self._waiting = self._waiting, None
            if found == key:
                yield record


class Lines:
    """The file, counted by kind of line."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.counted: Counter[str] = Counter()

    def write(self, kind: str, **fields: Any) -> None:
        self.counted[kind] += 1
        self._file.write(json.dumps({"type": kind, **fields}, separators=(",", ":"), default=_plain) + "\n")


async def export_books(
    connection: Connection, file: TextIO, *, until: date | None, now: datetime
) -> Counter[str]:
    """Write the books, up to the end of a business day or as they are; returns how many lines of each kind."""
    lines = Lines(file)
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        await connection.execute(PREPARE, f"{SECONDS:.0f}s")
        await _write_header(connection, lines, until, now)
        entries = Parts(_stream(connection, STREAM_ENTRIES), 3)
        statements = Parts(_stream(connection, STREAM_STATEMENTS, until), 3)
        slots = Parts(_stream(connection, STREAM_SLOTS, until), 1)
        bucket = -1
        async for wallet in _stream(connection, STREAM_WALLETS, until):
            for passed in range(bucket, wallet["bucket"]):
                await _write_slots(lines, slots, passed)
            bucket = wallet["bucket"]
            await _write_wallet(lines, wallet, entries, statements)
        for passed in range(bucket, 1024):
            await _write_slots(lines, slots, passed)
        async for seal in _stream(connection, STREAM_SEALS, until):
            lines.write("seal", **seal)
    counted = lines.counted.copy()
    lines.write("end", lines=counted)
    return counted


async def _write_header(connection: Connection, lines: Lines, until: date | None, now: datetime) -> None:
    found = await connection.fetchrow(READ_REFERENCE, until or date.max)
    assert found is not None, "a row of sums is always there"
    reference = {name: json.loads(found[name] or "{}") for name in list(found.keys())[:4]}
    lines.write(
        "header",
        format=FORMAT,
        exported_at=now,
        until=until or date.max,
        statements_until=found["statements_until"],
        sealed_until=found["sealed_until"],
        **reference,
    )


async def _write_wallet(lines: Lines, wallet: asyncpg.Record, entries: Parts, statements: Parts) -> None:
    key = (wallet["bucket"], wallet["member_id"], wallet["point_type"])
    lines.write("wallet", **{_NAMES.get(name, name): value for name, value in wallet.items()})
    async for entry in entries.of(key):
        if entry["seq"] <= wallet["seq"]:
            lines.write("entry", **named(entry))
    async for statement in statements.of(key):
        lines.write("statement", **named(statement))


async def _write_slots(lines: Lines, slots: Parts, bucket: int) -> None:
    async for slot in slots.of((bucket,)):
        lines.write("slot", bucket=bucket, **named(slot, skip=1))


#: the file's names are the ledger's without their units: every number in it is points, but for value_fen
_NAMES = {
    "member_id": "member",
    "operation_id": "operation",
    "debit_account": "debit",
    "credit_account": "credit",
    "funder_id": "funder",
}
_ENDINGS = ("_points", "_after")


def named(record: asyncpg.Record, *, skip: int = 3) -> dict[str, Any]:
    """The fields after the key."""
    fields = {}
    for name, value in list(record.items())[skip:]:
        for ending in _ENDINGS:
            name = name.removesuffix(ending)
        fields[_NAMES.get(name, name)] = value
    return fields


async def _stream(connection: Connection, statement: str, *arguments: Any) -> AsyncIterator[asyncpg.Record]:
    async for record in connection.cursor(statement, *arguments, prefetch=PREFETCH, timeout=SECONDS):
        yield record


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, datetime):
        return rfc3339(value.astimezone(UTC))
    if isinstance(value, date):
        return value.isoformat()
    return value.hex  # an operation's id
