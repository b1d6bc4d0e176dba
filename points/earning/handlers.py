"""Earning over HTTP: one activity, or up to a thousand with an answer for each."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from litestar import post
from litestar.di import NamedDependency
from litestar.params import JSONBody
from msgspec import Meta, Struct

from kernel.caller import Caller, MemberRef, Subjects
from kernel.database import Connection
from kernel.errors import Refusal
from kernel.ids import to_wire
from kernel.items import BATCH_MAX, ItemInvalid, decode_items
from kernel.money import OrderFen
from kernel.problem import status_of, to_problem
from kernel.together import Asked, Kind, Writer
from points.earning import handlers_operations, handlers_reversals, service
from points.earning.model import Activity, Earned, ReportedKind
from points.ledger.funder_codes import ToldFunders, find_told_funders
from points.ledger.model import Balance, Grant

SCOPE = "points:earn"
#: one item that the database cannot store must not fail the others
STORABLE = r"^[^\u0000]*$"


class EarnRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Something a member did that may earn points."""

    member: Annotated[str, Meta(max_length=128, description="The member's subject at your organisation.")]
    source_ref: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=128,
            pattern=STORABLE,
            description="Your number of the event: it earns once for ever.",
        ),
    ]
    kind: Annotated[ReportedKind, Meta(description="What the member did.")]
    occurred_at: Annotated[datetime, Meta(tz=True, description="When it happened, with a time zone.")]
    amount_fen: OrderFen
    category: (
        Annotated[str, Meta(min_length=1, max_length=64, pattern=STORABLE, description="What was bought.")]
        | None
    ) = None
    own_card: Annotated[bool, Meta(description="Paid with the bank's own card.")] = False
    campaign: (
        Annotated[
            str,
            Meta(
                min_length=1,
                max_length=64,
                pattern=STORABLE,
                description="Refuse unless this campaign gives points.",
            ),
        ]
        | None
    ) = None
    rule_version: (
        Annotated[
            int,
            Meta(
                ge=1, le=2**31 - 1, description="Refuse unless this version of the earning rules is in force."
            ),
        ]
        | None
    ) = None


class EarnBatch(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Earnings to be posted together; every item is judged by itself."""

    items: Annotated[
        list[Any],
        Meta(min_length=1, max_length=BATCH_MAX, description="Each like the body of a single earning."),
    ]


class Component(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Points one rule gave; they form a lot."""

    rule: str
    multiplier_pct: int
    points: int
    lot_id: str
    #: the bank or your own organisation; null for anybody else
    funder: str | None
    expires_at: datetime | None
    #: of a campaign's points; each of its funders has a lot
    campaign: str | None = None
    #: pending until then; not there for points that may be spent at once
    activates_at: datetime | None = None


class Earning(Struct, frozen=True, kw_only=True):
    """What an activity earned."""

    id: str
    points: int
    #: of the earning rules that were in force
    rule_version: int
    components: list[Component]
    balance: Balance


class BatchResult(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer to one item: an earning, or a problem."""

    status: int
    earning: Earning | None = None
    problem: dict[str, Any] | None = None


class BatchResults(Struct, frozen=True, kw_only=True):
    """One answer per item, in the order of the items."""

    results: list[BatchResult]


async def _post_together(
    connection: Connection, asked: Sequence[Asked[EarnRequest]], subjects: Subjects, now: datetime
) -> list[Earning | Refusal]:
    named = [one.caller.name(one.item.member) for one in asked]
    members = await subjects.resolve_each(connection, named, scope=SCOPE, now=now)
    reported = [
        (one.caller.partner_id, to_activity(one.item, member))
        for one, member in zip(asked, members, strict=True)
        if isinstance(member, MemberRef)
    ]
    outcomes = iter(await service.earn_each(connection, reported, now=now))
    answers = [next(outcomes) if isinstance(member, MemberRef) else member for member in members]
    told = await find_told_funders(connection, funders_of(answers))
    return [
        answer if isinstance(answer, Refusal) else _earning(answer, told, one.caller.partner_id)
        for one, answer in zip(asked, answers, strict=True)
    ]


EARNINGS = Kind("earnings", _post_together)


@post("/v1/points/earnings", scope=SCOPE, idempotent=True, together=True, level="A2", member_token=True)
async def post_earning(data: JSONBody[EarnRequest], writer: NamedDependency[Writer]) -> Earning:
    """Post what one activity earns."""
    return await writer.post(EARNINGS, data)


@post("/v1/points/earnings/batch", scope=SCOPE, idempotent=True, batch=True, level="A2", status_code=200)
async def post_earnings(
    data: JSONBody[EarnBatch],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    subjects: NamedDependency[Subjects],
    base_url: NamedDependency[str],
    now: NamedDependency[datetime],
) -> BatchResults:
    """Post up to 1,000 earnings in one transaction, with a result for each."""
    requests = decode_items(data.items, EarnRequest)
    subs = sorted({request.member for request in requests if isinstance(request, EarnRequest)})
    named = [caller.name(sub) for sub in subs]
    found = await subjects.resolve_each(connection, named, scope=SCOPE, now=now)
    members = dict(zip(subs, found, strict=True))
    decided = [_decide(request, members) for request in requests]
    activities = [decision for decision in decided if isinstance(decision, Activity)]
    outcomes = iter(await service.earn(connection, activities, partner_id=caller.partner_id, now=now))
    answers = [next(outcomes) if isinstance(decision, Activity) else decision for decision in decided]
    told = await find_told_funders(connection, funders_of(answers))
    views = [
        answer if isinstance(answer, Refusal) else _earning(answer, told, caller.partner_id)
        for answer in answers
    ]
    return BatchResults(results=[_result(view, base_url) for view in views])


def _decide(
    request: EarnRequest | ItemInvalid, members: dict[str, MemberRef | Refusal]
) -> Activity | Refusal:
    if isinstance(request, ItemInvalid):
        return request
    member = members[request.member]
    return member if isinstance(member, Refusal) else to_activity(request, member)


def to_activity(request: EarnRequest, member: MemberRef) -> Activity:
    """What the partner reported, of a member we know."""
    return Activity(
        member=member,
        source_ref=request.source_ref,
        kind=request.kind,
        occurred_at=request.occurred_at,
        amount_fen=request.amount_fen,
        category=request.category,
        own_card=request.own_card,
        campaign=request.campaign,
        rule_version=request.rule_version,
    )


def funders_of(answers: Sequence[Earned | Refusal]) -> set[int]:
    """Whoever pays for any of it."""
    return {grant.funder_id for one in answers if isinstance(one, Earned) for grant in one.grants}


def _result(answer: Earning | Refusal, base_url: str) -> BatchResult:
    if isinstance(answer, Refusal):
        return BatchResult(status=status_of(answer), problem=to_problem(answer, base_url=base_url))
    return BatchResult(status=201, earning=answer)


def _earning(earned: Earned, told: ToldFunders, partner_id: UUID) -> Earning:
    return Earning(
        id=to_wire("ent", earned.operation_id),
        points=earned.points,
        rule_version=earned.rule_version,
        components=[
            _component(grant, told.tell(grant.funder_id, partner_id=partner_id)) for grant in earned.grants
        ],
        balance=earned.balance,
    )


def _component(grant: Grant, funder: str | None) -> Component:
    return Component(
        rule=grant.rule,
        campaign=grant.campaign,
        multiplier_pct=grant.multiplier_pct,
        points=grant.points,
        lot_id=to_wire("lot", grant.lot_id),
        funder=funder,
        expires_at=grant.expires_at,
        activates_at=grant.activates_at,
    )


routes = [post_earning, post_earnings, *handlers_operations.routes, *handlers_reversals.routes]
