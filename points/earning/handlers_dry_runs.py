"""A dry run of an earning over HTTP: what it would give at this moment, and nothing happens."""

from datetime import datetime

from litestar import post
from litestar.di import NamedDependency
from litestar.params import JSONBody
from msgspec import Struct

from kernel.caller import Caller, Subjects
from kernel.database import Connection
from points.earning import service
from points.earning.handlers import SCOPE, EarnRequest, funders_of, to_activity
from points.ledger.funder_codes import find_told_funders
from points.ledger.model import Balance


class ComponentPreview(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Points one rule would give; they would form a lot."""

    rule: str
    multiplier_pct: int
    points: int
    #: the bank or your own organisation; null for anybody else
    funder: str | None
    #: pending until then; null for points that may be spent at once
    activates_at: datetime | None
    expires_at: datetime | None
    #: of a campaign's points
    campaign: str | None = None


class EarningPreview(Struct, frozen=True, kw_only=True):
    """What an activity would earn at this moment; nothing has happened."""

    points: int
    components: list[ComponentPreview]
    #: as it would be afterwards
    balance: Balance
    as_of: datetime


@post("/v1/points/dry_runs/earn", scope=SCOPE, level="A1", member_token=True, status_code=200)
async def preview_earning(
    data: JSONBody[EarnRequest],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    subjects: NamedDependency[Subjects],
    now: NamedDependency[datetime],
) -> EarningPreview:
    """Say what an activity would earn; nothing happens."""
    member = await subjects.resolve_one(connection, caller, data.member, scope=SCOPE, now=now)
    earned = await service.preview_earning(
        connection, to_activity(data, member), partner_id=caller.partner_id, now=now
    )
    told = await find_told_funders(connection, funders_of([earned]))
    return EarningPreview(
        points=earned.points,
        components=[
            ComponentPreview(
                rule=grant.rule,
                multiplier_pct=grant.multiplier_pct,
                points=grant.points,
                funder=told.tell(grant.funder_id, partner_id=caller.partner_id),
                activates_at=grant.activates_at,
                expires_at=grant.expires_at,
                campaign=grant.campaign,
            )
            for grant in earned.grants
        ],
        balance=earned.balance,
        as_of=now,
    )


routes = [preview_earning]
