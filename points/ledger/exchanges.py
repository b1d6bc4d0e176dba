"""Exchanges: points of one type for points of another, at the rate that is stored, in one transaction."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import asyncpg
from msgspec.structs import replace

from kernel import audit
from kernel.database import Connection
from kernel.errors import Conflict, Refusal, Unprocessable
from kernel.ids import to_wire
from kernel.outbox import Event, enqueue
from points.ledger import exchange_queries, queries
from points.ledger.balances import read_balance
from points.ledger.deeds import Exchange, ExchangeRate, ExchangeRequest, TargetLot
from points.ledger.journal import Journal
from points.ledger.model import Account, PointType, Take, wallet_ref
from points.ledger.picking import pick_lots


class ExchangeRateMissing(Conflict):
    """There is no rate at which points of the one type become points of the other."""


class ExchangeRateChanging(Conflict):
    """Another rate of this pair is being set at this moment; repeat."""


class ExchangeRateInvalid(Unprocessable):
    """A rate is between two types, of whole numbers from 1 to 1,000,000, and does not begin in the past."""


class ExchangeTooSmall(Unprocessable):
    """At the present rate these points do not make one point of the other type."""


class ExchangeAlreadyPosted(Conflict):
    """An exchange with this exchange_ref has already been posted for this member."""


RATE_MAX = 1_000_000


async def set_rate(
    connection: Connection,
    *,
    from_type: PointType,
    to_type: PointType,
    numerator: int,
    denominator: int,
    valid_from: datetime,
    by: str,
    now: datetime,
) -> ExchangeRate:
    """A new version: `numerator` points of the one for `denominator` of the other, from a moment on."""
    if (
        from_type.code == to_type.code
        or not 1 <= numerator <= RATE_MAX
        or not 1 <= denominator <= RATE_MAX
        or valid_from < now
    ):
        raise ExchangeRateInvalid
    try:
        rate = await exchange_queries.insert_rate(
            connection,
            from_type=from_type.code,
            to_type=to_type.code,
            numerator=numerator,
            denominator=denominator,
            valid_from=valid_from,
            by=by,
            now=now,
        )
    except asyncpg.UniqueViolationError:
        raise ExchangeRateChanging from None
    record = audit.AuditRecord(
        actor=by,
        action="exchange_rate.set",
        subject=f"{from_type.name}:{to_type.name}:{rate.version}",
        detail={"numerator": numerator, "denominator": denominator},
    )
    await audit.append(connection, record, partner_id=None, now=now)
    return rate


async def list_rates(connection: Connection) -> Sequence[ExchangeRate]:
    """Every version of every pair."""
    return await exchange_queries.list_rates(connection)


async def exchange_points(connection: Connection, request: ExchangeRequest, *, now: datetime) -> Exchange:
    """Take as many of the points as make whole ones of the other type; the rest stays where it is."""
    rate = await exchange_queries.find_rate(
        connection, from_type=request.from_type.code, to_type=request.to_type.code, now=now
    )
    if rate is None:
        raise ExchangeRateMissing(from_type=request.from_type.name, to_type=request.to_type.name)
    taken, given = whole_points(request.points, rate)
    if given == 0:
        raise ExchangeTooSmall(points_min=-(-rate.denominator // rate.numerator))
    source = wallet_ref(request.member, rate.from_type)
    target = wallet_ref(request.member, rate.to_type)
    await queries.open_wallets(connection, [source, target])
    journal, [takes] = await pick_lots(connection, [(source, taken)], also=[target], now=now)
    posted = await exchange_queries.find_exchange(
        connection, request.member, partner_id=request.partner_id, exchange_ref=request.exchange_ref
    )
    if posted is not None:
        raise ExchangeAlreadyPosted(operation_id=to_wire("ent", posted))
    if isinstance(takes, Refusal):
        raise takes
    journal.settle(await queries.list_due_lots(connection, [target], now=now))
    operation_id = _journal_exchange(journal, request, rate, takes, given)
    await journal.write(connection)
    exchange = Exchange(
        id=operation_id,
        taken_points=taken,
        given_points=given,
        rate=rate,
        # as of now, also where points have ripened that the exchange did not need
        balances=(
            await read_balance(connection, request.member, point_type=rate.from_type, now=now),
            await read_balance(connection, request.member, point_type=rate.to_type, now=now),
        ),
    )
    await enqueue(connection, [_event(request, exchange)], now=now)
    return exchange


def whole_points(points: int, rate: ExchangeRate) -> tuple[int, int]:
    """(taken, given): the most whole points that `points` make, and the fewest that make as many."""
    given = points * rate.numerator // rate.denominator
    return -(-given * rate.denominator // rate.numerator), given


def split_exchange(takes: Sequence[Take], given: int, rate: ExchangeRate) -> list[TargetLot]:
    """What each lot becomes, in their order: together exactly `given`.

    A point made of parts of several lots ends with the soonest of them, so nothing lives longer than it did. The cost
    goes along, per funder and rounded down: no funder ever owes more than before.
    """
    lots: list[TargetLot] = []
    so_far = made = 0
    for taken in takes:
        so_far += taken.points
        upto = min(given, -(-so_far * rate.numerator // rate.denominator))
        points, made = upto - made, upto
        cost_e6 = taken.points * taken.lot.unit_cost_e6
        if points:
            lots.append(TargetLot(source=taken.lot, points=points, cost_e6=cost_e6))
        elif lots[-1].source.funder_id == taken.lot.funder_id:
            lots[-1] = replace(lots[-1], cost_e6=lots[-1].cost_e6 + cost_e6)
    assert made == given, "the points taken make the points given"
    return lots


def _journal_exchange(
    journal: Journal,
    request: ExchangeRequest,
    rate: ExchangeRate,
    takes: Sequence[Take],
    given: int,
) -> UUID:
    taken = sum(one.points for one in takes)
    operation_id = journal.record(
        request.member,
        "exchange",
        points=taken,
        partner_id=request.partner_id,
        source_ref=request.exchange_ref,
        point_type=rate.from_type,
        calculation={
            "rate_version": rate.version,
            "numerator": rate.numerator,
            "denominator": rate.denominator,
            "to_type": rate.to_type,
            "given_points": given,
        },
    )
    journal.post(operation_id, Account.AVAILABLE, Account.EXCHANGED, takes, "exchange")
    granted = []
    for lot in split_exchange(takes, given, rate):
        made = replace(
            lot.source,
            point_type=rate.to_type,
            remaining_points=lot.points,
            unit_cost_e6=lot.cost_e6 // lot.points,
        )
        granted.append(journal.grant(operation_id, Account.EXCHANGED, made))
    journal.repay(operation_id, granted)
    return operation_id


def _event(request: ExchangeRequest, exchange: Exchange) -> Event:
    wire_id = to_wire("ent", exchange.id)
    return Event(
        bucket=request.member.bucket,
        partner_id=request.partner_id,
        type="points.exchanged",
        aggregate=wire_id,
        payload={
            "id": wire_id,
            "exchange_ref": request.exchange_ref,
            "from_type": request.from_type.name,
            "to_type": request.to_type.name,
            "taken_points": exchange.taken_points,
            "given_points": exchange.given_points,
        },
    )
