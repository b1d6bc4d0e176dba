"""The server's nonce: a minute's, good until the end of the next, the same in every process (RFC 9449 §8)."""

from datetime import UTC, datetime, timedelta

import pytest

from partners.oauth.nonce import Nonces

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
NOW = datetime(2026, 11, 20, 4, 0, 30, tzinfo=UTC)


def after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("offered_by", "offered_at", "accepted"),
    [
        pytest.param(KEY, after(0), True, id="of this minute"),
        pytest.param(KEY, after(-30), True, id="since the minute began"),
        pytest.param(KEY, after(-31), True, id="of the minute before"),
        pytest.param(KEY, after(-90), True, id="since the minute before began"),
        pytest.param(KEY, after(-91), False, id="of two minutes ago"),
        pytest.param(KEY, after(-86_400), False, id="of yesterday"),
        pytest.param(KEY, after(60), False, id="of a minute to come"),
        pytest.param(OTHER_KEY, after(0), False, id="made with another key"),
    ],
)
def test_a_nonce_is_good_for_this_minute_and_the_next(
    offered_by: bytes, offered_at: datetime, accepted: bool
) -> None:
    assert Nonces(KEY).accepts(Nonces(offered_by).offered(offered_at), NOW) is accepted


@pytest.mark.parametrize("forged", ["", "x", "\0", "\ud800", "é" * 22, "A" * 22, "A" * 10_000])
def test_nobody_else_makes_a_nonce(forged: str) -> None:
    assert not Nonces(KEY).accepts(forged, NOW)


def test_a_process_that_is_a_moment_ahead_offers_what_is_good_here() -> None:
    end = after(29.9)
    assert Nonces(KEY).accepts(Nonces(KEY).offered(after(30.1)), end)


def test_one_object_turns_with_the_minutes_in_either_direction() -> None:
    nonces = Nonces(KEY)
    first = nonces.offered(NOW)
    assert nonces.offered(after(60)) != first
    assert nonces.accepts(first, after(60))
    assert not nonces.accepts(first, after(120))
    assert nonces.offered(NOW) == first
