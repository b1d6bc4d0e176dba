"""An operation explained over HTTP: why it moved so many points, which lots it touched, what refunds undid of it."""

from datetime import date, datetime
from uuid import UUID

from litestar import get
from litestar.di import NamedDependency
from litestar.params import FromPath
from msgspec import Struct

from kernel.caller import Caller, Subjects
from kernel.database import Connection
from kernel.ids import from_wire, to_wire
from points.earning.model import Limit
from points.earning.replay import Replayed, replay_operation
from points.ledger import service
from points.ledger.funder_codes import ToldFunders, find_told_funders
from points.ledger.model import (
    Explanation,
    HoldState,
    LotMove,
    MoveKind,
    Movement,
    Operation,
    OperationKind,
)
from points.ledger.rules import OperationUnknown

EARN = "points:earn"
SPEND = "points:spend"


class CampaignView(Struct, frozen=True, kw_only=True):
    """One campaign's part of an earning, computed again for this answer."""

    campaign: str
    #: 200 adds the base points once more, without the tier's part; null where it adds a fixed number
    multiplier_pct: int | None
    fixed_points: int | None
    #: before what limited it
    wanted_points: int
    points: int
    limited_by: Limit | None


class CalculationView(Struct, frozen=True, kw_only=True):
    """How an earning's points came about: amount × multiplier ÷ (100 × fen_per_point), one floor at the end."""

    rule_version: int
    #: null where such an activity earns nothing
    fen_per_point: int | None
    #: the member's tier at that moment
    tier: str
    multiplier_pct: int
    amount_fen: int
    category: str | None
    own_card: bool
    #: computed again for this answer, and capped
    base_points: int
    #: what the member's day had left under the cap, if that was less
    base_limit_points: int | None
    #: of campaigns, each in lots of its own, in the order in which they apply
    bonus_points: int
    campaigns: list[CampaignView]


class MovementView(Struct, frozen=True, kw_only=True):
    """Points by what they mean on the member's statement."""

    movement: Movement | None
    points: int


class TouchedLot(Struct, frozen=True, kw_only=True):
    """Points of one lot that the operation granted, took or gave back."""

    lot_id: str
    move: MoveKind
    points: int
    #: the bank or your own organisation; null for anybody else
    funder: str | None
    #: of what your own earning granted; a lot earned elsewhere keeps that to itself
    campaign: str | None
    expires_at: datetime | None


class PostedReversalView(Struct, frozen=True, kw_only=True):
    """A refund that undid part of it."""

    id: str
    refund_ref: str
    refunded_fen: int
    points: int
    recorded_at: datetime


class OperationView(Struct, frozen=True, kw_only=True):
    """One of your operations, explained."""

    id: str
    kind: OperationKind
    #: the member's subject at your organisation
    member: str | None
    points: int
    amount_fen: int
    #: kind and number of the event that earned, or your number of the order, transfer or exchange
    source_kind: str | None
    source_ref: str | None
    #: the hold that this operation opened or ended, and how it stands
    hold_id: str | None
    hold_state: HoldState | None
    #: what this operation undid, and for which refund
    reverses: str | None
    refund_ref: str | None
    #: null unless it earned
    calculation: CalculationView | None
    movements: list[MovementView]
    lots: list[TouchedLot]
    reversals: list[PostedReversalView]
    reversed_points: int
    reversed_fen: int
    occurred_at: datetime
    recorded_at: datetime
    business_on: date


@get("/v1/points/operations/{id:str}", scope=f"{EARN}|{SPEND}", level="A1")
async def read_operation(
    id: FromPath[str],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    subjects: NamedDependency[Subjects],
    now: NamedDependency[datetime],
) -> OperationView:
    """Explain one of your operations."""
    found = await service.explain_operation(
        connection, operation_id=_operation_id(id), partner_id=caller.partner_id
    )
    operation = found.operation
    if id.startswith("hld_") and operation.kind not in ("hold", "spend"):
        raise OperationUnknown
    # Who may only earn must not read what was spent, nor the other way round.
    caller.require(EARN if operation.kind in ("earn", "reverse_earn") else SPEND)
    names = await subjects.names(connection, partner_id=caller.partner_id, member_ids=[operation.member_id])
    replayed = await replay_operation(connection, operation, now=now) if operation.kind == "earn" else None
    told = await find_told_funders(connection, [move.funder_id for move in found.lots])
    lots = [_lot(move, operation, told, caller.partner_id) for move in found.lots]
    return _view(id, found, names.get(operation.member_id), replayed, lots)


def _operation_id(wire_id: str) -> UUID:
    """A hold is its own opening operation, so both names of it lead there."""
    return from_wire("hld" if wire_id.startswith("hld_") else "ent", wire_id)


def _view(
    wire_id: str,
    found: Explanation,
    member: str | None,
    replayed: Replayed | None,
    lots: list[TouchedLot],
) -> OperationView:
    o = found.operation
    return OperationView(
        id=wire_id,
        kind=o.kind,
        member=member,
        points=o.points,
        amount_fen=o.amount_fen,
        source_kind=o.source_kind,
        source_ref=o.source_ref,
        hold_id=None if o.hold_id is None else to_wire("hld", o.hold_id),
        hold_state=None if found.hold is None else found.hold.state,
        reverses=_undone(o),
        refund_ref=o.refund_ref,
        calculation=None if replayed is None else _calculation(o, replayed),
        movements=[MovementView(movement=m.movement, points=m.points) for m in found.movements],
        lots=lots,
        reversals=[
            PostedReversalView(
                id=to_wire("ent", r.id),
                refund_ref=r.refund_ref,
                refunded_fen=r.amount_fen,
                points=r.points,
                recorded_at=r.recorded_at,
            )
            for r in found.reversals
        ],
        reversed_points=sum(r.points for r in found.reversals),
        reversed_fen=sum(r.amount_fen for r in found.reversals),
        occurred_at=o.occurred_at,
        recorded_at=o.recorded_at,
        business_on=o.business_on,
    )


def _calculation(operation: Operation, replayed: Replayed) -> CalculationView:
    return CalculationView(
        rule_version=replayed.rule.version,
        fen_per_point=replayed.fen_per_point,
        tier=replayed.tier,
        multiplier_pct=replayed.multiplier_pct,
        amount_fen=operation.amount_fen,
        category=operation.category,
        own_card=bool(operation.own_card),
        base_points=replayed.base_points,
        base_limit_points=replayed.base_limit,
        bonus_points=sum(part.points for part in replayed.campaigns),
        campaigns=[
            CampaignView(
                campaign=part.campaign.code,
                multiplier_pct=part.campaign.multiplier_pct,
                fixed_points=part.campaign.fixed_points,
                wanted_points=part.wanted_points,
                points=part.points,
                limited_by=part.limited_by,
            )
            for part in replayed.campaigns
        ],
    )


def _undone(operation: Operation) -> str | None:
    """A spend is undone by its hold's name, as the partner asked for it."""
    if operation.reverses is None:
        return None
    if operation.hold_id is not None:
        return to_wire("hld", operation.hold_id)
    return to_wire("ent", operation.reverses)


def _lot(move: LotMove, operation: Operation, told: ToldFunders, partner_id: UUID) -> TouchedLot:
    """A lot may come from a funder or a campaign of another partner's: that the member was there is not told."""
    own = operation.kind in ("earn", "reverse_earn") and move.granted_by in (operation.id, operation.reverses)
    return TouchedLot(
        lot_id=to_wire("lot", move.lot_id),
        move=move.kind,
        points=move.points,
        funder=told.tell(move.funder_id, partner_id=partner_id),
        campaign=move.campaign if own else None,
        expires_at=move.expires_at,
    )


routes = [read_operation]
