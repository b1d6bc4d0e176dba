"""Captures: goods were delivered, so principal is paid out, points are taken, rights and base points given."""

from datetime import datetime, timedelta
from uuid import UUID

from msgspec import structs

from kernel.calendar import business_date
from kernel.database import Connection
from kernel.ids import new_id, to_wire
from partners.credit import queries
from partners.credit.journal import capture_lines, repayment_lines
from partners.credit.model import Capture, Plan
from partners.credit.plans import lock_plan, tell
from partners.credit.rules import NothingToRepay, check_capture, settle_state
from partners.credit.schedules import reschedule
from points.earning.model import Activity, Earned
from points.earning.service import earn
from points.ledger.service import capture_hold
from points.membership.service import grant_entitlement


async def capture_plan(
    connection: Connection, *, plan_id: UUID, partner_id: UUID, amount_fen: int | None, now: datetime
) -> tuple[Plan, Capture]:
    """Capture `amount_fen` of the principal, or all that is left; the first capture takes the points in full."""
    plan = await lock_plan(connection, plan_id=plan_id, partner_id=partner_id)
    amount_fen = check_capture(plan, amount_fen, now=now)
    first = not plan.captures
    operation_id, today = new_id(now), business_date(now)
    lines = capture_lines(plan, amount_fen)
    await queries.insert_entries(
        connection, plan, lines, operation_id=operation_id, business_on=today, now=now
    )
    captured = structs.replace(
        plan,
        captured_fen=plan.captured_fen + amount_fen,
        captures=plan.captures + 1,
        schedule_version=plan.schedule_version + 1,
        entries=plan.entries + len(lines),
        # Interest runs from the day the money is paid out, not from the day it was asked for.
        starts_on=today if first else plan.starts_on,
    )
    captured = structs.replace(captured, state=settle_state(captured))
    await queries.move_plan(connection, captured, present=plan.state)
    await queries.insert_schedule(connection, captured, reschedule(captured), cause="capture", now=now)
    if first:
        await _grant_right(connection, plan, now=now)
    capture = await _record_capture(connection, captured, operation_id, amount_fen, now=now)
    await tell(
        connection,
        captured,
        "plan.captured",
        {"capture_id": to_wire("cap", operation_id), "amount_fen": amount_fen},
        now=now,
    )
    return captured, capture


async def _take_points(connection: Connection, plan: Plan, *, now: datetime) -> None:
    """Refunds give the points back in proportion to their own value, so that is the order total of this hold."""
    if plan.hold_id is not None:
        await capture_hold(
            connection,
            hold_id=plan.hold_id,
            partner_id=plan.partner_id,
            points=None,
            order_fen=plan.terms.points_value_fen,
            manager="plan",
            now=now,
        )


async def _grant_right(connection: Connection, plan: Plan, *, now: datetime) -> None:
    right = plan.terms.entitlement
    if right is not None:
        await grant_entitlement(
            connection,
            member=plan.member,
            partner_id=plan.partner_id,
            kind=right.kind,
            source=to_wire("pln", plan.id),
            quantity=right.quantity,
            expires_at=now + timedelta(days=right.valid_days),
            now=now,
        )


async def _record_capture(
    connection: Connection, plan: Plan, operation_id: UUID, amount_fen: int, *, now: datetime
) -> Capture:
    """Earn points for the capture; where the partner's rules give none, the capture stands without.

    The first capture takes the plan's points meanwhile: after the budgets that pay for the earning are locked, and before
    it posts.
    """

    async def take_points() -> None:
        if plan.captures == 1:
            await _take_points(connection, plan, now=now)

    activity = Activity(
        member=plan.member,
        source_ref=f"{to_wire('pln', plan.id)}/{plan.captures}",
        kind="instalment",
        occurred_at=now,
        amount_fen=amount_fen,
        category=None,
        own_card=True,
        manager="plan",
    )
    [outcome] = await earn(connection, [activity], partner_id=plan.partner_id, meanwhile=take_points, now=now)
    earned = outcome if isinstance(outcome, Earned) else None
    capture = Capture(
        id=operation_id,
        no=plan.captures,
        amount_fen=amount_fen,
        earn_operation_id=earned.operation_id if earned else None,
        points_earned=earned.points if earned else 0,
        captured_at=now,
    )
    await queries.insert_capture(connection, plan, capture)
    return capture


async def record_repayment(connection: Connection, *, plan_id: UUID, partner_id: UUID, now: datetime) -> Plan:
    """Book that the customer paid the next instalment in full, as the bank's core reports it."""
    plan = await lock_plan(connection, plan_id=plan_id, partner_id=partner_id)
    # Before the first capture the schedule is a promise: nothing is owed.
    rows = await queries.list_schedule_rows(connection, plan) if plan.captures else []
    if not rows:
        raise NothingToRepay(state=plan.state)
    row, operation_id = rows[0], new_id(now)
    lines = repayment_lines(
        principal_fen=row.principal_fen, interest_fen=row.interest_fen, fee_fen=row.fee_fen
    )
    await queries.insert_entries(
        connection, plan, lines, operation_id=operation_id, business_on=business_date(now), now=now
    )
    paid = structs.replace(
        plan,
        principal_paid_fen=plan.principal_paid_fen + row.principal_fen,
        interest_paid_fen=plan.interest_paid_fen + row.interest_fen,
        fee_paid_fen=plan.fee_paid_fen + row.fee_fen,
        rows_paid=row.no,
        entries=plan.entries + len(lines),
    )
    paid = structs.replace(paid, state=settle_state(paid))
    await queries.move_plan(connection, paid, present=plan.state)
    await queries.move_line(connection, plan.member, by_fen=-row.principal_fen)
    await queries.insert_repayment(connection, plan, row, repayment_id=operation_id, now=now)
    await tell(connection, paid, "plan.instalment_paid", {"no": row.no, "due_fen": row.due_fen}, now=now)
    if paid.state == "paid_off":
        await tell(connection, paid, "plan.paid_off", {}, now=now)
    return paid
