"""What the hot routes post together: points spent, holds placed, captured and released, each answered for itself."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from msgspec import Struct

from kernel import allowances
from kernel.caller import Caller, MemberRef, Subjects
from kernel.database import Connection
from kernel.errors import Absent, Forbidden, Refusal
from kernel.ids import from_wire, to_wire
from kernel.together import Asked, Kind
from points.ledger import bodies, service
from points.ledger.bodies import CapturedView, HoldCapture, HoldView, ReleasedView, SpendView
from points.ledger.model import CloseRequest, Hold, HoldOutcome, HoldRequest, PointType, SpendRequest
from points.ledger.rules import PointTypeUnknown

SPEND = "points:spend"

AskedSpend = Asked[bodies.HoldRequest] | Asked[bodies.SpendRequest]


class SpendLimitExceeded(Forbidden):
    """The member allowed fewer points to be spent under this grant; ask the member for more."""


class _Found(Struct, frozen=True, kw_only=True):
    """A member and a type of points that are both there."""

    member: MemberRef
    point_type: PointType


class Capture(Struct, frozen=True, kw_only=True):
    """A hold's public id, and how much of it to spend."""

    id: str
    wish: HoldCapture


async def _place(
    connection: Connection, asked: Sequence[Asked[bodies.HoldRequest]], subjects: Subjects, now: datetime
) -> list[HoldView | Refusal]:
    wishes: list[HoldRequest | Refusal] = [
        found
        if isinstance(found, Refusal)
        else HoldRequest(
            member=found.member,
            partner_id=one.caller.partner_id,
            points=one.item.points,
            order_ref=one.item.order_ref,
            ttl_seconds=one.item.ttl_seconds,
            point_type=found.point_type,
        )
        for one, found in zip(asked, await _find_allowed(connection, asked, subjects, now), strict=True)
    ]
    requests = [wish for wish in wishes if isinstance(wish, HoldRequest)]
    outcomes = iter(await service.place_holds(connection, requests, now=now))
    answers = [wish if isinstance(wish, Refusal) else next(outcomes) for wish in wishes]
    await _give_back(connection, asked, wishes, answers)
    return [answer if isinstance(answer, Refusal) else view_hold(answer) for answer in answers]


async def _spend(
    connection: Connection, asked: Sequence[Asked[bodies.SpendRequest]], subjects: Subjects, now: datetime
) -> list[SpendView | Refusal]:
    wishes: list[SpendRequest | Refusal] = [
        found
        if isinstance(found, Refusal)
        else SpendRequest(
            member=found.member,
            partner_id=one.caller.partner_id,
            points=one.item.points,
            order_ref=one.item.order_ref,
            order_fen=one.item.order_fen,
            point_type=found.point_type,
        )
        for one, found in zip(asked, await _find_allowed(connection, asked, subjects, now), strict=True)
    ]
    requests = [wish for wish in wishes if isinstance(wish, SpendRequest)]
    outcomes = iter(await service.spend_points(connection, requests, now=now))
    answers = [wish if isinstance(wish, Refusal) else next(outcomes) for wish in wishes]
    await _give_back(connection, asked, wishes, answers)
    return [answer if isinstance(answer, Refusal) else _view_spend(answer) for answer in answers]


async def _find_allowed(
    connection: Connection, asked: Sequence[AskedSpend], subjects: Subjects, now: datetime
) -> list[_Found | Refusal]:
    """`_find_each`, and of a member's token no more than its member allowed it in all (RFC 9396 `points_spend`).

    Drawn in the order of the grants, and before any wallet is locked: so no circle closes.
    """
    found = await _find_each(connection, asked, subjects, now)
    limited = [
        (one.caller.grant_id, place, limit)
        for place, one in enumerate(asked)
        if not isinstance(found[place], Refusal) and (limit := _limit_of(one.caller)) is not None
    ]
    for grant_id, place, limit in sorted(limited, key=lambda each: (str(each[0]), each[1])):
        points = asked[place].item.points
        if not await allowances.draw(connection, f"points_spend:{grant_id}", amount=points, limit=limit):
            found[place] = SpendLimitExceeded(max_points=limit)
    return found


async def _give_back(
    connection: Connection,
    asked: Sequence[AskedSpend],
    wishes: Sequence[object],
    answers: Sequence[object],
) -> None:
    """What was drawn for a wish that came to nothing."""
    for one, wish, answer in zip(asked, wishes, answers, strict=True):
        if isinstance(answer, Refusal) and wish is not answer and _limit_of(one.caller) is not None:
            name = f"points_spend:{one.caller.grant_id}"
            await allowances.give_back(connection, name, amount=one.item.points)


def _limit_of(caller: Caller) -> int | None:
    detail = caller.find_detail("points_spend")
    return None if detail is None else int(detail["max_points"])


async def _find_each(
    connection: Connection,
    asked: Sequence[AskedSpend],
    subjects: Subjects,
    now: datetime,
) -> list[_Found | Refusal]:
    """Whose points of which type; each is answered for itself."""
    members = await _resolve_each(connection, asked, subjects, now)
    types = await service.find_point_types(connection, {one.item.point_type for one in asked})
    found: list[_Found | Refusal] = []
    for one, member in zip(asked, members, strict=True):
        point_type = types.get(one.item.point_type)
        if isinstance(member, Refusal):
            found.append(member)
        elif point_type is None:
            found.append(PointTypeUnknown())
        else:
            found.append(_Found(member=member, point_type=point_type))
    return found


async def _resolve_each(
    connection: Connection, asked: Sequence[AskedSpend], subjects: Subjects, now: datetime
) -> list[MemberRef | Refusal]:
    """Whose points: members' tokens and apps' own, each by what is consented to for its kind."""
    found: dict[int, MemberRef | Refusal] = {}
    for by_member in (False, True):
        places = [place for place, one in enumerate(asked) if (one.caller.subject is not None) is by_member]
        if places:
            named = [asked[place].caller.name(asked[place].item.member) for place in places]
            members = await subjects.resolve_each(
                connection, named, scope=SPEND, by_member=by_member, now=now
            )
            found |= zip(places, members, strict=True)
    return [found[place] for place in range(len(asked))]


async def _capture(
    connection: Connection, asked: Sequence[Asked[Capture]], subjects: Subjects, now: datetime
) -> list[CapturedView | Refusal]:
    owners = await _list_owners(connection, [one.caller for one in asked], subjects, now)
    decided = [
        _decide(one.caller, owner, "captured", one.item.id, one.item.wish)
        for one, owner in zip(asked, owners, strict=True)
    ]
    outcomes = await _close(connection, decided, now)
    return [
        outcome
        if isinstance(outcome, Refusal)
        else CapturedView(
            id=one.item.id,
            state=outcome.hold.state,
            captured_points=outcome.captured_points,
            released_points=outcome.released_points,
            value_fen=outcome.value_fen,
        )
        for one, outcome in zip(asked, outcomes, strict=True)
    ]


async def _release(
    connection: Connection, asked: Sequence[Asked[str]], subjects: Subjects, now: datetime
) -> list[ReleasedView | Refusal]:
    owners = await _list_owners(connection, [one.caller for one in asked], subjects, now)
    decided = [
        _decide(one.caller, owner, "released", one.item, HoldCapture())
        for one, owner in zip(asked, owners, strict=True)
    ]
    outcomes = await _close(connection, decided, now)
    return [
        outcome
        if isinstance(outcome, Refusal)
        else ReleasedView(id=one.item, state=outcome.hold.state, released_points=outcome.released_points)
        for one, outcome in zip(asked, outcomes, strict=True)
    ]


HOLDS = Kind("holds", _place)
SPENDS = Kind("spends", _spend)
CAPTURES = Kind("captures", _capture)
RELEASES = Kind("releases", _release)


def view_hold(hold: Hold) -> HoldView:
    """A hold as its partner sees it."""
    return HoldView(
        id=to_wire("hld", hold.id),
        state=hold.state,
        points=hold.points,
        captured_points=hold.captured_points,
        value_fen=service.value_fen(hold.points, hold.point_type),
        order_ref=hold.order_ref,
        expires_at=hold.deadline_at,
        point_type=hold.point_type.name,
        spend_order=hold.spend_order,
    )


def _view_spend(spent: Hold) -> SpendView:
    return SpendView(
        id=to_wire("hld", spent.id),
        state=spent.state,
        points=spent.points,
        captured_points=spent.captured_points,
        value_fen=service.value_fen(spent.points, spent.point_type),
        order_ref=spent.order_ref,
        point_type=spent.point_type.name,
    )


async def _list_owners(
    connection: Connection, callers: Sequence[Caller], subjects: Subjects, now: datetime
) -> list[MemberRef | Refusal | None]:
    """Of each caller with a member's token, the member: only that one's holds are there for it. None of others."""
    own = [caller for caller in callers if caller.subject is not None]
    if not own:
        return [None] * len(callers)
    named = [(caller.partner_id, caller.subject or "") for caller in own]
    found = iter(await subjects.resolve_each(connection, named, scope=SPEND, by_member=True, now=now))
    return [None if caller.subject is None else next(found) for caller in callers]


def _decide(
    caller: Caller,
    owner: MemberRef | Refusal | None,
    state: Literal["captured", "released"],
    wire_id: str,
    wish: HoldCapture,
) -> CloseRequest | Refusal:
    if isinstance(owner, Refusal):
        return owner
    try:
        hold_id = from_wire("hld", wire_id)
    except Absent as refusal:
        return refusal
    return CloseRequest(
        hold_id=hold_id,
        partner_id=caller.partner_id,
        member=owner,
        state=state,
        points=wish.points,
        order_fen=wish.order_fen,
    )


async def _close(
    connection: Connection, decided: Sequence[CloseRequest | Refusal], now: datetime
) -> list[HoldOutcome | Refusal]:
    requests = [decision for decision in decided if isinstance(decision, CloseRequest)]
    outcomes = iter(await service.close_holds(connection, requests, now=now))
    return [next(outcomes) if isinstance(decision, CloseRequest) else decision for decision in decided]
