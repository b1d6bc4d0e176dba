"""Applications and plans: decide, authorise, find, void, lapse."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from uuid import UUID

from msgspec import Struct, structs

from kernel.calendar import business_date
from kernel.caller import MemberRef
from kernel.database import Connection
from kernel.errors import Absent
from kernel.ids import new_id, to_wire
from kernel.outbox import Event, enqueue
from partners.credit import queries
from partners.credit.model import Application, Decision, Plan, PlanTerms, ScheduleRow
from partners.credit.plans import lock_plan, tell
from partners.credit.queries import ScheduleVersion
from partners.credit.refund_rules import uncaptured_value
from partners.credit.refunding import post_refund
from partners.credit.rules import LIMIT_FEN, RULE_VERSION, check_void, decide_application
from partners.credit.schedules import list_rows, schedule_terms
from points.ledger.service import find_hold, place_hold, release_hold

#: how long an authorisation, and the points held with it, can be captured
AUTHORISATION = timedelta(days=7)
#: the refund of what was not captured in time; no partner's reference has a space
LAPSED_REF = "authorisation lapsed"


class Answer(Struct, frozen=True, kw_only=True):
    """What became of an application: its decision and, when approved, its plan."""

    application_id: UUID
    decision: Decision
    plan: Plan | None


async def find_first_day(connection: Connection) -> date | None:
    """The day of the first entry of any plan; None while there is none."""
    return await queries.find_first_day(connection)


async def apply_for_plan(
    connection: Connection, terms: PlanTerms, *, member: MemberRef, partner_id: UUID, now: datetime
) -> Answer:
    """Decide on `terms` and, if approved, reserve limit and points and authorise the plan, all in one transaction.

    A refusal such as InsufficientPoints leaves nothing behind; a decline is an answer and stays on record.
    """
    line = await queries.lock_line(connection, member, limit_fen=LIMIT_FEN)
    decision = decide_application(terms.financed_fen, limit_fen=line.limit_fen, used_fen=line.used_fen)
    application_id = new_id(now)
    await queries.insert_application(
        connection,
        application_id=application_id,
        member=member,
        partner_id=partner_id,
        quote_id=terms.quote_id,
        amount_fen=terms.financed_fen,
        periods=terms.periods,
        decision=decision,
        rule_version=RULE_VERSION,
        now=now,
    )
    told = Event(
        bucket=member.bucket,
        partner_id=partner_id,
        type=f"application.{decision.outcome}",
        aggregate=to_wire("apl", application_id),
        payload={"quote_id": to_wire("qte", terms.quote_id), "outcome": decision.outcome},
    )
    await enqueue(connection, [told], now=now)
    if decision.outcome != "approved":
        return Answer(application_id=application_id, decision=decision, plan=None)
    plan = await _authorise(
        connection, terms, application_id=application_id, member=member, partner_id=partner_id, now=now
    )
    return Answer(application_id=application_id, decision=decision, plan=plan)


async def _authorise(
    connection: Connection,
    terms: PlanTerms,
    *,
    application_id: UUID,
    member: MemberRef,
    partner_id: UUID,
    now: datetime,
) -> Plan:
    await queries.move_line(connection, member, by_fen=terms.financed_fen)
    hold_id: UUID | None = None
    if terms.points:
        hold = await place_hold(
            connection,
            member=member,
            partner_id=partner_id,
            points=terms.points,
            order_ref=terms.order_ref,
            ttl_seconds=int(AUTHORISATION.total_seconds()),
            manager="plan",
            now=now,
        )
        hold_id = hold.id
    plan = Plan(
        bucket=member.bucket,
        id=new_id(now),
        member_id=member.member_id,
        partner_id=partner_id,
        application_id=application_id,
        state="authorised",
        terms=terms,
        hold_id=hold_id,
        total_fen=terms.total_fen,
        financed_fen=terms.financed_fen,
        captured_fen=0,
        refunded_fen=0,
        released_fen=0,
        reduced_fen=0,
        returned_fen=0,
        principal_paid_fen=0,
        interest_paid_fen=0,
        fee_paid_fen=0,
        rows_paid=0,
        captures=0,
        schedule_version=1,
        entries=0,
        starts_on=business_date(now),
        authorised_at=now,
        authorised_until=now + AUTHORISATION,
    )
    schedule = schedule_terms(terms, principal_fen=terms.financed_fen, starts_on=plan.starts_on)
    await queries.insert_plan(connection, plan)
    await queries.insert_schedule(connection, plan, list_rows(schedule), cause="original", now=now)
    await tell(connection, plan, "plan.authorised", {"amount_financed_fen": plan.financed_fen}, now=now)
    return plan


async def find_application(connection: Connection, *, application_id: UUID, partner_id: UUID) -> Application:
    application = await queries.find_application(connection, application_id, partner_id=partner_id)
    if application is None:
        raise Absent
    return application


async def find_plan(connection: Connection, *, plan_id: UUID, partner_id: UUID) -> Plan:
    plan = await queries.find_plan(connection, plan_id, partner_id=partner_id)
    if plan is None:
        raise Absent
    return plan


async def list_schedule(
    connection: Connection, plan: Plan
) -> tuple[list[ScheduleRow], list[ScheduleVersion]]:
    """The instalments still to come, and every schedule the plan has had."""
    rows = await queries.list_schedule_rows(connection, plan)
    return rows, await queries.list_schedule_versions(connection, plan)


async def void_plan(connection: Connection, *, plan_id: UUID, partner_id: UUID, now: datetime) -> Plan:
    """Give up an authorisation of which nothing was captured: limit and points are free again."""
    plan = await lock_plan(connection, plan_id=plan_id, partner_id=partner_id)
    check_void(plan)
    voided = await _close_unused(connection, plan, "voided", now=now)
    if plan.hold_id is not None and await _is_open(connection, plan.hold_id, partner_id=partner_id):
        await release_hold(connection, hold_id=plan.hold_id, partner_id=partner_id, manager="plan", now=now)
    return voided


async def _is_open(connection: Connection, hold_id: UUID, *, partner_id: UUID) -> bool:
    """Whether the points are still held: the partner may have given them back itself, or they may have lapsed."""
    return (await find_hold(connection, hold_id=hold_id, partner_id=partner_id)).state == "open"


async def lapse_authorisations(connection: Connection, *, limit: int, now: datetime) -> int:
    """Book the authorisations whose time is over; the ledger lapses the points of unused ones by the same deadline.

    One that was captured in part is finished by itself: it moves points, and whoever locks a second wallet while
    holding the books of a first may wait in a circle.
    """
    plans: Sequence[Plan] = await queries.list_lapsed(connection, "authorised", limit=limit, now=now)
    # Credit lines are locked in one order, so that two sweeps never wait for each other in a circle.
    for plan in sorted(plans, key=lambda plan: (plan.bucket, plan.member_id)):
        await _close_unused(connection, plan, "auth_expired", now=now)
    if plans:
        return len(plans)
    rests = await queries.list_lapsed(connection, "partially_captured", limit=1, now=now)
    for plan in rests:
        await _refund_rest(connection, plan, now=now)
    return len(rests)


async def _refund_rest(connection: Connection, plan: Plan, *, now: datetime) -> None:
    """What was not captured in time was not delivered: limit, discount and points of it go back as in any refund."""
    await post_refund(
        connection,
        plan_id=plan.id,
        partner_id=plan.partner_id,
        refund_ref=LAPSED_REF,
        amount_fen=uncaptured_value(plan),
        now=now,
    )


async def _close_unused(connection: Connection, plan: Plan, state: str, *, now: datetime) -> Plan:
    closed = structs.replace(plan, state=state)
    await queries.move_plan(connection, closed, present=plan.state)
    await queries.move_line(connection, plan.member, by_fen=-plan.financed_fen)
    await tell(connection, closed, f"plan.{state}", {}, now=now)
    return closed
