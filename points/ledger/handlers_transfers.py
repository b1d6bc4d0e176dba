"""Transfers between members and exchanges between point types over HTTP."""

from datetime import datetime

from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from kernel.caller import Caller, Subjects
from kernel.database import Connection
from kernel.ids import from_wire, to_wire
from points.ledger import bodies, service
from points.ledger.bodies import ExchangeView, TransferView
from points.ledger.deeds import ExchangeRequest, Transfer, TransferRequest
from points.ledger.postings import SPEND


@post("/v1/points/transfers", scope=SPEND, idempotent=True, level="A2")
async def send_points(
    data: JSONBody[bodies.TransferRequest],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    subjects: NamedDependency[Subjects],
    now: NamedDependency[datetime],
) -> TransferView:
    """Give points of one member to another; they arrive within seconds."""
    sender = await subjects.resolve_one(connection, caller, data.from_, scope=SPEND, now=now)
    receiver = await subjects.resolve_one(connection, caller, data.to, scope=SPEND, now=now)
    request = TransferRequest(
        sender=sender,
        receiver=receiver,
        partner_id=caller.partner_id,
        points=data.points,
        transfer_ref=data.transfer_ref,
        point_type=await service.find_point_type(connection, data.point_type),
    )
    return _view(await service.send_points(connection, request, now=now))


@get("/v1/points/transfers/{id:str}", scope=SPEND, level="A1")
async def read_transfer(
    id: FromPath[str], connection: NamedDependency[Connection], caller: NamedDependency[Caller]
) -> TransferView:
    """Read a transfer."""
    transfer_id = from_wire("trf", id)
    return _view(
        await service.find_transfer(connection, transfer_id=transfer_id, partner_id=caller.partner_id)
    )


@post("/v1/points/exchanges", scope=SPEND, idempotent=True, level="A2")
async def exchange_points(
    data: JSONBody[bodies.ExchangeRequest],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    subjects: NamedDependency[Subjects],
    now: NamedDependency[datetime],
) -> ExchangeView:
    """Turn points of one type into points of another, at the rate that is in force."""
    request = ExchangeRequest(
        member=await subjects.resolve_one(connection, caller, data.member, scope=SPEND, now=now),
        partner_id=caller.partner_id,
        from_type=await service.find_point_type(connection, data.from_type),
        to_type=await service.find_point_type(connection, data.to_type),
        points=data.points,
        exchange_ref=data.exchange_ref,
    )
    done = await service.exchange_points(connection, request, now=now)
    left, gained = done.balances
    return ExchangeView(
        id=to_wire("ent", done.id),
        from_type=request.from_type.name,
        to_type=request.to_type.name,
        taken_points=done.taken_points,
        given_points=done.given_points,
        rate_numerator=done.rate.numerator,
        rate_denominator=done.rate.denominator,
        from_balance=left,
        to_balance=gained,
    )


def _view(transfer: Transfer) -> TransferView:
    return TransferView(
        id=to_wire("trf", transfer.id),
        state=transfer.state,
        points=transfer.points,
        transfer_ref=transfer.transfer_ref,
        sent_at=transfer.sent_at,
        ended_at=transfer.ended_at,
    )


routes = [send_points, read_transfer, exchange_points]
