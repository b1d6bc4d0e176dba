"""Applications and plans over HTTP."""

from datetime import date, datetime
from typing import Annotated

from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody
from msgspec import Meta, Struct

from kernel.caller import Caller
from kernel.database import Connection
from kernel.errors import Absent
from kernel.ids import from_wire, to_wire
from kernel.money import PositiveFen
from partners.credit import capturing, refunding, service
from partners.credit.model import (
    ApplicationState,
    Cause,
    EntitlementTerms,
    Outcome,
    Plan,
    PlanState,
    RefundPolicy,
    ScheduleRow,
    Statement,
)
from partners.credit.schedule import Method


class DecisionView(Struct, frozen=True, kw_only=True):
    """What was decided. Reasons that would tell of a member's credit stay with the bank."""

    outcome: Outcome
    reason_codes: list[str]
    decided_at: datetime


class ApplicationAnswer(Struct, frozen=True, kw_only=True):
    """An application."""

    id: str
    state: ApplicationState
    quote_id: str
    amount_fen: int
    periods: int
    created_at: datetime
    decision: DecisionView
    plan_id: str | None


class PlanAnswer(Struct, frozen=True, kw_only=True):
    """A plan with its totals."""

    id: str
    state: PlanState
    member: str
    application_id: str
    quote_id: str
    order_ref: str
    total_fen: int
    discount_fen: int
    points_held: int
    down_payment_fen: int
    amount_financed_fen: int
    captured_fen: int
    uncaptured_fen: int
    refunded_fen: Annotated[int, Meta(description="Cart value refunded so far.")]
    outstanding_fen: Annotated[int, Meta(description="Principal the customer still owes.")]
    periods: int
    repayment_method: Method
    customer_rate_ppm: int
    refund_policy: RefundPolicy
    entitlement: EntitlementTerms | None
    schedule_version: int
    authorised_at: datetime
    authorised_until: datetime


class ScheduleVersionView(Struct, frozen=True, kw_only=True):
    """One schedule the plan has had."""

    version: int
    cause: Cause
    principal_fen: int
    created_at: datetime


class ScheduleAnswer(Struct, frozen=True, kw_only=True):
    """The instalments still to come, and every schedule before."""

    plan_id: str
    version: int
    cause: Cause
    starts_on: date
    rows: list[ScheduleRow]
    versions: list[ScheduleVersionView]


class CaptureRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much of the amount financed to capture."""

    amount_fen: Annotated[PositiveFen | None, Meta(description="All that is left if not said.")] = None


class CaptureAnswer(Struct, frozen=True, kw_only=True):
    """A capture, and where the plan stands after it."""

    id: str
    amount_fen: int
    points_earned: int
    captured_at: datetime
    plan: PlanAnswer


class RefundLine(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Goods that came back; for the record, the amount decides."""

    sku: Annotated[str, Meta(min_length=1, max_length=128)]
    quantity: Annotated[int, Meta(ge=1, le=1_000_000)]


class RefundRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to refund."""

    refund_ref: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=128,
            pattern=r"^[!-~]+$",
            description="The partner's own number; good once.",
        ),
    ]
    amount_fen: Annotated[PositiveFen, Meta(description="Value of the returned part of the cart.")]
    lines: Annotated[list[RefundLine], Meta(max_length=200)] | None = None


@get("/v1/applications/{application_id:str}", scope="plans:read", level="A1")
async def read_application(
    application_id: FromPath[str],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
) -> ApplicationAnswer:
    """Read an application and its decision."""
    found = await service.find_application(
        connection, application_id=from_wire("apl", application_id), partner_id=caller.partner_id
    )
    return ApplicationAnswer(
        id=application_id,
        state=found.state,
        quote_id=to_wire("qte", found.quote_id),
        amount_fen=found.amount_fen,
        periods=found.periods,
        created_at=found.created_at,
        decision=DecisionView(
            outcome=found.outcome, reason_codes=[found.outcome], decided_at=found.decided_at
        ),
        plan_id=None if found.plan_id is None else to_wire("pln", found.plan_id),
    )


async def _find_own(connection: Connection, caller: Caller, plan_id: str) -> Plan:
    """The partner's plan; to a member's token another member's is absent."""
    plan = await service.find_plan(
        connection, plan_id=from_wire("pln", plan_id), partner_id=caller.partner_id
    )
    if caller.subject not in (None, plan.terms.member_sub):
        raise Absent
    return plan


@get("/v1/plans/{plan_id:str}", scope="plans:read", level="A1", member_token=True)
async def read_plan(
    plan_id: FromPath[str],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
) -> PlanAnswer:
    """Read a plan with its totals."""
    return _show(await _find_own(connection, caller, plan_id))


@get("/v1/plans/{plan_id:str}/schedule", scope="plans:read", level="A1", member_token=True)
async def read_schedule(
    plan_id: FromPath[str],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
) -> ScheduleAnswer:
    """Read the instalments still to come and every schedule the plan has had."""
    plan = await _find_own(connection, caller, plan_id)
    rows, versions = await service.list_schedule(connection, plan)
    return ScheduleAnswer(
        plan_id=plan_id,
        version=plan.schedule_version,
        cause=versions[-1].cause,
        starts_on=plan.starts_on,
        rows=rows,
        versions=[
            ScheduleVersionView(
                version=version.version,
                cause=version.cause,
                principal_fen=version.principal_fen,
                created_at=version.created_at,
            )
            for version in versions
        ],
    )


@post("/v1/plans/{plan_id:str}/captures", scope="plans:write", idempotent=True, level="A2")
async def capture_plan(
    plan_id: FromPath[str],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    now: NamedDependency[datetime],
    data: JSONBody[CaptureRequest | None] = None,
) -> CaptureAnswer:
    """Capture part or all of the amount financed when goods are delivered; the first capture takes the points."""
    plan, capture = await capturing.capture_plan(
        connection,
        plan_id=from_wire("pln", plan_id),
        partner_id=caller.partner_id,
        amount_fen=data.amount_fen if data else None,
        now=now,
    )
    return CaptureAnswer(
        id=to_wire("cap", capture.id),
        amount_fen=capture.amount_fen,
        points_earned=capture.points_earned,
        captured_at=capture.captured_at,
        plan=_show(plan),
    )


@post("/v1/plans/{plan_id:str}/void", scope="plans:write", idempotent=True, level="A2", status_code=200)
async def void_plan(
    plan_id: FromPath[str],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    now: NamedDependency[datetime],
) -> PlanAnswer:
    """Give up an authorisation of which nothing was captured."""
    plan = await service.void_plan(
        connection, plan_id=from_wire("pln", plan_id), partner_id=caller.partner_id, now=now
    )
    return _show(plan)


@post("/v1/plans/{plan_id:str}/refunds", scope="plans:write", idempotent=True, level="A2")
async def post_refund(
    plan_id: FromPath[str],
    data: JSONBody[RefundRequest],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    now: NamedDependency[datetime],
) -> Statement:
    """Refund a part of the cart's value: one statement of everything that goes back."""
    return await refunding.post_refund(
        connection,
        plan_id=from_wire("pln", plan_id),
        partner_id=caller.partner_id,
        refund_ref=data.refund_ref,
        amount_fen=data.amount_fen,
        now=now,
    )


@post("/v1/plans/{plan_id:str}/refunds/preview", scope="plans:write", level="A2", status_code=200)
async def preview_refund(
    plan_id: FromPath[str],
    data: JSONBody[RefundRequest],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    now: NamedDependency[datetime],
) -> Statement:
    """The statement a refund would give; nothing is written."""
    return await refunding.preview_refund(
        connection,
        plan_id=from_wire("pln", plan_id),
        partner_id=caller.partner_id,
        refund_ref=data.refund_ref,
        amount_fen=data.amount_fen,
        now=now,
    )


def _show(plan: Plan) -> PlanAnswer:
    terms = plan.terms
    return PlanAnswer(
        id=to_wire("pln", plan.id),
        state=plan.state,
        member=terms.member_sub,
        application_id=to_wire("apl", plan.application_id),
        quote_id=to_wire("qte", terms.quote_id),
        order_ref=terms.order_ref,
        total_fen=terms.total_fen,
        discount_fen=terms.discount_fen,
        points_held=terms.points,
        down_payment_fen=terms.down_payment_fen,
        amount_financed_fen=terms.financed_fen,
        captured_fen=plan.captured_fen,
        uncaptured_fen=plan.uncaptured_fen,
        refunded_fen=plan.refunded_fen,
        outstanding_fen=plan.outstanding_fen,
        periods=terms.periods,
        repayment_method=terms.method,
        customer_rate_ppm=terms.annual_rate_ppm,
        refund_policy=terms.refund_policy,
        entitlement=terms.entitlement,
        schedule_version=plan.schedule_version,
        authorised_at=plan.authorised_at,
        authorised_until=plan.authorised_until,
    )


routes = [
    read_application,
    read_plan,
    read_schedule,
    capture_plan,
    void_plan,
    post_refund,
    preview_refund,
]
