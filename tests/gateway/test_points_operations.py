"""Spends, batches, refunds and transfers through the whole gateway; and what the bank's staff do on the command line."""

import argparse
import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import uuid4

import httpx
import msgspec
import pytest

from gateway import books
from gateway.__main__ import main
from gateway.admins import AdminNotAllowed, create_admin
from gateway.cli import points as command
from gateway.cli.acting import Deed
from gateway.client import PartnerClient
from gateway.runtime import Runtime
from kernel.caller import MemberRef, MemberUnknown
from kernel.database import Connection, transaction
from partners.oauth import service as oauth
from points.ledger import service as ledger
from points.ledger.adjustments import AdjustmentNeedsAnother
from points.membership.service import enrol_members

COPIES = 100


async def bind(partner: PartnerClient, count: int) -> list[str]:
    answer = await partner.post(
        "/v1/members/bindings", {"customer_refs": [str(uuid4()) for _ in range(count)]}
    )
    return [binding["member"] for binding in answer["bindings"]]


async def earn(partner: PartnerClient, member: str, yuan: int) -> Any:
    return await partner.post(
        "/v1/points/earnings",
        {
            "member": member,
            "source_ref": str(uuid4()),
            "kind": "purchase",
            "occurred_at": "2026-11-11T20:00:00+08:00",
            "amount_fen": yuan * 100,
        },
    )


async def available(partner: PartnerClient, member: str) -> int:
    read = await partner.get(f"/v1/members/{member}/points")
    return int(read["available_points"])


async def faults(runtime: Runtime) -> list[str]:
    async with runtime.pool.acquire() as connection:
        return [finding.view for finding in await books.check(connection) if finding.rows]


@pytest.mark.parametrize("path", ["/v1/points/spends", "/v1/points/spends/batch"])
async def test_a_hundred_copies_of_a_spend_have_one_effect_and_one_answer(
    partner: PartnerClient, runtime: Runtime, path: str
) -> None:
    [member] = await bind(partner, 1)
    earned = await earn(partner, member, 1_000)
    before = earned["balance"]["available_points"]
    spend = {"member": member, "points": 70, "order_ref": "o-1"}
    body = msgspec.json.encode({"items": [spend]} if path.endswith("batch") else spend)
    answers = await asyncio.gather(
        *(partner.send("POST", path, body, idempotency_key=f"copies-{member}") for _ in range(COPIES))
    )
    assert len({(answer.status, answer.content) for answer in answers}) == 1
    assert sum("idempotency-replayed" not in answer.headers for answer in answers) == 1
    assert await available(partner, member) == before - 70
    assert await faults(runtime) == []


async def test_a_hundred_spends_at_once_never_overspend(partner: PartnerClient, runtime: Runtime) -> None:
    [member] = await bind(partner, 1)
    points = (await earn(partner, member, 300))["balance"]["available_points"]
    body = msgspec.json.encode({"member": member, "points": 7, "order_ref": "o"})
    answers = await asyncio.gather(
        *(
            partner.send("POST", "/v1/points/spends", body, idempotency_key=str(uuid4()))
            for _ in range(COPIES)
        )
    )
    spent = [answer for answer in answers if answer.status == 201]
    assert {answer.status for answer in answers} == {201, 409}
    assert len(spent) == points // 7
    assert await available(partner, member) == points % 7
    assert await faults(runtime) == []


async def test_a_refund_of_both_sides_is_replayed_under_its_key(
    partner: PartnerClient, http: httpx.AsyncClient, runtime: Runtime
) -> None:
    [member] = await bind(partner, 1)
    earned = await earn(partner, member, 1_000)
    spent = await partner.post(
        "/v1/points/spends", {"member": member, "points": 100, "order_ref": "o", "order_fen": 100_000}
    )
    refund = {
        "refund_ref": "r-1",
        "refunded_fen": 50_000,
        "spend": {"id": spent["id"]},
        "earning": {"operation_id": earned["id"]},
    }
    preview = await partner.post("/v1/points/dry_runs/refund", refund)
    body = msgspec.json.encode(refund)
    answers = [
        await partner.send("POST", "/v1/points/refunds", body, idempotency_key=f"refund-{member}")
        for _ in range(2)
    ]
    assert [answer.status for answer in answers] == [201, 201]
    assert answers[0].content == answers[1].content
    done = answers[0].json()
    assert (done["points_restored"], done["balance"]) == (50, preview["balance"])
    assert await faults(runtime) == []


@pytest.mark.parametrize("willing", [True, False])
async def test_a_transfer_arrives_while_the_receiver_consents(
    partner: PartnerClient, runtime: Runtime, willing: bool
) -> None:
    sender, receiver = await bind(partner, 2)
    before = (await earn(partner, sender, 500))["balance"]["available_points"]
    sent = await partner.post(
        "/v1/points/transfers", {"from": sender, "to": receiver, "points": 60, "transfer_ref": "t-1"}
    )
    async with transaction(runtime.pool) as connection:
        if not willing:
            await withdraw(connection, runtime, sent["id"])
    while (await partner.get(f"/v1/points/transfers/{sent['id']}"))["state"] == "sent":
        async with transaction(runtime.pool) as connection:
            await ledger.end_transfers(connection, runtime.subjects, limit=100, now=runtime.clock.now())
    found = await partner.get(f"/v1/points/transfers/{sent['id']}")
    assert found["state"] == ("arrived" if willing else "returned")
    assert await available(partner, sender) == (before - 60 if willing else before)
    if willing:
        assert await available(partner, receiver) == 60
    assert await faults(runtime) == []


async def withdraw(connection: Connection, runtime: Runtime, wire_id: str) -> None:
    """The receiver of the transfer takes the consent back."""
    record = await connection.fetchrow(
        "SELECT to_bucket, to_member_id, partner_id FROM ledger_transfer WHERE books_wire_id('trf', id) = $1",
        wire_id,
    )
    assert record is not None
    member = MemberRef(member_id=record["to_member_id"], bucket=record["to_bucket"])
    assert await oauth.withdraw_consent(
        connection, partner_id=record["partner_id"], member=member, now=runtime.clock.now()
    )


async def test_a_batch_needs_its_scope_and_a_key(
    register: Callable[..., Any], http: httpx.AsyncClient
) -> None:
    reader = await register("members:read")
    for path in ("spends", "holds", "captures", "releases", "reversals"):
        answer = await reader.send(
            "POST", f"/v1/points/{path}/batch", b'{"items": [{}]}', idempotency_key=str(uuid4())
        )
        assert (answer.status, answer.json()["code"]) == (403, "insufficient_scope")
    spender = await register("points:spend", "points:earn")
    for path in ("spends", "refunds", "transfers", "exchanges"):
        answer = await spender.send("POST", f"/v1/points/{path}", b"{}")
        assert answer.status in (400, 422)


class Staff:
    """The command's deeds, in one transaction that is not committed."""

    def __init__(self, connection: Connection, runtime: Runtime) -> None:
        self._connection = connection
        self._runtime = runtime

    async def do(self, deed: Callable[[argparse.Namespace], Deed], **options: Any) -> list[str]:
        return await deed(argparse.Namespace(**options))(self._connection, self._runtime)


@pytest.fixture
async def staff(runtime: Runtime, connection: Connection) -> Staff:
    now = runtime.clock.now()
    for login, roles in (("maker.one", ["maker"]), ("checker.two", ["maker", "checker"])):
        await create_admin(connection, login=login, roles=roles, vault=runtime.vault, now=now)  # type: ignore[arg-type]  # literals
    return Staff(connection, runtime)


async def test_an_adjustment_takes_a_maker_and_a_checker(
    staff: Staff, connection: Connection, now: datetime
) -> None:
    (member,) = await enrol_members(connection, count=1, bank_level="comm", now=now)
    member_id = member.member_id
    wish = {
        "member": member_id,
        "points": 500,
        "point_type": "tessera",
        "funder": "bank",
        "reason_code": "goodwill",
        "reason": "A late parcel.",
    }
    with pytest.raises(AdminNotAllowed):
        await staff.do(command._propose, login="nobody", **wish)
    with pytest.raises(MemberUnknown):
        await staff.do(command._propose, login="maker.one", **wish | {"member": 10**12})
    [line] = await staff.do(command._propose, login="checker.two", **wish)
    adjustment_id = line.split()[0]
    for login, refusal in (("maker.one", AdminNotAllowed), ("checker.two", AdjustmentNeedsAnother)):
        with pytest.raises(refusal):
            await staff.do(command._approve, login=login, id=adjustment_id)
    [line] = await staff.do(command._propose, login="maker.one", **wish)
    adjustment_id = line.split()[0]
    [posted] = await staff.do(command._approve, login="checker.two", id=adjustment_id)
    assert "posted" in posted and "admin:maker.one / admin:checker.two" in posted
    listed = await staff.do(command._list_adjustments, state="proposed")
    assert len(listed) == 1


async def test_types_and_rates_take_a_checker(staff: Staff) -> None:
    new = {"name": "miles", "value_fen_e6": 5_000_000}
    with pytest.raises(AdminNotAllowed):
        await staff.do(command._add_type, login="maker.one", **new)
    await staff.do(command._add_type, login="checker.two", **new)
    assert [line.split()[1] for line in await staff.do(command._list_types)] == ["tessera", "miles"]
    rate = {"from_type": "tessera", "to_type": "miles", "numerator": 1, "denominator": 5, "valid_from": None}
    await staff.do(command._set_rate, login="checker.two", **rate)
    [line] = await staff.do(command._list_rates)
    assert line.startswith("tessera -> miles v1: 1 for 5 from ")


def test_the_command_says_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["points", "adjust", "approve", "adj_x"])
    assert "--by" in capsys.readouterr().err
