"""The statements that read what is in force: rule versions, campaigns and how members stand to them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from kernel.caller import MemberRef
from kernel.database import Connection
from points.earning.model import Campaign, EarningRule, LotTerms, Rate, Recurrence, Share

READ_EPOCH = "SELECT epoch FROM earning_epoch"

# In the order in which they come into force; of two for one instant the later version holds.
LIST_RULES = """
SELECT version, fen_per_point, transaction_cap_points, daily_cap_points, in_force_from,
       funder_id, unit_cost_e6, validity_months, expiry, pending_days,
       (SELECT jsonb_agg(jsonb_build_object('kind', rate.kind, 'category', rate.category, 'own_card', rate.own_card,
                                            'fen_per_point', rate.fen_per_point) ORDER BY rate.no)
          FROM earning_rate AS rate WHERE rate.version = rule.version) AS rates
  FROM earning_rule AS rule
 WHERE in_force_from IS NOT NULL
 ORDER BY in_force_from, version
"""

# By priority and code, as they apply; shares in their order, which decides ties.
LIST_CAMPAIGNS = """
SELECT campaign.*,
       (SELECT jsonb_agg(jsonb_build_object(
                   'share_ppm', share.share_ppm, 'funder_id', share.funder_id, 'unit_cost_e6', share.unit_cost_e6,
                   'validity_months', share.validity_months, 'expiry', share.expiry,
                   'pending_days', share.pending_days) ORDER BY share.no)
          FROM earning_campaign_share AS share WHERE share.campaign_id = campaign.id) AS shares
  FROM earning_campaign AS campaign
 WHERE CASE WHEN $1::text[] IS NULL
            THEN campaign.approved_by IS NOT NULL AND campaign.ends_at > $2
            ELSE campaign.code = ANY ($1) END
 ORDER BY campaign.priority, campaign.code
"""

# What memory may be half a second late with, and who is on a list; one answer for each pair asked about, in order. That
# a campaign is exhausted is for its budget to say.
LIST_STANDS = """
SELECT campaign.state IN ('scheduled', 'running', 'exhausted')
       AND (NOT campaign.listed OR EXISTS (
            SELECT FROM earning_campaign_member AS listed
             WHERE listed.bucket = asked.bucket AND listed.member_id = asked.member_id
               AND listed.campaign_id = asked.campaign_id)) AS stands
  FROM unnest($1::smallint[], $2::bigint[], $3::uuid[]) WITH ORDINALITY
       AS asked (bucket, member_id, campaign_id, place)
  JOIN earning_campaign AS campaign ON campaign.id = asked.campaign_id
 ORDER BY asked.place
"""

_TERMS = ("funder_id", "unit_cost_e6", "validity_months", "expiry", "pending_days")


async def read_epoch(connection: Connection) -> UUID:
    epoch: UUID = await connection.fetchval(READ_EPOCH)
    return epoch


async def list_rules(connection: Connection, funders: dict[int, str]) -> list[EarningRule]:
    """Every approved version, in the order in which they come into force."""
    return [_rule(dict(record), funders) for record in await connection.fetch(LIST_RULES)]


async def list_campaigns(
    connection: Connection,
    funders: dict[int, str],
    *,
    codes: Sequence[str] | None = None,
    ended_after: datetime,
) -> list[Campaign]:
    """The named campaigns whatever their state, or all approved ones whose window has not ended before."""
    records = await connection.fetch(LIST_CAMPAIGNS, codes, ended_after)
    return [_campaign(dict(record), funders) for record in records]


async def list_stands(connection: Connection, asked: Sequence[tuple[MemberRef, UUID]]) -> list[bool]:
    """Whether each campaign may still give points, and to that member."""
    records = await connection.fetch(
        LIST_STANDS,
        [member.bucket for member, _ in asked],
        [member.member_id for member, _ in asked],
        [campaign_id for _, campaign_id in asked],
    )
    return [record["stands"] for record in records]


def _rule(row: dict[str, Any], funders: dict[int, str]) -> EarningRule:
    row["terms"] = _terms(row, funders)
    rates = msgspec.convert(row.pop("rates") or [], tuple[Rate, ...])
    return EarningRule(rates=rates, **{name: row[name] for name in _fields(EarningRule) - {"rates"}})


def _campaign(row: dict[str, Any], funders: dict[int, str]) -> Campaign:
    for name in ("kinds", "categories", "tiers", "partner_ids", "weekdays", "month_days", "year_days"):
        row[name] = None if row[name] is None else tuple(row[name])
    row["recurrence"] = Recurrence(**{name: row[name] for name in _fields(Recurrence)})
    row["shares"] = tuple(
        Share(share_ppm=share["share_ppm"], terms=_terms(share, funders)) for share in row["shares"] or ()
    )
    return Campaign(**{name: row[name] for name in _fields(Campaign)})


def _terms(row: dict[str, Any], funders: dict[int, str]) -> LotTerms:
    return LotTerms(funder=funders[row["funder_id"]], **{name: row[name] for name in _TERMS})


def _fields(kind: type[msgspec.Struct]) -> set[str]:
    return set(kind.__struct_fields__)
