"""The statements that make rule versions and campaigns, and move them from state to state."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from kernel.caller import MemberRef
from kernel.database import Connection, read
from points.earning.definitions import CampaignDefinition, CampaignRow, RuleDefinition, TermsDefinition

# The next number; two proposals at the same moment: the second's key is taken, and it is proposed again.
INSERT_RULE = """
INSERT INTO earning_rule (
    version, fen_per_point, transaction_cap_points, daily_cap_points, validity_months, expiry, pending_days,
    unit_cost_e6, funder_id, effective_from, made_by, made_at)
SELECT (SELECT max(version) + 1 FROM earning_rule), $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11
RETURNING version
"""

INSERT_RATES = """
INSERT INTO earning_rate (version, no, kind, category, own_card, fen_per_point)
SELECT $1, rate.no, rate.kind, rate.category, rate.own_card, rate.fen_per_point
  FROM unnest($2::smallint[], $3::text[], $4::text[], $5::boolean[], $6::int[])
       AS rate (no, kind, category, own_card, fen_per_point)
"""

SUBMIT_RULE = """
UPDATE earning_rule SET state = 'in_review' WHERE version = $1 AND state = 'draft' RETURNING version
"""

# In force not before it is wanted, and not before every process can know of it.
APPROVE_RULE = """
UPDATE earning_rule
   SET state = 'scheduled', approved_by = $2, approved_at = $3,
       in_force_from = greatest(effective_from, $4::timestamptz)
 WHERE version = $1 AND state = 'in_review'
RETURNING in_force_from
"""

FIND_RULE = "SELECT state, made_by FROM earning_rule WHERE version = $1"

# By version, newest last.
LIST_RULE_ROWS = """
SELECT version, state, fen_per_point, transaction_cap_points, daily_cap_points, in_force_from, made_by, approved_by
  FROM earning_rule
 ORDER BY version
"""

SUPERSEDE_RULES = """
UPDATE earning_rule AS old
   SET state = 'superseded'
 WHERE old.state = 'scheduled'
   AND EXISTS (SELECT FROM earning_rule AS new
                WHERE new.in_force_from <= $1 AND (new.in_force_from, new.version) > (old.in_force_from, old.version))
RETURNING version
"""

INSERT_CAMPAIGN = """
INSERT INTO earning_campaign (
    id, code, name_zh, name_en, priority, exclusive_group, starts_at, ends_at, late_days, weekdays, month_days,
    year_days, from_time, until_time, multiplier_pct, fixed_points, kinds, categories, own_card, min_amount_fen, tiers,
    partner_ids, listed, named_only, transaction_cap_points, member_cap_points, member_daily_cap_points, budget_total,
    budget_unit, on_exhaustion, made_by, made_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24,
        $25, $26, $27, $28, $29, $30, $31, $32)
ON CONFLICT (code) DO NOTHING
RETURNING id
"""

INSERT_SHARES = """
INSERT INTO earning_campaign_share (
    campaign_id, no, funder_id, share_ppm, unit_cost_e6, validity_months, expiry, pending_days)
SELECT $1, share.*
  FROM unnest($2::smallint[], $3::int[], $4::int[], $5::bigint[], $6::int[], $7::text[], $8::int[]) AS share
"""

INSERT_MEMBERS = """
INSERT INTO earning_campaign_member (bucket, member_id, campaign_id)
SELECT member.bucket, member.member_id, $1
  FROM unnest($2::smallint[], $3::bigint[]) AS member (bucket, member_id)
    ON CONFLICT DO NOTHING
RETURNING member_id
"""

FIND_CAMPAIGN = """
SELECT id, code, name_zh, name_en, state, starts_at, ends_at, multiplier_pct, fixed_points, budget_total, budget_unit,
       budget_id, made_by, approved_by
  FROM earning_campaign
 WHERE code = $1
"""

# Newest first: what somebody looks for was made lately.
LIST_CAMPAIGN_ROWS = """
SELECT id, code, name_zh, name_en, state, starts_at, ends_at, multiplier_pct, fixed_points, budget_total, budget_unit,
       budget_id, made_by, approved_by
  FROM earning_campaign
 ORDER BY made_at DESC, id DESC
 LIMIT $1
"""

# One conditional statement for each transition: whoever comes second finds the state gone.
MOVE_CAMPAIGN = """
UPDATE earning_campaign SET state = $3 WHERE id = $1 AND state = ANY ($2::text[]) RETURNING id
"""

APPROVE_CAMPAIGN = """
UPDATE earning_campaign
   SET state = 'scheduled', approved_by = $2, approved_at = $3, in_force_from = $4, budget_id = $5
 WHERE id = $1 AND state = 'in_review'
RETURNING id
"""

# What time has made true; whether a campaign may give points does not depend on it.
START_CAMPAIGNS = """
UPDATE earning_campaign
   SET state = 'running'
 WHERE state = 'scheduled' AND greatest(starts_at, in_force_from) <= $1
RETURNING id
"""

END_CAMPAIGNS = """
UPDATE earning_campaign
   SET state = 'ended'
 WHERE state IN ('scheduled', 'running', 'paused', 'exhausted') AND ends_at + make_interval(days => late_days) < $1
RETURNING id
"""

# By id, so that two sweeps lock the campaigns they close in one order.
LIST_RUNNING_BUDGETS = """
SELECT id, budget_id FROM earning_campaign WHERE state = 'running' AND budget_id IS NOT NULL ORDER BY id
"""


async def insert_rule(
    connection: Connection, definition: RuleDefinition, *, funder_id: int, made_by: str, now: datetime
) -> int:
    """The draft's version."""
    terms = definition.terms
    version: int = await connection.fetchval(
        INSERT_RULE,
        definition.fen_per_point,
        definition.transaction_cap_points,
        definition.daily_cap_points,
        terms.validity_months,
        terms.expiry,
        terms.pending_days,
        terms.unit_cost_e6,
        funder_id,
        definition.effective_from,
        made_by,
        now,
    )
    rates = definition.rates
    await connection.execute(
        INSERT_RATES,
        version,
        list(range(1, len(rates) + 1)),
        [rate.kind for rate in rates],
        [rate.category for rate in rates],
        [rate.own_card for rate in rates],
        [rate.fen_per_point for rate in rates],
    )
    return version


async def find_rule(connection: Connection, version: int) -> tuple[str, str] | None:
    """(state, made_by) of a version."""
    record = await connection.fetchrow(FIND_RULE, version)
    return None if record is None else (record["state"], record["made_by"])


async def submit_rule(connection: Connection, version: int) -> bool:
    return await connection.fetchval(SUBMIT_RULE, version) is not None


async def approve_rule(
    connection: Connection, version: int, *, by: str, earliest: datetime, now: datetime
) -> datetime | None:
    """When it comes into force; None when it is not in review."""
    moment: datetime | None = await connection.fetchval(APPROVE_RULE, version, by, now, earliest)
    return moment


async def list_rule_rows(connection: Connection) -> list[dict[str, Any]]:
    return [dict(record) for record in await connection.fetch(LIST_RULE_ROWS)]


async def supersede_rules(connection: Connection, *, now: datetime) -> int:
    return len(await connection.fetch(SUPERSEDE_RULES, now))


async def insert_campaign(
    connection: Connection,
    definition: CampaignDefinition,
    *,
    campaign_id: UUID,
    made_by: str,
    now: datetime,
) -> bool:
    """False when the code is taken."""
    d, recurrence, budget = definition, definition.recurrence, definition.budget
    inserted = await connection.fetchval(
        INSERT_CAMPAIGN,
        *(campaign_id, d.code, d.name_zh, d.name_en, d.priority, d.exclusive_group),
        *(d.starts_at, d.ends_at, d.late_days),
        *(recurrence.weekdays, recurrence.month_days, recurrence.year_days),
        *(recurrence.from_time, recurrence.until_time),
        *(d.multiplier_pct, d.fixed_points, d.kinds, d.categories, d.own_card, d.min_amount_fen),
        *(d.tiers, d.partner_ids, d.listed, d.named_only),
        *(d.transaction_cap_points, d.member_cap_points, d.member_daily_cap_points),
        *(None if budget is None else budget.total, None if budget is None else budget.unit),
        *("skip" if budget is None else budget.on_exhaustion, made_by, now),
    )
    return inserted is not None


async def insert_shares(
    connection: Connection, campaign_id: UUID, shares: Sequence[tuple[int, int, TermsDefinition]]
) -> None:
    """Each share as (funder, ppm, terms)."""
    await connection.execute(
        INSERT_SHARES,
        campaign_id,
        list(range(1, len(shares) + 1)),
        [funder_id for funder_id, _, _ in shares],
        [share_ppm for _, share_ppm, _ in shares],
        [terms.unit_cost_e6 for _, _, terms in shares],
        [terms.validity_months for _, _, terms in shares],
        [terms.expiry for _, _, terms in shares],
        [terms.pending_days for _, _, terms in shares],
    )


async def insert_members(connection: Connection, campaign_id: UUID, members: Sequence[MemberRef]) -> int:
    """How many were not on the list yet."""
    records = await connection.fetch(
        INSERT_MEMBERS,
        campaign_id,
        [member.bucket for member in members],
        [member.member_id for member in members],
    )
    return len(records)


async def find_campaign(connection: Connection, code: str) -> CampaignRow | None:
    record = await connection.fetchrow(FIND_CAMPAIGN, code)
    return None if record is None else msgspec.convert(dict(record), CampaignRow)


async def list_campaign_rows(connection: Connection, *, limit: int) -> list[CampaignRow]:
    return [read(record, CampaignRow) for record in await connection.fetch(LIST_CAMPAIGN_ROWS, limit)]


async def move_campaign(
    connection: Connection, campaign_id: UUID, *, before: Sequence[str], after: str
) -> bool:
    """False when it is in none of the states before."""
    return await connection.fetchval(MOVE_CAMPAIGN, campaign_id, list(before), after) is not None


async def approve_campaign(
    connection: Connection,
    campaign_id: UUID,
    *,
    by: str,
    in_force_from: datetime,
    budget_id: UUID | None,
    now: datetime,
) -> bool:
    """False when it is not in review."""
    return (
        await connection.fetchval(APPROVE_CAMPAIGN, campaign_id, by, now, in_force_from, budget_id)
        is not None
    )


async def start_campaigns(connection: Connection, *, now: datetime) -> int:
    return len(await connection.fetch(START_CAMPAIGNS, now))


async def end_campaigns(connection: Connection, *, now: datetime) -> int:
    return len(await connection.fetch(END_CAMPAIGNS, now))


async def list_running_budgets(connection: Connection) -> list[tuple[UUID, UUID]]:
    """(campaign, budget) of those that run on a budget."""
    return [(record["id"], record["budget_id"]) for record in await connection.fetch(LIST_RUNNING_BUDGETS)]
