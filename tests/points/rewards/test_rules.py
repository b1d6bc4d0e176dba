"""The decisions of rewards, as tables."""

from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from msgspec.structs import replace

from kernel.caller import MemberRef
from kernel.errors import Refusal
from points.rewards.model import (
    Cancellation,
    Definition,
    Limit,
    LimitPeriod,
    Redemption,
    RedemptionState,
    Reward,
    RewardState,
    Undoing,
)
from points.rewards.rules import (
    CodeFileRefused,
    FulfilmentOverdue,
    NotTheProvider,
    NotTheRedeemer,
    RedemptionNotCancellable,
    RedemptionNotOpen,
    RedemptionUnknown,
    RewardDefinitionRefused,
    check_codes,
    check_definition,
    check_in_time,
    check_party,
    check_provider,
    check_redeemer,
    check_reward,
    decide_undoing,
    period_of,
    states_before,
)

NOW = datetime(2026, 11, 20, 4, 0, tzinfo=UTC)
PARTNER, PROVIDER, STRANGER = uuid4(), uuid4(), uuid4()
MEMBER = MemberRef(member_id=7, bucket=7)

REWARD = Reward(
    id=uuid4(),
    kind="service",
    title_zh="礼",
    title_en="gift",
    provider_id=PROVIDER,
    stock="counted",
    offset_fen=None,
    fulfil_seconds=3_600,
    starts_at=NOW,
    ends_at=NOW + timedelta(days=1),
    tiers=("gold",),
    partners=(PARTNER,),
    limit_count=None,
    limit_period=None,
    cancel_policy="within_days",
    cancel_days=7,
    cancel_restocks=True,
    cancel_shown=False,
    state="active",
    price_version=1,
    price_points=100,
    point_type=1,
)
REDEMPTION = Redemption(
    id=uuid4(),
    member=MEMBER,
    partner_id=PARTNER,
    redemption_ref="r",
    reward_id=REWARD.id,
    kind="service",
    supplier_id=PROVIDER,
    price_version=1,
    price_points=100,
    point_type=1,
    hold_id=uuid4(),
    has_piece=True,
    counts=False,
    state="requested",
    requested_at=NOW,
    fulfil_by=NOW + timedelta(hours=1),
)
FULFILLED = replace(REDEMPTION, state="fulfilled", fulfilled_at=NOW)
SERVICE = Definition(
    kind="service",
    title_zh="礼",
    title_en="gift",
    price_points=100,
    provider_id=PROVIDER,
    fulfil_seconds=3_600,
    starts_at=NOW,
)
CARD = Definition(kind="gift_card", title_zh="卡", title_en="card", price_points=100, starts_at=NOW)
OFFSET = Definition(
    kind="fee_offset", title_zh="费", title_en="fee", price_points=100, offset_fen=100, starts_at=NOW
)


@pytest.mark.parametrize(
    ("definition", "stock"),
    [(SERVICE, "unlimited"), (replace(SERVICE, pieces=0), "counted"), (CARD, "codes"), (OFFSET, "unlimited")],
)
def test_a_definition_says_how_its_stock_is_kept(definition: Definition, stock: str) -> None:
    assert check_definition(definition) == stock


@pytest.mark.parametrize(
    ("definition", "changes", "field"),
    [
        (CARD, {"title_zh": ""}, "title"),
        (CARD, {"title_en": "x" * 201}, "title"),
        (CARD, {"price_points": 0}, "price_points"),
        (CARD, {"price_points": 10**13}, "price_points"),
        (CARD, {"ends_at": NOW}, "ends_at"),
        (SERVICE, {"provider_id": None}, "provider_id"),
        (OFFSET, {"provider_id": PROVIDER}, "provider_id"),
        (CARD, {"pieces": 5}, "pieces"),
        (OFFSET, {"pieces": 5}, "pieces"),
        (SERVICE, {"pieces": -1}, "pieces"),
        (SERVICE, {"pieces": 1_000_001}, "pieces"),
        (OFFSET, {"offset_fen": None}, "offset_fen"),
        (OFFSET, {"offset_fen": 0}, "offset_fen"),
        (CARD, {"offset_fen": 100}, "offset_fen"),
        (SERVICE, {"fulfil_seconds": None}, "fulfil_seconds"),
        (SERVICE, {"fulfil_seconds": 59}, "fulfil_seconds"),
        (SERVICE, {"fulfil_seconds": 7 * 86_400 + 1}, "fulfil_seconds"),
        (CARD, {"fulfil_seconds": 60}, "fulfil_seconds"),
        (CARD, {"limit": Limit(count=0, period="day")}, "limit"),
        (CARD, {"cancellation": Cancellation(policy="within_days")}, "cancellation"),
        (CARD, {"cancellation": Cancellation(policy="none", days=1)}, "cancellation"),
        (CARD, {"cancellation": Cancellation(policy="within_days", days=366)}, "cancellation"),
        (OFFSET, {"cancellation": Cancellation(policy="until_fulfilled")}, "cancellation"),
    ],
)
def test_a_definition_that_could_not_be_honoured_is_refused(
    definition: Definition, changes: dict[str, Any], field: str
) -> None:
    with pytest.raises(RewardDefinitionRefused) as refusal:
        check_definition(replace(definition, **changes))
    assert refusal.value.facts == {"field": field}


@pytest.mark.parametrize(
    ("changes", "asked", "code"),
    [
        ({}, {}, None),
        ({"tiers": (), "partners": ()}, {"tier": "start", "partner_id": STRANGER}, None),
        ({"state": "draft"}, {}, "reward_not_found"),
        ({}, {"partner_id": STRANGER}, "reward_not_found"),
        ({"state": "paused"}, {"partner_id": STRANGER}, "reward_not_found"),
        ({"state": "paused"}, {}, "reward_not_available"),
        ({"state": "ended"}, {}, "reward_not_available"),
        ({}, {"now": NOW - timedelta(microseconds=1)}, "reward_not_available"),
        ({}, {"now": NOW + timedelta(days=1)}, "reward_not_available"),
        ({"ends_at": None}, {"now": NOW + timedelta(days=1)}, None),
        ({}, {"tier": "silver"}, "tier_not_eligible"),
        ({"state": "paused"}, {"tier": "silver"}, "reward_not_available"),
        ({}, {"price_points": 99}, "reward_price_changed"),
        ({}, {"price_points": 100}, None),
        ({}, {"price_points": 99, "tier": "silver"}, "tier_not_eligible"),
    ],
)
def test_who_may_have_a_reward(changes: dict[str, Any], asked: dict[str, Any], code: str | None) -> None:
    plain: dict[str, Any] = {"partner_id": PARTNER, "tier": "gold", "price_points": None, "now": NOW}
    reward = replace(REWARD, **changes)
    try:
        assert check_reward(reward, **(plain | asked)) == reward
    except Refusal as refusal:
        assert refusal.code == code
    else:
        assert code is None


@pytest.mark.parametrize(
    ("state", "before"),
    [
        ("draft", ()),
        ("active", ("draft", "paused")),
        ("paused", ("active",)),
        ("ended", ("draft", "active", "paused")),
    ],
)
def test_the_states_of_a_reward(state: RewardState, before: tuple[str, ...]) -> None:
    assert states_before(state) == before


@pytest.mark.parametrize(
    ("period", "moment", "first"),
    [
        ("day", datetime(2026, 11, 20, 15, 59, tzinfo=UTC), date(2026, 11, 20)),
        ("day", datetime(2026, 11, 20, 16, 0, tzinfo=UTC), date(2026, 11, 21)),
        ("month", datetime(2026, 11, 30, 16, 0, tzinfo=UTC), date(2026, 12, 1)),
        ("year", datetime(2026, 12, 31, 15, 59, tzinfo=UTC), date(2026, 1, 1)),
        ("year", datetime(2026, 12, 31, 16, 0, tzinfo=UTC), date(2027, 1, 1)),
        ("ever", datetime(2026, 12, 31, 16, 0, tzinfo=UTC), date(1970, 1, 1)),
    ],
)
def test_periods_are_those_of_shanghai(period: LimitPeriod, moment: datetime, first: date) -> None:
    assert period_of(period, moment) == first


@pytest.mark.parametrize(
    ("redemption", "changes", "after", "undoing"),
    [
        (REDEMPTION, {}, 0, Undoing(points="release", gives_back=True)),
        (REDEMPTION, {"cancel_policy": "until_fulfilled", "cancel_days": None}, 0, Undoing(points="release", gives_back=True)),
        (REDEMPTION, {"cancel_policy": "none", "cancel_days": None}, 0, "policy"),
        (replace(REDEMPTION, state="fulfilling"), {}, 0, "outcome_pending"),
        (replace(REDEMPTION, state="failed"), {}, 0, None),
        (replace(REDEMPTION, state="cancelled"), {}, 0, None),
        (FULFILLED, {}, 7 * 86_400 - 1, Undoing(points="reverse", gives_back=True)),
        (FULFILLED, {}, 7 * 86_400, "too_late"),
        (FULFILLED, {"cancel_restocks": False}, 0, Undoing(points="reverse", gives_back=False)),
        (FULFILLED, {"cancel_policy": "until_fulfilled", "cancel_days": None}, 0, "policy"),
        (FULFILLED, {"kind": "gift_card"}, 0, Undoing(points="reverse", gives_back=False)),
        (replace(FULFILLED, shown_at=NOW), {"kind": "gift_card"}, 0, "code_shown"),
        (replace(FULFILLED, shown_at=NOW), {"kind": "gift_card", "cancel_shown": True}, 0, Undoing(points="reverse", gives_back=False)),
    ],
)  # fmt: skip
def test_what_may_be_taken_back(
    redemption: Redemption, changes: dict[str, Any], after: int, undoing: Undoing | str | None
) -> None:
    now = NOW + timedelta(seconds=after)
    if isinstance(undoing, Undoing):
        assert decide_undoing(redemption, replace(REWARD, **changes), now) == undoing
        return
    with pytest.raises(RedemptionNotCancellable) as refusal:
        decide_undoing(redemption, replace(REWARD, **changes), now)
    assert refusal.value.facts["state"] == redemption.state
    assert refusal.value.facts.get("reason") == undoing


@pytest.mark.parametrize(
    ("asking", "party", "redeemer", "provider"),
    [
        (MEMBER, None, None, NotTheProvider),
        (PARTNER, None, None, NotTheProvider),
        (PROVIDER, None, NotTheRedeemer, None),
        (STRANGER, RedemptionUnknown, RedemptionUnknown, RedemptionUnknown),
        (MemberRef(member_id=8, bucket=7), RedemptionUnknown, RedemptionUnknown, RedemptionUnknown),
    ],
)
def test_who_may_do_what(
    asking: UUID | MemberRef,
    party: type[Refusal] | None,
    redeemer: type[Refusal] | None,
    provider: type[Refusal] | None,
) -> None:
    checks: list[tuple[Any, type[Refusal] | None]] = [
        (check_party, party),
        (check_redeemer, redeemer),
        (check_provider, provider),
    ]
    for check, refusal in checks:
        if refusal is None:
            assert check(REDEMPTION, asking) is REDEMPTION
            continue
        with pytest.raises(refusal):
            check(REDEMPTION, asking)
    with pytest.raises(RedemptionUnknown):
        check_redeemer(None, asking)


@pytest.mark.parametrize("state", ["fulfilling", "fulfilled", "failed", "cancelled"])
def test_a_provider_decides_only_what_is_in_its_hands(state: RedemptionState) -> None:
    with pytest.raises(RedemptionNotOpen):
        check_provider(replace(REDEMPTION, state=state), PROVIDER)


def test_a_service_is_fulfilled_before_its_deadline() -> None:
    assert REDEMPTION.fulfil_by is not None
    check_in_time(REDEMPTION, REDEMPTION.fulfil_by - timedelta(microseconds=1))
    with pytest.raises(FulfilmentOverdue):
        check_in_time(REDEMPTION, REDEMPTION.fulfil_by)


def test_codes_are_read_line_by_line_without_empty_ones() -> None:
    assert check_codes(["A-1", "", "  B 2 ", "c" * 128]) == ["A-1", "B 2", "c" * 128]


@pytest.mark.parametrize("line", ["A-1", "x" * 129, "ü", "a\tb", "a\0b"])
def test_a_file_with_a_line_that_is_no_code_is_refused_by_its_number(line: str) -> None:
    with pytest.raises(CodeFileRefused) as refusal:
        check_codes(["A-1", "", line])
    assert refusal.value.facts == {"line": 3}
