"""`tessera points`: point types, exchange rates, and adjustments that take two of the bank's people."""

import argparse
import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, get_args

from msgspec import structs

from gateway.admins import require_admin
from gateway.attach import attached
from gateway.runtime import Runtime
from kernel.caller import MemberRef, MemberUnknown
from kernel.database import Connection, transaction
from kernel.ids import from_wire, to_wire
from kernel.settings import Settings, from_environment
from points.ledger import service as ledger
from points.ledger.deeds import Adjustment, AdjustmentState, ExchangeRate
from points.ledger.model import BANK_FUNDER, POINTS, PointType
from points.membership import service as membership

Deed = Callable[[Connection, datetime], Awaitable[list[str]]]

BUCKET_OF = "SELECT bucket_of($1)"


def register(subparsers: Any) -> None:
    """Add the commands to the parser."""
    parser = subparsers.add_parser("points", help="point types, exchange rates, adjustments")
    nouns = parser.add_subparsers(required=True, metavar="NOUN")
    _register_types(nouns)
    _register_rates(nouns)
    _register_adjustments(nouns)


def _register_types(nouns: Any) -> None:
    types = nouns.add_parser("types", help="the types of points there are").add_subparsers(
        required=True, metavar="COMMAND"
    )
    _command(types, "list", _list_types, "all of them")
    add = _command(types, "register", _add_type, "a new one, for good; takes a checker")
    add.add_argument("name")
    add.add_argument(
        "--value-fen-e6", type=int, required=True, help="what one point pays for, in millionths of a fen"
    )
    _by(add)


def _register_rates(nouns: Any) -> None:
    rates = nouns.add_parser("rates", help="what points are worth in points of another type").add_subparsers(
        required=True, metavar="COMMAND"
    )
    _command(rates, "list", _list_rates, "every version of every pair")
    new = _command(rates, "set", _set_rate, "a new version; takes a checker")
    new.add_argument("from_type")
    new.add_argument("to_type")
    new.add_argument("numerator", type=int, help="points of the second type ...")
    new.add_argument("denominator", type=int, help="... for so many of the first")
    new.add_argument("--from", dest="valid_from", type=_instant, default=None, help="default: now")
    _by(new)


def _register_adjustments(nouns: Any) -> None:
    adjust = nouns.add_parser("adjust", help="points given or taken by the bank's decision").add_subparsers(
        required=True, metavar="COMMAND"
    )
    propose = _command(adjust, "propose", _propose, "put one before somebody else; takes a maker")
    propose.add_argument("member", type=int, help="the member's number")
    propose.add_argument("points", type=int, help="below zero: to be taken")
    propose.add_argument("--point-type", default=POINTS.name)
    propose.add_argument("--funder", default=BANK_FUNDER)
    propose.add_argument("--reason-code", required=True)
    propose.add_argument("--reason", required=True, help="a sentence for whoever decides")
    _by(propose)
    for name, run, told in (
        ("approve", _approve, "post it; takes a checker other than the proposer"),
        ("reject", _reject, "turn it down; takes a checker other than the proposer"),
    ):
        decide = _command(adjust, name, run, told)
        decide.add_argument("id", help="adj_...")
        _by(decide)
    listing = _command(adjust, "list", _list_adjustments, "newest first")
    listing.add_argument("--state", choices=get_args(AdjustmentState), default=None)


def _command(commands: Any, name: str, run: Callable[[argparse.Namespace], Deed], told: str) -> Any:
    command = commands.add_parser(name, help=told)
    command.add_argument("--data-dir", default=None, help="the system's data directory (default: var)")
    command.set_defaults(run=lambda options: _do(options, run(options)))
    return command


def _by(command: Any) -> None:
    command.add_argument("--as", dest="login", required=True, metavar="LOGIN", help="the admin who acts")


def _instant(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise argparse.ArgumentTypeError(f"{text!r} has no time zone, such as 2026-12-01T00:00:00+08:00")
    return moment.astimezone(UTC)


def _do(options: argparse.Namespace, deed: Deed) -> int:
    settings = from_environment(os.environ)
    if options.data_dir is not None:
        settings = structs.replace(settings, data_dir=options.data_dir)
    with attached(settings) as found:
        for line in asyncio.run(_in_transaction(found, deed)):
            print(line)
    return 0


async def _in_transaction(settings: Settings, deed: Deed) -> list[str]:
    async with _at_work(settings) as runtime, transaction(runtime.pool) as connection:
        return await deed(connection, runtime.clock.now())


@asynccontextmanager
async def _at_work(settings: Settings) -> AsyncGenerator[Runtime, None]:
    runtime = Runtime(settings)
    async with runtime.open():
        yield runtime


def _list_types(_options: argparse.Namespace) -> Deed:
    async def deed(connection: Connection, _now: datetime) -> list[str]:
        return [_type_line(found) for found in await ledger.list_point_types(connection)]

    return deed


def _add_type(options: argparse.Namespace) -> Deed:
    async def deed(connection: Connection, now: datetime) -> list[str]:
        by = await require_admin(connection, options.login, "checker")
        added = await ledger.register_point_type(
            connection, name=options.name, value_fen_e6=options.value_fen_e6, by=by, now=now
        )
        return [_type_line(added)]

    return deed


def _list_rates(_options: argparse.Namespace) -> Deed:
    async def deed(connection: Connection, _now: datetime) -> list[str]:
        names = {found.code: found.name for found in await ledger.list_point_types(connection)}
        return [_rate_line(rate, names) for rate in await ledger.list_rates(connection)]

    return deed


def _set_rate(options: argparse.Namespace) -> Deed:
    async def deed(connection: Connection, now: datetime) -> list[str]:
        by = await require_admin(connection, options.login, "checker")
        source = await ledger.find_point_type(connection, options.from_type)
        target = await ledger.find_point_type(connection, options.to_type)
        rate = await ledger.set_rate(
            connection,
            from_type=source,
            to_type=target,
            numerator=options.numerator,
            denominator=options.denominator,
            valid_from=options.valid_from or now,
            by=by,
            now=now,
        )
        return [_rate_line(rate, {source.code: source.name, target.code: target.name})]

    return deed


def _propose(options: argparse.Namespace) -> Deed:
    async def deed(connection: Connection, now: datetime) -> list[str]:
        by = await require_admin(connection, options.login, "maker")
        adjustment = await ledger.propose_adjustment(
            connection,
            member=await _find_member(connection, options.member),
            point_type=await ledger.find_point_type(connection, options.point_type),
            points=options.points,
            reason_code=options.reason_code,
            reason=options.reason,
            funder=options.funder,
            by=by,
            now=now,
        )
        return [_adjustment_line(adjustment)]

    return deed


def _approve(options: argparse.Namespace) -> Deed:
    async def deed(connection: Connection, now: datetime) -> list[str]:
        by = await require_admin(connection, options.login, "checker")
        adjustment = await ledger.approve_adjustment(
            connection, adjustment_id=from_wire("adj", options.id), by=by, now=now
        )
        return [_adjustment_line(adjustment)]

    return deed


def _reject(options: argparse.Namespace) -> Deed:
    async def deed(connection: Connection, now: datetime) -> list[str]:
        by = await require_admin(connection, options.login, "checker")
        adjustment = await ledger.reject_adjustment(
            connection, adjustment_id=from_wire("adj", options.id), by=by, now=now
        )
        return [_adjustment_line(adjustment)]

    return deed


def _list_adjustments(options: argparse.Namespace) -> Deed:
    async def deed(connection: Connection, _now: datetime) -> list[str]:
        found = await ledger.list_adjustments(connection, state=options.state)
        return [_adjustment_line(adjustment) for adjustment in found]

    return deed


async def _find_member(connection: Connection, member_id: int) -> MemberRef:
    member = MemberRef(member_id=member_id, bucket=await connection.fetchval(BUCKET_OF, member_id))
    if member_id not in await membership.list_standings(connection, [member]):
        raise MemberUnknown
    return member


def _type_line(point_type: PointType) -> str:
    return f"{point_type.code:>3} {point_type.name:<32} {point_type.value_fen_e6:,} millionths of a fen"


def _rate_line(rate: ExchangeRate, names: dict[int, str]) -> str:
    pair = f"{names[rate.from_type]} -> {names[rate.to_type]}"
    return f"{pair} v{rate.version}: {rate.numerator} for {rate.denominator} from {rate.valid_from:%Y-%m-%dT%H:%M:%SZ}"


def _adjustment_line(adjustment: Adjustment) -> str:
    a = adjustment
    people = f"{a.proposed_by} / {a.decided_by or '-'}"
    return f"{to_wire('adj', a.id)} {a.state:<8} member {a.member_id} {a.points:+,} {a.reason_code} {people}"
