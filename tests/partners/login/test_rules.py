"""Names, codes, networks and limits, as tables."""

from datetime import UTC, datetime, timedelta

import pyotp
import pytest

from partners.login.rules import LIMITS, login_name, network, totp_step, typed_code, within

SECRET = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
NOW = datetime(2026, 11, 20, 4, 0, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("member01", "member01"),
        ("  Member01 ", "member01"),
        ("ＭＥＭＢＥＲ０１", "member01"),
        ("Straße", "strasse"),
        ("", ""),
        ("member 01", "member 01"),
    ],
)
def test_a_name_is_the_same_however_it_is_typed(typed: str, meant: str) -> None:
    assert login_name(typed) == meant


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("123456", "123456"),
        (" 123 456 ", "123456"),
        ("123-456", "123456"),
        ("１２３４５６", "123456"),
        ("", ""),
    ],
)
def test_a_code_is_the_same_with_spaces_hyphens_and_full_width_digits(typed: str, meant: str) -> None:
    assert typed_code(typed) == meant


@pytest.mark.parametrize(
    ("address", "counted_as"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:0db8:0001:0002"),
        ("2001:db8:1:2::9", "2001:0db8:0001:0002"),
        ("local", "local"),
    ],
)
def test_an_ipv6_subscriber_is_one_whatever_address_of_its_network_it_takes(
    address: str, counted_as: str
) -> None:
    assert network(address) == counted_as


@pytest.mark.parametrize(("seconds", "good"), [(-60, False), (-30, True), (0, True), (30, True), (60, False)])
def test_rfc6238_5_2_a_code_is_good_one_step_each_way(seconds: int, good: bool) -> None:
    code = pyotp.TOTP(SECRET).at(NOW + timedelta(seconds=seconds))
    assert (totp_step(SECRET, code, NOW) is not None) is good


@pytest.mark.parametrize("code", ["", "12345", "1234567", "abcdef", "١٢٣٤٥٦", "-12345"])
def test_what_is_no_code_is_no_step(code: str) -> None:
    assert totp_step(SECRET, code, NOW) is None


@pytest.mark.parametrize("kind", LIMITS)
def test_the_attempt_beyond_the_limit_is_refused(kind: str) -> None:
    limit = next(limit for name, limit in LIMITS.items() if name == kind)
    name = next(name for name in LIMITS if name == kind)
    assert within(name, limit.attempts)
    assert not within(name, limit.attempts + 1)
