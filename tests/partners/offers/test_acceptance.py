"""Acceptance: its guards in their order, its decisions, and once only."""

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest
from msgspec import structs

from kernel.caller import ConsentMissing
from kernel.database import Connection, Pool, transaction
from kernel.errors import Refusal
from partners.credit import service as credit
from partners.credit.refunding import post_refund
from partners.oauth.service import withdraw_consent
from partners.offers.authorizing import MemberAuthorizationRequired
from partners.offers.model import Quote
from partners.offers.rules import (
    CartChanged,
    DisclosureMissing,
    QuoteAlreadyAccepted,
    QuoteExpired,
    QuoteSignatureMismatch,
    check_acceptance,
)
from partners.offers.sandbox import ecommerce_offer
from points.ledger.service import InsufficientPoints, place_hold, read_balance

OTHER = "0" * 64


@pytest.mark.parametrize(
    ("state", "late", "cart_hash", "jws", "refusal"),
    [
        ("accepted", True, OTHER, "forged", QuoteExpired),
        ("issued", True, OTHER, "forged", QuoteExpired),
        ("accepted", False, OTHER, "forged", QuoteAlreadyAccepted),
        ("issued", False, OTHER, "forged", DisclosureMissing),
        ("disclosed", False, OTHER, "forged", CartChanged),
        ("disclosed", False, None, "forged", QuoteSignatureMismatch),
    ],
)
async def test_the_guards_of_an_acceptance_speak_in_their_order(
    connection: Connection,
    shop: Any,
    now: datetime,
    state: Any,
    late: bool,
    cart_hash: str | None,
    jws: str,
    refusal: type[Refusal],
) -> None:
    quote: Quote = structs.replace(await shop.quote(connection, shop.cart(120_000), now=now), state=state)
    with pytest.raises(refusal):
        check_acceptance(quote, cart_hash=cart_hash, jws=jws, now=quote.expires_at if late else now)


async def test_in_live_mode_a_plan_takes_the_members_own_word(
    connection: Connection, shop: Any, now: datetime
) -> None:
    quote = await shop.quote(connection, shop.cart(120_000), now=now)
    await shop.disclose(connection, quote, now=now)
    with pytest.raises(MemberAuthorizationRequired):
        await shop.accept(connection, quote, mode="live", now=now)
    assert (await shop.accept(connection, quote, now=now)).plan is not None, "nothing was used up"


async def test_a_changed_cart_a_second_acceptance_and_a_withdrawn_consent_are_refused(
    connection: Connection, shop: Any, now: datetime
) -> None:
    quote = await shop.quote(connection, shop.cart(120_000), now=now)
    with pytest.raises(DisclosureMissing):
        await shop.accept(connection, quote, now=now)
    await shop.disclose(connection, quote, now=now)
    with pytest.raises(CartChanged):
        await shop.accept(connection, quote, cart=shop.cart(120_001), now=now)
    savepoint = connection.transaction()
    await savepoint.start()
    await withdraw_consent(connection, partner_id=shop.partner_id, member=shop.member, now=now)
    with pytest.raises(ConsentMissing):
        await shop.accept(connection, quote, now=now)
    await savepoint.rollback()
    await shop.accept(connection, quote, cart=shop.cart(120_000), now=now)
    with pytest.raises(QuoteAlreadyAccepted):
        await shop.accept(connection, quote, now=now)
    with pytest.raises(QuoteExpired):
        await shop.accept(connection, quote, now=now + timedelta(minutes=15))


async def test_points_spent_since_the_quote_refuse_the_acceptance_and_leave_the_quote_open(
    connection: Connection, shop: Any, now: datetime
) -> None:
    await shop.give_points(connection, 5_000, now=now)
    quote = await shop.quote(connection, shop.cart(120_000), points=5_000, now=now)
    await shop.disclose(connection, quote, now=now)
    balance = await read_balance(connection, shop.member, now=now)
    await place_hold(
        connection,
        member=shop.member,
        partner_id=shop.partner_id,
        points=balance.available_points - 4_999,
        order_ref="other",
        ttl_seconds=60,
        now=now,
    )
    savepoint = connection.transaction()
    await savepoint.start()
    with pytest.raises(InsufficientPoints):
        await shop.accept(connection, quote, now=now)
    await savepoint.rollback()
    assert await connection.fetchval("SELECT state FROM offers_quote WHERE id = $1", quote.id) == "disclosed"


async def test_a_decline_is_recorded_and_told_without_its_reason(
    connection: Connection, shop: Any, now: datetime
) -> None:
    for order in range(2):
        await shop.authorise(connection, shop.cart(2_400_000, order_ref=f"o-{order}"), now=now)
    quote = await shop.quote(connection, shop.cart(2_400_000, order_ref="o-3"), now=now)
    await shop.disclose(connection, quote, now=now)
    answer = await shop.accept(connection, quote, now=now)
    assert (answer.decision.outcome, answer.plan) == ("declined", None)
    application = await credit.find_application(
        connection, application_id=answer.application_id, partner_id=shop.partner_id
    )
    assert (application.state, application.outcome, application.plan_id) == ("declined", "declined", None)
    kept = await connection.fetchrow(
        "SELECT reason_codes, limit_fen, used_fen FROM credit_decision WHERE application_id = $1",
        answer.application_id,
    )
    assert kept is not None
    assert tuple(kept) == (["limit_exceeded"], 5_000_000, 4_760_000)
    with pytest.raises(QuoteAlreadyAccepted):
        await shop.accept(connection, quote, now=now)


async def test_a_large_amount_goes_to_a_person(connection: Connection, shop: Any, now: datetime) -> None:
    quote = await shop.quote(connection, shop.cart(4_000_000), now=now)
    await shop.disclose(connection, quote, now=now)
    answer = await shop.accept(connection, quote, now=now)
    assert (answer.decision.outcome, answer.plan) == ("referred", None)


async def test_two_parallel_acceptances_make_one_plan(pool: Pool, now: datetime, scene_maker: Any) -> None:
    async with transaction(pool) as connection:
        shop = await scene_maker(connection, ecommerce_offer(now), now=now)
        quote = await shop.quote(connection, shop.cart(120_000), now=now)
        await shop.disclose(connection, quote, now=now)

    async def accept() -> Any:
        async with transaction(pool) as connection:
            return await shop.accept(connection, quote, now=now)

    answers = await asyncio.gather(accept(), accept(), return_exceptions=True)
    assert sorted(type(answer).__name__ for answer in answers) == ["Answer", "QuoteAlreadyAccepted"]
    async with transaction(pool) as connection:
        plans = await connection.fetchval(
            "SELECT count(*) FROM credit_plan WHERE partner_id = $1", shop.partner_id
        )
    assert plans == 1


async def test_two_quotes_accepted_at_once_cannot_both_use_the_last_of_the_limit(
    pool: Pool, now: datetime, scene_maker: Any
) -> None:
    async with transaction(pool) as connection:
        shop = await scene_maker(connection, ecommerce_offer(now), now=now)
        quotes = []
        for order in range(2):
            quote = await shop.quote(connection, shop.cart(2_900_000, order_ref=f"o-{order}"), now=now)
            await shop.disclose(connection, quote, now=now)
            quotes.append(quote)

    async def accept(quote: Quote) -> Any:
        async with transaction(pool) as connection:
            return (await shop.accept(connection, quote, now=now)).decision.outcome

    assert sorted(await asyncio.gather(*map(accept, quotes))) == ["approved", "declined"]


async def test_two_parallel_refunds_under_one_reference_refund_once(
    pool: Pool, now: datetime, scene_maker: Any
) -> None:
    async with transaction(pool) as connection:
        shop = await scene_maker(connection, ecommerce_offer(now), now=now)
        plan = await shop.authorise(connection, shop.cart(120_000), now=now)
        await shop.capture(connection, plan, now=now)

    async def refund() -> Any:
        async with transaction(pool) as connection:
            return await post_refund(
                connection,
                plan_id=plan.id,
                partner_id=shop.partner_id,
                refund_ref="r-1",
                amount_fen=80_000,
                now=now,
            )

    answers = await asyncio.gather(refund(), refund(), return_exceptions=True)
    assert sorted(type(answer).__name__ for answer in answers) == ["RefundAlreadyPosted", "Statement"]


async def test_every_accepted_quote_leads_to_one_application(
    connection: Connection, shop: Any, now: datetime
) -> None:
    await shop.authorise(connection, shop.cart(120_000), now=now)
    await shop.quote(connection, shop.cart(120_000), now=now)
    assert not await connection.fetchval("SELECT EXISTS (SELECT FROM books_i26_quote_to_plan)")
