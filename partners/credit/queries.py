"""Every statement on the credit tables."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any, Literal
from uuid import UUID

import msgspec
from msgspec import Struct

from kernel.caller import MemberRef
from kernel.database import Connection, read, read_if_any
from partners.credit.model import Application, Capture, Cause, Decision, Line, Plan, ScheduleRow

_PLAN = """
bucket, id, member_id, partner_id, application_id, state, terms, hold_id, total_fen, financed_fen, captured_fen,
refunded_fen, released_fen, reduced_fen, returned_fen, principal_paid_fen, interest_paid_fen, fee_paid_fen, rows_paid,
captures, schedule_version, entries, starts_on, authorised_at, authorised_until
"""

OPEN_LINE = """
INSERT INTO credit_line (bucket, member_id, limit_fen) VALUES ($1, $2, $3)
ON CONFLICT (bucket, member_id) DO NOTHING
"""

LOCK_LINE = "SELECT limit_fen, used_fen FROM credit_line WHERE bucket = $1 AND member_id = $2 FOR UPDATE"

MOVE_LINE = "UPDATE credit_line SET used_fen = used_fen + $3 WHERE bucket = $1 AND member_id = $2"

# Read through once: the day is remembered by whoever asked.
FIND_FIRST_DAY = "SELECT min(business_on) FROM credit_entry"

INSERT_APPLICATION = """
INSERT INTO credit_application (bucket, id, member_id, partner_id, quote_id, state, amount_fen, periods, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
"""

INSERT_DECISION = """
INSERT INTO credit_decision (bucket, application_id, outcome, reason_codes, limit_fen, used_fen, rule_version,
                             automated, decided_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, true, $8)
"""

FIND_APPLICATION = """
SELECT a.id, a.state, a.quote_id, a.amount_fen, a.periods, a.created_at, d.outcome, d.decided_at, p.id AS plan_id
  FROM credit_application AS a
  JOIN credit_decision AS d ON d.bucket = a.bucket AND d.application_id = a.id
  LEFT JOIN credit_plan AS p ON p.bucket = a.bucket AND p.application_id = a.id
 WHERE a.id = $1 AND a.partner_id = $2
"""

INSERT_PLAN = """
INSERT INTO credit_plan (bucket, id, member_id, partner_id, application_id, state, terms, hold_id, total_fen,
                         financed_fen, starts_on, authorised_at, authorised_until)
VALUES ($1, $2, $3, $4, $5, 'authorised', $6, $7, $8, $9, $10, $11, $12)
"""

FIND_PLAN = f"SELECT {_PLAN} FROM credit_plan WHERE id = $1 AND partner_id = $2"  # noqa: S608 - a constant list

LOCK_PLAN = f"SELECT {_PLAN} FROM credit_plan WHERE id = $1 AND partner_id = $2 FOR UPDATE"  # noqa: S608 - constant

LIST_LAPSED = f"""
SELECT {_PLAN}
  FROM credit_plan
 WHERE state = $1 AND state IN ('authorised', 'partially_captured') AND authorised_until <= $2
 ORDER BY authorised_until
 LIMIT $3
   FOR UPDATE SKIP LOCKED
"""  # noqa: S608 - a constant list

MOVE_PLAN = """
UPDATE credit_plan
   SET state = $4, captured_fen = $5, refunded_fen = $6, released_fen = $7, reduced_fen = $8, returned_fen = $9,
       principal_paid_fen = $10, interest_paid_fen = $11, fee_paid_fen = $12, rows_paid = $13, captures = $14,
       schedule_version = $15, entries = $16, starts_on = $17
 WHERE bucket = $1 AND id = $2 AND state = $3
RETURNING true
"""

INSERT_SCHEDULE = """
INSERT INTO credit_schedule_version (bucket, plan_id, version, cause, principal_fen, created_at)
VALUES ($1, $2, $3, $4, $5, $6)
"""

INSERT_SCHEDULE_ROWS = """
INSERT INTO credit_schedule_row (bucket, plan_id, version, no, due_on, anchor_on, principal_fen, interest_fen,
                                 fee_fen, due_fen)
SELECT $1, $2, $3, r.no, r.due_on, r.anchor_on, r.principal_fen, r.interest_fen, r.fee_fen, r.due_fen
  FROM unnest($4::int[], $5::date[], $6::date[], $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[])
       AS r (no, due_on, anchor_on, principal_fen, interest_fen, fee_fen, due_fen)
"""

LIST_SCHEDULE_ROWS = """
SELECT no, due_on, anchor_on, principal_fen, interest_fen, fee_fen, due_fen
  FROM credit_schedule_row
 WHERE bucket = $1 AND plan_id = $2 AND version = $3 AND no > $4
 ORDER BY no
"""

LIST_SCHEDULE_VERSIONS = """
SELECT version, cause, principal_fen, created_at
  FROM credit_schedule_version
 WHERE bucket = $1 AND plan_id = $2
 ORDER BY version
"""

INSERT_CAPTURE = """
INSERT INTO credit_capture (bucket, plan_id, no, id, amount_fen, earn_operation_id, points_earned, captured_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
"""

LIST_CAPTURES = """
SELECT id, no, amount_fen, earn_operation_id, points_earned, captured_at
  FROM credit_capture
 WHERE bucket = $1 AND plan_id = $2
 ORDER BY no
"""

FIND_REFUND = "SELECT id FROM credit_refund WHERE bucket = $1 AND plan_id = $2 AND refund_ref = $3"

INSERT_REFUND = """
INSERT INTO credit_refund (bucket, plan_id, refund_ref, id, amount_fen, statement, refunded_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)
"""

INSERT_REPAYMENT = """
INSERT INTO credit_repayment (bucket, plan_id, no, id, principal_fen, interest_fen, fee_fen, paid_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
"""

INSERT_ENTRIES = """
INSERT INTO credit_entry (bucket, plan_id, seq, operation_id, kind, debit_account, credit_account, amount_fen, funder,
                          partner_id, business_on, recorded_at)
SELECT $1, $2, $3 + e.at, $4, e.kind, e.debit, e.credit, e.amount_fen, e.funder, $10, $11, $12
  FROM unnest($5::text[], $6::text[], $7::text[], $8::bigint[], $9::text[])
       WITH ORDINALITY AS e (kind, debit, credit, amount_fen, funder, at)
"""


class CreditLine(Struct, frozen=True, kw_only=True):
    """A member's limit and how much of it is in use."""

    limit_fen: int
    used_fen: int


class ScheduleVersion(Struct, frozen=True, kw_only=True):
    """One schedule of a plan; the latest is the current one."""

    version: int
    #: what made it
    cause: Cause
    #: principal it repays
    principal_fen: int
    created_at: datetime


async def find_first_day(connection: Connection) -> date | None:
    found: date | None = await connection.fetchval(FIND_FIRST_DAY)
    return found


async def lock_line(connection: Connection, member: MemberRef, *, limit_fen: int) -> CreditLine:
    """The member's line, opened at `limit_fen` if new; decisions about one member follow one another from here."""
    await connection.execute(OPEN_LINE, member.bucket, member.member_id, limit_fen)
    return read(await connection.fetchrow(LOCK_LINE, member.bucket, member.member_id), CreditLine)


async def move_line(connection: Connection, member: MemberRef, *, by_fen: int) -> None:
    """Use more of the line, or give some back; the schema refuses to pass the limit or zero."""
    if by_fen:
        await connection.execute(MOVE_LINE, member.bucket, member.member_id, by_fen)


async def insert_application(
    connection: Connection,
    *,
    application_id: UUID,
    member: MemberRef,
    partner_id: UUID,
    quote_id: UUID,
    amount_fen: int,
    periods: int,
    decision: Decision,
    rule_version: str,
    now: datetime,
) -> None:
    """The application and its decision, which has the application's state as its outcome."""
    await connection.execute(
        INSERT_APPLICATION,
        member.bucket,
        application_id,
        member.member_id,
        partner_id,
        quote_id,
        decision.outcome,
        amount_fen,
        periods,
        now,
    )
    await connection.execute(
        INSERT_DECISION,
        member.bucket,
        application_id,
        decision.outcome,
        decision.reason_codes,
        decision.limit_fen,
        decision.used_fen,
        rule_version,
        now,
    )


async def find_application(
    connection: Connection, application_id: UUID, *, partner_id: UUID
) -> Application | None:
    return read_if_any(await connection.fetchrow(FIND_APPLICATION, application_id, partner_id), Application)


async def insert_plan(connection: Connection, plan: Plan) -> None:
    """An authorised plan; its running totals begin at zero."""
    await connection.execute(
        INSERT_PLAN,
        plan.bucket,
        plan.id,
        plan.member_id,
        plan.partner_id,
        plan.application_id,
        plan.terms,
        plan.hold_id,
        plan.total_fen,
        plan.financed_fen,
        plan.starts_on,
        plan.authorised_at,
        plan.authorised_until,
    )


async def find_plan(connection: Connection, plan_id: UUID, *, partner_id: UUID) -> Plan | None:
    return read_if_any(await connection.fetchrow(FIND_PLAN, plan_id, partner_id), Plan)


async def lock_plan(connection: Connection, plan_id: UUID, *, partner_id: UUID) -> Plan | None:
    """The plan, and nobody else captures, refunds or voids it until commit."""
    return read_if_any(await connection.fetchrow(LOCK_PLAN, plan_id, partner_id), Plan)


async def list_lapsed(
    connection: Connection,
    state: Literal["authorised", "partially_captured"],
    *,
    limit: int,
    now: datetime,
) -> list[Plan]:
    """Authorisations past their time, the oldest first, so that none waits behind newer ones."""
    return [read(record, Plan) for record in await connection.fetch(LIST_LAPSED, state, now, limit)]


async def move_plan(connection: Connection, plan: Plan, *, present: str) -> None:
    """Write the plan's totals and state, if it is still in the state in which it was locked."""
    moved = await connection.fetchval(
        MOVE_PLAN,
        plan.bucket,
        plan.id,
        present,
        plan.state,
        plan.captured_fen,
        plan.refunded_fen,
        plan.released_fen,
        plan.reduced_fen,
        plan.returned_fen,
        plan.principal_paid_fen,
        plan.interest_paid_fen,
        plan.fee_paid_fen,
        plan.rows_paid,
        plan.captures,
        plan.schedule_version,
        plan.entries,
        plan.starts_on,
    )
    assert moved, "a locked plan does not move under our hands"


async def insert_schedule(
    connection: Connection, plan: Plan, rows: Sequence[ScheduleRow], *, cause: Cause, now: datetime
) -> None:
    """The plan's current schedule, under the plan's schedule number."""
    principal_fen = sum(row.principal_fen for row in rows)
    await connection.execute(
        INSERT_SCHEDULE, plan.bucket, plan.id, plan.schedule_version, cause, principal_fen, now
    )
    await connection.execute(
        INSERT_SCHEDULE_ROWS,
        plan.bucket,
        plan.id,
        plan.schedule_version,
        [row.no for row in rows],
        [row.due_on for row in rows],
        [row.anchor_on for row in rows],
        [row.principal_fen for row in rows],
        [row.interest_fen for row in rows],
        [row.fee_fen for row in rows],
        [row.due_fen for row in rows],
    )


async def list_schedule_rows(connection: Connection, plan: Plan) -> list[ScheduleRow]:
    """The instalments still to come, in the order in which they fall due."""
    records = await connection.fetch(
        LIST_SCHEDULE_ROWS, plan.bucket, plan.id, plan.schedule_version, plan.rows_paid
    )
    return [read(record, ScheduleRow) for record in records]


async def list_schedule_versions(connection: Connection, plan: Plan) -> list[ScheduleVersion]:
    """Every schedule the plan has had, oldest first."""
    records = await connection.fetch(LIST_SCHEDULE_VERSIONS, plan.bucket, plan.id)
    return [read(record, ScheduleVersion) for record in records]


async def insert_capture(connection: Connection, plan: Plan, capture: Capture) -> None:
    await connection.execute(
        INSERT_CAPTURE,
        plan.bucket,
        plan.id,
        capture.no,
        capture.id,
        capture.amount_fen,
        capture.earn_operation_id,
        capture.points_earned,
        capture.captured_at,
    )


async def list_captures(connection: Connection, plan: Plan) -> list[Capture]:
    """Oldest first: refunds undo them in this order."""
    return [read(record, Capture) for record in await connection.fetch(LIST_CAPTURES, plan.bucket, plan.id)]


async def find_refund(connection: Connection, plan: Plan, refund_ref: str) -> UUID | None:
    found: UUID | None = await connection.fetchval(FIND_REFUND, plan.bucket, plan.id, refund_ref)
    return found


async def insert_refund(
    connection: Connection,
    plan: Plan,
    *,
    refund_id: UUID,
    refund_ref: str,
    amount_fen: int,
    statement: Any,
    now: datetime,
) -> None:
    await connection.execute(
        INSERT_REFUND,
        plan.bucket,
        plan.id,
        refund_ref,
        refund_id,
        amount_fen,
        msgspec.to_builtins(statement),
        now,
    )


async def insert_repayment(
    connection: Connection, plan: Plan, row: ScheduleRow, *, repayment_id: UUID, now: datetime
) -> None:
    await connection.execute(
        INSERT_REPAYMENT,
        plan.bucket,
        plan.id,
        row.no,
        repayment_id,
        row.principal_fen,
        row.interest_fen,
        row.fee_fen,
        now,
    )


async def insert_entries(
    connection: Connection,
    plan: Plan,
    lines: Sequence[Line],
    *,
    operation_id: UUID,
    business_on: date,
    now: datetime,
) -> None:
    """Journal lines numbered on from the entries the plan has already."""
    if not lines:
        return
    await connection.execute(
        INSERT_ENTRIES,
        plan.bucket,
        plan.id,
        plan.entries,
        operation_id,
        [line.kind for line in lines],
        [line.debit for line in lines],
        [line.credit for line in lines],
        [line.amount_fen for line in lines],
        [line.funder for line in lines],
        plan.partner_id,
        business_on,
        now,
    )
