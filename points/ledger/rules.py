"""The ledger's decisions: which lots pay, what comes back, what must be refused; no clock, no I/O."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from msgspec.structs import replace

from kernel.calendar import rfc3339
from kernel.errors import Absent, Conflict, Unprocessable
from points.ledger.model import (
    POINTS,
    CloseRequest,
    Closing,
    Hold,
    HoldLot,
    HoldRequest,
    Lot,
    Manager,
    PointType,
    Reversible,
    SpendRequest,
    Take,
)

#: points given back after their lot has expired live this much longer
RESTORED_GRACE = timedelta(days=30)
_NEVER = datetime.max.replace(tzinfo=UTC)
HOLD_TTL_SECONDS_MAX = 7 * 24 * 3600


class InsufficientPoints(Conflict):
    """The member has fewer points available than asked for."""


class HoldNotOpen(Conflict):
    """The hold has already been captured, released or has lapsed."""


class HoldLapsed(Conflict):
    """The hold's time ran out, so its points are the member's again."""


class CaptureExceedsHold(Unprocessable):
    """More points are to be captured than the hold reserves."""


class ManagedByPlan(Conflict):
    """An instalment plan looks after these points: capture, void or refund the plan instead."""


class ManagedByRedemption(Conflict):
    """A reward's redemption looks after these points: fulfil, fail or cancel the redemption instead."""


class HoldUnknown(Absent):
    """No such hold, or not one of this partner's."""

    code = "hold_not_found"


class OperationUnknown(Absent):
    """No such operation, or not one of this partner's."""

    code = "operation_not_found"


class OperationNotReversible(Conflict):
    """Only an earning or a captured hold can be reversed."""


class PointTypeUnknown(Unprocessable):
    """There is no type of points with this name."""


class RefundExceedsOrder(Unprocessable):
    """All refunds together would exceed the amount of the order."""


class RefundAlreadyPosted(Conflict):
    """A refund with this refund_ref has already been posted for this operation."""


def check_hold_request(request: HoldRequest) -> None:
    """What the edge's types have already refused to partners must not come from our own side either."""
    assert request.points > 0, "a hold reserves something"
    assert 1 <= request.ttl_seconds <= HOLD_TTL_SECONDS_MAX, "a hold lasts a second to seven days"


def check_spend_request(request: SpendRequest) -> None:
    """As for holds."""
    assert request.points > 0, "a spend takes something"
    assert request.order_fen is None or request.order_fen > 0, "refunds are proportional to something"


def decide_closing(request: CloseRequest, hold: Hold | None, *, operation_id: UUID, now: datetime) -> Closing:
    """Refuse what can never be done; whether the hold is still open only the wallet's lock can tell."""
    if hold is None or hold.partner_id != request.partner_id or request.member not in (None, hold.member):
        raise HoldUnknown
    check_manager(hold.manager, request.manager)
    if request.state == "released":
        return Closing(hold=hold, state="released", spent=0, amount_fen=0, operation_id=operation_id)
    spent = hold.points if request.points is None else request.points
    assert spent > 0, "a capture spends something"
    if spent > hold.points:
        raise CaptureExceedsHold(held_points=hold.points)
    if hold.state == "open" and hold.deadline_at <= now:
        raise HoldLapsed(deadline_at=rfc3339(hold.deadline_at))
    amount_fen = value_fen(spent, hold.point_type) if request.order_fen is None else request.order_fen
    return Closing(hold=hold, state="captured", spent=spent, amount_fen=amount_fen, operation_id=operation_id)


def check_manager(manager: Manager | None, asking: Manager | None) -> None:
    """What somebody looks after is moved by nobody else."""
    if manager == asking:
        return
    if manager == "redemption":
        raise ManagedByRedemption
    raise ManagedByPlan


def pin(lots: Sequence[Lot], takes: Sequence[Take]) -> list[Lot]:
    """`lots` as they are once a hold has taken `takes` of them."""
    held = {taken.lot.lot_seq: taken.points for taken in takes}
    return [
        replace(lot, held_points=lot.held_points + held[lot.lot_seq]) if lot.lot_seq in held else lot
        for lot in lots
    ]


def value_fen(points: int, point_type: PointType = POINTS) -> int:
    """What `points` pay for."""
    return points * point_type.value_fen_e6 // 1_000_000


def cost_fen(takes: Iterable[Take]) -> int:
    """What these points cost their funder; one floor at the end."""
    return sum(take.points * take.lot.unit_cost_e6 for take in takes) // 1_000_000


def spend_order(lot: Lot) -> tuple[bool, datetime, int]:
    """Soonest expiry first, then oldest; no expiry last. The statements that list lots say the same."""
    return lot.expires_at is None, lot.expires_at or _NEVER, lot.lot_seq


def take(lots: Iterable[Lot], points: int) -> list[Take]:
    """The free points of `lots` in their order until `points` are together; fewer when there are not enough."""
    takes = []
    for lot in lots:
        if points == 0:
            break
        if taken := min(points, lot.free_points):
            takes.append(Take(lot=lot, points=taken))
            points -= taken
    return takes


def take_back(
    lots: Sequence[Lot], origin: Sequence[Lot], points: int, room: Mapping[int, int]
) -> tuple[list[Take], list[Take]]:
    """(pending, free) points in `lots` that pay for reversing an earning: of its own lots first, then of its funders.

    Of its own lots what waits comes first, of the others' what is free. The lots of the earning tell the funders even
    when they have ended and are not among `lots` any more. `room` is how much each funder's points may still pay of it:
    nobody gets back more than the earning made it issue.
    """
    own = {lot.lot_seq for lot in origin}
    mine = [lot for lot in lots if lot.lot_seq in own]
    others = [lot for lot in lots if lot.lot_seq not in own]
    left = dict(room)
    pending: list[Take] = []
    free: list[Take] = []
    for chosen, takes, waits in (
        (mine, pending, True),
        (mine, free, False),
        (others, free, False),
        (others, pending, True),
    ):
        for lot in chosen:
            has = lot.pending_points if waits else lot.free_points
            if taken := min(points, has, left.get(lot.funder_id, 0)):
                takes.append(Take(lot=lot, points=taken))
                left[lot.funder_id] -= taken
                points -= taken
    return pending, free


def share_missing(
    origin: Sequence[Lot], takes: Sequence[Take], room: Mapping[int, int], points: int
) -> list[Take]:
    """What of `points` nobody has, charged to the earning's funders: one share for each, at the cost of its first lot."""
    missing = []
    rest = points - sum(taken.points for taken in takes)
    for funder_id in dict.fromkeys(lot.funder_id for lot in origin):
        taken = sum(one.points for one in takes if one.lot.funder_id == funder_id)
        if share := min(rest, room.get(funder_id, 0) - taken):
            first = next(lot for lot in origin if lot.funder_id == funder_id)
            missing.append(Take(lot=first, points=share))
            rest -= share
    assert rest == 0, "the funders of an earning issued all of it"
    return missing


def split_capture(pinned: Sequence[HoldLot], points: int) -> tuple[list[Take], list[Take]]:
    """(captured, returned) of a hold's lots, which come in spend order: the soonest to expire are spent."""
    captured, returned = [], []
    for hold_lot in pinned:
        spent = min(points, hold_lot.points)
        points -= spent
        if spent:
            captured.append(Take(lot=hold_lot.lot, points=spent))
        if spent < hold_lot.points:
            returned.append(Take(lot=hold_lot.lot, points=hold_lot.points - spent))
    return captured, returned


def give_back(pinned: Sequence[HoldLot], points: int) -> list[Take]:
    """Which lots get points of a reversed spend: those consumed last come first."""
    returned = []
    for hold_lot in reversed(pinned):
        if back := min(points, hold_lot.captured - hold_lot.restored):
            returned.append(Take(lot=hold_lot.lot, points=back))
            points -= back
    assert points == 0, "more is given back than was captured"
    return returned


def points_to_reverse(reversible: Reversible, refunded_fen: int) -> int:
    """The cumulative floor: after every refund the total undone is exactly proportional to the total refunded.

    reversed(k) = floor(points × refunded_total(k) / order_total) − already reversed; the last refund is exact.
    """
    refunded_total = reversible.reversed_fen + refunded_fen
    if refunded_total > reversible.base_fen:
        raise RefundExceedsOrder(refundable_fen=reversible.base_fen - reversible.reversed_fen)
    return reversible.base_points * refunded_total // reversible.base_fen - reversible.reversed_points


def restored_expiry(now: datetime) -> datetime:
    """When points given back to an expired lot end."""
    return now + RESTORED_GRACE
