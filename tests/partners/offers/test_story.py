"""Both offers from search to refund, on the real tables."""

from datetime import datetime, timedelta
from typing import Any

from kernel.database import Connection
from kernel.ids import to_wire
from partners.credit import capturing, refunding
from partners.credit import service as credit
from partners.offers import service
from partners.offers.model import Cart, CartLine
from points.ledger.service import read_balance
from points.membership.service import list_entitlements

CART = Cart(
    order_ref="order-1",
    lines=[CartLine(sku="sku-1", name="Washing machine", category="appliances", quantity=2, unit_fen=60_000)],
    total_fen=120_000,
)
BILL = Cart(
    order_ref="bill-1",
    lines=[CartLine(sku="treatment", category="outpatient", quantity=1, unit_fen=600_001)],
    total_fen=600_001,
)


async def entries_of(connection: Connection, plan_id: Any) -> list[tuple[str, str, str, int, str]]:
    records = await connection.fetch(
        "SELECT kind, debit_account, credit_account, amount_fen, funder FROM credit_entry WHERE plan_id = $1 ORDER BY seq",
        plan_id,
    )
    return [tuple(record) for record in records]


async def events_of(connection: Connection, partner_id: Any) -> list[str]:
    records = await connection.fetch(
        "SELECT type FROM outbox_event WHERE partner_id = $1 AND (type LIKE 'quote.%' OR type LIKE 'plan.%' OR "
        "type LIKE 'application.%' OR type LIKE 'refund.%') ORDER BY id",
        partner_id,
    )
    return [record["type"] for record in records]


async def test_a_shop_sells_with_discount_points_and_instalments_and_takes_half_back(
    connection: Connection, shop: Any, now: datetime
) -> None:
    await shop.give_points(connection, 10_000, now=now)
    before = await read_balance(connection, shop.member, now=now)
    [offer] = await service.search_offers(
        connection,
        partner_id=shop.partner_id,
        member=shop.member,
        scenario="ecom_checkout",
        cart=CART,
        personalised=True,
        now=now,
    )
    assert offer.offer_version == to_wire("ofv", shop.version_id)
    assert [term.periods for term in offer.terms] == [3, 6, 12]
    assert {term.annual_rate_compound_ppm for term in offer.terms} == {0}
    assert (offer.discount_fen, offer.amount_financed_fen) == (6_000, 114_000)
    assert offer.max_points == min(before.available_points, 57_000)

    quote = await shop.quote(connection, CART, periods=12, points=4_000, now=now)
    terms = quote.doc.terms
    assert (terms.discount_fen, terms.points_value_fen, terms.financed_fen) == (6_000, 4_000, 110_000)
    assert [(line.funder, line.kind, line.amount_fen) for line in quote.doc.funding] == [
        ("bank", "discount", 6_000),
        ("merchant", "interest_subsidy", 3_960),
    ]
    assert sum(row.principal_fen for row in quote.doc.schedule) == 110_000
    later = now + timedelta(seconds=30)
    await shop.disclose(connection, quote, now=later)
    answer = await shop.accept(connection, quote, cart=CART, jws=quote.jws, now=later)
    assert (answer.decision.outcome, answer.plan.state) == ("approved", "authorised")
    held = await read_balance(connection, shop.member, now=later)
    assert held.available_points == before.available_points - 4_000

    shipped = now + timedelta(days=2)
    plan, capture = await capturing.capture_plan(
        connection, plan_id=answer.plan.id, partner_id=shop.partner_id, amount_fen=None, now=shipped
    )
    assert (plan.state, plan.outstanding_fen, capture.points_earned > 0) == ("active", 110_000, True)
    rows, versions = await credit.list_schedule(connection, plan)
    assert [version.cause for version in versions] == ["original", "capture"]
    # Interest and instalments run from the day the money was paid out.
    assert rows[0].due_on.isoformat() == "2026-12-22"
    assert await entries_of(connection, plan.id) == [
        ("capture", "customer_receivable", "merchant_payable", 110_000, "bank"),
        ("discount", "bank_discount_expense", "merchant_payable", 6_000, "bank"),
        ("merchant_subsidy", "merchant_payable", "subsidy_income", 3_960, "merchant"),
    ]
    after_capture = await read_balance(connection, shop.member, now=shipped)

    refund: dict[str, Any] = {
        "plan_id": plan.id,
        "partner_id": shop.partner_id,
        "refund_ref": "return-1",
        "amount_fen": 60_000,
        "now": shipped + timedelta(days=3),
    }
    preview = await refunding.preview_refund(connection, **refund)
    assert len(await entries_of(connection, plan.id)) == 3
    assert await read_balance(connection, shop.member, now=refund["now"]) == after_capture
    statement = await refunding.post_refund(connection, **refund)
    assert preview.id is None
    assert statement.id is not None
    assert {**_facts(statement), "id": None} == _facts(preview)
    assert statement.principal_reduced_fen == 55_000
    assert (statement.discount_reversed_fen, statement.points_value_fen) == (3_000, 2_000)
    assert (statement.points_restored, statement.points_clawed_back) == (2_000, capture.points_earned // 2)
    assert [(share.funder, share.amount_fen) for share in statement.subsidy_reversed] == [("merchant", 1_980)]
    assert sum(row.principal_fen for row in statement.schedule) == 55_000
    assert len(statement.schedule) == 12
    after = await read_balance(connection, shop.member, now=refund["now"])
    assert after.available_points == after_capture.available_points + 2_000 - statement.points_clawed_back
    assert (await entries_of(connection, plan.id))[3:] == [
        ("refund", "merchant_payable", "customer_receivable", 55_000, "bank"),
        ("discount_reversal", "merchant_payable", "bank_discount_expense", 3_000, "bank"),
        ("subsidy_reversal", "subsidy_income", "merchant_payable", 1_980, "merchant"),
    ]
    assert sorted(await events_of(connection, shop.partner_id)) == sorted(
        [
            "quote.issued",
            "quote.disclosed",
            "quote.accepted",
            "application.approved",
            "plan.authorised",
            "plan.captured",
            "refund.succeeded",
        ]
    )


async def test_a_hospital_bill_is_paid_in_instalments_and_its_consultation_goes_with_a_full_refund(
    connection: Connection, hospital: Any, now: datetime
) -> None:
    quote = await hospital.quote(connection, BILL, periods=6, now=now)
    # The first instalment takes the odd fen.
    assert [row.due_fen for row in quote.doc.schedule] == [100_001, *[100_000] * 5]
    assert quote.doc.annual_rate_simple_ppm == quote.doc.annual_rate_compound_ppm == 0
    await hospital.disclose(connection, quote, now=now)
    plan = (await hospital.accept(connection, quote, now=now)).plan

    async def rights() -> list[bool]:
        found = await list_entitlements(connection, hospital.member, partner_id=hospital.partner_id, limit=10)
        assert all(right.kind == "health_consultation" for right in found)
        return [right.revoked_at is None for right in found]

    assert await rights() == []
    plan = await hospital.capture(connection, plan, now=now)
    assert await rights() == [True]
    assert await entries_of(connection, plan.id) == [
        ("capture", "customer_receivable", "merchant_payable", 600_001, "bank"),
        ("bank_subsidy", "bank_subsidy_expense", "subsidy_income", 9_000, "bank"),
    ]

    refund: dict[str, Any] = {"plan_id": plan.id, "partner_id": hospital.partner_id, "now": now}
    part = await refunding.post_refund(connection, **refund, refund_ref="r-1", amount_fen=150_000)
    # This offer lets refunds shorten the plan from its end.
    assert [row.due_fen for row in part.schedule] == [100_001, 100_000, 100_000, 100_000, 50_000]
    assert part.entitlements_revoked == 0
    rest = await refunding.post_refund(connection, **refund, refund_ref="r-2", amount_fen=450_001)
    assert (rest.plan_state, rest.schedule, rest.entitlements_revoked) == ("fully_refunded", (), 1)
    assert await rights() == [False]
    balances = await connection.fetch(
        """
        SELECT account, sum(amount) AS amount
          FROM credit_entry, LATERAL (VALUES (debit_account, amount_fen), (credit_account, -amount_fen)) AS v (account, amount)
         WHERE plan_id = $1
         GROUP BY account
        """,
        plan.id,
    )
    assert {record["amount"] for record in balances} == {0}


def _facts(statement: Any) -> dict[str, Any]:
    return {field: getattr(statement, field) for field in statement.__struct_fields__}
