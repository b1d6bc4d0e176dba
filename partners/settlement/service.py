"""Closing what bank and partner owe each other, and showing it."""

from collections.abc import AsyncGenerator
from datetime import date, datetime
from uuid import UUID

import asyncpg

from kernel import audit, outbox
from kernel.audit import AuditRecord
from kernel.calendar import business_date
from kernel.database import Connection
from kernel.errors import Absent
from kernel.ids import new_id, to_wire
from partners.settlement import queries
from partners.settlement.model import Batch, Line, Total
from partners.settlement.rules import SettlementRuleMissing, check_day, write_csv

BUCKETS = 1024
CSV_CHUNK_LINES = 1_000
_NEWEST = (date.max, 0)


async def close_batch(connection: Connection, *, partner_id: UUID, business_on: date, now: datetime) -> Batch:
    """Settle everything of the partner recorded up to `business_on` and not settled yet.

    A second call for the same day settles what came in since, in a further batch; with nothing new it answers with
    the batch there is.
    """
    await queries.lock_partner(connection, partner_id=partner_id)
    latest = await queries.find_latest(connection, partner_id=partner_id)
    check_day(business_on, today=business_date(now), latest=latest.business_on if latest else None)
    again = latest if latest and latest.business_on == business_on else None
    savepoint = connection.transaction()
    await savepoint.start()
    batch_id = new_id(now)
    await queries.open_batch(
        connection,
        batch_id=batch_id,
        partner_id=partner_id,
        business_on=business_on,
        sequence=again.sequence + 1 if again else 1,
    )
    taken = await _take_lines(connection, batch_id=batch_id, partner_id=partner_id, business_on=business_on)
    if again is not None and not taken:
        await savepoint.rollback()
        return again
    batch = await queries.close_batch(connection, batch_id=batch_id, now=now)
    await savepoint.commit()
    await _tell(connection, batch, now=now)
    return batch


async def find_batch(
    connection: Connection, *, batch_id: UUID, partner_id: UUID
) -> tuple[Batch, list[Total]]:
    """The partner's own batch with its sums."""
    batch = await queries.find_batch(connection, batch_id=batch_id, partner_id=partner_id)
    if batch is None:
        raise Absent
    return batch, await queries.list_totals(connection, batch_id=batch_id)


async def list_batches(
    connection: Connection, *, partner_id: UUID, before: tuple[date, int] = _NEWEST, limit: int
) -> list[Batch]:
    """The partner's batches, newest first."""
    return await queries.list_batches(connection, partner_id=partner_id, before=before, limit=limit)


async def list_lines(
    connection: Connection, *, batch_id: UUID, partner_id: UUID, after: int = 0, limit: int
) -> list[Line]:
    """The lines of the partner's batch."""
    if await queries.find_batch(connection, batch_id=batch_id, partner_id=partner_id) is None:
        raise Absent
    return await queries.list_lines(connection, batch_id=batch_id, after=after, limit=limit)


async def stream_csv(connection: Connection, *, batch_id: UUID) -> AsyncGenerator[bytes, None]:
    """The lines as a file, a thousand at a time, so that a big batch needs no more memory than a small one."""
    after = 0
    while True:
        lines = await queries.list_lines(connection, batch_id=batch_id, after=after, limit=CSV_CHUNK_LINES)
        yield write_csv(lines, header=after == 0)
        if len(lines) < CSV_CHUNK_LINES:
            return
        after = lines[-1].no


async def _take_lines(connection: Connection, *, batch_id: UUID, partner_id: UUID, business_on: date) -> int:
    taken = 0
    try:
        for source in ("ledger", "credit"):
            taken += await queries.take_lines(
                connection,
                source,
                batch_id=batch_id,
                partner_id=partner_id,
                business_on=business_on,
                after=taken,
            )
    except asyncpg.NotNullViolationError as violation:
        assert violation.column_name == "direction"
        raise SettlementRuleMissing from None
    return taken


async def _tell(connection: Connection, batch: Batch, *, now: datetime) -> None:
    wire_id = to_wire("stb", batch.id)
    figures = {
        "business_on": batch.business_on.isoformat(),
        "sequence": batch.sequence,
        "lines": batch.lines,
        "partner_owes_fen": batch.partner_owes_fen,
        "bank_owes_fen": batch.bank_owes_fen,
        "net_fen": batch.net_fen,
    }
    event = outbox.Event(
        bucket=batch.partner_id.int % BUCKETS,
        partner_id=batch.partner_id,
        type="settlement.closed",
        aggregate=wire_id,
        payload={"id": wire_id, **figures},
    )
    await outbox.enqueue(connection, [event], now=now)
    record = AuditRecord(actor="job:settlement", action="settlement.close", subject=wire_id, detail=figures)
    await audit.append(connection, record, partner_id=batch.partner_id, now=now)
