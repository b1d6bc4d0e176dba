"""The books check finds nothing in a good day's business, and every single thing that is bent afterwards."""

import re
from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, date, datetime, timedelta
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import msgspec
import pytest

from gateway import books, books_log, books_recent
from kernel import jobs
from kernel.caller import ConsentMissing, MemberRef
from kernel.database import Connection, Pool, acquire, open_pool, transaction
from kernel.errors import Refusal
from kernel.ids import new_id, to_wire
from kernel.migrate import find_directory
from kernel.supervisor import Endpoints
from kernel.vault import Vault, generate_ring
from partners.credit import capturing, refunding
from partners.credit import service as credit
from partners.credit.model import EntitlementTerms, FundingShare, PlanTerms, RefundPolicy
from partners.registry import service as registry
from partners.settlement import service as settlement
from partners.webhooks import service as webhooks
from points.earning import campaigns, reversals
from points.earning import service as earning
from points.earning.definitions import (
    BudgetDefinition,
    CampaignDefinition,
    RecurrenceDefinition,
    ShareDefinition,
)
from points.earning.model import Activity, Earned
from points.ledger import service as ledger
from points.ledger.deeds import Adjustment, ExchangeRequest, RefundPart, TransferRequest
from points.ledger.funder_model import Billing, Terms
from points.ledger.funder_rules import FunderExhausted
from points.ledger.model import POINTS, EarnPosting, Grant, Hold, Side, SpendRequest
from points.membership import service as membership
from points.membership.model import FedLevel, Privilege
from points.rewards import service as rewards
from points.rewards.model import Cancellation, Definition, Limit, RewardKind, Wish

NOW = datetime(2026, 11, 20, 4, 0, tzinfo=UTC)
#: the number of every view that the migrations make
VIEWS = sorted(
    {
        number
        for file in find_directory().glob("*.sql")
        for number in re.findall(r"VIEW books_(i\d+)_", file.read_text(encoding="utf-8"))
    }
)


class Willing:
    """Every receiver consents; the seam at which partners.oauth is joined."""

    async def names(
        self, connection: Connection, *, partner_id: UUID, member_ids: Sequence[int]
    ) -> dict[int, str]:
        return {member_id: "sub" for member_id in member_ids}

    async def resolve_each(
        self, connection: Connection, asked: Sequence[tuple[UUID, str]], *, scope: str, now: datetime
    ) -> list[MemberRef | Refusal]:
        return [MemberRef(member_id=1, bucket=1) for _ in asked]


class Unwilling(Willing):
    """None does."""

    async def resolve_each(
        self, connection: Connection, asked: Sequence[tuple[UUID, str]], *, scope: str, now: datetime
    ) -> list[MemberRef | Refusal]:
        return [ConsentMissing() for _ in asked]


class Day:
    """One partner's business on one day, through the services only."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._orders = 0
        self.partner_id = UUID(int=0)

    async def run(self) -> None:
        connection = self._connection
        self.partner_id = await registry.register_partner(
            connection,
            slug="mall",
            name_zh="商城",
            name_en="Mall",
            kind="service_provider",
            scene="ecommerce",
            status="live",
            now=NOW,
        )
        await webhooks.register_endpoint(
            connection,
            partner_id=self.partner_id,
            url="https://hooks.example.com/",
            event_types=["*"],
            secret=None,
            vault=Vault(generate_ring()),
            mode="live",
            now=NOW,
        )
        first, second, third = await membership.enrol_members(connection, count=3, now=NOW)
        await self._points(first)
        await self._arrears(second)
        await self._more()
        await self._plans(first)
        await self._right(second)
        await self._campaign((await membership.enrol_members(connection, count=1, now=NOW))[0])
        await self._tiers()
        brand_id = await self._funding(third)
        await self._rewards(first)
        while await webhooks.relay(connection, limit=1_000, now=NOW):
            pass
        await self._prove()
        closed_at = NOW + timedelta(hours=8)
        await settlement.close_batch(
            connection, partner_id=self.partner_id, business_on=date(2026, 11, 20), now=closed_at
        )
        for day in (20, 21):
            await settlement.close_batch(
                connection,
                partner_id=brand_id,
                business_on=date(2026, 11, day),
                now=closed_at + timedelta(days=1),
            )

    async def _earn(
        self, member: MemberRef, points: int, *, days: int = 365, waits: int | None = None, funder_id: int = 1
    ) -> UUID:
        self._orders += 1
        posting = EarnPosting(
            operation_id=new_id(NOW),
            member=member,
            partner_id=self.partner_id,
            source_kind="purchase",
            source_ref=f"order-{self._orders}",
            amount_fen=points * 100,
            occurred_at=NOW,
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
                    lot_id=new_id(NOW),
                    funder_id=funder_id,
                    unit_cost_e6=1_000_000,
                    expires_at=NOW + timedelta(days=days),
                    activates_at=None if waits is None else NOW + timedelta(days=waits),
                ),
            ),
        )
        [answer] = await ledger.post_funded_earnings(self._connection, [posting], now=NOW)
        assert not isinstance(answer, FunderExhausted)
        assert answer[1].posted
        return answer[1].operation_id

    async def _hold(self, member: MemberRef, points: int, *, seconds: int = 3_600) -> UUID:
        hold = await ledger.place_hold(
            self._connection,
            member=member,
            partner_id=self.partner_id,
            points=points,
            order_ref="order-1",
            ttl_seconds=seconds,
            now=NOW,
        )
        return hold.id

    async def _points(self, member: MemberRef) -> None:
        """Earned twice, by two funders; held five times with every end; one refund of each kind; one lot expired."""
        connection, partner_id = self._connection, self.partner_id
        funder_id: int = await connection.fetchval(
            "INSERT INTO ledger_funder (code, kind, partner_id) VALUES ('partner:mall', 'partner', $1) RETURNING id",
            partner_id,
        )
        earned = await self._earn(member, 50_000)
        await self._earn(member, 700, funder_id=funder_id, days=10)
        await self._earn(member, 60, waits=3)
        await self._earn(member, 40, waits=1)
        captured, released = await self._hold(member, 1_000), await self._hold(member, 200)
        await self._hold(member, 300)
        await self._hold(member, 400, seconds=60)
        await ledger.capture_hold(connection, hold_id=captured, partner_id=partner_id, points=900, now=NOW)
        await ledger.release_hold(connection, hold_id=released, partner_id=partner_id, now=NOW)
        await ledger.lapse_due(connection, limit=10, now=NOW + timedelta(seconds=60))
        refunds: list[tuple[Side, UUID, int]] = [
            ("spend", captured, 333),
            ("spend", captured, 1),
            ("earn", earned, 12_345),
        ]
        for side, operation_id, fen in refunds:
            await ledger.reverse(
                connection,
                operation_id=operation_id,
                partner_id=partner_id,
                side=side,
                refund_ref=f"refund-{fen}",
                refunded_fen=fen,
                now=NOW,
            )
        await self._earn(member, 60, days=1)
        assert await ledger.expire_due(connection, limit=10, now=NOW + timedelta(days=1)) == 2

    async def _campaign(self, member: MemberRef) -> None:
        """A listed campaign of two funders, with caps and a budget that ends; one of its earnings partly refunded."""
        connection, before = self._connection, NOW - timedelta(hours=1)
        definition = CampaignDefinition(
            code="friday",
            name_zh="最红星期五",
            name_en="Red Friday",
            starts_at=before - timedelta(hours=1),
            ends_at=NOW + timedelta(days=1),
            recurrence=RecurrenceDefinition(weekdays=[5]),
            multiplier_pct=200,
            partner_ids=[self.partner_id],
            listed=True,
            member_cap_points=500,
            member_daily_cap_points=400,
            budget=BudgetDefinition(total=350, on_exhaustion="partial"),
            shares=(
                ShareDefinition(share_ppm=300_000),
                ShareDefinition(share_ppm=700_000, funder="partner:mall", unit_cost_e6=800_000),
            ),
        )
        await campaigns.propose_campaign(connection, definition, members=[member], by="maker", now=before)
        await campaigns.approve_campaign(connection, "friday", by="checker", now=before)
        activities = [
            Activity(
                member=member,
                source_ref=f"friday-{number}",
                kind="purchase",
                occurred_at=NOW,
                amount_fen=20_000,
            )
            for number in range(3)
        ]
        earned = await earning.earn(connection, activities, partner_id=self.partner_id, now=NOW)
        assert [one.points for one in earned if isinstance(one, Earned)] == [400, 350, 200]
        assert isinstance(earned[1], Earned)
        await reversals.reverse(
            connection,
            operation_id=earned[1].operation_id,
            partner_id=self.partner_id,
            side="earn",
            refund_ref="refund-friday",
            refunded_fen=7_777,
            now=NOW,
        )

    async def _more(self) -> None:
        """Spent at once and refunded with what it earned; given, taken, refused; sent, returned, under way; exchanged."""
        connection, partner_id = self._connection, self.partner_id
        one, two = await membership.enrol_members(connection, count=2, now=NOW)
        earned = await self._earn(one, 4_000)
        wish = SpendRequest(member=one, partner_id=partner_id, points=700, order_ref="order-2")
        [spent] = await ledger.spend_points(connection, [wish], now=NOW)
        assert isinstance(spent, Hold)
        await ledger.refund(
            connection,
            spend=RefundPart(operation_id=spent.id, refunded_fen=300),
            earning=RefundPart(operation_id=earned, refunded_fen=77_700),
            partner_id=partner_id,
            refund_ref="refund-both",
            now=NOW,
        )
        miles = await ledger.register_point_type(
            connection, name="miles", value_fen_e6=4_000_000, by="admin:ann", now=NOW
        )
        for points, decide in (
            (500, ledger.approve_adjustment),
            (-120, ledger.approve_adjustment),
            (1, ledger.reject_adjustment),
        ):
            adjustment = await self._propose(one, points)
            await decide(connection, adjustment_id=adjustment.id, by="admin:bob", now=NOW)
        await self._propose(one, 5)
        await ledger.expire_adjustments(connection, limit=9, now=NOW + timedelta(days=8))
        await self._propose(one, 6)
        for number, willing in enumerate((True, False)):
            await self._send(one, two, 250, f"transfer-{number}")
            seam = Willing() if willing else Unwilling()
            assert await ledger.end_transfers(connection, seam, limit=9, now=NOW) == 1
        await self._send(one, two, 40, "transfer-2")
        await ledger.set_rate(
            connection,
            from_type=POINTS,
            to_type=miles,
            numerator=3,
            denominator=10,
            valid_from=NOW,
            by="admin:ann",
            now=NOW,
        )
        exchange = ExchangeRequest(
            member=one, partner_id=partner_id, from_type=POINTS, to_type=miles, points=101, exchange_ref="x-1"
        )
        await ledger.exchange_points(connection, exchange, now=NOW)

    async def _propose(self, member: MemberRef, points: int) -> Adjustment:
        return await ledger.propose_adjustment(
            self._connection,
            member=member,
            point_type=POINTS,
            points=points,
            reason_code="goodwill",
            reason="A late parcel.",
            by="admin:ann",
            now=NOW,
        )

    async def _send(self, sender: MemberRef, receiver: MemberRef, points: int, ref: str) -> None:
        request = TransferRequest(
            sender=sender,
            receiver=receiver,
            partner_id=self.partner_id,
            points=points,
            transfer_ref=ref,
            point_type=POINTS,
        )
        await ledger.send_points(self._connection, request, now=NOW)

    async def _arrears(self, member: MemberRef) -> None:
        """Earned, spent, clawed back, owed, partly repaid by the next earning."""
        connection, partner_id = self._connection, self.partner_id
        earned = await self._earn(member, 500)
        hold_id = await self._hold(member, 450)
        await ledger.capture_hold(connection, hold_id=hold_id, partner_id=partner_id, now=NOW)
        reversal = await ledger.reverse(
            connection,
            operation_id=earned,
            partner_id=partner_id,
            side="earn",
            refund_ref="refund-all",
            refunded_fen=50_000,
            now=NOW,
        )
        assert reversal.arrears_added == 450
        await self._earn(member, 100)

    async def _funding(self, member: MemberRef) -> UUID:
        """A brand pays for points in the mall: in advance and afterwards, one refund of each, one lot expired."""
        connection, brand_id = self._connection, new_id(NOW)
        for code, billing, price in (("brand-pre", "prepaid", 0), ("brand-post", "postpaid", 900_000)):
            terms = Terms(
                effective_on=date(2026, 11, 20),
                billing=msgspec.convert(billing, Billing),
                price_fen_e6=price,
                breakage_ppm=500_000,
            )
            funder = await ledger.register_funder(
                connection,
                code=f"partner:{code}",
                kind="partner",
                partner_id=brand_id,
                terms=terms,
                actor="test",
                now=NOW,
            )
            if billing == "prepaid":
                await ledger.buy_block(
                    connection,
                    code=funder.code,
                    points=1_000,
                    paid_fen=777,
                    starts_on=terms.effective_on,
                    purchase_ref="po-1",
                    actor="test",
                    now=NOW,
                )
            earned = await self._earn(member, 333, funder_id=funder.id, days=1)
            await ledger.reverse(
                connection,
                operation_id=earned,
                partner_id=self.partner_id,
                side="earn",
                refund_ref="refund-1",
                refunded_fen=11_100,
                now=NOW,
            )
        assert await ledger.expire_due(connection, limit=10, now=NOW + timedelta(days=1)) == 2
        return brand_id

    async def _plans(self, member: MemberRef) -> None:
        """One plan captured in two parts, repaid once and refunded twice; one voided; one left authorised; one declined."""
        connection, partner_id = self._connection, self.partner_id
        plan = (await self._apply(member)).plan
        assert plan is not None
        for fen in (40_000, None):
            await capturing.capture_plan(
                connection, plan_id=plan.id, partner_id=partner_id, amount_fen=fen, now=NOW
            )
        await capturing.record_repayment(connection, plan_id=plan.id, partner_id=partner_id, now=NOW)
        for fen in (30_000, 7_777):
            await refunding.post_refund(
                connection,
                plan_id=plan.id,
                partner_id=partner_id,
                refund_ref=f"refund-{fen}",
                amount_fen=fen,
                now=NOW,
            )
        voided = (await self._apply(member)).plan
        assert voided is not None
        await credit.void_plan(connection, plan_id=voided.id, partner_id=partner_id, now=NOW)
        await self._apply(member)
        assert (await self._apply(member, total_fen=9_000_000)).plan is None

    async def _apply(self, member: MemberRef, total_fen: int = 120_000) -> credit.Answer:
        quote_id = new_id(NOW)
        await self._connection.execute(
            "INSERT INTO offers_quote (bucket, id, member_id, partner_id, version_id, state, cart_hash, disclosure_hash,"
            " doc, jws, issued_at, expires_at, disclosed_at, accepted_at, consent_id)"
            " VALUES ($1, $2, $3, $4, $5, 'accepted', '', 'h', $8, '', $6, $7, $6, $6, $2)",
            member.bucket,
            quote_id,
            member.member_id,
            self.partner_id,
            await self._version(),
            NOW,
            NOW + timedelta(minutes=30),
            {"disclosure": {"hash": "h", "min_read_seconds": 5}},
        )
        await self._connection.execute(
            "INSERT INTO offers_disclosure_evidence VALUES ($1, $2, 'h', 8, $3, $3)",
            member.bucket,
            quote_id,
            NOW,
        )
        terms = PlanTerms(
            quote_id=quote_id,
            order_ref="order-9",
            member_sub="sub",
            total_fen=total_fen,
            discount_fen=6_000,
            points=5_000,
            points_value_fen=5_000,
            down_payment_fen=9_000,
            financed_fen=total_fen - 20_000,
            periods=6,
            method="interest_free",
            annual_rate_ppm=0,
            fee_ppm_per_period=0,
            residue_on="last",
            day_count="30/360",
            subsidy_ppm_per_period=3_000,
            funding=(
                FundingShare(funder="bank", kind="discount", share_ppm=1_000_000),
                FundingShare(funder="merchant", kind="interest_subsidy", share_ppm=1_000_000),
            ),
            refund_policy=RefundPolicy(allocation="next", interest_refund=True, fee_refund=True),
            entitlement=EntitlementTerms(kind="golf", quantity=2, valid_days=30),
        )
        return await credit.apply_for_plan(
            self._connection, terms, member=member, partner_id=self.partner_id, now=NOW
        )

    async def _version(self) -> UUID:
        offer_id, version_id = new_id(NOW), new_id(NOW)
        await self._connection.execute(
            "INSERT INTO offers_offer VALUES ($1, $2, 'ecom_checkout', $3)", offer_id, self.partner_id, NOW
        )
        await self._connection.execute(
            "INSERT INTO offers_version VALUES ($1, $2, 1, $3, 'ecom_checkout', 'active', $4, $5, 1, 2, '{}', $4)",
            version_id,
            offer_id,
            self.partner_id,
            NOW,
            NOW + timedelta(days=1),
        )
        return version_id

    async def _prove(self) -> None:
        """The month is stated, its days are sealed."""
        connection, now = self._connection, datetime(2026, 12, 1, tzinfo=UTC)
        while await jobs.advance(connection, ledger.issuing(1), business_on=date(2026, 11, 1), now=now):
            pass
        for day in await ledger.list_open_days(connection, until=date(2026, 11, 22)):
            await ledger.seal_day(connection, day=day, now=now)

    async def _tiers(self) -> None:
        """One rises by purchases and has part of them undone; one falls a step after the grace; one booked a right."""
        connection, partner_id = self._connection, self.partner_id
        rising, falling = await membership.enrol_members(connection, count=2, now=NOW)
        lounge = Privilege(tier="bronze", partner_id=partner_id, kind="lounge", quantity=2, period="month")
        proposal = await membership.propose_privileges(connection, [lounge], by="maker", now=NOW)
        await membership.switch_on(
            connection, "privileges", proposal.version, effective_on=date(2026, 11, 20), by="checker", now=NOW
        )
        orders = [
            Activity(
                member=rising, source_ref=f"tier-{n}", kind="purchase", occurred_at=NOW, amount_fen=500_000
            )
            for n in range(12)
        ]
        outcomes = await earning.earn(connection, orders, partner_id=partner_id, now=NOW)
        risen = await membership.judge_members(
            connection, [rising], day=date(2026, 11, 20), cause="evaluation", now=NOW
        )
        assert [verdict.reason for _, verdict in risen] == ["upgraded"]
        for earned, fen in zip(outcomes[:2], (500_000, 1), strict=True):
            assert isinstance(earned, Earned)
            await reversals.reverse(
                connection,
                operation_id=earned.operation_id,
                partner_id=partner_id,
                side="earn",
                refund_ref="undone",
                refunded_fen=fen,
                now=NOW,
            )
        (right,) = await membership.list_entitlements(connection, rising, partner_id=partner_id, limit=2)
        for ref in ("visit-1", "visit-2"):
            await membership.book_entitlement(
                connection,
                entitlement_id=right.id,
                partner_id=partner_id,
                booking_ref=ref,
                booked_for=date(2026, 11, 21),
                quantity=1,
                now=NOW,
            )
        await membership.use_entitlement(
            connection,
            entitlement_id=right.id,
            partner_id=partner_id,
            use_ref="use-1",
            quantity=1,
            booking_ref="visit-1",
            now=NOW,
        )
        await self._fall(falling)

    async def _fall(self, member: MemberRef) -> None:
        """A level that the bank corrects twice, and an evaluation long after the tier it made."""
        for level in ("private", "wode", "express"):
            fed = FedLevel(member=member, bank_level=level, valid_from=date(2026, 11, 20))
            await membership.feed_bank_levels(self._connection, [fed], fed_ref="levels-1", now=NOW)
        day = date(2028, 1, 31)
        decided = await membership.judge_members(
            self._connection, [member], day=day, cause="evaluation", now=NOW + timedelta(seconds=1)
        )
        assert [verdict.reason for _, verdict in decided] == ["downgraded"]

    async def _rewards(self, member: MemberRef) -> None:
        """Every kind redeemed, with every end; one is still in the provider's hands, one outcome unknown."""
        connection, vault = self._connection, Vault(generate_ring())
        kinds: list[tuple[RewardKind, int, int | None]] = [
            ("gift_card", 2, None),
            ("fee_offset", 3, None),
            ("service", 5, 9),
        ]
        for kind, wanted, pieces in kinds:
            definition = Definition(
                kind=kind,
                title_zh="礼",
                title_en="gift",
                price_points=70,
                provider_id=self.partner_id if kind == "service" else None,
                pieces=pieces,
                offset_fen=70 if kind == "fee_offset" else None,
                fulfil_seconds=60 if kind == "service" else None,
                starts_at=NOW,
                limit=Limit(count=9, period="year"),
                cancellation=Cancellation()
                if kind == "fee_offset"
                else Cancellation(policy="within_days", days=7),
            )
            reward_id = await rewards.define_reward(connection, definition, actor="test", now=NOW)
            if kind == "gift_card":
                await rewards.load_codes(
                    connection, reward_id=reward_id, lines=["A", "B", "C"], actor="test", vault=vault, now=NOW
                )
            await rewards.move_reward(connection, reward_id=reward_id, state="active", actor="test", now=NOW)
            redeemed = [
                await rewards.redeem(
                    connection,
                    Wish(
                        member=member,
                        partner_id=self.partner_id,
                        reward_id=reward_id,
                        redemption_ref=f"{kind}-{place}",
                    ),
                    now=NOW,
                )
                for place in range(wanted)
            ]
            if kind == "gift_card":
                await self._cancel(redeemed[0].id)
            elif kind == "fee_offset":
                await rewards.confirm_offset(connection, redemption_id=redeemed[0].id, now=NOW)
                await rewards.refuse_offset(
                    connection, redemption_id=redeemed[1].id, reason="refused", now=NOW
                )
            else:
                for place in (0, 1):
                    await rewards.fulfil(
                        connection, redemption_id=redeemed[place].id, provider_id=self.partner_id, now=NOW
                    )
                for place in (0, 2):
                    await self._cancel(redeemed[place].id)
                assert await rewards.fail_overdue(connection, now=NOW + timedelta(seconds=60)) == 1

    async def _cancel(self, redemption_id: UUID) -> None:
        await rewards.cancel(self._connection, redemption_id=redemption_id, asking=self.partner_id, now=NOW)

    async def _right(self, member: MemberRef) -> None:
        right = await membership.grant_entitlement(
            self._connection,
            member=member,
            partner_id=self.partner_id,
            kind="lounge",
            source="test",
            quantity=3,
            expires_at=None,
            now=NOW,
        )
        await self._connection.execute(
            "INSERT INTO membership_entitlement_use VALUES ($1, $2, $3, 'use-1', 2, $4)",
            member.bucket,
            member.member_id,
            right,
            NOW,
        )
        await self._connection.execute("UPDATE membership_entitlement SET used = 2 WHERE id = $1", right)


@pytest.fixture(scope="module")
async def database(servers: Endpoints, template: str, worker: int) -> AsyncGenerator[str, None]:
    """A database of its own: other tests bend rows too."""
    name = f"tessera_books_{worker}"
    connection = await asyncpg.connect(servers.superuser_url)
    await connection.execute(f"CREATE DATABASE {name} OWNER tessera_owner TEMPLATE {template}")
    await connection.execute(f"GRANT CONNECT ON DATABASE {name} TO tessera_app")
    yield name
    await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await connection.close()


@pytest.fixture(scope="module")
async def owner(servers: Endpoints, database: str) -> AsyncGenerator[Pool, None]:
    """The good day, committed, as the role that could bend it."""
    url = urlsplit(servers.migration_url)._replace(path=f"/{database}").geturl()
    async with await open_pool(url, size=2) as pool:
        async with transaction(pool) as connection:
            await Day(connection).run()
        yield pool


async def test_a_good_day_contradicts_nothing_and_the_application_may_look(
    servers: Endpoints, database: str, owner: Pool
) -> None:
    url = urlsplit(servers.database_url)._replace(path=f"/{database}").geturl()
    async with await open_pool(url, size=2) as pool, acquire(pool) as connection:
        findings = await books.check(connection)
    assert {finding.view: finding.rows for finding in findings if finding.rows} == {}
    assert [finding.view[6:9] for finding in findings] == VIEWS
    assert all(finding.sentence.endswith(".") for finding in findings)
    async with acquire(owner) as connection:
        kinds = {row[0] for row in await connection.fetch("SELECT DISTINCT kind FROM ledger_operation")}
        lines = {row[0] for row in await connection.fetch("SELECT DISTINCT kind FROM settlement_line")}
    assert kinds == {
        *(
            "earn",
            "hold",
            "capture",
            "release",
            "lapse",
            "reverse_earn",
            "reverse_spend",
            "expire",
            "activate",
            "spend",
            "adjust",
            "transfer_out",
            "transfer_in",
            "exchange",
        ),
    }
    assert lines == {
        *("points_issued", "points_clawed_back", "points_redeemed", "points_restored"),
        *("capture", "refund", "discount", "discount_reversal", "merchant_subsidy", "subsidy_reversal"),
        *("prepaid_bought", "prepaid_used", "prepaid_returned", "breakage_share"),
    }


OPEN_BATCH = "ALTER TABLE settlement_batch DISABLE TRIGGER USER; "
OPEN_CODES = "ALTER TABLE rewards_code DISABLE TRIGGER USER;"
OF_REDEMPTIONS = "manager = 'redemption'"
A_LOT = "(SELECT min(id::text)::uuid FROM ledger_lot WHERE remaining_points > pending_points)"
AN_EARNING = "(SELECT min(id::text)::uuid FROM ledger_operation WHERE kind = 'earn')"
THE_PLAN = "(SELECT id FROM credit_plan WHERE captures > 0)"
# an entry that the application could write, with the count of entries that goes with it
FORGED = "INSERT INTO credit_entry SELECT bucket, id, entries + 1, id,"
FORGERY = f""", 100000, 'bank', partner_id, '2026-11-20', now() FROM credit_plan WHERE id = {THE_PLAN};
    UPDATE credit_plan SET entries = entries + 1 WHERE id = {THE_PLAN}"""
NO_LINK = "ALTER TABLE ledger_seal DROP CONSTRAINT ledger_seal_link;"
NO_PERIOD_LINK = "ALTER TABLE membership_tier_period DROP CONSTRAINT membership_tier_period_link;"
ONE_PERSON = "ALTER TABLE membership_switch DROP CONSTRAINT membership_switch_two_people;"
# two statements that both begin where the first ended: the key allows it, the sentence does not
SECOND_STATEMENT = """
INSERT INTO ledger_statement (bucket, member_id, point_type, period, opening_points, earned_points, restored_points,
       spent_points, expired_points, clawed_points, repaid_points, closing_points, closing_held_points,
       opening_arrears_points, owed_points, closing_arrears_points, first_seq, last_seq, head_hash, issued_at)
SELECT bucket, member_id, point_type, period + m * interval '1 month', closing_points, 0, 0, 0, 0, 0, 0, closing_points,
       0, closing_arrears_points, 0, closing_arrears_points, last_seq + 1, last_seq + m, head_hash, issued_at
  FROM ledger_statement CROSS JOIN generate_series(1, 2) AS m"""
# the last entry of every wallet with its hash, and the wallet with it: everything else still agrees
A_FORGERY = """
WITH forged AS (
    UPDATE ledger_entry AS e SET value_fen = e.value_fen + 1, hash = sha256(e.hash)
      FROM ledger_wallet AS w WHERE w.member_id = e.member_id AND w.seq = e.seq
    RETURNING e.member_id, e.hash)
UPDATE ledger_wallet AS w SET head_hash = forged.hash FROM forged WHERE forged.member_id = w.member_id"""
A_CHECK = "INSERT INTO books_check (since, next_since, members, broken, started_at, finished_at) VALUES"
THE_LAST_AUDIT = "(SELECT max(seq) FROM audit_record AS r WHERE r.lane = audit_record.lane)"

ANY_SOURCE = """DROP INDEX ledger_operation_source;
ALTER TABLE ledger_operation DROP CONSTRAINT ledger_operation_has_source;"""

# (the view that must notice, the defect)
DEFECTS = [
    ("i01", "UPDATE ledger_entry SET debit_account = 77 WHERE seq = 1"),
    ("i01", "UPDATE ledger_entry SET funder_id = 77 WHERE seq = 1"),
    ("i01", "UPDATE ledger_entry SET debit_account = 10, credit_account = 11 WHERE seq = 1"),
    ("i02", f"DELETE FROM ledger_operation WHERE id = {AN_EARNING}"),
    ("i02", f"DELETE FROM ledger_entry WHERE operation_id = {AN_EARNING}"),
    ("i02", f"UPDATE ledger_operation SET business_on = business_on + 1 WHERE id = {AN_EARNING}"),
    ("i02", "UPDATE ledger_entry SET recorded_at = recorded_at + interval '1 second' WHERE seq = 1"),
    ("i03", f"UPDATE ledger_operation SET points = points + 1 WHERE id = {AN_EARNING}"),
    ("i03", "UPDATE ledger_operation SET points = points - 1 WHERE kind = 'capture'"),
    ("i04", "UPDATE ledger_wallet SET available_points = available_points + 1 WHERE arrears_points = 0"),
    ("i04", "UPDATE ledger_wallet SET arrears_points = arrears_points + 1 WHERE arrears_points > 0"),
    ("i04", "DELETE FROM ledger_wallet WHERE arrears_points > 0"),
    ("i05", "UPDATE ledger_entry SET available_after = available_after + 1 WHERE seq = 2"),
    ("i05", "DELETE FROM ledger_entry WHERE seq = 2"),
    ("i06", "UPDATE ledger_entry SET points = 10000000 WHERE credit_account = 2"),
    ("i07", "UPDATE ledger_entry SET value_fen = value_fen + 1 WHERE seq = 1"),
    ("i07", "UPDATE ledger_entry SET hash = sha256(hash) WHERE seq = 2"),
    ("i07", "UPDATE ledger_wallet SET head_hash = sha256(head_hash)"),
    ("i08", "UPDATE ledger_house_slot SET debit_points = debit_points + 1 WHERE account = 10"),
    ("i08", "DELETE FROM ledger_house_slot WHERE account = 11"),
    ("i09", f"UPDATE ledger_lot SET remaining_points = remaining_points - 1 WHERE id = {A_LOT}"),
    ("i09", f"DELETE FROM ledger_lot WHERE id = {A_LOT}"),
    ("i09", "UPDATE ledger_lot SET pending_points = 0 WHERE pending_points > 0"),
    ("i10", f"UPDATE ledger_lot SET points = points + 1 WHERE id = {A_LOT}"),
    ("i10", "UPDATE ledger_lot_change SET points = points + 1 WHERE kind = 'claw'"),
    ("i10", "DELETE FROM ledger_lot_change WHERE kind = 'activate'"),
    ("i11", f"DELETE FROM ledger_lot WHERE id = {A_LOT}"),
    ("i11", f"UPDATE ledger_lot SET points = points + 1 WHERE id = {A_LOT}"),
    ("i11", "DELETE FROM ledger_lot_change WHERE kind = 'capture'"),
    ("i11", "UPDATE ledger_lot_change SET kind = 'void' WHERE kind = 'activate'"),
    ("i11", "UPDATE ledger_lot_change SET kind = 'expire' WHERE kind = 'capture'"),
    ("i12", "UPDATE ledger_lot SET funder_id = 3 - funder_id"),
    ("i13", "UPDATE ledger_hold SET points = points + 1 WHERE state = 'open'"),
    ("i13", "UPDATE ledger_hold_lot SET captured = captured - 1 WHERE captured > restored"),
    ("i14", "UPDATE ledger_hold_lot SET points = points + 1"),
    ("i14", "UPDATE ledger_hold SET state = 'released', closed_at = opened_at, closed_by = id WHERE state = 'open'"),
    ("i15", "UPDATE ledger_hold SET state = 'lapsed' WHERE state = 'released'"),
    ("i15", "DELETE FROM ledger_operation WHERE kind = 'hold'"),
    ("i16", f"{ANY_SOURCE} UPDATE ledger_operation SET source_ref = 'order-1' WHERE kind = 'earn'"),
    ("i16", f"{ANY_SOURCE} UPDATE ledger_operation SET source_ref = NULL WHERE id = {AN_EARNING}"),
    ("i17", "UPDATE ledger_reversible SET reversed_points = reversed_points - 1 WHERE reversed_points > 0"),
    ("i17", "DELETE FROM ledger_reversible"),
    ("i17", "UPDATE ledger_reversible SET base_fen = base_fen + 100000"),
    ("i18", "UPDATE ledger_hold_lot SET restored = restored - 1 WHERE restored > 0"),
    ("i19", "UPDATE membership_entitlement SET used = used - 1 WHERE used > 0"),
    ("i20", "UPDATE audit_record SET action = 'nothing' WHERE seq = 1"),
    ("i20", "DELETE FROM audit_record WHERE seq = 1"),
    ("i20", f"DELETE FROM audit_record WHERE seq = {THE_LAST_AUDIT}"),
    ("i20", "UPDATE audit_lane SET seq = seq + 1 WHERE seq > 0"),
    ("i20", "DELETE FROM audit_record"),
    ("i21", f"DELETE FROM webhooks_delivery; DELETE FROM outbox_event WHERE id = {AN_EARNING}"),
    ("i21", "DELETE FROM webhooks_delivery; DELETE FROM outbox_event WHERE type = 'points.hold.captured'"),
    ("i21", "DELETE FROM webhooks_delivery; DELETE FROM outbox_event WHERE type = 'points.reversed'"),
    ("i21", "UPDATE outbox_event SET partner_id = gen_random_uuid() WHERE type = 'points.earned'"),
    ("i21", """INSERT INTO outbox_event SELECT bucket, gen_random_uuid(), partner_id, type, aggregate, payload, occurred_at
                 FROM outbox_event WHERE type = 'points.hold.captured'"""),
    ("i22", "UPDATE webhooks_delivery SET sequence = sequence + 1"),
    ("i22", "UPDATE webhooks_endpoint SET partner_id = gen_random_uuid()"),
    ("i23", f"UPDATE credit_plan SET reduced_fen = reduced_fen - 1 WHERE id = {THE_PLAN}"),
    ("i23", "UPDATE credit_entry SET amount_fen = amount_fen + 1 WHERE kind = 'capture'"),
    ("i23", "DELETE FROM credit_entry WHERE kind = 'merchant_subsidy'"),
    ("i24", "UPDATE credit_capture SET amount_fen = amount_fen + 1"),
    ("i24", "DELETE FROM credit_refund"),
    ("i24", "DELETE FROM credit_repayment"),
    ("i25", "UPDATE credit_schedule_row SET principal_fen = principal_fen + 1, due_fen = due_fen + 1 WHERE version = 1"),
    ("i25", f"UPDATE credit_plan SET schedule_version = schedule_version - 1 WHERE id = {THE_PLAN}"),
    ("i25", "DELETE FROM credit_schedule_row WHERE version = 2; DELETE FROM credit_schedule_version WHERE version = 2"),
    ("i26", "DELETE FROM offers_disclosure_evidence; DELETE FROM offers_quote"),
    ("i26", "UPDATE offers_quote SET partner_id = gen_random_uuid()"),
    ("i26", "UPDATE credit_decision SET outcome = 'declined'"),
    ("i26", "DELETE FROM credit_decision"),
    ("i26", "UPDATE credit_plan SET terms = (SELECT terms FROM credit_plan WHERE captures > 0)"),
    ("i27", "UPDATE ledger_hold SET state = 'captured', captured_points = 1 WHERE state = 'released'"),
    ("i27", f"UPDATE credit_plan SET hold_id = gen_random_uuid() WHERE id = {THE_PLAN}"),
    ("i28", "UPDATE credit_line SET used_fen = used_fen + 1"),
    ("i28", "UPDATE credit_plan SET state = 'voided' WHERE state = 'authorised'"),
    ("i29", f"{OPEN_BATCH} UPDATE settlement_batch SET bank_owes_fen = bank_owes_fen + 1"),
    ("i29", f"{OPEN_BATCH} UPDATE settlement_batch SET state = 'closing', closed_at = NULL"),
    ("i29", "DELETE FROM settlement_line WHERE no = 2"),
    ("i30", "UPDATE settlement_total SET points = points + 1"),
    ("i30", "DELETE FROM settlement_total WHERE kind = 'refund'"),
    ("i31", "UPDATE settlement_line SET points = points + 1 WHERE source = 'ledger'"),
    ("i31", "UPDATE settlement_line SET kind = 'refund' WHERE kind = 'capture'"),
    ("i31", f"{OPEN_BATCH} UPDATE settlement_batch SET business_on = business_on - 1"),
    ("i32", "DELETE FROM settlement_line WHERE source = 'credit'"),
    ("i32", "DELETE FROM settlement_line WHERE kind = 'points_redeemed'"),
    ("i33", "UPDATE ledger_lot SET expires_at = expires_at + interval '1 year'"),
    ("i33", "UPDATE ledger_lot SET expires_at = effective_at WHERE activates_at IS NULL"),
    ("i33", "UPDATE ledger_hold SET deadline_at = closed_at WHERE state = 'captured'"),
    ("i33", "UPDATE ledger_hold SET deadline_at = deadline_at + interval '1 second' WHERE state = 'lapsed'"),
    ("i34", "DELETE FROM offers_disclosure_evidence"),
    ("i34", "UPDATE offers_disclosure_evidence SET displayed_seconds = 4"),
    ("i34", "UPDATE offers_disclosure_evidence SET hash = 'x'"),
    ("i34", "UPDATE offers_disclosure_evidence SET recorded_at = recorded_at + interval '1 second'"),
    ("i34", "UPDATE offers_quote SET expires_at = accepted_at, issued_at = accepted_at - interval '1 hour'"),
    ("i35", f"UPDATE credit_plan SET financed_fen = financed_fen + 1, released_fen = released_fen + 1 WHERE id = {THE_PLAN}"),
    ("i35", """UPDATE credit_refund SET statement = statement || '{"points_value_fen": 0}'"""),
    ("i36", f"{FORGED} 'discount', 'bank_discount_expense', 'merchant_payable'{FORGERY}"),
    ("i36", f"{FORGED} 'subsidy_reversal', 'subsidy_income', 'merchant_payable'{FORGERY}"),
    ("i37", f"{FORGED} 'bonus', 'bank_discount_expense', 'merchant_payable'{FORGERY}"),
    ("i38", f"UPDATE credit_plan SET state = 'paid_off' WHERE id = {THE_PLAN}"),
    ("i38", f"UPDATE credit_plan SET state = 'authorised' WHERE id = {THE_PLAN}"),
    ("i39", "DELETE FROM webhooks_delivery; DELETE FROM outbox_event WHERE type = 'refund.succeeded'"),
    ("i39", "DELETE FROM webhooks_delivery; DELETE FROM outbox_event WHERE type = 'application.declined'"),
    ("i39", "UPDATE outbox_event SET partner_id = gen_random_uuid() WHERE type = 'plan.authorised'"),
    ("i39", """INSERT INTO outbox_event SELECT bucket, gen_random_uuid(), partner_id, type, aggregate, payload, occurred_at
                 FROM outbox_event WHERE type = 'plan.captured'"""),
    ("i40", "UPDATE ledger_statement SET head_hash = sha256(head_hash)"),
    ("i40", "UPDATE ledger_statement SET earned_points = earned_points + 1, spent_points = spent_points + 1"),
    ("i40", "UPDATE ledger_statement SET closing_held_points = closing_held_points - 1 WHERE closing_held_points > 0"),
    ("i40", "UPDATE ledger_entry SET points = points + 1 WHERE credit_account = 4"),
    ("i40", "UPDATE ledger_entry SET business_on = business_on + 60 WHERE seq = 1"),
    ("i40", "UPDATE ledger_statement SET last_seq = last_seq - 1 WHERE last_seq > first_seq"),
    ("i41", "DELETE FROM ledger_statement WHERE opening_points = 0 AND closing_held_points > 0"),
    ("i41", "UPDATE ledger_statement SET last_seq = last_seq - 1 WHERE last_seq > first_seq"),
    ("i41", f"{SECOND_STATEMENT}"),
    ("i42", "DELETE FROM ledger_entry WHERE operation_id IN (SELECT id FROM ledger_operation WHERE kind = 'expire')"),
    ("i42", f"{A_FORGERY}"),
    ("i42", f"{NO_LINK} DELETE FROM ledger_seal WHERE business_on = '2026-11-21'"),
    ("i42", f"{NO_LINK} DELETE FROM ledger_seal WHERE business_on < '2026-11-22'"),
    ("i42", "ALTER TABLE ledger_seal DROP CONSTRAINT ledger_seal_hashes; UPDATE ledger_seal SET leaves = leaves + 1"),
    ("i43", f"UPDATE ledger_operation SET amount_fen = amount_fen + 100 WHERE id = {AN_EARNING}"),
    ("i43", f"UPDATE ledger_operation SET multiplier_pct = 200 WHERE id = {AN_EARNING}"),
    ("i43", f"UPDATE ledger_operation SET tier = 'gold' WHERE id = {AN_EARNING}"),
    ("i43", f"UPDATE ledger_operation SET rule_version = 9 WHERE id = {AN_EARNING}"),
    ("i43", f"UPDATE ledger_lot SET points = points + 1 WHERE operation_id = {AN_EARNING}"),
    ("i74", f"{A_CHECK} ('2026-11-22', '2026-11-23', 1, '{{}}', now(), now())"),
    ("i74", f"{A_CHECK} (NULL, '2026-11-23', NULL, '{{books_i01_entry_accounts}}', now(), now())"),
    ("i57", f"UPDATE ledger_operation SET rule_version = 9 WHERE id = {AN_EARNING}"),
    ("i57", f"UPDATE ledger_operation SET occurred_at = '1999-01-01' WHERE id = {AN_EARNING}"),
    ("i58", "UPDATE ledger_lot SET campaign = NULL"),
    ("i58", "UPDATE ledger_lot SET campaign = 'other' WHERE campaign = 'friday'"),
    ("i58", "UPDATE ledger_lot SET funder_id = 77 WHERE campaign = 'friday'"),
    ("i58", "UPDATE earning_campaign_share SET share_ppm = 500000"),
    ("i58", "UPDATE ledger_operation SET calculation = NULL"),
    ("i59", "UPDATE ledger_operation SET amount_fen = amount_fen + 1000 WHERE calculation IS NOT NULL"),
    ("i59", "UPDATE earning_campaign SET multiplier_pct = 300"),
    ("i59", "UPDATE earning_campaign SET transaction_cap_points = 100"),
    ("i60", "UPDATE earning_campaign SET ends_at = starts_at + interval '1 minute'"),
    ("i60", "UPDATE earning_campaign SET weekdays = '{4}'"),
    ("i60", "UPDATE earning_campaign SET own_card = true"),
    ("i60", "UPDATE ledger_operation SET partner_id = gen_random_uuid() WHERE calculation IS NOT NULL"),
    ("i60", "DELETE FROM earning_campaign_member"),
    ("i61", "UPDATE ledger_budget_slot SET used = used - 1, granted = granted - 1"),
    ("i61", "UPDATE ledger_reversible SET reversed_fen = 0 WHERE base_points = 350"),
    ("i62", "UPDATE earning_counter SET used_points = used_points + 1"),
    ("i62", "DELETE FROM earning_counter"),
    ("i62", "UPDATE earning_campaign SET member_daily_cap_points = 349"),
    ("i44", "UPDATE membership_activity_month SET qualifying_fen = qualifying_fen + 1"),
    ("i44", "UPDATE membership_activity_month SET qualifying_count = qualifying_count - 1"),
    ("i44", "DELETE FROM membership_activity_month"),
    ("i44", "DELETE FROM membership_activity WHERE undone_fen = 1"),
    ("i45", "UPDATE membership_activity SET undone_fen = 0 WHERE undone_fen = 1"),
    ("i45", "UPDATE membership_activity SET undone_fen = 7 WHERE undone_fen = 0"),
    ("i45", "UPDATE membership_activity SET occurred_at = occurred_at + interval '11 days'"),
    ("i46", "UPDATE membership_member SET tier = 'platinum' WHERE period_no = 2"),
    ("i46", "UPDATE membership_member SET multiplier_pct = 200 WHERE period_no = 1"),
    ("i46", "UPDATE membership_member SET valid_until = valid_until + interval '1 year' WHERE period_no = 3"),
    ("i46", f"{NO_PERIOD_LINK} UPDATE membership_tier_period SET no = 4 WHERE no = 3"),
    ("i46", f"{NO_PERIOD_LINK} DELETE FROM membership_tier_period WHERE no = 1"),
    ("i46", f"{NO_PERIOD_LINK} UPDATE membership_tier_period SET starts_at = starts_at + interval '1 second' WHERE no = 1"),
    ("i47", "UPDATE membership_tier_period SET tier = 'start', multiplier_pct = 100 WHERE reason = 'downgraded'"),
    ("i47", "UPDATE membership_tier_period SET multiplier_pct = multiplier_pct + 5 WHERE reason = 'upgraded'"),
    ("i47", "UPDATE membership_tier_period SET judged_tier = 'platinum' WHERE reason = 'downgraded'"),
    ("i47", "UPDATE membership_tier_period SET reason = 'renewed' WHERE reason = 'downgraded'"),
    ("i47", "UPDATE membership_tier_period SET qualifying_fen = 0 WHERE reason = 'upgraded' AND shop_level = 'bronze'"),
    ("i47", "UPDATE membership_tier_period SET bank_level = 'wode' WHERE no = 1"),
    ("i48", "DELETE FROM membership_privilege"),
    ("i48", "DELETE FROM membership_matrix WHERE bank_level = 'comm' AND shop_level = 'gold'"),
    ("i48", "DELETE FROM membership_switch WHERE kind = 'scheme'"),
    ("i48", "UPDATE membership_tier_period SET judged_on = '1999-12-31' WHERE no = 1"),
    ("i48", f"{ONE_PERSON} UPDATE membership_switch SET switched_by = proposed_by"),
    ("i49", "UPDATE membership_entitlement SET booked = 0 WHERE booked > 0"),
    ("i49", "DELETE FROM membership_booking WHERE state = 'booked'"),
    ("i49", "UPDATE membership_booking SET state = 'used', closed_at = booked_at; UPDATE membership_entitlement SET booked = 0"),
    ("i49", "UPDATE membership_entitlement SET quantity = quantity + 1 WHERE period_on IS NOT NULL"),
    ("i49", "UPDATE membership_entitlement SET privilege_version = 9 WHERE period_on IS NOT NULL"),
    ("i50", "UPDATE ledger_budget SET leased = leased - 1"),
    ("i50", "UPDATE ledger_budget_slot SET granted = granted + 1"),
    ("i50", "DELETE FROM ledger_budget_slot"),
    ("i50", "UPDATE ledger_budget SET scarce = true, total = total + 1, leased = leased + 1; UPDATE ledger_budget_slot SET granted = granted + 1"),
    ("i51", "UPDATE ledger_budget_slot SET used = used - 1"),
    ("i51", "UPDATE ledger_budget SET total = total + 1"),
    ("i51", "DELETE FROM ledger_funding_draw WHERE by_operation <> operation_id"),
    ("i51", "DELETE FROM ledger_funder_block"),
    ("i52", "DELETE FROM ledger_funding_draw"),
    ("i52", "UPDATE ledger_funding_draw SET points = points + 1 WHERE by_operation = operation_id"),
    ("i52", "UPDATE ledger_funder_terms SET billing = 'prepaid'"),
    ("i52", "UPDATE ledger_funding_draw SET operation_id = gen_random_uuid() WHERE by_operation = operation_id"),
    ("i53", "UPDATE ledger_funding_draw SET points = points + 300 WHERE by_operation <> operation_id"),
    ("i53", "UPDATE ledger_funding_draw SET points = points + 1 WHERE by_operation <> operation_id"),
    ("i53", "DELETE FROM ledger_funding_draw WHERE by_operation = operation_id"),
    ("i54", "UPDATE ledger_funder SET partner_id = gen_random_uuid() WHERE code = 'partner:brand-post'"),
    ("i54", "DELETE FROM settlement_line WHERE funder = 'partner:brand-post'"),
    ("i54", "DELETE FROM settlement_line WHERE kind = 'prepaid_used'"),
    ("i55", "UPDATE settlement_line SET amount_fen = amount_fen + 1 WHERE kind = 'breakage_share'"),
    ("i55", "UPDATE settlement_carry SET fen_e6 = fen_e6 + 1"),
    ("i55", "DELETE FROM settlement_carry"),
    ("i56", "UPDATE settlement_line SET funder = 'partner:brand-pre' WHERE kind = 'points_redeemed'"),
    ("i15", "UPDATE ledger_operation SET kind = 'hold' WHERE kind = 'spend'"),
    ("i15", "UPDATE ledger_hold SET points = points + 1 WHERE closed_by = id"),
    ("i18", "UPDATE ledger_operation SET points = points + 1 WHERE kind = 'reverse_spend'"),
    ("i21", "DELETE FROM webhooks_delivery; DELETE FROM outbox_event WHERE type = 'points.spent'"),
    ("i21", "DELETE FROM webhooks_delivery; DELETE FROM outbox_event WHERE type = 'points.exchanged'"),
    ("i21", "DELETE FROM webhooks_delivery; DELETE FROM outbox_event WHERE type = 'points.transfer.returned'"),
    ("i40", "UPDATE ledger_statement SET adjusted_in_points = adjusted_in_points + 1, spent_points = spent_points + 1"),
    ("i40", """UPDATE ledger_statement SET transferred_in_points = transferred_in_points + 1,
                                           transferred_out_points = transferred_out_points + 1"""),
    ("i40", """UPDATE ledger_statement SET exchanged_in_points = exchanged_in_points + 1,
                                           exchanged_out_points = exchanged_out_points + 1"""),
    ("i63", "UPDATE ledger_transfer SET points = points + 1 WHERE state = 'arrived'"),
    ("i63", "DELETE FROM ledger_transfer WHERE state = 'sent'"),
    ("i63", "DELETE FROM ledger_transfer WHERE state = 'arrived'"),
    ("i63", "UPDATE ledger_transfer SET state = 'returned' WHERE state = 'arrived'"),
    ("i64", "UPDATE ledger_transfer SET state = 'arrived', ended_at = sent_at, ended_by = id WHERE state = 'sent'"),
    ("i64", "UPDATE ledger_house_slot SET credit_points = credit_points + 1 WHERE account = 13"),
    ("i65", "UPDATE ledger_transfer_lot SET unit_cost_e6 = unit_cost_e6 + 1"),
    ("i65", "UPDATE ledger_transfer_lot SET points = points + 1"),
    ("i65", """UPDATE ledger_lot SET expires_at = expires_at + interval '1 year'
                WHERE operation_id IN (SELECT ended_by FROM ledger_transfer WHERE state = 'arrived')"""),
    ("i66", "DELETE FROM ledger_adjustment WHERE state = 'posted'"),
    ("i66", "UPDATE ledger_adjustment SET points = -points WHERE state = 'posted'"),
    ("i66", "UPDATE ledger_adjustment SET state = 'rejected' WHERE state = 'posted'"),
    ("i66", "DELETE FROM audit_record WHERE action = 'adjustment.approve'"),
    ("i66", """ALTER TABLE ledger_adjustment DROP CONSTRAINT ledger_adjustment_two_people;
               UPDATE ledger_adjustment SET decided_by = proposed_by WHERE state = 'posted'"""),
    ("i67", "UPDATE ledger_exchange_rate SET numerator = numerator + 1"),
    ("i67", "DELETE FROM ledger_exchange_rate"),
    ("i67", "UPDATE ledger_exchange_rate SET valid_from = valid_from + interval '1 day'"),
    ("i67", "UPDATE ledger_entry SET value_fen = value_fen + 1000 WHERE debit_account = 15"),
    ("i68", "UPDATE ledger_operation SET point_type = 2 WHERE kind = 'spend'"),
    ("i68", "UPDATE ledger_entry SET point_type = 9 WHERE point_type = 2"),
    ("i69", "UPDATE ledger_hold SET point_type = 2 WHERE closed_by = id"),
    ("i69", "UPDATE ledger_hold_lot SET captured = captured - 1 WHERE captured > restored"),
    ("i70", f"UPDATE ledger_hold SET captured_points = captured_points - 1 WHERE {OF_REDEMPTIONS} AND captured_points > 0"),
    ("i70", f"UPDATE ledger_hold SET state = 'lapsed', captured_points = 0 WHERE {OF_REDEMPTIONS} AND captured_points > 0"),
    ("i70", f"UPDATE ledger_hold SET partner_id = gen_random_uuid() WHERE {OF_REDEMPTIONS}"),
    ("i70", f"UPDATE ledger_hold SET manager = NULL WHERE {OF_REDEMPTIONS}"),
    ("i70", "UPDATE rewards_price SET points = points + 1"),
    ("i70", "UPDATE rewards_redemption SET state = 'cancelled', reason = NULL, closed_at = now() WHERE state = 'fulfilled'"),
    ("i70", "UPDATE rewards_redemption SET state = 'fulfilled', fulfilled_at = now() WHERE state IN ('requested', 'fulfilling')"),
    ("i70", "UPDATE rewards_redemption SET state = 'fulfilled', fulfilled_at = now(), closed_at = NULL WHERE state = 'cancelled'"),
    ("i70", "DELETE FROM ledger_reversible"),
    ("i71", "DELETE FROM rewards_redemption WHERE state = 'requested'"),
    ("i71", "UPDATE rewards_redemption SET state = 'failed', reason = 'x', closed_at = now() WHERE state = 'requested'"),
    ("i72", "DELETE FROM rewards_redemption WHERE kind = 'gift_card' AND state = 'fulfilled'"),
    ("i72", "DELETE FROM rewards_code WHERE redemption_id IS NOT NULL"),
    ("i72", f"{OPEN_CODES} UPDATE rewards_code SET voided_at = NULL"),
    ("i72", "UPDATE rewards_code SET voided_at = now() WHERE redemption_id IS NOT NULL AND voided_at IS NULL"),
    ("i72", f"{OPEN_CODES} UPDATE rewards_code SET redemption_id = NULL, handed_at = NULL WHERE voided_at IS NULL"),
    ("i72", "UPDATE rewards_code SET redemption_id = gen_random_uuid(), handed_at = now() WHERE redemption_id IS NULL"),
    ("i72", "UPDATE rewards_redemption SET code_id = gen_random_uuid() WHERE kind = 'gift_card'"),
    ("i73", "UPDATE rewards_stock SET taken = taken - 1"),
    ("i73", "UPDATE rewards_stock SET taken = taken + 1"),
    ("i73", "DELETE FROM rewards_stock"),
    ("i73", "UPDATE rewards_redemption SET has_piece = true WHERE state = 'cancelled'"),
    ("i73", "UPDATE rewards_redemption SET has_piece = false WHERE kind = 'service' AND state = 'fulfilled'"),
    ("i73", "UPDATE rewards_member_use SET used = used - 1"),
    ("i73", "DELETE FROM rewards_member_use"),
    ("i73", "UPDATE rewards_redemption SET counts = false"),
    ("i73", "UPDATE rewards_reward SET limit_count = 1"),
    ("i75", "UPDATE outbox_sequence SET last_position = last_position - 1"),
    ("i75", "DELETE FROM outbox_sequence"),
]  # fmt: skip


@pytest.mark.parametrize(("number", "defect"), DEFECTS)
async def test_what_is_bent_is_noticed(owner: Pool, number: str, defect: str) -> None:
    async with acquire(owner) as connection:
        transaction_ = connection.transaction()
        await transaction_.start()
        try:
            await connection.execute(defect)
            noticed = [finding.view for finding in await books.look(connection) if finding.rows]
        finally:
            await transaction_.rollback()
    assert any(view.startswith(f"books_{number}_") for view in noticed), noticed


def test_every_view_has_a_defect_that_proves_it() -> None:
    assert sorted({number for number, _ in DEFECTS}) == VIEWS


async def test_the_wire_id_of_the_database_is_the_wire_id_of_the_api(owner: Pool) -> None:
    for identifier in (UUID(int=0), UUID(int=2**128 - 1), new_id(NOW)):
        async with acquire(owner) as connection:
            found = await connection.fetchval("SELECT books_wire_id('ent', $1)", identifier)
        assert found == to_wire("ent", identifier)


TODAY = date(2026, 11, 20)
RECENT = books_recent.OF_MEMBERS | books_recent.OF_DAYS | books_recent.OF_EVENTS | books_recent.OF_ALL
OF_RECENT = frozenset(view.split("_")[1] for view in RECENT)


@pytest.mark.parametrize(("number", "defect"), [found for found in DEFECTS if found[0] in OF_RECENT])
async def test_what_is_bent_of_who_was_touched_is_noticed_without_looking_at_the_others(
    owner: Pool, number: str, defect: str
) -> None:
    async with acquire(owner) as connection:
        transaction_ = connection.transaction()
        await transaction_.start()
        try:
            await connection.execute(defect)
            recent = await books_recent.look_since(connection, TODAY)
        finally:
            await transaction_.rollback()
    noticed = [finding.view for finding in recent.findings if finding.rows]
    assert any(view.startswith(f"books_{number}_") for view in noticed), noticed


async def test_a_check_of_recent_days_finds_nothing_in_a_good_day_and_looks_at_who_was_touched(
    servers: Endpoints, database: str, owner: Pool
) -> None:
    url = urlsplit(servers.database_url)._replace(path=f"/{database}").geturl()
    async with await open_pool(url, size=2) as pool, acquire(pool) as connection:
        looked = {
            since: await books_recent.check_since(connection, since)
            for since in (TODAY, date(2026, 11, 21), date(2026, 11, 22))
        }
        moved = {
            since: await connection.fetchval(
                "SELECT count(DISTINCT member_id) FROM ledger_entry WHERE business_on >= $1", since
            )
            for since in looked
        }
    assert {since: recent.members for since, recent in looked.items()} == moved
    assert moved[TODAY] > moved[date(2026, 11, 21)] > moved[date(2026, 11, 22)] == 0
    for recent in looked.values():
        assert {finding.view: finding.rows for finding in recent.findings if finding.rows} == {}
        assert {finding.view for finding in recent.findings} == RECENT


async def test_what_is_bent_behind_the_back_of_the_untouched_is_for_the_full_check(owner: Pool) -> None:
    async with acquire(owner) as connection:
        transaction_ = connection.transaction()
        await transaction_.start()
        try:
            await connection.execute("UPDATE ledger_wallet SET arrears_points = 1 WHERE arrears_points > 0")
            recent = await books_recent.look_since(connection, date(2026, 11, 21))
            everything = await books.look(connection)
        finally:
            await transaction_.rollback()
    assert [finding.view for finding in recent.findings if finding.rows] == []
    assert "books_i04_wallet_is_its_entries" in {finding.view for finding in everything if finding.rows}


async def test_what_committed_during_a_check_is_looked_at_by_the_next(
    servers: Endpoints, database: str, owner: Pool
) -> None:
    """A transaction may have read its clock long before it commits: the next check begins before it did."""
    url = urlsplit(servers.database_url)._replace(path=f"/{database}").geturl()
    async with await open_pool(url, size=2) as pool, acquire(pool) as working, acquire(pool) as looking:
        under_way = working.transaction()
        await under_way.start()
        began: datetime = await working.fetchval("SELECT now()")
        while (await looking.fetchval("SELECT clock_timestamp()")) <= began:
            pass
        assert await books_log.read_moment(looking) <= began
        await under_way.rollback()


@pytest.mark.parametrize(
    ("since", "before", "good", "moment", "expected"),
    [
        (None, None, True, "2026-11-20T12:00:00Z", date(2026, 11, 20)),
        (None, None, True, "2026-11-20T16:59:59Z", date(2026, 11, 20)),  # an hour after midnight in Shanghai
        (None, None, True, "2026-11-20T17:00:00Z", date(2026, 11, 21)),
        (None, None, False, "2026-11-20T12:00:00Z", None),
        (None, TODAY, False, "2026-11-25T12:00:00Z", TODAY),
        (TODAY, TODAY, True, "2026-11-25T12:00:00Z", date(2026, 11, 25)),
        (date(2026, 11, 1), TODAY, True, "2026-11-25T12:00:00Z", date(2026, 11, 25)),
        (date(2026, 11, 21), TODAY, True, "2026-11-25T12:00:00Z", TODAY),
        (TODAY, None, True, "2026-11-25T12:00:00Z", None),
    ],
)
def test_the_next_check_begins_where_the_good_ones_left_off(
    since: date | None, before: date | None, good: bool, moment: str, expected: date | None
) -> None:
    at = datetime.fromisoformat(moment)
    assert books_log.next_since(since, before, good=good, moment=at) == expected


async def test_checks_are_written_down_and_follow_each_other(servers: Endpoints, database: str) -> None:
    url = urlsplit(servers.database_url)._replace(path=f"/{database}").geturl()
    async with await open_pool(url, size=2) as pool, acquire(pool) as connection:
        transaction_ = connection.transaction()
        await transaction_.start()
        try:
            good = await books.look(connection)
            assert await books_log.find_next_since(connection) is None
            await books_log.remember(connection, good, since=None, members=None, moment=NOW)
            assert await books_log.find_next_since(connection) == TODAY
            later = NOW + timedelta(days=2)
            await books_log.remember(connection, good, since=TODAY, members=2, moment=later)
            assert await books_log.find_next_since(connection) == date(2026, 11, 22)
            bad = [books.Finding(view="books_i01_entry_accounts", sentence="", rows=[{}])]
            await books_log.remember(connection, bad, since=None, members=None, moment=later + timedelta(9))
            assert await books_log.find_next_since(connection) == date(2026, 11, 22)
            assert [finding.view for finding in await books.look(connection) if finding.rows] == []
        finally:
            await transaction_.rollback()


async def test_every_sentence_is_asked_of_recent_days_or_left_to_the_full_check_on_purpose(
    owner: Pool,
) -> None:
    async with acquire(owner) as connection:
        views = {name for name, _ in await connection.fetch(books.LIST_VIEWS)}
    assert views >= RECENT
    assert views - RECENT == FULL_ONLY


#: what needs more than one member's rows, or rows that no day bounds
FULL_ONLY = {
    "books_i20_audit_chain",
    "books_i22_deliveries",
    "books_i23_plan_is_its_entries",
    "books_i24_plan_is_its_records",
    "books_i25_schedule_principal",
    "books_i26_quote_to_plan",
    "books_i27_plan_hold",
    "books_i28_credit_line",
    "books_i29_batch_is_its_lines",
    "books_i30_batch_totals",
    "books_i31_line_is_its_source",
    "books_i32_nothing_left_out",
    "books_i34_acceptance_evidence",
    "books_i35_refund_statements",
    "books_i36_funding_follows_terms",
    "books_i37_money_accounts",
    "books_i38_plan_state",
    "books_i39_credit_is_told",
    "books_i42_seals",
    "books_i44_activity_months",
    "books_i45_activity_undone",
    "books_i46_tier_periods",
    "books_i47_tiers_judged",
    "books_i48_versions",
    "books_i49_rights",
    "books_i50_budget_is_its_slots",
    "books_i51_block_is_its_draws",
    "books_i52_prepaid_points_are_drawn",
    "books_i53_block_gets_its_own_back",
    "books_i54_funded_entry_is_billed",
    "books_i55_funder_pays_to_the_fen",
    "books_i56_nobody_sees_anothers_funder",
    "books_i57_rule_in_force",
    "books_i58_campaign_lots",
    "books_i59_campaigns_replay",
    "books_i60_campaign_conditions",
    "books_i61_campaign_budgets",
    "books_i62_caps",
    "books_i63_transfers",
    "books_i64_in_transit",
    "books_i65_transferred_lots",
    "books_i66_adjustments",
    "books_i72_codes_once",
    "books_i73_stock_and_limits",
    "books_i75_event_sequences",
}
