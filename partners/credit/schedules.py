"""The schedule of a plan after each thing that happens to it: pure, from its totals."""

from collections.abc import Sequence
from datetime import date

from msgspec import structs

from partners.credit.calendar import list_anchors, year_fractions
from partners.credit.model import Plan, PlanTerms, ScheduleRow
from partners.credit.refund_rules import shrink
from partners.credit.repayment import interest_on_balances
from partners.credit.schedule import Schedule, build_schedule

_MILLION = 1_000_000


def schedule_terms(
    terms: PlanTerms, *, principal_fen: int, starts_on: date, elapsed_periods: int = 0
) -> Schedule:
    """The schedule of `principal_fen` over the periods left, on the anchor day of `starts_on`.

    A principal of fewer fen than there are periods left is paid in as many instalments as it has fen.
    """
    return build_schedule(
        principal_fen=principal_fen,
        annual_rate_ppm=terms.annual_rate_ppm,
        periods=min(terms.periods - elapsed_periods, principal_fen),
        method=terms.method,
        day_count=terms.day_count,
        start_on=starts_on,
        residue_on=terms.residue_on,
        fee_ppm_per_period=terms.fee_ppm_per_period,
        elapsed_periods=elapsed_periods,
    )


def reschedule(plan: Plan) -> list[ScheduleRow]:
    """All that is still owed, spread evenly by the plan's method over the instalments left."""
    if not plan.outstanding_fen:
        return []
    schedule = schedule_terms(
        plan.terms,
        principal_fen=plan.outstanding_fen,
        starts_on=plan.starts_on,
        elapsed_periods=plan.rows_paid,
    )
    return list_rows(schedule)


def reduce_schedule(plan: Plan, rows: Sequence[ScheduleRow], *, by_fen: int) -> list[ScheduleRow]:
    """The unpaid `rows` after `by_fen` of principal went away, by the offer's allocation.

    `plan` is the plan after the refund. Rows from which everything went are cancelled: they leave the schedule.
    """
    if plan.terms.refund_policy.allocation == "reamortise":
        return reschedule(plan)
    principals = shrink(
        [row.principal_fen for row in rows],
        by_fen=by_fen,
        from_last=plan.terms.refund_policy.allocation == "last",
    )
    return _with_interest(plan, rows, principals)


def _with_interest(plan: Plan, rows: Sequence[ScheduleRow], principals: list[int]) -> list[ScheduleRow]:
    anchors = list_anchors(plan.starts_on, elapsed_periods=plan.rows_paid, periods=len(rows))
    factors = [
        (plan.terms.annual_rate_ppm * share, _MILLION * whole)
        for share, whole in year_fractions(anchors, plan.terms.day_count)
    ]
    interests = interest_on_balances(plan.outstanding_fen, principals, factors)
    changed = [
        structs.replace(
            row,
            principal_fen=principal,
            interest_fen=interest,
            fee_fen=row.fee_fen if principal else 0,
            due_fen=principal + interest + (row.fee_fen if principal else 0),
        )
        for row, principal, interest in zip(rows, principals, interests, strict=True)
    ]
    return [row for row in changed if row.due_fen]


def list_rows(schedule: Schedule) -> list[ScheduleRow]:
    """The instalments as they are stored and shown."""
    return [
        ScheduleRow(
            no=row.no,
            due_on=row.due_on,
            anchor_on=row.anchor_on,
            principal_fen=row.principal_fen,
            interest_fen=row.interest_fen,
            fee_fen=row.fee_fen,
            due_fen=row.due_fen,
        )
        for row in schedule.rows
    ]
