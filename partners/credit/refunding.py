"""Refunds: one itemised statement of everything that goes back, and the same statement as a preview."""

from datetime import datetime
from uuid import UUID

from msgspec import Struct, structs

from kernel.calendar import business_date
from kernel.database import Connection
from kernel.errors import Refusal
from kernel.ids import new_id, to_wire
from partners.credit import queries
from partners.credit.journal import refund_lines
from partners.credit.model import Plan, RefundParts, ScheduleRow, Statement
from partners.credit.plans import lock_plan, tell
from partners.credit.refund_rules import split_cart_value, spread_over_captures, take_refund_apart
from partners.credit.rules import check_refund, settle_state
from partners.credit.schedules import reduce_schedule
from points.earning.reversals import reverse_each
from points.ledger.model import ReversalRequest, Side
from points.ledger.service import RefundAlreadyPosted
from points.membership.service import revoke_entitlements


class PointsUndone(Struct, frozen=True, kw_only=True):
    """What a refund did to the member's points."""

    restored: int
    clawed_back: int
    arrears_added: int


async def post_refund(
    connection: Connection,
    *,
    plan_id: UUID,
    partner_id: UUID,
    refund_ref: str,
    amount_fen: int,
    now: datetime,
) -> Statement:
    """Refund `amount_fen` of cart value under the partner's own reference, which is good once for this plan."""
    plan = await lock_plan(connection, plan_id=plan_id, partner_id=partner_id)
    posted = await queries.find_refund(connection, plan, refund_ref)
    if posted is not None:
        raise RefundAlreadyPosted(refund_id=to_wire("rfd", posted))
    check_refund(plan, amount_fen)
    refund_id, parts = new_id(now), take_refund_apart(plan, amount_fen)
    refunded, rows = await _move_money(connection, plan, parts, amount_fen, refund_id=refund_id, now=now)
    undone = await _undo_points(connection, plan, parts, refund_id=refund_id, now=now)
    revoked = 0
    if refunded.state == "fully_refunded" and plan.terms.entitlement is not None:
        revoked = await revoke_entitlements(
            connection, member=plan.member, source=to_wire("pln", plan.id), now=now
        )
    statement = _state(
        refunded,
        parts,
        undone,
        rows,
        refund_id=refund_id,
        refund_ref=refund_ref,
        amount_fen=amount_fen,
        revoked=revoked,
    )
    await queries.insert_refund(
        connection,
        plan,
        refund_id=refund_id,
        refund_ref=refund_ref,
        amount_fen=amount_fen,
        statement=statement,
        now=now,
    )
    await tell(
        connection,
        refunded,
        "refund.succeeded",
        {"refund_id": statement.id, "refund_ref": refund_ref, "amount_fen": amount_fen},
        now=now,
    )
    return statement


async def preview_refund(
    connection: Connection,
    *,
    plan_id: UUID,
    partner_id: UUID,
    refund_ref: str,
    amount_fen: int,
    now: datetime,
) -> Statement:
    """The statement `post_refund` would give: it is posted in a savepoint that is then taken back."""
    savepoint = connection.transaction()
    await savepoint.start()
    try:
        statement = await post_refund(
            connection,
            plan_id=plan_id,
            partner_id=partner_id,
            refund_ref=refund_ref,
            amount_fen=amount_fen,
            now=now,
        )
    finally:
        await savepoint.rollback()
    return structs.replace(statement, id=None)


async def _move_money(
    connection: Connection,
    plan: Plan,
    parts: RefundParts,
    amount_fen: int,
    *,
    refund_id: UUID,
    now: datetime,
) -> tuple[Plan, list[ScheduleRow]]:
    """Totals, journal, credit line and schedule after the refund."""
    discount_refunded_fen = split_cart_value(plan.terms, plan.refunded_fen).discount_fen
    lines = refund_lines(plan, parts, discount_refunded_fen=discount_refunded_fen)
    await queries.insert_entries(
        connection, plan, lines, operation_id=refund_id, business_on=business_date(now), now=now
    )
    reduced_fen = parts.principal_reduced_fen
    refunded = structs.replace(
        plan,
        refunded_fen=plan.refunded_fen + amount_fen,
        released_fen=plan.released_fen + parts.uncaptured_released_fen,
        reduced_fen=plan.reduced_fen + reduced_fen,
        returned_fen=plan.returned_fen + parts.cash_to_customer_fen,
        schedule_version=plan.schedule_version + (1 if reduced_fen else 0),
        entries=plan.entries + len(lines),
    )
    refunded = structs.replace(refunded, state=settle_state(refunded))
    await queries.move_plan(connection, refunded, present=plan.state)
    await queries.move_line(connection, plan.member, by_fen=-(parts.uncaptured_released_fen + reduced_fen))
    rows = await queries.list_schedule_rows(connection, plan)
    if reduced_fen:
        rows = reduce_schedule(refunded, rows, by_fen=reduced_fen)
        await queries.insert_schedule(connection, refunded, rows, cause="refund", now=now)
    return refunded, rows


async def _undo_points(
    connection: Connection, plan: Plan, parts: RefundParts, *, refund_id: UUID, now: datetime
) -> PointsUndone:
    """Give back points spent, take back points earned on captures this refund undoes."""
    refund_ref = to_wire("rfd", refund_id)
    undo: list[tuple[Side, UUID, int]] = []
    if plan.hold_id is not None and parts.points_value_fen:
        undo.append(("spend", plan.hold_id, parts.points_value_fen))
    captures = await queries.list_captures(connection, plan)
    spread = spread_over_captures(
        [capture.amount_fen for capture in captures],
        undone_fen=plan.reduced_fen + plan.returned_fen,
        amount_fen=parts.principal_reduced_fen + parts.cash_to_customer_fen,
    )
    for capture, undone_fen in zip(captures, spread, strict=True):
        if capture.earn_operation_id is not None and undone_fen:
            undo.append(("earn", capture.earn_operation_id, undone_fen))
    requests = [
        ReversalRequest(
            operation_id=operation_id,
            partner_id=plan.partner_id,
            side=side,
            refund_ref=refund_ref,
            refunded_fen=refunded_fen,
            manager="plan",
        )
        for side, operation_id, refunded_fen in undo
    ]
    restored = clawed_back = arrears = 0
    # all together: budgets are locked before wallets, and who owes in between does not in the end
    for reversal in await reverse_each(connection, requests, now=now):
        if isinstance(reversal, Refusal):
            raise reversal
        restored += reversal.points_restored
        clawed_back += reversal.points_clawed_back
        arrears += reversal.arrears_added
    return PointsUndone(restored=restored, clawed_back=clawed_back, arrears_added=arrears)


def _state(
    plan: Plan,
    parts: RefundParts,
    undone: PointsUndone,
    rows: list[ScheduleRow],
    *,
    refund_id: UUID,
    refund_ref: str,
    amount_fen: int,
    revoked: int,
) -> Statement:
    return Statement(
        id=to_wire("rfd", refund_id),
        refund_ref=refund_ref,
        amount_fen=amount_fen,
        uncaptured_released_fen=parts.uncaptured_released_fen,
        principal_reduced_fen=parts.principal_reduced_fen,
        cash_to_customer_fen=parts.cash_to_customer_fen,
        interest_refund_fen=parts.interest_refund_fen,
        fee_refund_fen=parts.fee_refund_fen,
        discount_reversed_fen=parts.discount_reversed_fen,
        down_payment_returned_fen=parts.down_payment_returned_fen,
        points_value_fen=parts.points_value_fen,
        subsidy_reversed=parts.subsidy_reversed,
        points_restored=undone.restored,
        points_clawed_back=undone.clawed_back,
        arrears_added=undone.arrears_added,
        entitlements_revoked=revoked,
        plan_state=plan.state,
        schedule=tuple(rows),
    )
