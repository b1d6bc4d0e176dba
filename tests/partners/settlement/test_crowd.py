"""Requests of many members and the house's jobs at the same moment: nobody waits in a circle, and the books add up."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
from msgspec.structs import replace

from kernel.caller import MemberRef
from kernel.database import Connection, DatabaseBusy, Pool, transaction
from kernel.errors import Refusal
from kernel.ids import new_id
from partners.settlement import service as settlement
from points.earning import reversals
from points.ledger import service as ledger
from points.ledger.deeds import RefundPart, TransferRequest
from points.ledger.funder_model import Terms
from points.ledger.funder_rules import FunderExhausted
from points.ledger.model import BANK_FUNDER_ID, POINTS, EarnPosting, Grant, SpendRequest
from points.membership.service import enrol_members

NOW = datetime(2032, 5, 12, 4, 0, tzinfo=UTC)
CONNECTIONS = 8
VIEWS = "^books_i(0[2-9]|1[0-5]|17|18|33|5[1-3]|6[3-9])_"


class Consents:
    """Everybody's."""

    def __init__(self, members: list[MemberRef]) -> None:
        self.members = {str(member.member_id): member for member in members}

    async def names(self, connection: Connection, *, partner_id: UUID, member_ids: Any) -> dict[int, str]:
        return {member_id: str(member_id) for member_id in member_ids}

    async def resolve_each(self, connection: Connection, asked: Any, *, scope: str, now: datetime) -> Any:
        return [self.members[sub] for _, sub in asked]


async def test_requests_and_jobs_at_the_same_moment_never_wait_in_a_circle(pool: Pool) -> None:
    partner_id, owner_id = uuid4(), uuid4()
    async with transaction(pool) as connection:
        members = list(await enrol_members(connection, count=4, now=NOW))
        # of one bucket: whatever can meet, meets
        members = [replace(member, bucket=members[0].bucket) for member in members]
        owner = await ledger.register_funder(
            connection,
            code=f"partner:p{uuid4().hex[:12]}",
            kind="partner",
            partner_id=owner_id,
            terms=Terms(effective_on=NOW.date(), billing="prepaid"),
            actor="test",
            now=NOW,
        )
        for points in (300, 100_000):
            await ledger.buy_block(
                connection,
                code=owner.code,
                points=points,
                paid_fen=points,
                starts_on=NOW.date(),
                purchase_ref=uuid4().hex,
                actor="test",
                now=NOW,
            )
    consents, chance = Consents(members), random.Random(7)
    earned: list[UUID] = []
    spent: list[UUID] = []

    async def earn(connection: Connection) -> None:
        postings = [
            posting(member, partner_id, owner.id, chance.choice([5, 20]), late=chance.random() < 0.3)
            for member in chance.sample(members, 3)
        ]
        for answer in await ledger.post_funded_earnings(connection, postings, now=NOW):
            assert not isinstance(answer, FunderExhausted)
            earned.append(answer[1].operation_id)

    async def spend(connection: Connection) -> None:
        requests = [
            SpendRequest(member=member, partner_id=partner_id, points=7, order_ref="o", point_type=POINTS)
            for member in chance.sample(members, 2)
        ]
        done = await ledger.spend_points(connection, requests, now=NOW)
        spent.extend(one.id for one in done if not isinstance(one, Refusal))

    async def refund(connection: Connection) -> None:
        if earned:
            await reversals.reverse(
                connection,
                operation_id=chance.choice(earned),
                partner_id=partner_id,
                side="earn",
                refund_ref=uuid4().hex,
                refunded_fen=300,
                now=NOW,
            )

    async def refund_both(connection: Connection) -> None:
        if earned and spent:
            await reversals.refund(
                connection,
                spend=RefundPart(operation_id=chance.choice(spent), refunded_fen=1),
                earning=RefundPart(operation_id=chance.choice(earned), refunded_fen=100),
                partner_id=partner_id,
                refund_ref=uuid4().hex,
                now=NOW,
            )

    async def give(connection: Connection) -> None:
        sender, receiver = chance.sample(members, 2)
        request = TransferRequest(
            sender=sender,
            receiver=receiver,
            partner_id=partner_id,
            points=3,
            transfer_ref=uuid4().hex,
            point_type=POINTS,
        )
        await ledger.send_points(connection, request, now=NOW)

    async def sweep(connection: Connection) -> None:
        later = NOW + timedelta(minutes=1)
        jobs: list[Callable[[], Awaitable[Any]]] = [
            lambda: ledger.end_transfers(connection, consents, limit=5, now=later),
            lambda: ledger.expire_due(connection, limit=20, now=later),
            lambda: ledger.activate_due(connection, limit=20, now=later),
            lambda: settlement.close_batch(
                connection, partner_id=owner_id, business_on=NOW.date(), now=later
            ),
        ]
        await chance.choice(jobs)()

    connections = asyncio.Semaphore(CONNECTIONS)

    async def attempt(deed: Callable[[Connection], Awaitable[None]]) -> str:
        try:
            async with connections, transaction(pool) as connection:
                await deed(connection)
        except (Refusal, DatabaseBusy) as refusal:
            return type(refusal).__name__
        except asyncpg.DeadlockDetectedError:
            return "circle"
        return "done"

    deeds = [chance.choice([earn, earn, spend, refund, refund_both, give, sweep]) for _ in range(400)]
    results = await asyncio.gather(*[attempt(deed) for deed in deeds])
    assert "circle" not in results
    assert results.count("done") > 200, sorted(set(results))
    async with transaction(pool) as connection:
        while await ledger.end_transfers(connection, consents, limit=50, now=NOW):
            pass
        # nothing is left for another test's sweeps
        for book in (ledger.activate_due, ledger.expire_due):
            while await book(connection, limit=50, now=NOW + timedelta(minutes=1)):
                pass
        views = await connection.fetch("SELECT viewname FROM pg_views WHERE viewname ~ $1 ORDER BY 1", VIEWS)
        found = [view[0] for view in views if await connection.fetch(f"SELECT FROM {view[0]}")]
        assert found == []


def posting(member: MemberRef, partner_id: UUID, funder_id: int, points: int, *, late: bool) -> EarnPosting:
    """Half of it the bank's, half the funder's; `late` points wait for a few seconds."""
    grants = tuple(
        Grant(
            rule="base",
            multiplier_pct=100,
            points=points,
            lot_id=new_id(NOW),
            funder_id=payer,
            expires_at=NOW + timedelta(seconds=30) if late and payer == BANK_FUNDER_ID else None,
            activates_at=NOW + timedelta(seconds=20) if late and payer == funder_id else None,
        )
        for payer in (BANK_FUNDER_ID, funder_id)
    )
    return EarnPosting(
        operation_id=new_id(NOW),
        member=member,
        partner_id=partner_id,
        source_kind="purchase",
        source_ref=uuid4().hex,
        amount_fen=points * 200,
        occurred_at=NOW,
        rule_version=1,
        tier="start",
        multiplier_pct=100,
        own_card=True,
        category=None,
        grants=grants,
    )
