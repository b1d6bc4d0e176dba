"""Whatever rules, campaigns and days there are: components make up the points, nothing is exceeded, all of it replays."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernel.database import Connection, Pool
from kernel.errors import Refusal
from points.earning import campaigns
from points.earning.book import SHELF
from points.earning.model import Earned
from points.earning.replay import replay_operation
from points.earning.service import earn
from points.ledger import budgets, queries
from points.ledger.service import reverse

MakeBank = Callable[[datetime], Any]

NOW = datetime(2031, 11, 14, 4, 0, tzinfo=UTC)
CAP = st.none() | st.integers(1, 300)
RULES = st.fixed_dictionaries(
    {
        "fen_per_point": st.integers(1, 300),
        "transaction_cap_points": CAP,
        "daily_cap_points": CAP,
        "rates": st.lists(
            st.fixed_dictionaries(
                {
                    "kind": st.sampled_from([None, "purchase", "tuition"]),
                    "category": st.sampled_from([None, "books"]),
                    "own_card": st.sampled_from([None, True]),
                    "fen_per_point": st.none() | st.integers(1, 300),
                }
            ),
            max_size=2,
        ),
    }
)
EFFECTS = st.one_of(
    st.fixed_dictionaries({"multiplier_pct": st.integers(101, 500)}),
    st.fixed_dictionaries({"fixed_points": st.integers(1, 50), "multiplier_pct": st.none()}),
)
CONDITIONS = st.fixed_dictionaries(
    {
        "priority": st.integers(0, 2),
        "exclusive_group": st.sampled_from([None, "group"]),
        "own_card": st.sampled_from([None, True]),
        "categories": st.sampled_from([None, ["books"]]),
        "recurrence": st.sampled_from([{}, {"weekdays": [5]}, {"month_days": [13]}]),
        "transaction_cap_points": CAP,
        "member_cap_points": CAP,
        "member_daily_cap_points": CAP,
        "budget": st.none()
        | st.fixed_dictionaries(
            {
                "total": st.integers(1, 400),
                "unit": st.sampled_from(["points", "fen"]),
                "on_exhaustion": st.sampled_from(["skip", "partial"]),
            }
        ),
        "shares": st.sampled_from(
            [
                [{"unit_cost_e6": 700_001}],
                [
                    {"share_ppm": 333_333},
                    {
                        "share_ppm": 666_667,
                        "funder": "merchant:any",
                        "unit_cost_e6": 1_300_000,
                        "pending_days": 2,
                    },
                ],
            ]
        ),
    }
)
CAMPAIGNS = st.lists(st.builds(lambda one, other: one | other, EFFECTS, CONDITIONS), max_size=3)
DEEDS = st.lists(
    st.tuples(
        st.integers(0, 2),  # the member
        st.integers(0, 30_000),
        st.sampled_from(["purchase", "tuition"]),
        st.sampled_from([None, "books"]),
        st.booleans(),
        st.integers(0, 48),  # hours ago
        st.sampled_from([None, None, "c0"]),
        st.integers(0, 5),  # the source: now and then one that earned before
    ),
    min_size=1,
    max_size=12,
)


@given(rule=RULES, terms=CAMPAIGNS, deeds=DEEDS, refunded_ppm=st.integers(1, 1_000_000))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_every_earning_adds_up_replays_and_stays_within_its_limits(
    pool: Pool,
    make_bank: MakeBank,
    make_marketing: Callable[[Connection, Any], Any],
    rule: dict[str, Any],
    terms: list[dict[str, Any]],
    deeds: list[tuple[Any, ...]],
    refunded_ppm: int,
) -> None:
    bank = make_bank(NOW)
    async with pool.acquire() as connection:
        outer = connection.transaction()
        await outer.start()
        try:
            SHELF.forget()
            await connection.execute(
                "INSERT INTO ledger_funder (code, kind) VALUES ('merchant:any', 'merchant')"
            )
            marketing = make_marketing(connection, bank)
            members = [await bank.enrol(connection) for _ in range(3)]
            marketing.now = NOW - timedelta(days=3)
            await marketing.rule(**rule)
            for number, campaign in enumerate(terms):
                await marketing.run(f"c{number}", **campaign)
            marketing.now = NOW
            items = [
                marketing.activity(
                    members[who],
                    f"s{source}",
                    amount_fen=amount_fen,
                    kind=kind,
                    category=category,
                    own_card=own_card,
                    occurred_at=NOW - timedelta(hours=hours),
                    campaign=named,
                )
                for who, amount_fen, kind, category, own_card, hours, named, source in deeds
            ]
            half = len(items) // 2
            earned: list[Earned] = []
            for batch in (items[:half], items[half:]):
                results = await earn(connection, batch, partner_id=bank.partner_id, now=NOW)
                earned += [result for result in results if not isinstance(result, Refusal)]
            for one in earned:
                await _check_replay(connection, bank, one)
            assert await marketing.contradictions() == {}
            for row in await campaigns.list_campaigns(connection):
                if row.budget_id is not None:
                    state = await budgets.read_budget(connection, row.budget_id)
                    assert 0 <= state.used <= state.total
            for one in earned:
                await _refund(connection, bank, one, refunded_ppm)
            assert await marketing.contradictions() == {}
        finally:
            await outer.rollback()


async def _check_replay(connection: Connection, bank: Any, earned: Earned) -> None:
    operation = await queries.find_operation(connection, earned.operation_id, partner_id=bank.partner_id)
    assert operation is not None
    replayed = await replay_operation(connection, operation, now=NOW)
    assert sum(grant.points for grant in earned.grants) == earned.points == operation.points
    assert replayed.points == earned.points
    by_campaign: dict[str | None, int] = {}
    for grant in earned.grants:
        by_campaign[grant.campaign] = by_campaign.get(grant.campaign, 0) + grant.points
    assert by_campaign.pop(None, 0) == replayed.base_points
    assert by_campaign == {part.campaign.code: part.points for part in replayed.campaigns if part.points}


async def _refund(connection: Connection, bank: Any, earned: Earned, ppm: int) -> None:
    operation = await queries.find_operation(connection, earned.operation_id, partner_id=bank.partner_id)
    assert operation is not None
    if fen := operation.amount_fen * ppm // 1_000_000:
        await reverse(
            connection,
            operation_id=operation.id,
            partner_id=bank.partner_id,
            side="earn",
            refund_ref="r",
            refunded_fen=fen,
            now=NOW,
        )
