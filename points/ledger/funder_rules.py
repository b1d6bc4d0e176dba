"""The rules of funding: what may be agreed, what a point costs, which blocks get points back; no clock, no I/O."""

import re
from collections.abc import Sequence
from datetime import date
from uuid import UUID

from msgspec.structs import replace

from kernel.errors import Absent, Conflict, Unprocessable
from points.ledger.funder_model import Drawn, FunderKind, FundingSource, Share, Terms
from points.ledger.model import EarnPosting, Take

PRICE_FEN_E6_MAX = 10**12
POINTS_MAX = 10**15
PPM = 1_000_000
#: at these parts of a block its funder is told
LOW_WATER_PPM = (200_000, 50_000)

_CODE = re.compile(r"(bank|partner|merchant|fiscal):[a-z0-9][a-z0-9-]{0,62}", re.ASCII)
_REF = re.compile(r"[!-~]{1,64}", re.ASCII)


class FunderUnknown(Absent):
    """No such funder."""

    code = "funder_not_found"


class FunderTaken(Conflict):
    """There is a funder of this code already."""


class FunderInvalid(Unprocessable):
    """A funder's code is its kind, a colon and a name; a partner's or merchant's funder that pays belongs to a partner."""


class TermsInvalid(Unprocessable):
    """Prices and parts are within their bounds, and who pays nothing has no price."""


class TermsInThePast(Unprocessable):
    """Terms change from tomorrow on at the earliest: what has been issued today was issued on today's."""


class TermsTaken(Conflict):
    """Other terms begin on this day already."""


class BlockInvalid(Unprocessable):
    """A block has points, a price, a reference of up to 64 characters and marks between nothing and all."""


class BlockTaken(Conflict):
    """This purchase has been recorded already."""


class FunderNotPrepaid(Conflict):
    """On the day on which the block begins its funder does not pay in advance."""


class FunderExhausted(Conflict):
    """Whoever pays for these points has not enough left for them."""


def check_funder(code: str, kind: FunderKind, partner_id: UUID | None, terms: Terms) -> None:
    """Refuse what settlement could not bill."""
    if _CODE.fullmatch(code) is None or not code.startswith(f"{kind}:"):
        raise FunderInvalid(code=code[:80])
    if kind == "bank" and (partner_id is not None or terms.billing != "bank"):
        raise FunderInvalid(kind=kind)
    if kind in ("partner", "merchant") and partner_id is None and terms.billing != "bank":
        raise FunderInvalid(kind=kind)
    check_terms(terms)


def check_terms(terms: Terms) -> None:
    """Bounds; a price only where one is billed: a block's price is what was paid for it."""
    if not (
        0 <= terms.price_fen_e6 <= PRICE_FEN_E6_MAX
        and 0 <= terms.billing_ppm <= PPM
        and 0 <= terms.breakage_ppm <= PPM
        and (terms.billing == "postpaid" or terms.price_fen_e6 == 0)
    ):
        raise TermsInvalid


def check_effective(effective_on: date, *, today: date) -> None:
    """What has begun is not changed any more."""
    if effective_on <= today:
        raise TermsInThePast(today=today.isoformat())


def terms_on(terms: Sequence[Terms], day: date) -> Terms | None:
    """Of terms in their order, those in force on a day."""
    begun = [one for one in terms if one.effective_on <= day]
    return begun[-1] if begun else None


def check_block(points: int, paid_fen: int, purchase_ref: str, low_water_ppm: Sequence[int]) -> None:
    """Bounds."""
    if not (
        0 < points <= POINTS_MAX
        and 0 <= paid_fen <= POINTS_MAX
        and _REF.fullmatch(purchase_ref)
        and len(low_water_ppm) <= 10
        and all(0 <= mark < PPM for mark in low_water_ppm)
    ):
        raise BlockInvalid


def cost_of_shares(shares: Sequence[Share], source: FundingSource) -> int:
    """What a point of a grant costs that several blocks pay: their mean, in millionths of a fen, rounded down once."""
    costs = dict(source.blocks)
    points = sum(share.points for share in shares)
    return sum(share.points * costs[share.block_id] for share in shares) // points


def fund_posting(
    posting: EarnPosting, costs: Sequence[int | None], *, unpaid: Sequence[int] = ()
) -> EarnPosting:
    """The posting with each grant at its cost (None: as it says), and without the grants at the places in `unpaid`."""
    grants = [
        grant if cost is None else replace(grant, unit_cost_e6=cost)
        for place, (grant, cost) in enumerate(zip(posting.grants, costs, strict=True))
        if place not in unpaid
    ]
    return replace(posting, grants=tuple(grants))


def share_returns(
    drawn: Sequence[Drawn], takes: Sequence[Take], operation_id: UUID
) -> list[tuple[Drawn, int]]:
    """Which blocks get back the points that undoing `operation_id` takes from a member.

    Each take goes to the blocks that paid for its own lot, then to those of the operation undone; what was drawn last
    comes back first. Points that no block paid for go nowhere.
    """
    left = [one.points for one in drawn]
    for taken in takes:
        points = taken.points
        for origin in (taken.lot.operation_id, operation_id):
            for place in reversed(range(len(drawn))):
                one = drawn[place]
                if one.operation_id == origin and one.funder_id == taken.lot.funder_id:
                    part = min(points, left[place])
                    left[place] -= part
                    points -= part
    return [(one, one.points - rest) for one, rest in zip(drawn, left, strict=True) if rest < one.points]
