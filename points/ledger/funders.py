"""Funders: who they are, what is agreed with them, and the blocks of points they buy in advance."""

from collections.abc import Sequence
from datetime import date, datetime
from uuid import UUID

import asyncpg

from kernel import audit
from kernel.audit import AuditRecord
from kernel.calendar import business_date
from kernel.database import Connection
from kernel.ids import to_wire
from points.ledger import budgets
from points.ledger import funder_queries as queries
from points.ledger.funder_model import Block, Funder, FunderKind, Terms
from points.ledger.funder_rules import (
    LOW_WATER_PPM,
    BlockTaken,
    FunderNotPrepaid,
    FunderTaken,
    FunderUnknown,
    TermsTaken,
    check_block,
    check_effective,
    check_funder,
    check_terms,
    terms_on,
)


async def register_funder(
    connection: Connection,
    *,
    code: str,
    kind: FunderKind,
    partner_id: UUID | None,
    terms: Terms,
    actor: str,
    now: datetime,
) -> Funder:
    """A new funder with its first terms, which may begin today: it has issued nothing yet."""
    check_funder(code, kind, partner_id, terms)
    try:
        async with connection.transaction():
            funder_id = await queries.insert_funder(connection, code=code, kind=kind, partner_id=partner_id)
    except asyncpg.UniqueViolationError:
        raise FunderTaken(code=code) from None
    await queries.insert_terms(connection, funder_id=funder_id, terms=terms, now=now)
    await _note(connection, "funder.register", code, partner_id, terms, actor, now)
    return Funder(id=funder_id, code=code, kind=kind, partner_id=partner_id, terms=(terms,))


async def change_terms(
    connection: Connection, *, code: str, terms: Terms, actor: str, now: datetime
) -> Funder:
    """Other terms from a day to come; what was issued before stays as it was agreed then."""
    funder = await find_funder(connection, code=code)
    check_funder(code, funder.kind, funder.partner_id, terms)
    check_terms(terms)
    check_effective(terms.effective_on, today=business_date(now))
    try:
        async with connection.transaction():
            await queries.insert_terms(connection, funder_id=funder.id, terms=terms, now=now)
    except asyncpg.UniqueViolationError:
        raise TermsTaken(effective_on=terms.effective_on.isoformat()) from None
    await _note(connection, "funder.terms", code, funder.partner_id, terms, actor, now)
    return await find_funder(connection, code=code)


async def find_funder(connection: Connection, *, code: str) -> Funder:
    """The funder of this code with all its terms."""
    found = await queries.list_funders(connection, code=code)
    if not found:
        raise FunderUnknown
    return found[0]


async def list_funders(connection: Connection) -> list[Funder]:
    """Every funder, by code."""
    return await queries.list_funders(connection)


async def buy_block(
    connection: Connection,
    *,
    code: str,
    points: int,
    paid_fen: int,
    starts_on: date,
    purchase_ref: str,
    low_water_ppm: Sequence[int] = LOW_WATER_PPM,
    actor: str,
    now: datetime,
) -> Block:
    """Points in advance. What was paid goes into the settlement of the funder's partner; once per `purchase_ref`."""
    check_block(points, paid_fen, purchase_ref, low_water_ppm)
    funder = await find_funder(connection, code=code)
    agreed = terms_on(funder.terms, starts_on)
    if agreed is None or agreed.billing != "prepaid":
        raise FunderNotPrepaid
    try:
        async with connection.transaction():
            block_id = await budgets.open_budget(
                connection, kind="prepaid", unit="points", owner=code, total=points, now=now
            )
            block = Block(
                id=block_id,
                funder_id=funder.id,
                purchase_ref=purchase_ref,
                starts_on=starts_on,
                points=points,
                paid_fen=paid_fen,
                used_points=0,
            )
            await queries.insert_block(
                connection, block, low_water_ppm=low_water_ppm, business_on=business_date(now), now=now
            )
    except asyncpg.UniqueViolationError:
        raise BlockTaken(purchase_ref=purchase_ref) from None
    record = AuditRecord(
        actor=actor,
        action="funder.buy_block",
        subject=to_wire("blk", block.id),
        detail={"funder": code, "points": points, "paid_fen": paid_fen, "purchase_ref": purchase_ref},
    )
    await audit.append(connection, record, partner_id=funder.partner_id, now=now)
    return block


async def list_blocks(connection: Connection, *, code: str) -> list[Block]:
    """A funder's blocks in the order in which they pay, with what is used of them."""
    funder = await find_funder(connection, code=code)
    return await queries.list_blocks(connection, funder_id=funder.id)


async def _note(
    connection: Connection,
    action: str,
    code: str,
    partner_id: UUID | None,
    terms: Terms,
    actor: str,
    now: datetime,
) -> None:
    detail = {
        "effective_on": terms.effective_on.isoformat(),
        "billing": terms.billing,
        "price_fen_e6": terms.price_fen_e6,
        "billing_ppm": terms.billing_ppm,
        "breakage_ppm": terms.breakage_ppm,
        "billed": terms.billed,
    }
    record = AuditRecord(actor=actor, action=action, subject=code, detail=detail)
    await audit.append(connection, record, partner_id=partner_id, now=now)
