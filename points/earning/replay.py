"""Replay: what an earning gave, computed again from what was stored with it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from kernel.database import Connection
from points.earning import book_queries
from points.earning.book import read_campaigns
from points.earning.model import Campaign, EarningRule, Limit
from points.earning.rules import base_points, cap, fen_per_point
from points.earning.stacking import bonus_points
from points.ledger.funder_codes import list_funder_codes
from points.ledger.model import Operation


class TakenPart(Struct, frozen=True, kw_only=True):
    """What the operation says a campaign gave."""

    campaign: str
    points: int
    limit: int | None = None
    limited_by: Limit | None = None


class Calculation(Struct, frozen=True, kw_only=True):
    """What an operation tells besides its columns; see points.earning.draft."""

    base_limit: int | None = None
    named: str | None = None
    campaigns: tuple[TakenPart, ...] = ()


class ReplayedCampaign(Struct, frozen=True, kw_only=True):
    """One campaign's part, computed again."""

    campaign: Campaign
    #: before the member's caps and the budget
    wanted_points: int
    points: int
    limited_by: Limit | None


class Replayed(Struct, frozen=True, kw_only=True):
    """An earning computed again."""

    rule: EarningRule
    #: None where nothing is earned
    fen_per_point: int | None
    tier: str
    multiplier_pct: int
    #: amount × multiplier ÷ what one point takes, one floor at the end, then the caps
    base_points: int
    base_limit: int | None
    #: in the order in which they apply
    campaigns: tuple[ReplayedCampaign, ...]

    @property
    def points(self) -> int:
        return self.base_points + sum(part.points for part in self.campaigns)


def replay(operation: Operation, rule: EarningRule, campaigns: Mapping[str, Campaign]) -> Replayed:
    """By the version in force then, the campaigns as defined and the tier the member had then, whatever all are today."""
    assert operation.kind == "earn" and operation.tier and operation.multiplier_pct
    calculation = calculation_of(operation.calculation)
    rate = fen_per_point(
        rule,
        kind=operation.source_kind or "",
        category=operation.category,
        own_card=bool(operation.own_card),
    )
    points = 0 if rate is None else base_points(operation.amount_fen, operation.multiplier_pct, rate)
    return Replayed(
        rule=rule,
        fen_per_point=rate,
        tier=operation.tier,
        multiplier_pct=operation.multiplier_pct,
        base_points=cap(points, rule.transaction_cap_points, calculation.base_limit),
        base_limit=calculation.base_limit,
        campaigns=tuple(
            _replay_part(part, campaigns[part.campaign], operation.amount_fen, rate)
            for part in calculation.campaigns
            if rate is not None
        ),
    )


async def replay_operation(connection: Connection, operation: Operation, *, now: datetime) -> Replayed:
    """`replay`, with the definitions read from the database."""
    rules = await book_queries.list_rules(connection, await list_funder_codes(connection))
    rule = next(rule for rule in rules if rule.version == operation.rule_version)
    codes = [part.campaign for part in calculation_of(operation.calculation).campaigns]
    return replay(operation, rule, await read_campaigns(connection, codes, now=now))


def calculation_of(stored: dict[str, Any] | None) -> Calculation:
    """The stored form, read; an operation without one has nothing to tell."""
    return msgspec.convert(stored or {}, Calculation)


def _replay_part(part: TakenPart, campaign: Campaign, amount_fen: int, rate: int) -> ReplayedCampaign:
    wanted = bonus_points(campaign, amount_fen, rate)
    return ReplayedCampaign(
        campaign=campaign,
        wanted_points=wanted,
        points=cap(wanted, part.limit),
        limited_by=part.limited_by,
    )
