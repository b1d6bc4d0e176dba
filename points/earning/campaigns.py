"""Campaigns: proposed by one person, approved by another, paused by anyone on duty, and ended by time or budget."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from kernel import audit
from kernel.audit import AuditRecord
from kernel.caller import MemberRef
from kernel.database import Connection
from kernel.errors import Absent, Conflict
from kernel.ids import new_id, to_wire
from points.earning import campaign_queries as queries
from points.earning.book import LEAD, SHELF
from points.earning.definitions import CampaignDefinition, CampaignRow, check_campaign
from points.earning.versions import MakerMayNotApprove, NotInReview, find_funder
from points.ledger import budgets

#: where each transition may begin
_BEFORE: dict[str, tuple[str, ...]] = {
    "in_review": ("draft",),
    "paused": ("scheduled", "running"),
    "scheduled": ("paused", "exhausted"),
    "ended": ("draft", "in_review", "scheduled", "running", "paused", "exhausted"),
}


class CampaignAbsent(Absent):
    """There is no campaign of this code."""

    code = "campaign_not_found"


class CampaignCodeTaken(Conflict):
    """Another campaign has this code; a code is used once for ever."""


class CampaignStateForbids(Conflict):
    """The campaign's state does not allow this."""


async def propose_campaign(
    connection: Connection,
    definition: CampaignDefinition,
    *,
    members: Sequence[MemberRef] = (),
    by: str,
    submit: bool = True,
    now: datetime,
) -> CampaignRow:
    """A new campaign, with the members it is for if it is for listed ones; handed in for review unless kept as a draft."""
    check_campaign(definition)
    campaign_id = new_id(now)
    if not await queries.insert_campaign(
        connection, definition, campaign_id=campaign_id, made_by=by, now=now
    ):
        raise CampaignCodeTaken
    shares = [
        (await find_funder(connection, share.funder), share.share_ppm, share) for share in definition.shares
    ]
    await queries.insert_shares(connection, campaign_id, shares)
    if members:
        await queries.insert_members(connection, campaign_id, members)
    if submit:
        await queries.move_campaign(connection, campaign_id, before=("draft",), after="in_review")
    await _record(connection, campaign_id, "propose", by, {"code": definition.code}, now)
    return await find_campaign(connection, definition.code)


async def submit_campaign(connection: Connection, code: str, *, by: str, now: datetime) -> None:
    """Hand a draft in for review."""
    await _move(connection, code, "in_review", "submit", by=by, now=now)


async def approve_campaign(connection: Connection, code: str, *, by: str, now: datetime) -> datetime:
    """Let a campaign give points and open its budget; returns from when on, if its window has begun by then."""
    campaign = await find_campaign(connection, code)
    if campaign.made_by == by:
        raise MakerMayNotApprove
    if campaign.state != "in_review":
        raise NotInReview(state=campaign.state)
    budget_id = None
    if campaign.budget_total is not None:
        budget_id = await budgets.open_budget(
            connection,
            kind="campaign",
            unit="fen" if campaign.budget_unit == "fen" else "points",
            owner=code,
            total=campaign.budget_total,
            now=now,
        )
    in_force_from = now + LEAD
    if not await queries.approve_campaign(
        connection, campaign.id, by=by, in_force_from=in_force_from, budget_id=budget_id, now=now
    ):
        raise NotInReview(state=campaign.state)
    await _record(connection, campaign.id, "approve", by, {"code": code}, now)
    SHELF.forget()
    return max(in_force_from, campaign.starts_at)


async def pause_campaign(connection: Connection, code: str, *, by: str, now: datetime) -> None:
    """Stop a campaign at once: a batch that begins after the commit gets nothing of it."""
    await _move(connection, code, "paused", "pause", by=by, now=now)


async def resume_campaign(connection: Connection, code: str, *, by: str, now: datetime) -> None:
    """Let a paused campaign go on, or an exhausted one whose budget was raised."""
    await _move(connection, code, "scheduled", "resume", by=by, now=now)


async def end_campaign(connection: Connection, code: str, *, by: str, now: datetime) -> None:
    """End a campaign for good and close its budget; what it gave can still be refunded."""
    campaign = await _move(connection, code, "ended", "end", by=by, now=now)
    if campaign.budget_id is not None:
        await budgets.close_budget(connection, campaign.budget_id, now=now)


async def raise_budget(connection: Connection, code: str, *, add: int, by: str, now: datetime) -> None:
    """More of the same for a campaign."""
    campaign = await find_campaign(connection, code)
    if campaign.budget_id is None or campaign.state == "ended":
        raise CampaignStateForbids(state=campaign.state)
    await budgets.raise_total(connection, campaign.budget_id, by=add, now=now)
    await _record(connection, campaign.id, "raise_budget", by, {"code": code, "by": add}, now)


async def find_campaign(connection: Connection, code: str) -> CampaignRow:
    """One campaign as it stands."""
    campaign = await queries.find_campaign(connection, code)
    if campaign is None:
        raise CampaignAbsent
    return campaign


async def list_campaigns(connection: Connection, *, limit: int = 100) -> list[CampaignRow]:
    """The newest campaigns."""
    return await queries.list_campaign_rows(connection, limit=limit)


async def keep_states(connection: Connection, *, now: datetime) -> int:
    """Book what time and budgets have made true of campaigns and rule versions; returns how many moved.

    Nothing depends on when it runs: windows are looked at for each earning, and a budget that is used up gives nothing.
    """
    moved = await queries.start_campaigns(connection, now=now)
    for campaign_id, budget_id in await queries.list_running_budgets(connection):
        if (await budgets.read_budget(connection, budget_id)).left > 0:
            continue
        moved += await queries.move_campaign(connection, campaign_id, before=("running",), after="exhausted")
    moved += await queries.end_campaigns(connection, now=now)
    moved += await queries.supersede_rules(connection, now=now)
    if moved:
        SHELF.forget()
    return moved


async def _move(
    connection: Connection, code: str, after: str, action: str, *, by: str, now: datetime
) -> CampaignRow:
    campaign = await find_campaign(connection, code)
    before = _BEFORE[after]
    if not await queries.move_campaign(connection, campaign.id, before=before, after=after):
        raise CampaignStateForbids(state=campaign.state)
    await _record(connection, campaign.id, action, by, {"code": code}, now)
    SHELF.forget()
    return campaign


async def _record(
    connection: Connection, campaign_id: UUID, action: str, by: str, detail: dict[str, Any], now: datetime
) -> None:
    record = AuditRecord(
        actor=by,
        action=f"campaign.{action}",
        subject=to_wire("cmp", campaign_id),
        detail=detail,
    )
    await audit.append(connection, record, partner_id=None, now=now)
