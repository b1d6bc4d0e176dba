"""Activity over HTTP: one deed of a member, or up to a thousand with an answer for each."""

from datetime import date, datetime
from typing import Annotated, Any

from litestar import post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody
from msgspec import Meta, Struct

from kernel.caller import Caller, MemberRef, Subjects
from kernel.database import Connection
from kernel.errors import Refusal
from kernel.items import BATCH_MAX, ItemInvalid, decode_items
from kernel.money import OrderFen
from kernel.problem import status_of, to_problem
from points.membership import activity as service
from points.membership.model import Deed, DeedKind
from points.membership.rules import month_of

SCOPE = "activity:write"
#: one item that the database cannot store must not fail the others
STORABLE = r"^[^\u0000]*$"


class ActivityReport(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Something a member did that counts for the shop level, whether or not it earns points."""

    source_ref: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=128,
            pattern=STORABLE,
            description="Your number of the event: it counts once for ever, also if it earns.",
        ),
    ]
    kind: Annotated[DeedKind, Meta(description="What the member did.")]
    occurred_at: Annotated[datetime, Meta(tz=True, description="When it happened, with a time zone.")]
    amount_fen: OrderFen
    category: (
        Annotated[str, Meta(min_length=1, max_length=64, pattern=STORABLE, description="What was bought.")]
        | None
    ) = None
    own_card: Annotated[bool, Meta(description="Paid with the bank's own card.")] = False


class MemberActivityReport(ActivityReport, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The same in a batch, where it names the member."""

    member: Annotated[str, Meta(max_length=128, description="The member's subject at your organisation.")]


class ActivityBatch(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Activities to be counted together; every item is judged by itself."""

    items: Annotated[
        list[Any],
        Meta(
            min_length=1,
            max_length=BATCH_MAX,
            description="Each like the body of a single activity, with `member`.",
        ),
    ]


class CountedActivity(Struct, frozen=True, kw_only=True):
    """An activity that counted."""

    kind: str
    source_ref: str
    amount_fen: int
    #: the first day of the month in which it counts, in Asia/Shanghai
    month: date


class ActivityResult(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer to one item: what counted, or a problem."""

    status: int
    activity: CountedActivity | None = None
    problem: dict[str, Any] | None = None


class ActivityResults(Struct, frozen=True, kw_only=True):
    """One answer per item, in the order of the items."""

    results: list[ActivityResult]


@post("/v1/members/{sub:str}/activity", scope=SCOPE, idempotent=True, level="A2", member_token=True)
async def report_activity(
    sub: FromPath[str],
    data: JSONBody[ActivityReport],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    subjects: NamedDependency[Subjects],
    now: NamedDependency[datetime],
) -> CountedActivity:
    """Report what a member did, for the shop level."""
    member = await subjects.resolve_one(connection, caller, sub, scope=SCOPE, now=now)
    reported = [(caller.partner_id, _deed(data, member))]
    (answer,) = await service.report_activity(connection, reported, now=now)
    if isinstance(answer, Refusal):
        raise answer
    return _counted(answer)


@post("/v1/activity/batch", scope=SCOPE, idempotent=True, batch=True, level="A2", status_code=200)
async def report_activities(
    data: JSONBody[ActivityBatch],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    subjects: NamedDependency[Subjects],
    base_url: NamedDependency[str],
    now: NamedDependency[datetime],
) -> ActivityResults:
    """Report up to 1,000 activities in one transaction, with a result for each."""
    reports = decode_items(data.items, MemberActivityReport)
    subs = sorted({report.member for report in reports if isinstance(report, MemberActivityReport)})
    named = [caller.name(sub) for sub in subs]
    found = await subjects.resolve_each(connection, named, scope=SCOPE, now=now)
    members = dict(zip(subs, found, strict=True))
    decided = [_decide(report, members) for report in reports]
    deeds = [(caller.partner_id, decision) for decision in decided if isinstance(decision, Deed)]
    outcomes = iter(await service.report_activity(connection, deeds, now=now))
    answers = [next(outcomes) if isinstance(decision, Deed) else decision for decision in decided]
    return ActivityResults(results=[_result(answer, base_url) for answer in answers])


def _decide(
    report: MemberActivityReport | ItemInvalid, members: dict[str, MemberRef | Refusal]
) -> Deed | Refusal:
    if isinstance(report, ItemInvalid):
        return report
    member = members[report.member]
    return member if isinstance(member, Refusal) else _deed(report, member)


def _deed(report: ActivityReport, member: MemberRef) -> Deed:
    return Deed(
        member=member,
        kind=report.kind,
        source_ref=report.source_ref,
        occurred_at=report.occurred_at,
        amount_fen=report.amount_fen,
        own_card=report.own_card,
        category=report.category,
    )


def _result(answer: Deed | Refusal, base_url: str) -> ActivityResult:
    if isinstance(answer, Refusal):
        return ActivityResult(status=status_of(answer), problem=to_problem(answer, base_url=base_url))
    return ActivityResult(status=201, activity=_counted(answer))


def _counted(deed: Deed) -> CountedActivity:
    return CountedActivity(
        kind=deed.kind,
        source_ref=deed.source_ref,
        amount_fen=deed.amount_fen,
        month=month_of(deed.occurred_at),
    )


routes = [report_activity, report_activities]
