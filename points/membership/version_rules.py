"""What a version of the rules must be before it may be proposed, and who may switch it on when."""

from collections.abc import Collection, Sequence
from datetime import date, datetime

from kernel.calendar import business_date
from kernel.errors import Absent, Conflict, Unprocessable
from points.membership.model import (
    BANK_LEVELS,
    SHOP_LEVELS,
    TIERS,
    BankLevel,
    Cell,
    Matrix,
    Privilege,
    Proposal,
    Scheme,
    ShopLevel,
)

MULTIPLIER_PCT_MAX = 1000


class VersionUnknown(Absent):
    """No such version has been proposed."""

    code = "version_not_found"


class MatrixIncomplete(Unprocessable):
    """A matrix has one cell for each of the sixteen pairs of levels, with a multiplier from 100 to 1000."""


class MatrixNotMonotone(Unprocessable):
    """A better level must not make a lower tier nor multiply less."""


class SchemeUnsound(Unprocessable):
    """A scheme has thresholds above zero for bronze, silver and gold that do not fall, and months and days within bounds."""


class PrivilegeUnsound(Unprocessable):
    """A privilege is named once for a tier and partner and gives from 1 to 1000 in a period."""


class SwitchedBySamePerson(Conflict):
    """Who proposed a version cannot switch it on: that takes a second person."""


class EffectiveInPast(Unprocessable):
    """A version comes into force today or later."""


def check_matrix(matrix: Matrix) -> None:
    """All sixteen pairs, and a better level never stands lower."""
    pairs = {(bank, shop) for bank in BANK_LEVELS for shop in SHOP_LEVELS}
    if set(matrix.cells) != pairs or any(
        not 100 <= cell.multiplier_pct <= MULTIPLIER_PCT_MAX for cell in matrix.cells.values()
    ):
        raise MatrixIncomplete
    for bank_level, shop_level in sorted(pairs):
        here = matrix.cells[bank_level, shop_level]
        if any(not _no_lower(matrix.cells[pair], here) for pair in _next(bank_level, shop_level)):
            raise MatrixNotMonotone(bank_level=bank_level, shop_level=shop_level)


def _next(bank_level: BankLevel, shop_level: ShopLevel) -> Collection[tuple[BankLevel, ShopLevel]]:
    banks = BANK_LEVELS[BANK_LEVELS.index(bank_level) + 1 :][:1]
    shops = SHOP_LEVELS[SHOP_LEVELS.index(shop_level) + 1 :][:1]
    return [(bank, shop_level) for bank in banks] + [(bank_level, shop) for shop in shops]


def _no_lower(better: Cell, than: Cell) -> bool:
    return TIERS.index(better.tier) >= TIERS.index(than.tier) and better.multiplier_pct >= than.multiplier_pct


def check_scheme(scheme: Scheme) -> None:
    """Each level above iron takes something, and not less than the one below."""
    wanted = SHOP_LEVELS[1:]
    sound = (
        set(scheme.levels) == set(wanted)
        and 1 <= scheme.window_months <= 36
        and (scheme.window_kind == "rolling" or scheme.window_months == 12)
        and 1 <= scheme.validity_months <= 60
        and 0 <= scheme.grace_days <= 366
    )
    if not sound:
        raise SchemeUnsound
    for one in ("min_fen", "min_count"):
        asked = [getattr(scheme.levels[level], one) for level in wanted]
        given = [value for value in asked if value is not None]
        if len(given) not in (0, len(asked)) or given != sorted(given) or any(value <= 0 for value in given):
            raise SchemeUnsound(threshold=one)
    if all(threshold.min_fen is None and threshold.min_count is None for threshold in scheme.levels.values()):
        raise SchemeUnsound


def check_privileges(privileges: Sequence[Privilege]) -> None:
    """Each named once."""
    names = {(p.tier, p.partner_id, p.kind) for p in privileges}
    if len(names) != len(privileges) or any(not p.kind or not 1 <= p.quantity <= 1000 for p in privileges):
        raise PrivilegeUnsound


def check_switch(proposal: Proposal | None, *, effective_on: date, by: str, now: datetime) -> None:
    """A known version, a second person, not backwards."""
    if proposal is None:
        raise VersionUnknown
    if by == proposal.proposed_by:
        raise SwitchedBySamePerson(proposed_by=proposal.proposed_by)
    if effective_on < business_date(now):
        raise EffectiveInPast
