"""A partner whose points and plans leave entries to settle."""

from datetime import date, datetime
from uuid import UUID, uuid4

import pytest

from kernel.calendar import business_date
from kernel.caller import MemberRef
from kernel.database import Connection
from kernel.ids import new_id
from points.ledger import service as ledger
from points.ledger.model import EarnPosting, Grant, Side
from points.membership.service import enrol_members


class Shop:
    """Earnings and spends through the ledger; money entries of plans straight into the journal."""

    def __init__(self, connection: Connection, member: MemberRef, now: datetime) -> None:
        self.connection = connection
        self.member = member
        self.now = now
        self.partner_id = uuid4()

    async def earn(self, points: int, *, funder: str = "bank", now: datetime | None = None) -> UUID:
        funder_id = 1 if funder == "bank" else await self._funder(funder)
        moment = now or self.now
        posting = EarnPosting(
            operation_id=new_id(moment),
            member=self.member,
            partner_id=self.partner_id,
            source_kind="purchase",
            source_ref=str(uuid4()),
            amount_fen=points * 100,
            occurred_at=moment,
            rule_version=1,
            tier="start",
            multiplier_pct=100,
            own_card=True,
            category=None,
            grants=(
                Grant(
                    rule="base",
                    multiplier_pct=100,
                    points=points,
                    lot_id=new_id(moment),
                    funder_id=funder_id,
                    unit_cost_e6=800_000,
                    expires_at=None,
                ),
            ),
        )
        [outcome] = await ledger.post_earnings(self.connection, [posting], now=moment)
        return outcome.operation_id

    async def _funder(self, code: str) -> int:
        funder_id: int = await self.connection.fetchval(
            "INSERT INTO ledger_funder (code, kind) VALUES ($1, split_part($1, ':', 1)) RETURNING id", code
        )
        return funder_id

    async def spend(self, points: int) -> UUID:
        hold = await ledger.place_hold(
            self.connection,
            member=self.member,
            partner_id=self.partner_id,
            points=points,
            order_ref="order-1",
            ttl_seconds=60,
            now=self.now,
        )
        await ledger.capture_hold(self.connection, hold_id=hold.id, partner_id=self.partner_id, now=self.now)
        return hold.id

    async def refund(self, side: Side, operation_id: UUID, fen: int) -> None:
        await ledger.reverse(
            self.connection,
            operation_id=operation_id,
            partner_id=self.partner_id,
            side=side,
            refund_ref=str(uuid4()),
            refunded_fen=fen,
            now=self.now,
        )


class Journal:
    """The money entries of one plan, written as the schema's owner: settlement reads them, it does not make them."""

    def __init__(self, connection: Connection, shop: Shop) -> None:
        self._connection = connection
        self._shop = shop
        self._seq = 0
        self._plan_id = uuid4()

    async def write(
        self, kind: str, funder: str, amount_fen: int, *, owed: bool, on: date | None = None
    ) -> None:
        shop = self._shop
        if not self._seq:
            await self._open()
        self._seq += 1
        accounts = ("customer_receivable", "merchant_payable")
        await self._connection.execute(
            "INSERT INTO credit_entry VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
            *(shop.member.bucket, self._plan_id, self._seq, uuid4(), kind),
            *(accounts if owed else accounts[::-1]),
            *(amount_fen, funder, shop.partner_id, on or business_date(shop.now), shop.now),
        )

    async def _open(self) -> None:
        shop, application_id = self._shop, uuid4()
        key = (shop.member.bucket, application_id, shop.member.member_id, shop.partner_id)
        await self._connection.execute(
            "INSERT INTO credit_application VALUES ($1, $2, $3, $4, $2, 'approved', 100, 1, $5)",
            *key,
            shop.now,
        )
        await self._connection.execute(
            "INSERT INTO credit_plan (bucket, id, member_id, partner_id, application_id, state, terms, total_fen,"
            " financed_fen, starts_on, authorised_at, authorised_until)"
            " VALUES ($1, $5, $3, $4, $2, 'authorised', '{}', 100, 100, '2026-11-20', $6, $6)",
            *key,
            self._plan_id,
            shop.now,
        )


@pytest.fixture
async def shop(connection: Connection, now: datetime) -> Shop:
    [member] = await enrol_members(connection, count=1, now=now)
    return Shop(connection, member, now)


@pytest.fixture
def journal(connection: Connection, shop: Shop) -> Journal:
    return Journal(connection, shop)
