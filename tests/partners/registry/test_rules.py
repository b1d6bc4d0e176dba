"""The states of partners, and which keys an app may have."""

from typing import Any, get_args

import pytest
from partner_client import generate, public_jwk

from kernel.errors import Refusal
from partners.registry import rules
from partners.registry.model import KeyStatus, PartnerStatus

KEYS = [public_jwk("ES256", generate("ES256")) for _ in range(3)]


def test_every_status_has_its_moves() -> None:
    assert set(rules.PARTNER_MOVES) == set(get_args(PartnerStatus))


@pytest.mark.parametrize(
    ("present", "wanted", "allowed"),
    [
        ("draft", "submitted", True),
        ("draft", "live", False),
        ("in_review", "rejected", True),
        ("rejected", "submitted", False),
        ("approved", "live", True),
        ("live", "suspended", True),
        ("suspended", "live", True),
        ("suspended", "terminating", True),
        ("terminating", "live", False),
        ("terminated", "live", False),
    ],
)
def test_a_partner_moves_only_along_its_states(
    present: PartnerStatus, wanted: PartnerStatus, allowed: bool
) -> None:
    if allowed:
        rules.check_partner_move(present, wanted)
    else:
        with pytest.raises(rules.PartnerMoveNotAllowed):
            rules.check_partner_move(present, wanted)


@pytest.mark.parametrize(
    ("jwk", "registered", "refusal"),
    [
        pytest.param(KEYS[0], [], rules.KidInvalid, id="no kid"),
        pytest.param({**KEYS[0], "kid": ""}, [], rules.KidInvalid, id="empty kid"),
        pytest.param({**KEYS[0], "kid": "k" * 65}, [], rules.KidInvalid, id="long kid"),
        pytest.param({**KEYS[0], "kid": "a\nb"}, [], rules.KidInvalid, id="kid with a line break"),
        pytest.param({**KEYS[0], "kid": 7}, [], rules.KidInvalid, id="kid that is no text"),
        pytest.param(
            {**KEYS[0], "kid": "a"}, [("a", KEYS[1], "revoked")], rules.KeyAlreadyRegistered, id="kid again"
        ),
        pytest.param(
            {**KEYS[0], "kid": "b"}, [("a", KEYS[0], "revoked")], rules.KeyAlreadyRegistered, id="key again"
        ),
        pytest.param(
            {**KEYS[0], "kid": "c"},
            [("a", KEYS[1], "active"), ("b", KEYS[2], "active")],
            rules.KeyLimitReached,
            id="third active key",
        ),
    ],
)
def test_a_key_is_refused(
    jwk: dict[str, Any], registered: list[tuple[str, dict[str, Any], KeyStatus]], refusal: type[Refusal]
) -> None:
    with pytest.raises(refusal):
        rules.check_new_key(jwk, registered)


def test_a_retiring_key_makes_room() -> None:
    kid, _ = rules.check_new_key(
        {**KEYS[0], "kid": "c"}, [("a", KEYS[1], "retiring"), ("b", KEYS[2], "active")]
    )
    assert kid == "c"


def test_only_the_members_of_the_key_are_kept() -> None:
    kid, key = rules.check_new_key({**KEYS[0], "kid": "a", "x5u": "https://example.com", "note": "x"}, [])
    assert set(rules.public_jwk(kid, key)) == {"kty", "crv", "x", "y", "kid", "alg", "use"}
