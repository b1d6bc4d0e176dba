"""Pure decisions about offers: is the cart sound, what does it cost, which offer comes first, may a quote go on."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from kernel.calendar import rfc3339
from kernel.errors import Conflict, Unprocessable
from kernel.money import ORDER_FEN_MAX
from partners.offers.model import (
    LINES_MAX,
    Cart,
    Component,
    EntitlementGrant,
    Evidence,
    Instalment,
    InstantDiscount,
    OfferDoc,
    OfferVersion,
    PointsPay,
    Price,
    Quote,
    QuoteState,
    RankedOffer,
)

#: what a point pays
POINT_FEN = 1
#: how far the partner's clock may be from ours; many write whole seconds
CLOCK_TOLERANCE = timedelta(seconds=5)

_MILLION = 1_000_000


class CartInvalid(Unprocessable):
    """The cart does not add up: every line needs a quantity above zero, there are 1 to 200 lines, and they sum to the total."""


class OfferNotOnSale(Conflict):
    """The offer is not on sale now."""


class TermNotOffered(Unprocessable):
    """The offer has no plan with this number of instalments."""


class AmountOutOfRange(Unprocessable):
    """The cart is too small or too large for this offer."""


class PointsNotAccepted(Unprocessable):
    """The offer does not let points pay this much."""


class PointsExceedBalance(Unprocessable):
    """The member does not have so many points to spend."""


class DownPaymentNotAccepted(Unprocessable):
    """The offer does not let this much be paid down."""


class NothingToFinance(Unprocessable):
    """Discount, points and down payment pay the whole cart, so there is nothing to pay in instalments."""


class QuoteExpired(Conflict):
    """The quote is past its time; ask for a new one."""


class QuoteAlreadyAccepted(Conflict):
    """The quote was already accepted; a quote is good once."""


class DisclosureMissing(Conflict):
    """The cost table must be shown and confirmed before the quote can be accepted."""


class DisclosureMismatch(Unprocessable):
    """The hash is not that of this quote's cost table: another table was shown."""


class DisclosureTooShort(Unprocessable):
    """The cost table was in view for less than the minimum reading time."""


class DisclosureTimeInvalid(Unprocessable):
    """The confirmation must lie between the issue of the quote and now."""


class CartChanged(Conflict):
    """The cart is not the one that was quoted; ask for a new quote."""


class QuoteSignatureMismatch(Unprocessable):
    """The signed quote is not the one that was issued."""


class OfferInvalid(Unprocessable):
    """The offer's components or funding contradict each other."""


def check_offer(doc: OfferDoc) -> None:
    """Every offer has one instalment component at most one of each other kind, and somebody pays for its gifts."""
    kinds = [type(component) for component in doc.components]
    if kinds.count(Instalment) != 1 or len(set(kinds)) != len(kinds):
        raise OfferInvalid(reason="components")
    plan = instalment_of(doc)
    if not plan.periods or any(not 1 <= periods <= 60 for periods in plan.periods):
        # Card instalments may run for five years at most (CBIRC and PBOC, 2022).
        raise OfferInvalid(reason="periods")
    if doc.terms.min_read_seconds < 1:
        raise OfferInvalid(reason="min_read_seconds")
    if any(not 0 <= share_ppm <= _MILLION for share_ppm in _shares_of(doc)):
        raise OfferInvalid(reason="share_ppm")
    needed = {
        "discount": discount_component(doc) is not None,
        "interest_subsidy": plan.subsidy_ppm_per_period > 0,
    }
    for kind, wanted in needed.items():
        shares = [share for share in doc.funding if share.kind == kind]
        if bool(shares) != wanted or len({share.order for share in shares}) != len(shares):
            raise OfferInvalid(reason="funding")
        if wanted and max(shares, key=lambda share: share.order).cap_fen is not None:
            raise OfferInvalid(reason="the last funder pays the rest and cannot have a cap")


def _shares_of(doc: OfferDoc) -> list[int]:
    """Every part of a whole that the offer names; more than the whole would leave a debt to the last."""
    plan, discount = instalment_of(doc), discount_component(doc)
    return [
        *(share.share_ppm for share in doc.funding),
        *(component.max_share_ppm for component in doc.components if isinstance(component, PointsPay)),
        plan.down_payment_max_ppm,
        plan.subsidy_ppm_per_period,
        0 if discount is None else discount.share_ppm,
    ]


def check_cart(cart: Cart) -> None:
    """Quantities above zero, lines that add up to the total, no more than two hundred of them."""
    if not 1 <= len(cart.lines) <= LINES_MAX:
        raise CartInvalid(lines=len(cart.lines))
    for at, line in enumerate(cart.lines):
        if line.quantity < 1:
            raise CartInvalid(line=at, quantity=line.quantity)
    lines_fen = sum(line.quantity * line.unit_fen for line in cart.lines)
    if lines_fen != cart.total_fen or lines_fen > ORDER_FEN_MAX:
        raise CartInvalid(total_fen=cart.total_fen, lines_fen=lines_fen)


def check_on_sale(version: OfferVersion, *, now: datetime) -> None:
    """On sale means active and inside its window, by the database's clock."""
    if version.state != "active" or not version.starts_at <= now < version.ends_at:
        raise OfferNotOnSale(state=version.state)


def check_amount(doc: OfferDoc, total_fen: int) -> None:
    if not doc.terms.min_total_fen <= total_fen <= doc.terms.max_total_fen:
        raise AmountOutOfRange(
            total_fen=total_fen, min_fen=doc.terms.min_total_fen, max_fen=doc.terms.max_total_fen
        )


def check_term(doc: OfferDoc, periods: int) -> None:
    if periods not in instalment_of(doc).periods:
        raise TermNotOffered(periods=periods)


def check_instalments(periods: int, financed_fen: int) -> None:
    """Every instalment repays something: a quote has as many as it says."""
    if financed_fen < periods:
        raise TermNotOffered(periods=periods, amount_financed_fen=financed_fen)


def price_cart(doc: OfferDoc, total_fen: int, *, points: int, down_payment_fen: int, available: int) -> Price:
    """Discount off the whole cart first, then points, then the down payment; the rest is financed."""
    discount_fen = discount_on(doc, total_fen)
    net_fen = total_fen - discount_fen
    if points * POINT_FEN > points_limit_fen(doc, net_fen):
        raise PointsNotAccepted(points=points, max_points=points_limit_fen(doc, net_fen) // POINT_FEN)
    if points > available:
        raise PointsExceedBalance(points=points, available_points=available)
    down_max_fen = total_fen * instalment_of(doc).down_payment_max_ppm // _MILLION
    if down_payment_fen > down_max_fen:
        raise DownPaymentNotAccepted(down_payment_fen=down_payment_fen, max_fen=down_max_fen)
    financed_fen = net_fen - points * POINT_FEN - down_payment_fen
    if financed_fen < 1:
        raise NothingToFinance(net_fen=net_fen)
    return Price(
        total_fen=total_fen,
        discount_fen=discount_fen,
        points=points,
        points_value_fen=points * POINT_FEN,
        down_payment_fen=down_payment_fen,
        financed_fen=financed_fen,
    )


def discount_on(doc: OfferDoc, total_fen: int) -> int:
    component = discount_component(doc)
    if component is None:
        return 0
    return min(total_fen * component.share_ppm // _MILLION, component.cap_fen)


def points_limit_fen(doc: OfferDoc, net_fen: int) -> int:
    """The most that points may pay of `net_fen`; nothing when the offer does not take points."""
    for component in doc.components:
        if isinstance(component, PointsPay):
            return net_fen * component.max_share_ppm // _MILLION
    return 0


def instalment_of(doc: OfferDoc) -> Instalment:
    return next(component for component in doc.components if isinstance(component, Instalment))


def discount_component(doc: OfferDoc) -> InstantDiscount | None:
    return next((component for component in doc.components if isinstance(component, InstantDiscount)), None)


def entitlement_of(doc: OfferDoc) -> EntitlementGrant | None:
    return next((component for component in doc.components if isinstance(component, EntitlementGrant)), None)


def rank(offers: Sequence[RankedOffer]) -> list[RankedOffer]:
    """Total annualised cost up, net benefit down, total payable up, id; never by the lowest instalment.

    The lowest instalment belongs to the longest plan, which is often the dearest.
    """
    return sorted(offers, key=_rank_key)


def _rank_key(offer: RankedOffer) -> tuple[int, int, int, str]:
    best = offer.terms[0]
    return (
        best.annual_rate_compound_ppm,
        -offer.discount_fen,
        best.total_payable_fen,
        offer.offer_version,
    )


def rank_reasons(components: Sequence[Component], *, compound_ppm: int, discount_fen: int) -> tuple[str, ...]:
    """The grounds of the ranking, in the order in which they weigh."""
    reasons = ["no_borrowing_cost" if compound_ppm == 0 else "annualised_cost"]
    if discount_fen:
        reasons.append("instant_discount")
    if any(isinstance(component, EntitlementGrant) for component in components):
        reasons.append("entitlement_included")
    return tuple(reasons)


def state_of(quote: Quote, *, now: datetime) -> QuoteState:
    """The state as it is now: time runs out without anybody writing it down."""
    if quote.state in ("issued", "disclosed") and quote.expires_at <= now:
        return "expired"
    return quote.state


def check_disclosure(quote: Quote, evidence: Evidence, *, now: datetime) -> None:
    """The right table, long enough, at a possible moment, before the acceptance."""
    if quote.expires_at <= now:
        raise QuoteExpired(expires_at=rfc3339(quote.expires_at))
    if quote.state == "accepted":
        raise QuoteAlreadyAccepted
    if evidence.hash != quote.disclosure_hash:
        raise DisclosureMismatch
    if evidence.displayed_seconds < quote.doc.disclosure.min_read_seconds:
        raise DisclosureTooShort(min_read_seconds=quote.doc.disclosure.min_read_seconds)
    if not quote.issued_at - CLOCK_TOLERANCE <= evidence.confirmed_at <= now + CLOCK_TOLERANCE:
        raise DisclosureTimeInvalid(issued_at=rfc3339(quote.issued_at), now=rfc3339(now))


def check_acceptance(quote: Quote, *, cart_hash: str | None, jws: str | None, now: datetime) -> None:
    """In time, not yet accepted, disclosed, and still the same cart and the same paper."""
    if quote.expires_at <= now:
        raise QuoteExpired(expires_at=rfc3339(quote.expires_at))
    if quote.state == "accepted":
        raise QuoteAlreadyAccepted
    if quote.state != "disclosed":
        raise DisclosureMissing
    if cart_hash is not None and cart_hash != quote.cart_hash:
        raise CartChanged
    if jws is not None and jws != quote.jws:
        raise QuoteSignatureMismatch
