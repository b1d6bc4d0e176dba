"""`tessera points`: point types, exchange rates, and adjustments that take two of the bank's people."""

import argparse
from datetime import UTC, datetime
from typing import Any, get_args

from gateway.admins import require_admin
from gateway.cli.acting import Deed, add_by, add_command
from gateway.runtime import Runtime
from kernel.caller import MemberRef, MemberUnknown
from kernel.database import Connection
from kernel.ids import from_wire, to_wire
from points.ledger import service as ledger
from points.ledger.deeds import Adjustment, AdjustmentState, ExchangeRate
from points.ledger.model import BANK_FUNDER, POINTS, PointType
from points.membership import service as membership

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
    add_command(types, "list", _list_types, "all of them")
    add = add_command(types, "register", _add_type, "a new one, for good; takes a checker")
    add.add_argument("name")
    add.add_argument(
        "--value-fen-e6", type=int, required=True, help="what one point pays for, in millionths of a fen"
    )
    add_by(add, reason=False)


def _register_rates(nouns: Any) -> None:
    rates = nouns.add_parser("rates", help="what points are worth in points of another type").add_subparsers(
        required=True, metavar="COMMAND"
    )
    add_command(rates, "list", _list_rates, "every version of every pair")
    new = add_command(rates, "set", _set_rate, "a new version; takes a checker")
    new.add_argument("from_type")
    new.add_argument("to_type")
    new.add_argument("numerator", type=int, help="points of the second type ...")
    new.add_argument("denominator", type=int, help="... for so many of the first")
    new.add_argument("--from", dest="valid_from", type=_instant, default=None, help="default: now")
    add_by(new, reason=False)


def _register_adjustments(nouns: Any) -> None:
    adjust = nouns.add_parser("adjust", help="points given or taken by the bank's decision").add_subparsers(
        required=True, metavar="COMMAND"
    )
    propose = add_command(adjust, "propose", _propose, "put one before somebody else; takes a maker")
    propose.add_argument("member", type=int, help="the member's number")
    propose.add_argument("points", type=int, help="below zero: to be taken")
    propose.add_argument("--point-type", default=POINTS.name)
    propose.add_argument("--funder", default=BANK_FUNDER)
    propose.add_argument("--reason-code", required=True)
    propose.add_argument("--reason", required=True, help="a sentence for whoever decides")
    add_by(propose, reason=False)
    for name, run, told in (
        ("approve", _approve, "post it; takes a checker other than the proposer"),
        ("reject", _reject, "turn it down; takes a checker other than the proposer"),
    ):
        decide = add_command(adjust, name, run, told)
        decide.add_argument("id", help="adj_...")
        add_by(decide, reason=False)
    listing = add_command(adjust, "list", _list_adjustments, "newest first")
    listing.add_argument("--state", choices=get_args(AdjustmentState), default=None)


def _instant(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise argparse.ArgumentTypeError(f"{text!r} has no time zone, such as 2026-12-01T00:00:00+08:00")
    return moment.astimezone(UTC)


def _list_types(_options: argparse.Namespace) -> Deed:
    async def deed(connection: Connection, _runtime: Runtime) -> list[str]:
        return [_type_line(found) for found in await ledger.list_point_types(connection)]

    return deed


def _add_type(options: argparse.Namespace) -> Deed:
    async def deed(connection: Connection, runtime: Runtime) -> list[str]:
        by = await require_admin(connection, options.login, "checker")
        added = await ledger.register_point_type(
            connection, name=options.name, value_fen_e6=options.value_fen_e6, by=by, now=runtime.clock.now()
        )
        return [_type_line(added)]

    return deed


def _list_rates(_options: argparse.Namespace) -> Deed:
    async def deed(connection: Connection, _runtime: Runtime) -> list[str]:
        names = {found.code: found.name for found in await ledger.list_point_types(connection)}
        return [_rate_line(rate, names) for rate in await ledger.list_rates(connection)]

    return deed


def _set_rate(options: argparse.Namespace) -> Deed:
    async def deed(connection: Connection, runtime: Runtime) -> list[str]:
        now = runtime.clock.now()  # once: a rate may begin now and not before
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
    async def deed(connection: Connection, runtime: Runtime) -> list[str]:
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
            now=runtime.clock.now(),
        )
        return [_adjustment_line(adjustment)]

    return deed


def _approve(options: argparse.Namespace) -> Deed:
    async def deed(connection: Connection, runtime: Runtime) -> list[str]:
        by = await require_admin(connection, options.login, "checker")
        adjustment = await ledger.approve_adjustment(
            connection, adjustment_id=from_wire("adj", options.id), by=by, now=runtime.clock.now()
        )
        return [_adjustment_line(adjustment)]

    return deed


def _reject(options: argparse.Namespace) -> Deed:
    async def deed(connection: Connection, runtime: Runtime) -> list[str]:
        by = await require_admin(connection, options.login, "checker")
        adjustment = await ledger.reject_adjustment(
            connection, adjustment_id=from_wire("adj", options.id), by=by, now=runtime.clock.now()
        )
        return [_adjustment_line(adjustment)]

    return deed


def _list_adjustments(options: argparse.Namespace) -> Deed:
    async def deed(connection: Connection, _runtime: Runtime) -> list[str]:
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
