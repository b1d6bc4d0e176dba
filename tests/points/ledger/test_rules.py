"""The ledger's decisions as tables."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from points.ledger.model import HoldLot, Lot, Reversible, Take
from points.ledger.rules import (
    RefundExceedsOrder,
    cost_fen,
    give_back,
    points_to_reverse,
    restored_expiry,
    split_capture,
    take,
    take_back,
)

NOW = datetime(2026, 11, 20, 4, 0, tzinfo=UTC)
NOBODY = UUID(int=0)


def lot(
    seq: int,
    remaining: int,
    held: int = 0,
    *,
    funder_id: int = 1,
    unit_cost_e6: int = 1_000_000,
    expires_at: datetime | None = None,
    pending: int = 0,
) -> Lot:
    return Lot(
        bucket=1,
        member_id=1,
        lot_seq=seq,
        operation_id=NOBODY,
        funder_id=funder_id,
        unit_cost_e6=unit_cost_e6,
        campaign=None,
        rule_version=1,
        effective_at=NOW,
        expires_at=expires_at,
        remaining_points=remaining,
        held_points=held,
        pending_points=pending,
    )


def seen(takes: list[Take]) -> list[tuple[int, int]]:
    return [(taken.lot.lot_seq, taken.points) for taken in takes]


@pytest.mark.parametrize(
    ("points", "taken"),
    [
        (0, []),
        (10, [(1, 10)]),
        (30, [(1, 30)]),
        (31, [(1, 30), (3, 1)]),
        (40, [(1, 30), (3, 10)]),
        (99, [(1, 30), (3, 10)]),
    ],
)
def test_take_goes_through_the_lots_in_order_and_leaves_held_points(
    points: int, taken: list[tuple[int, int]]
) -> None:
    assert seen(take([lot(1, 50, 20), lot(2, 20, 20), lot(3, 10)], points)) == taken


@pytest.mark.parametrize(
    ("expires_at", "live"),
    [
        (None, True),
        (NOW + timedelta(microseconds=1), True),
        (NOW, False),
        (NOW - timedelta(days=1), False),
    ],
)
def test_the_instant_of_expiry_is_the_first_without_the_points(
    expires_at: datetime | None, live: bool
) -> None:
    assert lot(1, 1, expires_at=expires_at).is_live(NOW) == live


@pytest.mark.parametrize(
    ("points", "voided", "taken"),
    [
        (15, [(2, 15)], []),
        (30, [(2, 20)], [(2, 10)]),
        (60, [(2, 20)], [(2, 30), (1, 10)]),
        (90, [(2, 20), (1, 1)], [(2, 30), (1, 35), (4, 4)]),
        (999, [(2, 20), (1, 5), (4, 1)], [(2, 30), (1, 35), (4, 4)]),
    ],
)
def test_a_claw_back_takes_the_own_lot_then_the_same_funders_in_spend_order(
    points: int, voided: list[tuple[int, int]], taken: list[tuple[int, int]]
) -> None:
    own = lot(2, 50, pending=20)
    lots = [lot(1, 40, pending=5), own, lot(3, 70, funder_id=2), lot(4, 10, 5, pending=1)]
    pending, free = take_back(lots, [own], points)
    assert (seen(pending), seen(free)) == (voided, taken)


PINNED = [
    HoldLot(hold_id=NOBODY, lot=lot(1, 50, 50), points=50, captured=50, restored=0),
    HoldLot(hold_id=NOBODY, lot=lot(2, 50, 50), points=30, captured=20, restored=5),
]


@pytest.mark.parametrize(
    ("points", "captured", "returned"),
    [
        (0, [], [(1, 50), (2, 30)]),
        (20, [(1, 20)], [(1, 30), (2, 30)]),
        (60, [(1, 50), (2, 10)], [(2, 20)]),
        (80, [(1, 50), (2, 30)], []),
    ],
)
def test_a_partial_capture_spends_what_ends_soonest(
    points: int, captured: list[tuple[int, int]], returned: list[tuple[int, int]]
) -> None:
    spent, back = split_capture(PINNED, points)
    assert (seen(spent), seen(back)) == (captured, returned)


@pytest.mark.parametrize(("points", "returned"), [(10, [(2, 10)]), (15, [(2, 15)]), (65, [(2, 15), (1, 50)])])
def test_points_come_back_in_reverse_order_of_consumption(
    points: int, returned: list[tuple[int, int]]
) -> None:
    assert seen(give_back(PINNED, points)) == returned


def test_cost_has_one_floor_at_the_end() -> None:
    thirds = [Take(lot=lot(seq, 1, unit_cost_e6=333_334), points=1) for seq in range(3)]
    assert cost_fen(thirds) == 1
    assert cost_fen(thirds[:2]) == 0


@pytest.mark.parametrize(
    ("base_fen", "base_points", "refunds", "reversed_points"),
    [
        (1_000, 10, [1_000], [10]),
        (1_000, 10, [99, 1, 900], [0, 1, 9]),
        (300, 1, [100, 100, 100], [0, 0, 1]),
        (7, 100, [1] * 7, [14, 14, 14, 15, 14, 14, 15]),
    ],
)
def test_refunds_floor_cumulatively(
    base_fen: int, base_points: int, refunds: list[int], reversed_points: list[int]
) -> None:
    fen = points = 0
    undone = []
    for refunded_fen in refunds:
        state = Reversible(
            base_fen=base_fen, reversed_fen=fen, base_points=base_points, reversed_points=points
        )
        undone.append(points_to_reverse(state, refunded_fen))
        fen, points = fen + refunded_fen, points + undone[-1]
    assert undone == reversed_points


@given(base_points=st.integers(0, 10**9), parts=st.lists(st.integers(1, 10**6), min_size=1, max_size=20))
def test_refunding_everything_in_any_parts_reverses_everything(base_points: int, parts: list[int]) -> None:
    fen = points = 0
    for part in parts:
        state = Reversible(
            base_fen=sum(parts), reversed_fen=fen, base_points=base_points, reversed_points=points
        )
        undone = points_to_reverse(state, part)
        assert undone >= 0
        fen, points = fen + part, points + undone
    assert points == base_points


@pytest.mark.parametrize("base_fen", [0, 99])
def test_a_refund_beyond_the_order_is_refused(base_fen: int) -> None:
    with pytest.raises(RefundExceedsOrder):
        points_to_reverse(
            Reversible(base_fen=base_fen, reversed_fen=0, base_points=1, reversed_points=0), 100
        )


def test_points_given_back_to_an_ended_lot_live_thirty_days() -> None:
    assert restored_expiry(NOW) == NOW + timedelta(days=30)
