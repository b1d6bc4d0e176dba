"""Rewards over HTTP for partners: what a member may redeem, redemptions, and what became of them."""

from datetime import datetime
from uuid import UUID

from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody

from kernel.caller import Caller, MemberUnknown, Subjects
from kernel.database import Connection
from kernel.errors import Absent
from kernel.ids import from_wire, to_wire
from kernel.pages import CursorSeal, Page, check_limit
from kernel.vault import Vault
from points.rewards import service
from points.rewards.bodies import (
    CodeView,
    FailureRequest,
    LimitView,
    RedemptionRequest,
    RedemptionView,
    RewardView,
    TitleView,
)
from points.rewards.model import Offered, Redemption, Wish
from points.rewards.rules import NotTheRedeemer, RedemptionUnknown, RewardUnknown

SCOPE = "points:spend"


@get("/v1/rewards", scope=SCOPE, level="A1", member_token=True)
async def list_rewards(
    member: FromQuery[str],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    subjects: NamedDependency[Subjects],
    cursors: NamedDependency[CursorSeal],
    now: NamedDependency[datetime],
    limit: FromQuery[int] = 20,
    cursor: FromQuery[str | None] = None,
) -> Page[RewardView]:
    """List what a member may redeem through you now, newest first."""
    check_limit(limit)
    found = await subjects.resolve_one(connection, caller, member, scope=SCOPE, now=now)
    binding = f"{caller.client_id}:rewards:{member}"
    before = None if cursor is None else UUID(cursors.open(binding, cursor))
    offered = await service.list_offered(
        connection, member=found, partner_id=caller.partner_id, before=before, limit=limit + 1, now=now
    )
    more = cursors.seal(binding, str(offered[limit - 1].reward.id)) if len(offered) > limit else None
    return Page(data=[_reward(each) for each in offered[:limit]], next_cursor=more)


@post("/v1/redemptions", scope=SCOPE, idempotent=True, level="A2")
async def redeem(
    data: JSONBody[RedemptionRequest],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    subjects: NamedDependency[Subjects],
    now: NamedDependency[datetime],
) -> RedemptionView:
    """Redeem a reward for a member's points."""
    member = await subjects.resolve_one(connection, caller, data.member, scope=SCOPE, now=now)
    wish = Wish(
        member=member,
        partner_id=caller.partner_id,
        reward_id=_reward_id(data.reward),
        redemption_ref=data.redemption_ref,
        price_points=data.price_points,
    )
    return _view(await service.redeem(connection, wish, now=now), caller, data.member)


@get("/v1/redemptions/{id:str}", scope=SCOPE, level="A1")
async def read_redemption(
    id: FromPath[str],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    subjects: NamedDependency[Subjects],
) -> RedemptionView:
    """Read a redemption made through you, or one you provide."""
    redemption = await service.find_redemption(
        connection, redemption_id=_redemption_id(id), asking=caller.partner_id
    )
    return await _answer(connection, redemption, caller, subjects)


@post("/v1/redemptions/{id:str}/code", scope=SCOPE, level="A2", status_code=200)
async def show_code(
    id: FromPath[str],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    subjects: NamedDependency[Subjects],
    vault: NamedDependency[Vault],
    now: NamedDependency[datetime],
) -> CodeView:
    """Show a gift card's code to hand on to the member; as often as needed, with the member's consent."""
    redemption_id = _redemption_id(id)
    redemption = await service.find_redemption(
        connection, redemption_id=redemption_id, asking=caller.partner_id
    )
    if redemption.partner_id != caller.partner_id:
        raise NotTheRedeemer
    sub = await _name(connection, redemption, caller, subjects)
    if sub is None:
        raise MemberUnknown
    await subjects.resolve_one(connection, caller, sub, scope=SCOPE, now=now)
    code = await service.show_code(
        connection, redemption_id=redemption_id, asking=caller.partner_id, vault=vault, now=now
    )
    return CodeView(code=code)


@post("/v1/redemptions/{id:str}/cancel", scope=SCOPE, idempotent=True, level="A2", status_code=200)
async def cancel_redemption(
    id: FromPath[str],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    subjects: NamedDependency[Subjects],
    now: NamedDependency[datetime],
) -> RedemptionView:
    """Cancel a redemption as its reward's policy lets you: the points go back."""
    redemption = await service.cancel(
        connection, redemption_id=_redemption_id(id), asking=caller.partner_id, now=now
    )
    return await _answer(connection, redemption, caller, subjects)


@post("/v1/redemptions/{id:str}/fulfil", scope=SCOPE, idempotent=True, level="A2", status_code=200)
async def fulfil_redemption(
    id: FromPath[str],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    subjects: NamedDependency[Subjects],
    now: NamedDependency[datetime],
) -> RedemptionView:
    """Confirm a service you provide, before you give it: only then are the points yours."""
    redemption = await service.fulfil(
        connection, redemption_id=_redemption_id(id), provider_id=caller.partner_id, now=now
    )
    return await _answer(connection, redemption, caller, subjects)


@post("/v1/redemptions/{id:str}/fail", scope=SCOPE, idempotent=True, level="A2", status_code=200)
async def fail_redemption(
    id: FromPath[str],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    subjects: NamedDependency[Subjects],
    now: NamedDependency[datetime],
    data: JSONBody[FailureRequest | None] = None,
) -> RedemptionView:
    """Say that you will not give a service: the points go back."""
    redemption = await service.fail(
        connection,
        redemption_id=_redemption_id(id),
        provider_id=caller.partner_id,
        reason=(data or FailureRequest()).reason,
        now=now,
    )
    return await _answer(connection, redemption, caller, subjects)


def _reward_id(text: str) -> UUID:
    try:
        return from_wire("rwd", text)
    except Absent:
        raise RewardUnknown from None


def _redemption_id(text: str) -> UUID:
    try:
        return from_wire("rdm", text)
    except Absent:
        raise RedemptionUnknown from None


async def _answer(
    connection: Connection, redemption: Redemption, caller: Caller, subjects: Subjects
) -> RedemptionView:
    return _view(redemption, caller, await _name(connection, redemption, caller, subjects))


async def _name(
    connection: Connection, redemption: Redemption, caller: Caller, subjects: Subjects
) -> str | None:
    """The caller's own name for the member; a provider that did not redeem it is told none."""
    if redemption.partner_id != caller.partner_id:
        return None
    member_id = redemption.member.member_id
    names = await subjects.names(connection, partner_id=caller.partner_id, member_ids=[member_id])
    return names.get(member_id)


def _view(redemption: Redemption, caller: Caller, sub: str | None) -> RedemptionView:
    own = redemption.partner_id == caller.partner_id
    return RedemptionView(
        id=to_wire("rdm", redemption.id),
        state=redemption.state,
        kind=redemption.kind,
        reward=to_wire("rwd", redemption.reward_id),
        member=sub,
        redemption_ref=redemption.redemption_ref if own else None,
        price_points=redemption.price_points,
        price_version=redemption.price_version,
        requested_at=redemption.requested_at,
        fulfil_by=redemption.fulfil_by,
        fulfilled_at=redemption.fulfilled_at,
        closed_at=redemption.closed_at,
        reason=redemption.reason,
        shown_at=redemption.shown_at,
    )


def _reward(offered: Offered) -> RewardView:
    reward, limit = offered.reward, None
    if reward.limit_count is not None and reward.limit_period is not None:
        assert offered.times_left is not None, "a limit leaves a number"
        limit = LimitView(count=reward.limit_count, period=reward.limit_period, left=offered.times_left)
    return RewardView(
        id=to_wire("rwd", reward.id),
        kind=reward.kind,
        title=TitleView(zh=reward.title_zh, en=reward.title_en),
        price_points=reward.price_points,
        point_type=offered.point_type,
        price_version=reward.price_version,
        offset_fen=reward.offset_fen,
        left=offered.left,
        limit=limit,
        ends_at=reward.ends_at,
    )


routes = [
    list_rewards,
    redeem,
    read_redemption,
    show_code,
    cancel_redemption,
    fulfil_redemption,
    fail_redemption,
]
