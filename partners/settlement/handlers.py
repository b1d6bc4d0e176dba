"""Settlement over HTTP: batches, their sums, and their lines as pages or as one file."""

from datetime import date, datetime
from typing import Any

from litestar import Request, Response, get
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery
from litestar.response import Stream
from msgspec import Struct

from kernel.caller import Caller
from kernel.database import Connection
from kernel.ids import from_wire, to_wire
from kernel.pages import CursorSeal, Page, check_limit
from partners.settlement import service
from partners.settlement.model import Batch, BatchState, Direction, Line, Source, Total
from partners.settlement.rules import wire_operation


class BatchSummary(Struct, frozen=True, kw_only=True):
    """One closed account between bank and partner."""

    id: str
    business_on: date
    sequence: int
    state: BatchState
    lines: int
    partner_owes_fen: int
    bank_owes_fen: int
    #: what the bank pays; below zero the partner pays
    net_fen: int
    closed_at: datetime | None


class BatchAnswer(BatchSummary, frozen=True, kw_only=True):
    """A batch with its sums by kind."""

    totals: list[Total]


class LineAnswer(Struct, frozen=True, kw_only=True):
    """One settled entry."""

    no: int
    source: Source
    entry_ref: str
    operation_id: str
    kind: str
    funder: str
    direction: Direction
    points: int
    amount_fen: int
    business_on: date
    recorded_at: datetime


@get("/v1/settlement_batches", scope="settlement:read", level="A1")
async def list_batches(
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    cursors: NamedDependency[CursorSeal],
    limit: FromQuery[int] = 20,
    cursor: FromQuery[str | None] = None,
) -> Page[BatchSummary]:
    """List settlement batches, newest first."""
    check_limit(limit)
    binding = f"settlement_batches:{caller.partner_id}"
    day, sequence = cursors.open(binding, cursor) if cursor else (date.max.isoformat(), 0)
    found = await service.list_batches(
        connection,
        partner_id=caller.partner_id,
        before=(date.fromisoformat(day), sequence),
        limit=limit + 1,
    )
    more = None
    if len(found) > limit:
        last = found[limit - 1]
        more = cursors.seal(binding, [last.business_on.isoformat(), last.sequence])
    return Page(data=[BatchSummary(**_batch(batch)) for batch in found[:limit]], next_cursor=more)


@get("/v1/settlement_batches/{batch_id:str}", scope="settlement:read", level="A1")
async def find_batch(
    batch_id: FromPath[str], connection: NamedDependency[Connection], caller: NamedDependency[Caller]
) -> BatchAnswer:
    """Show a settlement batch with its sums by kind."""
    batch, totals = await service.find_batch(
        connection, batch_id=from_wire("stb", batch_id), partner_id=caller.partner_id
    )
    return BatchAnswer(**_batch(batch), totals=totals)


@get("/v1/settlement_batches/{batch_id:str}/lines", scope="settlement:read", level="A1")
async def list_lines(
    batch_id: FromPath[str],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    cursors: NamedDependency[CursorSeal],
    request: Request[Any, Any, State],
    limit: FromQuery[int] = 100,
    cursor: FromQuery[str | None] = None,
) -> Response[Page[LineAnswer]] | Stream:
    """List a batch's lines: JSON in pages, or the whole batch as CSV with `Accept: text/csv`."""
    check_limit(limit)
    wanted = from_wire("stb", batch_id)
    if request.accept.best_match(["application/json", "text/csv"]) == "text/csv":
        await service.find_batch(connection, batch_id=wanted, partner_id=caller.partner_id)
        return Stream(
            service.stream_csv(connection, batch_id=wanted),
            media_type="text/csv; header=present",
            headers={"content-disposition": f'attachment; filename="{to_wire("stb", wanted)}.csv"'},
        )
    binding = f"settlement_lines:{caller.partner_id}:{batch_id}"
    found = await service.list_lines(
        connection,
        batch_id=wanted,
        partner_id=caller.partner_id,
        after=cursors.open(binding, cursor) if cursor else 0,
        limit=limit + 1,
    )
    more = cursors.seal(binding, found[limit - 1].no) if len(found) > limit else None
    return Response(Page(data=[_line(line) for line in found[:limit]], next_cursor=more))


def _batch(batch: Batch) -> dict[str, Any]:
    return {
        "id": to_wire("stb", batch.id),
        "business_on": batch.business_on,
        "sequence": batch.sequence,
        "state": batch.state,
        "lines": batch.lines,
        "partner_owes_fen": batch.partner_owes_fen,
        "bank_owes_fen": batch.bank_owes_fen,
        "net_fen": batch.net_fen,
        "closed_at": batch.closed_at,
    }


def _line(line: Line) -> LineAnswer:
    return LineAnswer(
        no=line.no,
        source=line.source,
        entry_ref=line.entry_ref,
        operation_id=wire_operation(line),
        kind=line.kind,
        funder=line.funder,
        direction=line.direction,
        points=line.points,
        amount_fen=line.amount_fen,
        business_on=line.business_on,
        recorded_at=line.recorded_at,
    )


routes = [list_batches, find_batch, list_lines]
