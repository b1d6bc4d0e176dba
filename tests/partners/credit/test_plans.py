"""Plans on the real tables: captures, voids, refunds, repayments, and what they leave behind."""

from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernel.database import Connection
from kernel.errors import Absent
from kernel.ids import new_id, to_wire
from partners.credit import service
from partners.credit.rules import (
    AuthorisationExpired,
    NothingToRepay,
    PlanNotVoidable,
    RefundExceedsCaptured,
)
from points.ledger.rules import ManagedByPlan
from points.ledger.service import (
    RefundAlreadyPosted,
    capture_hold,
    find_earning,
    lapse_due,
    read_balance,
    release_hold,
    reverse,
)
from points.membership.service import list_entitlements, use_entitlement


async def balances(connection: Connection, plan_id: Any) -> dict[str, int]:
    """What the journal has on each account, debit less credit; accounts at zero are left out."""
    records = await connection.fetch(
        """
        SELECT account, sum(amount)::bigint AS amount
          FROM credit_entry,
               LATERAL (VALUES (debit_account, amount_fen), (credit_account, -amount_fen)) AS v (account, amount)
         WHERE plan_id = $1
         GROUP BY account
        HAVING sum(amount) <> 0
        """,
        plan_id,
    )
    return {record["account"]: record["amount"] for record in records}


#: sentences about plans that must be true of the whole system; a view returns what contradicts its sentence
BOOKS = (
    "books_i23_plan_is_its_entries",
    "books_i24_plan_is_its_records",
    "books_i25_schedule_principal",
    "books_i27_plan_hold",
    "books_i28_credit_line",
)


async def contradictions(connection: Connection) -> list[str]:
    """The sentences of the books check that are not true at this moment."""
    return [view for view in BOOKS if await connection.fetchval(f"SELECT EXISTS (SELECT FROM {view})")]


async def test_parcels_are_captured_one_by_one_and_each_earns_and_is_clawed_back(
    connection: Connection, counter: Any
) -> None:
    plan = await counter.authorise()
    plan, first = await counter.capture(plan, 50_000)
    assert (plan.state, plan.uncaptured_fen) == ("partially_captured", 60_000)
    rows, _ = await service.list_schedule(connection, plan)
    assert sum(row.due_fen for row in rows) == 50_000
    plan, second = await counter.capture(plan)
    assert (plan.state, second.amount_fen, second.no) == ("active", 60_000, 2)
    rows, versions = await service.list_schedule(connection, plan)
    assert sum(row.due_fen for row in rows) == 110_000
    assert [version.cause for version in versions] == ["original", "capture", "capture"]
    earned = await find_earning(
        connection,
        member=counter.member,
        partner_id=counter.partner_id,
        kind="instalment",
        source_ref=f"{to_wire('pln', plan.id)}/1",
    )
    assert earned == first.earn_operation_id
    assert await balances(connection, plan.id) == {
        "customer_receivable": 110_000,
        "merchant_payable": -(110_000 + 6_000 - 3_960),
        "bank_discount_expense": 6_000,
        "subsidy_income": -3_960,
    }
    statement = await counter.refund(plan, 120_000)
    assert statement.points_clawed_back == first.points_earned + second.points_earned
    assert (statement.points_restored, statement.entitlements_revoked) == (4_000, 1)
    assert await balances(connection, plan.id) == {}
    assert await counter.line_used() == 0


async def test_a_refund_first_releases_what_was_never_captured(connection: Connection, counter: Any) -> None:
    plan, _ = await counter.capture(await counter.authorise(), 50_000)
    statement = await counter.refund(plan, 60_000)
    assert (statement.uncaptured_released_fen, statement.principal_reduced_fen) == (55_000, 0)
    assert (statement.points_clawed_back, statement.subsidy_reversed[0].amount_fen) == (0, 0)
    plan = await counter.find(plan)
    assert (plan.state, plan.uncaptured_fen, plan.outstanding_fen) == ("partially_captured", 5_000, 50_000)
    assert await counter.line_used() == 55_000
    plan, _ = await counter.capture(plan)
    assert plan.state == "active"


async def test_a_void_frees_limit_and_points_and_is_for_uncaptured_plans(
    connection: Connection, counter: Any, now: datetime
) -> None:
    before = await read_balance(connection, counter.member, now=now)
    plan = await counter.authorise()
    assert await counter.line_used() == 110_000
    voided = await service.void_plan(connection, plan_id=plan.id, partner_id=counter.partner_id, now=now)
    assert voided.state == "voided"
    assert await counter.line_used() == 0
    assert await read_balance(connection, counter.member, now=now) == before
    captured, _ = await counter.capture(await counter.authorise())
    for gone in (plan, captured):
        with pytest.raises(PlanNotVoidable):
            await service.void_plan(connection, plan_id=gone.id, partner_id=counter.partner_id, now=now)


async def test_a_void_does_not_mind_points_that_are_already_free(
    connection: Connection, counter: Any, now: datetime
) -> None:
    plan = await counter.authorise()
    hold = {"hold_id": plan.hold_id, "partner_id": counter.partner_id, "now": now}
    await release_hold(connection, **hold, manager="plan")
    voided = await service.void_plan(connection, plan_id=plan.id, partner_id=counter.partner_id, now=now)
    assert voided.state == "voided"


async def test_nobody_but_the_plan_moves_its_points(
    connection: Connection, counter: Any, now: datetime
) -> None:
    plan = await counter.authorise()
    hold = {"hold_id": plan.hold_id, "partner_id": counter.partner_id, "now": now}
    with pytest.raises(ManagedByPlan):
        await release_hold(connection, **hold)
    with pytest.raises(ManagedByPlan):
        await capture_hold(connection, **hold)

    await counter.capture(plan)
    with pytest.raises(ManagedByPlan):
        await reverse(
            connection,
            operation_id=plan.hold_id,
            partner_id=counter.partner_id,
            side="spend",
            refund_ref="r",
            refunded_fen=1,
            now=now,
        )


async def test_an_authorisation_lapses_at_its_deadline_whether_or_not_it_was_booked(
    connection: Connection, counter: Any, now: datetime
) -> None:
    plan = await counter.authorise()
    week = timedelta(days=7)
    await service.lapse_authorisations(connection, limit=1_000, now=now + week - timedelta(seconds=1))
    assert (await counter.find(plan)).state == "authorised"
    with pytest.raises(AuthorisationExpired):
        await counter.capture(plan, after=week)
    await lapse_due(connection, limit=1_000, now=now + week)
    assert await service.lapse_authorisations(connection, limit=1_000, now=now + week) >= 1
    assert (await counter.find(plan)).state == "auth_expired"
    assert await contradictions(connection) == []
    assert await counter.line_used() == 0


async def test_what_was_never_captured_is_refunded_when_the_authorisation_lapses(
    connection: Connection, counter: Any, now: datetime
) -> None:
    """Or the limit would stay reserved for ever, and the partner keep discount and points for goods not delivered."""
    before = await read_balance(connection, counter.member, now=now)
    plan, _ = await counter.capture(await counter.authorise(), 27_500)
    week = timedelta(days=7)
    assert await service.lapse_authorisations(connection, limit=1_000, now=now + week) == 1
    plan = await counter.find(plan)
    assert (plan.state, plan.captured_fen, plan.released_fen) == ("active", 27_500, 82_500)
    assert await counter.line_used() == 27_500
    assert await balances(connection, plan.id) == {
        "customer_receivable": 27_500,
        "merchant_payable": -28_010,
        "bank_discount_expense": 1_500,
        "subsidy_income": -990,
    }
    balance = await read_balance(connection, counter.member, now=now)
    assert balance.available_points - before.available_points == -1_000 + 275
    assert await contradictions(connection) == []
    assert await service.lapse_authorisations(connection, limit=1_000, now=now + week) == 0
    statement = await counter.refund(plan, 30_000)
    assert (statement.plan_state, statement.principal_reduced_fen) == ("fully_refunded", 27_500)
    assert await balances(connection, plan.id) == {}


async def test_another_partners_plan_and_application_are_absent(
    connection: Connection, counter: Any, counter_maker: Any, now: datetime
) -> None:
    plan, _ = await counter.capture(await counter.authorise())
    other = await counter_maker(connection, now=now)
    for attempt in (other.find(plan), other.capture(plan), other.refund(plan, 1), other.preview(plan, 1)):
        with pytest.raises(Absent):
            await attempt
    with pytest.raises(Absent):
        await service.void_plan(connection, plan_id=plan.id, partner_id=other.partner_id, now=now)
    with pytest.raises(Absent):
        await service.find_application(
            connection, application_id=plan.application_id, partner_id=other.partner_id
        )


async def test_a_refund_reference_is_good_once_and_the_cart_comes_back_once(
    connection: Connection, counter: Any
) -> None:
    plan, _ = await counter.capture(await counter.authorise())
    first = await counter.refund(plan, 100_000, refund_ref="r-1")
    with pytest.raises(RefundAlreadyPosted) as posted:
        await counter.refund(plan, 1, refund_ref="r-1")
    assert posted.value.facts == {"refund_id": first.id}
    with pytest.raises(RefundExceedsCaptured) as exceeded:
        await counter.refund(plan, 20_001)
    assert exceeded.value.facts["refundable_fen"] == 20_000
    await counter.refund(plan, 20_000)
    with pytest.raises(RefundExceedsCaptured):
        await counter.refund(plan, 1)


async def test_a_preview_says_what_a_refund_would_do_and_writes_nothing(
    connection: Connection, counter: Any
) -> None:
    plan, _ = await counter.capture(await counter.authorise(), 70_000)
    tables = ("credit_entry", "credit_refund", "credit_schedule_version", "outbox_event", "ledger_entry")

    async def count() -> list[int]:
        return [await connection.fetchval(f"SELECT count(*) FROM {table}") for table in tables]

    before = await count()
    preview = await counter.preview(plan, 90_000)
    assert preview.id is None
    assert await count() == before
    assert await counter.find(plan) == plan
    statement = await counter.refund(plan, 90_000, refund_ref="preview")
    for field in statement.__struct_fields__:
        if field != "id":
            assert getattr(statement, field) == getattr(preview, field), field


async def test_a_used_right_stays_used_when_everything_comes_back(
    connection: Connection, counter: Any, now: datetime
) -> None:
    plan, _ = await counter.capture(await counter.authorise())
    [right] = await list_entitlements(connection, counter.member, partner_id=counter.partner_id, limit=5)
    await use_entitlement(
        connection,
        entitlement_id=right.id,
        partner_id=counter.partner_id,
        use_ref="visit-1",
        quantity=1,
        now=now,
    )
    assert (await counter.refund(plan, 120_000)).entitlements_revoked == 0


async def test_money_already_paid_back_is_returned_in_cash_with_its_cost(
    connection: Connection, counter: Any
) -> None:
    plan = await counter.authorise(
        total_fen=120_000,
        discount_fen=0,
        points=0,
        points_value_fen=0,
        financed_fen=120_000,
        method="equal_principal",
        annual_rate_ppm=120_000,
        fee_ppm_per_period=1_000,
        periods=4,
        entitlement=None,
    )
    plan, _ = await counter.capture(plan)
    for _ in range(3):
        plan = await counter.repay(plan)
    assert (plan.rows_paid, plan.outstanding_fen, plan.interest_paid_fen, plan.fee_paid_fen) == (
        3, 30_000, 1_200 + 900 + 600, 360,
    )  # fmt: skip
    statement = await counter.refund(plan, 75_000)
    assert (statement.principal_reduced_fen, statement.cash_to_customer_fen) == (30_000, 45_000)
    # Half of the principal paid goes back, and with it half of the interest and fees paid.
    assert (statement.interest_refund_fen, statement.fee_refund_fen) == (1_350, 180)
    assert (statement.plan_state, statement.schedule) == ("paid_off", ())
    rest = await counter.refund(plan, 45_000)
    assert await contradictions(connection) == []
    assert (rest.cash_to_customer_fen, rest.interest_refund_fen, rest.plan_state) == (
        45_000, 1_350, "fully_refunded",
    )  # fmt: skip
    assert await balances(connection, plan.id) == {}


async def test_a_plan_is_paid_off_with_its_last_instalment(connection: Connection, counter: Any) -> None:
    plan, _ = await counter.capture(await counter.authorise(periods=3))
    for _ in range(3):
        plan = await counter.repay(plan)
    assert (plan.state, await counter.line_used()) == ("paid_off", 0)
    assert await contradictions(connection) == []
    with pytest.raises(NothingToRepay):
        await counter.repay(plan)


async def test_nothing_is_repaid_of_what_was_never_captured(
    connection: Connection, counter: Any, now: datetime
) -> None:
    plan = await counter.authorise(method="bullet", annual_rate_ppm=120_000)
    with pytest.raises(NothingToRepay):
        await counter.repay(plan)
    await service.lapse_authorisations(connection, limit=1_000, now=now + timedelta(days=7))
    with pytest.raises(NothingToRepay):
        await counter.repay(plan)
    assert (await counter.find(plan)).state == "auth_expired"


async def test_settlement_sees_every_entry_between_bank_and_partner_and_no_other(
    connection: Connection, counter: Any
) -> None:
    plan, _ = await counter.capture(await counter.authorise())
    await counter.repay(plan)
    await counter.refund(plan, 60_000)
    lines = await connection.fetch(
        "SELECT kind, funder, amount_fen FROM credit_settlement_source WHERE partner_id = $1 ORDER BY entry_ref",
        counter.partner_id,
    )
    assert sorted(line["kind"] for line in lines) == [
        "capture",
        "discount",
        "discount_reversal",
        "merchant_subsidy",
        "refund",
        "subsidy_reversal",
    ]
    owed = sum(
        line["amount_fen"] * (1 if line["kind"] in ("capture", "discount", "subsidy_reversal") else -1)
        for line in lines
    )
    assert owed == -(await balances(connection, plan.id))["merchant_payable"]


@pytest.mark.parametrize(
    "table",
    [
        "credit_decision",
        "credit_schedule_version",
        "credit_schedule_row",
        "credit_capture",
        "credit_refund",
        "credit_repayment",
        "credit_entry",
        "offers_disclosure_evidence",
    ],
)
@pytest.mark.parametrize("statement", ["UPDATE {} SET bucket = bucket", "DELETE FROM {}", "TRUNCATE {}"])
async def test_history_cannot_be_rewritten(connection: Connection, table: str, statement: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute(statement.format(table))


async def test_a_published_offer_cannot_be_rewritten(connection: Connection) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute("UPDATE offers_version SET doc = '{}'")


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    captures=st.lists(st.integers(1, 60_000), min_size=1, max_size=2),
    cuts=st.lists(st.integers(1, 119_999), max_size=4, unique=True),
)
async def test_a_plan_refunded_in_any_pieces_ends_at_the_same_books(
    connection: Connection, counter: Any, captures: list[int], cuts: list[int]
) -> None:
    async def outcome(pieces: list[int]) -> Any:
        """What is left after capturing and refunding, all of it undone afterwards."""
        savepoint = connection.transaction()
        await savepoint.start()
        plan = await counter.authorise(order_ref=new_id(counter.now).hex)
        for amount_fen in captures:
            plan, _ = await counter.capture(plan, min(amount_fen, plan.uncaptured_fen))
        restored = clawed_back = 0
        for amount_fen in pieces:
            statement = await counter.refund(plan, amount_fen)
            assert amount_fen == (
                statement.uncaptured_released_fen
                + statement.principal_reduced_fen
                + statement.cash_to_customer_fen
                + statement.discount_reversed_fen
                + statement.points_value_fen
                + statement.down_payment_returned_fen
            )
            assert statement.points_restored == statement.points_value_fen
            restored += statement.points_restored
            clawed_back += statement.points_clawed_back
        assert await contradictions(connection) == []
        left = (
            await balances(connection, plan.id),
            await read_balance(connection, counter.member, now=counter.now),
            await counter.line_used(),
            (restored, clawed_back),
        )
        await savepoint.rollback()
        return left

    ends = [0, *sorted(cuts), 120_000]
    pieces = [end - start for start, end in pairwise(ends)]
    whole = await outcome([120_000])
    assert await outcome(pieces) == whole
    assert whole[0] == {}
    assert whole[2] == 0
