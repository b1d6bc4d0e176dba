"""Membership's decisions: which tier the levels make and when it may fall, and whether a right may be used or booked."""

from datetime import date, datetime, timedelta

from kernel.calendar import add_months, business_date, rfc3339, start_of_day
from kernel.errors import Absent, Conflict, Unprocessable
from points.membership.model import (
    SHOP_LEVELS,
    TIERS,
    Booking,
    Cause,
    Cell,
    Entitlement,
    Inputs,
    Kept,
    Matrix,
    Progress,
    Reason,
    Rules,
    Scheme,
    ShopLevel,
    Threshold,
    Tier,
    Verdict,
    Window,
)

AHEAD_MAX = timedelta(minutes=5)
AGE_MAX = timedelta(days=730)
#: the reasons for which a tier period begins
CHANGES: frozenset[Reason | Kept] = frozenset(("upgraded", "renewed", "downgraded", "fraud"))


class OccurredInFuture(Unprocessable):
    """The activity lies in the future."""


class OccurredTooLongAgo(Unprocessable):
    """The activity is more than 730 days old."""


class EntitlementUnknown(Absent):
    """No such entitlement, or not one of this partner's."""

    code = "entitlement_not_found"


class EntitlementRevoked(Conflict):
    """The entitlement was taken back because what it was given for was undone."""


class EntitlementExpired(Conflict):
    """The entitlement has expired."""


class EntitlementUsedUp(Conflict):
    """Fewer uses are left than asked for."""


class BookingUnknown(Absent):
    """No booking of this entitlement has this booking_ref."""

    code = "booking_not_found"


class BookingClosed(Conflict):
    """The booking has already been used or cancelled."""


class BookingDiffers(Unprocessable):
    """The use does not match the quantity of its booking."""


class BookedForPast(Unprocessable):
    """A booking is for today or later."""


class BookedTooLate(Unprocessable):
    """The entitlement ends before the date it is to be booked for."""


def check_occurred_at(occurred_at: datetime, now: datetime) -> None:
    """A partner's clock may run five minutes ahead; what is older than two years counts no more."""
    if occurred_at > now + AHEAD_MAX:
        raise OccurredInFuture
    if now - occurred_at > AGE_MAX:
        raise OccurredTooLongAgo


def month_of(occurred_at: datetime) -> date:
    """The calendar month in Asia/Shanghai in which it counts, by its first day."""
    return business_date(occurred_at).replace(day=1)


def window_of(scheme: Scheme, day: date) -> Window:
    """The months whose activity counts on `day`; the one that holds it is the last."""
    month = day.replace(day=1)
    if scheme.window_kind == "calendar":
        start_on = month.replace(month=1)
    else:
        start_on = add_months(month, 1 - scheme.window_months)
    return Window(start_on=start_on, end_on=add_months(month, 1))


def shop_level_of(scheme: Scheme, *, fen: int, count: int) -> ShopLevel:
    """The highest level whose thresholds the activity meets."""
    met = [level for level, threshold in scheme.levels.items() if _meets(scheme, threshold, fen, count)]
    return max(met, key=SHOP_LEVELS.index, default="iron")


def _meets(scheme: Scheme, threshold: Threshold, fen: int, count: int) -> bool:
    answers = []
    if threshold.min_fen is not None:
        answers.append(fen >= threshold.min_fen)
    if threshold.min_count is not None:
        answers.append(count >= threshold.min_count)
    return all(answers) if scheme.needs == "all" else any(answers)


def end_of_tier(scheme: Scheme, day: date) -> datetime:
    """A tier of `day` holds to the end of the same day so many months later; a day the month lacks is its last.

    In a scheme of calendar years it holds so many months beyond the year.
    """
    if scheme.window_kind == "calendar":
        return start_of_day(add_months(date(day.year + 1, 1, 1), scheme.validity_months))
    return start_of_day(add_months(day, scheme.validity_months) + timedelta(days=1))


def judge(inputs: Inputs, rules: Rules, *, day: date, cause: Cause) -> Verdict:
    """The tier that follows for a member on `day`, in this order:

    the bank level of the date; the shop level of the window; what the matrix makes of both; fraud takes at once what they
    do not make; more than before counts at once; the same again is renewed when its validity ends; less waits for the end
    of the validity and of the grace, and for an evaluation, and then takes one tier and no more.
    """
    matrix, scheme = rules.matrix, rules.scheme
    at = start_of_day(day + timedelta(days=1))
    grace_ends_at = inputs.valid_until + timedelta(days=scheme.grace_days)
    earned: ShopLevel = shop_level_of(scheme, fen=inputs.qualifying_fen, count=inputs.qualifying_count)
    justified = matrix.cells[inputs.bank_level, earned]
    fresh = end_of_tier(scheme, day)
    held = Cell(tier=inputs.tier, multiplier_pct=inputs.multiplier_pct)

    def verdict(
        reason: Reason | Kept, cell: Cell, valid_until: datetime, shop: ShopLevel = earned
    ) -> Verdict:
        return Verdict(
            reason=reason,
            tier=cell.tier,
            multiplier_pct=cell.multiplier_pct,
            bank_level=inputs.bank_level,
            shop_level=shop,
            judged_tier=matrix.cells[inputs.bank_level, shop].tier,
            valid_until=valid_until,
        )

    if cause == "fraud":
        if _worth(justified) < _worth(held):
            return verdict("fraud", justified, fresh)
        return verdict("qualified", held, inputs.valid_until)
    # A shop level is protected like the tier it made, so better news from the bank meets the level held.
    shop = max(earned, inputs.shop_level, key=SHOP_LEVELS.index) if at < grace_ends_at else earned
    best = matrix.cells[inputs.bank_level, shop]
    if _worth(best) > _worth(held):
        # Only what was earned protects anew: the bank's news alone do not prolong a shop level.
        return verdict("upgraded", best, fresh if shop == earned else inputs.valid_until, shop)
    if _worth(justified) >= _worth(held) and at < inputs.valid_until:
        return verdict("qualified", held, inputs.valid_until)
    if at < inputs.valid_until:
        return verdict("protected", held, inputs.valid_until)
    if justified.tier == held.tier and cause == "evaluation":
        return verdict("renewed", justified, fresh)
    if at < grace_ends_at or cause != "evaluation":
        return verdict("grace", held, inputs.valid_until)
    return verdict("downgraded", _one_down(matrix, held.tier, justified), fresh)


def kept_as(inputs: Inputs, rules: Rules, *, day: date) -> Kept:
    """Whether the levels of `day` make the tier held, or what keeps it."""
    earned = shop_level_of(rules.scheme, fen=inputs.qualifying_fen, count=inputs.qualifying_count)
    justified = rules.matrix.cells[inputs.bank_level, earned]
    if TIERS.index(justified.tier) >= TIERS.index(inputs.tier):
        return "qualified"
    return "protected" if start_of_day(day + timedelta(days=1)) < inputs.valid_until else "grace"


def _worth(cell: Cell) -> tuple[int, int]:
    return TIERS.index(cell.tier), cell.multiplier_pct


def _one_down(matrix: Matrix, tier: Tier, justified: Cell) -> Cell:
    """The next tier below that the matrix knows, with the least it multiplies; the justified cell if that is no lower."""
    below = [
        cell
        for cell in matrix.cells.values()
        if TIERS.index(justified.tier) < TIERS.index(cell.tier) < TIERS.index(tier)
    ]
    if not below:
        return justified
    highest = max(TIERS.index(cell.tier) for cell in below)
    return min((cell for cell in below if TIERS.index(cell.tier) == highest), key=_worth)


def progress_of(inputs: Inputs, rules: Rules, *, day: date) -> Progress | None:
    """What is missing for the shop level above the one that the activity makes; None at the highest."""
    scheme = rules.scheme
    earned = shop_level_of(scheme, fen=inputs.qualifying_fen, count=inputs.qualifying_count)
    above = [level for level in SHOP_LEVELS[SHOP_LEVELS.index(earned) + 1 :] if level in scheme.levels]
    if not above:
        return None
    threshold = scheme.levels[above[0]]
    return Progress(
        shop_level=above[0],
        tier=rules.matrix.cells[inputs.bank_level, above[0]].tier,
        missing_fen=max(0, (threshold.min_fen or 0) - inputs.qualifying_fen),
        missing_count=max(0, (threshold.min_count or 0) - inputs.qualifying_count),
        window=window_of(scheme, day),
    )


def check_use(entitlement: Entitlement, quantity: int, now: datetime) -> None:
    """Refuse unless `quantity` uses are left of a right that is still one."""
    _check_alive(entitlement, now)
    if entitlement.left < quantity:
        raise EntitlementUsedUp(left=entitlement.left)


def check_booking(entitlement: Entitlement, *, booked_for: date, quantity: int, now: datetime) -> None:
    """Refuse unless that many uses are left, for a day from today on at whose beginning the right still lives."""
    check_use(entitlement, quantity, now)
    if booked_for < business_date(now):
        raise BookedForPast
    if entitlement.expires_at is not None and entitlement.expires_at <= start_of_day(booked_for):
        raise BookedTooLate(expires_at=rfc3339(entitlement.expires_at))


def check_booked_use(entitlement: Entitlement, booking: Booking | None, quantity: int, now: datetime) -> None:
    """What was promised is kept whatever became of the tier, once, in the booked quantity."""
    if booking is None:
        raise BookingUnknown
    if booking.state != "booked":
        raise BookingClosed(state=booking.state)
    if booking.quantity != quantity:
        raise BookingDiffers(quantity=booking.quantity)
    _check_alive(entitlement, now)


def _check_alive(entitlement: Entitlement, now: datetime) -> None:
    if entitlement.revoked_at is not None:
        raise EntitlementRevoked
    if entitlement.expires_at is not None and entitlement.expires_at <= now:
        raise EntitlementExpired(expires_at=rfc3339(entitlement.expires_at))


def state_of(entitlement: Entitlement, now: datetime) -> str:
    """The word for it: revoked before expired before used, because that is what explains most."""
    if entitlement.revoked_at is not None:
        return "revoked"
    if entitlement.expires_at is not None and entitlement.expires_at <= now:
        return "expired"
    if entitlement.left:
        return "usable"
    return "booked" if entitlement.booked else "used"
