"""Earning from a partner's report to the books."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

from kernel.caller import MemberRef
from kernel.database import Connection
from kernel.errors import Refusal
from points.earning.model import Activity, Earned
from points.earning.service import earn
from points.membership.service import enrol_members

Bank = Any


def activity(bank: Bank, member: MemberRef, ref: str, **changes: Any) -> Activity:
    fields: dict[str, Any] = {
        "member": member,
        "source_ref": ref,
        "kind": "purchase",
        "occurred_at": bank.now - timedelta(days=1),
        "amount_fen": 129_900,
    }
    return Activity(**fields | changes)


def told(results: list[Earned | Refusal]) -> list[int | str]:
    return [result.code if isinstance(result, Refusal) else result.points for result in results]


async def test_every_item_is_judged_by_itself(bank: Bank, connection: Connection) -> None:
    member = await bank.enrol(connection)
    stranger = MemberRef(member_id=10**12, bucket=1)
    items = [
        activity(bank, member, "a"),
        activity(bank, stranger, "b"),
        activity(bank, member, "a"),
        activity(bank, member, "a", kind="tax"),
        activity(bank, member, "c", occurred_at=bank.now + timedelta(hours=1)),
        activity(bank, member, "d", occurred_at=bank.now - timedelta(days=800)),
        activity(bank, member, "e", amount_fen=0),
    ]
    results = await earn(connection, items, partner_id=bank.partner_id, now=bank.now)
    assert told(results) == [
        1_299,
        "member_not_found",
        "source_already_earned",
        1_299,
        "occurred_in_future",
        "occurred_too_long_ago",
        0,
    ]
    assert await bank.available(connection, member) == 2_598
    assert await bank.audit(connection, member) == []


async def test_two_partners_may_use_the_same_number(bank: Bank, connection: Connection) -> None:
    member = await bank.enrol(connection)
    for partner_id in (uuid4(), uuid4()):
        results = await earn(connection, [activity(bank, member, "a")], partner_id=partner_id, now=bank.now)
        assert told(results) == [1_299]


async def test_the_tier_multiplies_and_is_stored_with_the_operation(
    bank: Bank, connection: Connection
) -> None:
    (member,) = await enrol_members(
        connection, count=1, bank_level="private", shop_level="gold", now=bank.now
    )
    (earned,) = await earn(
        connection,
        [activity(bank, member, "a", own_card=True, category="shoes")],
        partner_id=bank.partner_id,
        now=bank.now,
    )
    assert isinstance(earned, Earned)
    assert earned.points == 2_598
    stored = await connection.fetchrow(
        """SELECT tier, multiplier_pct, rule_version, amount_fen, own_card, category
             FROM ledger_operation WHERE id = $1""",
        earned.operation_id,
    )
    assert stored is not None
    assert tuple(stored) == ("platinum", 200, 1, 129_900, True, "shoes")
