"""`tessera funders`: who pays for points, on which terms, and the blocks of points bought in advance."""

import argparse
import asyncio
import os
from collections.abc import Awaitable, Callable
from datetime import date, datetime
from typing import Any, get_args

from msgspec import convert, structs

from gateway.attach import attached
from gateway.runtime import Runtime
from kernel.calendar import business_date
from kernel.database import Connection, transaction
from kernel.ids import to_wire
from kernel.settings import Settings, from_environment
from partners.registry import service as registry
from points.ledger import service as ledger
from points.ledger.funder_model import Billed, Billing, Block, Funder, FunderKind, Terms
from points.ledger.funder_rules import LOW_WATER_PPM, PPM, FunderInvalid

ACTOR = "cli:funders"

Deed = Callable[[Connection, argparse.Namespace, datetime], Awaitable[list[str]]]


def register(subparsers: Any) -> None:
    """Add the commands to the parser."""
    parser = subparsers.add_parser("funders", help="who pays for points")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    adding = commands.add_parser("add", help="register a funder with its first terms")
    adding.add_argument(
        "code", help="kind:name, such as partner:mall; kinds: bank, partner, merchant, fiscal"
    )
    adding.add_argument("--partner", default=None, metavar="SLUG", help="in whose settlement it is billed")
    adding.add_argument("--effective-on", type=date.fromisoformat, default=None, help="default: today")
    _add_terms(adding, _add)
    terms = commands.add_parser("terms", help="agree other terms from a day to come")
    terms.add_argument("code")
    terms.add_argument("--effective-on", type=date.fromisoformat, required=True, metavar="YYYY-MM-DD")
    _add_terms(terms, _terms)
    block = commands.add_parser("block", help="record a block of points paid for in advance")
    block.add_argument("code")
    block.add_argument("--points", type=int, required=True)
    block.add_argument("--paid-fen", type=int, required=True)
    block.add_argument("--ref", required=True, help="the purchase's own number; recorded once")
    block.add_argument("--starts-on", type=date.fromisoformat, default=None, help="default: today")
    block.add_argument(
        "--low-ppm",
        type=int,
        action="append",
        default=None,
        help=f"tell the partner when this part is left; default: {' and '.join(map(str, LOW_WATER_PPM))}",
    )
    _finish(block, _block)
    listing = commands.add_parser("list", help="all funders, or one with its terms and blocks")
    listing.add_argument("code", nargs="?", default=None)
    _finish(listing, _list)


def _add_terms(parser: Any, deed: Deed) -> None:
    parser.add_argument("--billing", choices=get_args(Billing), required=True)
    parser.add_argument("--price-fen-e6", type=int, default=0, help="a point's price in millionths of a fen")
    parser.add_argument("--billing-ppm", type=int, default=PPM, help="the part of the price it pays")
    parser.add_argument("--breakage-ppm", type=int, default=0, help="its part of what ends unused")
    parser.add_argument("--billed", choices=get_args(Billed), default="daily")
    _finish(parser, deed)


def _finish(parser: Any, deed: Deed) -> None:
    parser.add_argument("--data-dir", default=None, help="the system's data directory (default: var)")
    parser.set_defaults(run=_run, deed=deed)


def _run(options: argparse.Namespace) -> int:
    settings = from_environment(os.environ)
    if options.data_dir is not None:
        settings = structs.replace(settings, data_dir=options.data_dir)
    with attached(settings) as found:
        for line in asyncio.run(_run_in(found, options)):
            print(line)
    return 0


async def _run_in(settings: Settings, options: argparse.Namespace) -> list[str]:
    runtime = Runtime(settings)
    async with runtime.open(), transaction(runtime.pool) as connection:
        lines: list[str] = await options.deed(connection, options, runtime.clock.now())
        return lines


async def _add(connection: Connection, options: argparse.Namespace, now: datetime) -> list[str]:
    kind = options.code.partition(":")[0]
    if kind not in get_args(FunderKind):
        raise FunderInvalid
    partner_id = None
    if options.partner is not None:
        partner_id = (await registry.find_partner_by_slug(connection, options.partner)).id
    funder = await ledger.register_funder(
        connection,
        code=options.code,
        kind=convert(kind, FunderKind),
        partner_id=partner_id,
        terms=_terms_of(options, now),
        actor=ACTOR,
        now=now,
    )
    return _tell(funder)


async def _terms(connection: Connection, options: argparse.Namespace, now: datetime) -> list[str]:
    terms = _terms_of(options, now)
    return _tell(await ledger.change_terms(connection, code=options.code, terms=terms, actor=ACTOR, now=now))


async def _block(connection: Connection, options: argparse.Namespace, now: datetime) -> list[str]:
    block = await ledger.buy_block(
        connection,
        code=options.code,
        points=options.points,
        paid_fen=options.paid_fen,
        starts_on=options.starts_on or business_date(now),
        purchase_ref=options.ref,
        low_water_ppm=LOW_WATER_PPM if options.low_ppm is None else options.low_ppm,
        actor=ACTOR,
        now=now,
    )
    return [_tell_block(block)]


async def _list(connection: Connection, options: argparse.Namespace, now: datetime) -> list[str]:
    del now
    if options.code is None:
        return [line for funder in await ledger.list_funders(connection) for line in _tell(funder)]
    funder = await ledger.find_funder(connection, code=options.code)
    blocks = await ledger.list_blocks(connection, code=options.code)
    return _tell(funder) + [_tell_block(block) for block in blocks]


def _terms_of(options: argparse.Namespace, now: datetime) -> Terms:
    return Terms(
        effective_on=options.effective_on or business_date(now),
        billing=options.billing,
        price_fen_e6=options.price_fen_e6,
        billing_ppm=options.billing_ppm,
        breakage_ppm=options.breakage_ppm,
        billed=options.billed,
    )


def _tell(funder: Funder) -> list[str]:
    partner = "-" if funder.partner_id is None else to_wire("ptn", funder.partner_id)
    lines = [f"{funder.code}  {partner}"]
    for terms in funder.terms:
        lines.append(
            f"  from {terms.effective_on}  {terms.billing}  price {terms.price_fen_e6} fen/1000000"
            f"  pays {terms.billing_ppm} ppm  breakage {terms.breakage_ppm} ppm  {terms.billed}"
        )
    return lines


def _tell_block(block: Block) -> str:
    return (
        f"  {to_wire('blk', block.id)}  from {block.starts_on}  {block.left_points} of {block.points} points left"
        f"  paid {block.paid_fen} fen  {block.purchase_ref}"
    )
