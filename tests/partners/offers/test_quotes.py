"""What a quote refuses, what it signs, and what a partner can verify of it."""

import hashlib
import json
from datetime import datetime, timedelta
from typing import Any

import jwt
import msgspec
import pytest

from kernel.database import Connection
from kernel.errors import Absent, Refusal
from kernel.ids import to_wire
from partners.offers import quoting, service
from partners.offers.authorizing import OfferedQuotes
from partners.offers.canonical import canonical_hash
from partners.offers.model import Cart, CartLine
from partners.offers.rules import (
    AmountOutOfRange,
    CartInvalid,
    DisclosureMismatch,
    DisclosureTimeInvalid,
    DisclosureTooShort,
    DownPaymentNotAccepted,
    OfferNotOnSale,
    PointsExceedBalance,
    PointsNotAccepted,
    QuoteAlreadyAccepted,
    QuoteExpired,
    TermNotOffered,
    state_of,
)


def line(quantity: int = 1, unit_fen: int = 50_000) -> CartLine:
    return CartLine(sku="sku-1", quantity=quantity, unit_fen=unit_fen)


@pytest.mark.parametrize(
    ("lines", "total_fen"),
    [
        ([], 0),
        ([line()], 50_001),
        ([line(), line(quantity=0)], 50_000),
        ([line(), line(quantity=-1), line()], 50_000),
        ([line(unit_fen=100)] * 201, 20_100),
    ],
)
async def test_a_cart_that_does_not_add_up_is_refused(
    connection: Connection, shop: Any, now: datetime, lines: list[CartLine], total_fen: int
) -> None:
    cart = Cart(order_ref="order-1", lines=lines, total_fen=total_fen)
    with pytest.raises(CartInvalid):
        await shop.quote(connection, cart, now=now)
    with pytest.raises(CartInvalid):
        await service.search_offers(
            connection,
            partner_id=shop.partner_id,
            member=shop.member,
            scenario="ecom_checkout",
            cart=cart,
            personalised=False,
            now=now,
        )


@pytest.mark.parametrize(
    ("total_fen", "asked", "refusal"),
    [
        (120_000, {"periods": 9}, TermNotOffered),
        (9_999, {}, AmountOutOfRange),
        (10_000_001, {}, AmountOutOfRange),
        # The instalments are asked about before the amount.
        (9_999, {"periods": 9}, TermNotOffered),
        # Half of the net amount may be paid with points: 57,000 of 114,000.
        (120_000, {"points": 57_001}, PointsNotAccepted),
        (120_000, {"points": 57_000}, PointsExceedBalance),
        (120_000, {"down_payment_fen": 60_001}, DownPaymentNotAccepted),
    ],
)
async def test_a_quote_outside_the_offer_is_refused(
    connection: Connection,
    shop: Any,
    now: datetime,
    total_fen: int,
    asked: dict[str, int],
    refusal: type[Refusal],
) -> None:
    with pytest.raises(refusal):
        await shop.quote(connection, shop.cart(total_fen), **asked, now=now)


async def test_an_offer_is_quoted_only_while_it_is_on_sale(
    connection: Connection, shop: Any, now: datetime
) -> None:
    cart = shop.cart(120_000)
    for moment in (now - timedelta(seconds=1), shop.definition.window.ends_at):
        with pytest.raises(OfferNotOnSale):
            await shop.quote(connection, cart, now=moment)
    issued = await shop.quote(connection, cart, now=now)
    await service.pause_offer(connection, version_id=shop.version_id, partner_id=shop.partner_id)
    with pytest.raises(OfferNotOnSale):
        await shop.quote(connection, cart, now=now)
    # A quote already issued keeps its price.
    await shop.disclose(connection, issued, now=now)
    assert (await shop.accept(connection, issued, now=now)).plan is not None


async def test_a_quote_has_as_many_instalments_as_it_says(
    connection: Connection, shop: Any, now: datetime
) -> None:
    """10,000 less 500 off, 4,749 in points and 4,747 down leave 4 fen: no twelve instalments can be made of them."""
    await shop.give_points(connection, 4_749, now=now)
    small = {"points": 4_749, "down_payment_fen": 4_747}
    with pytest.raises(TermNotOffered):
        await shop.quote(connection, shop.cart(10_000), periods=12, **small, now=now)
    quote = await shop.quote(connection, shop.cart(10_000), periods=3, **small, now=now)
    assert [row.principal_fen for row in quote.doc.schedule] == [1, 1, 2]


async def test_the_smallest_cart_takes_the_largest_discount_and_down_payment(
    connection: Connection, shop: Any, now: datetime
) -> None:
    quote = await shop.quote(
        connection, shop.cart(10_000_000), periods=3, down_payment_fen=5_000_000, now=now
    )
    terms = quote.doc.terms
    assert (terms.discount_fen, terms.down_payment_fen, terms.financed_fen) == (20_000, 5_000_000, 4_980_000)


async def test_another_partners_quote_and_offer_are_absent(
    connection: Connection, shop: Any, hospital: Any, now: datetime
) -> None:
    quote = await shop.quote(connection, shop.cart(120_000), now=now)
    with pytest.raises(Absent):
        await quoting.find_quote(connection, quote_id=quote.id, partner_id=hospital.partner_id)
    with pytest.raises(Absent):
        await hospital.disclose(connection, quote, now=now)
    with pytest.raises(Absent):
        await hospital.accept(connection, quote, now=now)
    stolen = msgspec.structs.replace(hospital, version_id=shop.version_id)
    with pytest.raises(Absent):
        await stolen.quote(connection, shop.cart(120_000), now=now)


async def test_a_partner_can_verify_a_quote_with_the_published_keys(
    connection: Connection, shop: Any, now: datetime
) -> None:
    cart = shop.cart(120_000)
    quote = await shop.quote(connection, cart, now=now)
    keys = jwt.PyJWKSet.from_dict(shop.signer.jwks())
    header = jwt.get_unverified_header(quote.jws)
    assert header["typ"] == "quote+jwt"
    claims = jwt.decode(
        quote.jws,
        keys[header["kid"]],
        algorithms=["ES256"],
        audience=to_wire("ptn", shop.partner_id),
        issuer=shop.signer.issuer,
        options={"verify_exp": False, "verify_iat": False},
    )
    assert claims["sub"] == shop.sub
    assert claims["exp"] - claims["iat"] == 900
    assert claims["amount_financed_fen"] == quote.doc.terms.financed_fen
    assert claims["disclosure_hash"] == quote.disclosure_hash
    # The partner recomputes the hash from the cart as it sent it.
    sent = {
        "order_ref": "order-1",
        "lines": [{"sku": "sku-1", "name": "Washing machine", "quantity": 1, "unit_fen": 120_000}],
        "total_fen": 120_000,
    }
    assert claims["cart_hash"] == canonical_hash_by_hand(sent)
    assert claims["schedule_hash"] == canonical_hash_by_hand(
        json.loads(msgspec.json.encode(quote.doc.schedule))
    )
    forged = quote.jws[:-4] + ("AAAA" if quote.jws[-4:] != "AAAA" else "BBBB")
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(forged, keys[header["kid"]], algorithms=["ES256"], audience=claims["aud"])


async def test_the_disclosure_hash_can_be_recomputed_from_the_rows_on_the_wire(
    connection: Connection, shop: Any, now: datetime
) -> None:
    await shop.give_points(connection, 2_000, now=now)
    quote = await shop.quote(connection, shop.cart(120_000), points=2_000, down_payment_fen=1_000, now=now)
    stored = await quoting.find_quote(connection, quote_id=quote.id, partner_id=shop.partner_id)
    assert stored == quote
    rows = json.loads(msgspec.json.encode(stored.doc.disclosure.rows))
    assert canonical_hash_by_hand(rows) == quote.disclosure_hash
    items = [row["item"] for row in rows]
    assert items == [
        "principal",
        "down_payment",
        "interest",
        "fee",
        "total_payable",
        "annual_rate_simple",
        "annual_rate_compound",
        "default_interest",
        "nothing_else",
        "refund_allocation",
    ]
    assert "单利" in rows[5]["label"]["zh"]
    # Every cost names its method, when it is charged, and who receives it.
    assert all(row[part][language] for row in rows for part in ("method", "standard", "payee") for language in ("zh", "en"))  # fmt: skip


def canonical_hash_by_hand(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def test_canonical_json_does_not_depend_on_the_order_of_members() -> None:
    assert canonical_hash({"b": 1, "a": ["é", "中"]}) == canonical_hash({"a": ["é", "中"], "b": 1})


@pytest.mark.parametrize(
    ("evidence", "after", "refusal"),
    [
        ({"hash": "0" * 64, "displayed_seconds": 0}, timedelta(seconds=900), QuoteExpired),
        ({"hash": "0" * 64, "displayed_seconds": 0}, timedelta(seconds=30), DisclosureMismatch),
        ({"displayed_seconds": 4}, timedelta(seconds=30), DisclosureTooShort),
        ({"confirmed_at": timedelta(seconds=36)}, timedelta(seconds=30), DisclosureTimeInvalid),
        ({"confirmed_at": timedelta(seconds=-6)}, timedelta(seconds=30), DisclosureTimeInvalid),
    ],
)
async def test_evidence_must_be_of_this_table_long_enough_and_at_a_possible_moment(
    connection: Connection,
    shop: Any,
    now: datetime,
    evidence: dict[str, Any],
    after: timedelta,
    refusal: type[Refusal],
) -> None:
    quote = await shop.quote(connection, shop.cart(120_000), now=now)
    if "confirmed_at" in evidence:
        evidence = {**evidence, "confirmed_at": now + evidence["confirmed_at"]}
    with pytest.raises(refusal):
        await shop.disclose(connection, quote, **evidence, now=now + after)
    stored = await quoting.find_quote(connection, quote_id=quote.id, partner_id=shop.partner_id)
    assert stored.state == "issued"


async def test_the_first_evidence_counts_and_the_same_again_changes_nothing(
    connection: Connection, shop: Any, now: datetime
) -> None:
    quote = await shop.quote(connection, shop.cart(120_000), now=now)
    await shop.disclose(connection, quote, displayed_seconds=8, now=now)
    await shop.disclose(connection, quote, displayed_seconds=99, now=now)
    kept = await connection.fetch(
        "SELECT displayed_seconds FROM offers_disclosure_evidence WHERE quote_id = $1", quote.id
    )
    assert [record["displayed_seconds"] for record in kept] == [8]
    await shop.accept(connection, quote, now=now)
    with pytest.raises(QuoteAlreadyAccepted):
        await shop.disclose(connection, quote, now=now)


async def test_a_quote_past_its_time_is_expired_though_nobody_wrote_it(
    connection: Connection, shop: Any, now: datetime
) -> None:
    quote = await shop.quote(connection, shop.cart(120_000), now=now)
    assert state_of(quote, now=quote.expires_at - timedelta(seconds=1)) == "issued"
    assert state_of(quote, now=quote.expires_at) == "expired"
    with pytest.raises(QuoteExpired) as refused:
        await shop.accept(connection, quote, now=quote.expires_at)
    assert refused.value.facts == {"expires_at": "2026-11-20T04:15:00Z"}


async def test_a_search_outside_agreement_window_or_amount_finds_nothing(
    connection: Connection, shop: Any, now: datetime
) -> None:
    async def count(scenario: Any, total_fen: int, moment: datetime) -> int:
        found = await service.search_offers(
            connection,
            partner_id=shop.partner_id,
            member=shop.member,
            scenario=scenario,
            cart=shop.cart(total_fen),
            personalised=False,
            now=moment,
        )
        return len(found)

    assert await count("ecom_checkout", 120_000, now) == 1
    assert await count("medical", 120_000, now) == 0
    assert await count("ecom_checkout", 9_999, now) == 0
    assert await count("ecom_checkout", 120_000, now - timedelta(seconds=1)) == 0
    # The agreement ended with 2027.
    assert await count("ecom_checkout", 120_000, now + timedelta(days=500)) == 0


async def test_a_member_is_asked_for_no_quote_past_its_time(
    connection: Connection, shop: Any, now: datetime
) -> None:
    quote = await shop.quote(connection, shop.cart(120_000), now=now)

    async def terms(at: datetime) -> Any:
        return await OfferedQuotes().find_terms(
            connection, partner_id=quote.partner_id, quote_id=quote.id, now=at
        )

    assert (await terms(quote.expires_at - timedelta(seconds=1))) is not None
    assert (await terms(quote.expires_at)) is None
