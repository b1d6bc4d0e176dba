"""Whose word counts for where a request comes from: headers anybody can send mean nothing unless a proxy of ours sent them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from certificates import client_cert, make_certificate

from gateway.proxies import CertificateMalformed, Proxies, read_networks
from kernel.settings import Settings, SettingsError

NOW = datetime(2026, 11, 20, 4, 0, tzinfo=UTC)
PROXIES = "10.0.0.0/28, 2001:db8::/64"
CERTIFICATE = client_cert(make_certificate("api.shop.example"))


def scope(peer: str | None, headers: dict[str, str], *, port: int = 8080) -> dict[str, Any]:
    return {
        "client": None if peer is None else (peer, 40_000),
        "server": ("127.0.0.1", port),
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers.items()],
    }


def proxies(**changes: Any) -> Proxies:
    given: dict[str, Any] = {"trusted_proxies": PROXIES, "private_port": 9443} | changes
    return Proxies(Settings(**given))


@pytest.mark.parametrize(
    ("peer", "port", "forwarded", "address"),
    [
        pytest.param("192.0.2.7", 8080, "10.9.9.9", "192.0.2.7", id="a stranger says what it likes"),
        pytest.param("127.0.0.1", 8080, "10.9.9.9", "127.0.0.1", id="this machine is no proxy by itself"),
        pytest.param("10.0.0.5", 8080, "198.51.100.4", "198.51.100.4", id="a proxy is believed"),
        pytest.param("10.0.0.16", 8080, "198.51.100.4", "10.0.0.16", id="next to the proxies"),
        pytest.param("10.0.0.5", 8080, "10.9.9.9, 198.51.100.4", "198.51.100.4", id="what the client wrote"),
        pytest.param("10.0.0.5", 8080, "198.51.100.4, 10.0.0.6", "198.51.100.4", id="two proxies"),
        pytest.param("10.0.0.5", 8080, "10.0.0.7", "10.0.0.7", id="a proxy itself"),
        pytest.param("10.0.0.5", 8080, "198.51.100.4, nonsense", None, id="an unreadable hop"),
        pytest.param("10.0.0.5", 8080, "", None, id="an empty hop"),
        pytest.param("10.0.0.5", 8080, "198.51.100.4:1234", "198.51.100.4", id="with a port"),
        pytest.param("10.0.0.5", 8080, "[2001:db8:1::7]:1234", "2001:db8:1::7", id="IPv6 with a port"),
        pytest.param("10.0.0.5", 8080, "::ffff:198.51.100.4", "198.51.100.4", id="a mapped client"),
        pytest.param("::ffff:10.0.0.5", 8080, "198.51.100.4", "198.51.100.4", id="a mapped peer"),
        pytest.param("127.0.0.1", 9443, "198.51.100.4", "198.51.100.4", id="the private port"),
        pytest.param(None, 8080, "198.51.100.4", None, id="no peer"),
    ],
)
def test_row_23_an_address_is_what_a_trusted_proxy_says(
    peer: str | None, port: int, forwarded: str, address: str | None
) -> None:
    sender = proxies().sender_of(scope(peer, {"x-forwarded-for": forwarded}, port=port), NOW)
    assert sender.address == address


@pytest.mark.parametrize(
    ("forwarded", "address"),
    [
        ("for=198.51.100.4", "198.51.100.4"),
        ("for=198.51.100.4;proto=https;by=10.0.0.5", "198.51.100.4"),
        ('proto=https;for="[2001:db8:1::7]:4711"', "2001:db8:1::7"),
        ("For=10.9.9.9, for=198.51.100.4", "198.51.100.4"),
        ('for="10.9.9.9, for=198.51.100.4', "198.51.100.4"),
        ("for=unknown", None),
        ("for=_hidden", None),
        ("by=198.51.100.4", None),
    ],
)
def test_the_standard_header_is_read_where_the_proxies_write_it(forwarded: str, address: str | None) -> None:
    found = proxies(forwarded_header="forwarded").sender_of(scope("10.0.0.5", {"forwarded": forwarded}), NOW)
    assert found.address == address


@pytest.mark.parametrize(
    ("read", "other"), [("x-forwarded-for", "forwarded"), ("forwarded", "x-forwarded-for")]
)
def test_row_23_the_header_that_the_proxies_do_not_write_is_not_read(read: str, other: str) -> None:
    invented = {other: "for=10.9.9.9" if other == "forwarded" else "10.9.9.9"}
    assert proxies(forwarded_header=read).sender_of(scope("10.0.0.5", invented), NOW).address == "10.0.0.5"


@pytest.mark.parametrize(
    ("peer", "port", "believed"),
    [
        ("192.0.2.7", 8080, False),
        ("127.0.0.1", 8080, False),
        ("10.0.0.5", 8080, True),
        ("127.0.0.1", 9443, True),
    ],
)
def test_row_23_a_certificate_counts_only_from_a_trusted_proxy(peer: str, port: int, believed: bool) -> None:
    sender = proxies().sender_of(scope(peer, {"client-cert": CERTIFICATE}, port=port), NOW)
    assert (sender.certificate is not None) is believed


def test_without_configuration_nobody_is_believed() -> None:
    nobody = Proxies(Settings())
    sender = nobody.sender_of(
        scope("127.0.0.1", {"client-cert": CERTIFICATE, "x-forwarded-for": "10.9.9.9"}), NOW
    )
    assert (sender.address, sender.certificate) == ("127.0.0.1", None)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "::",
        ":bm90IGEgY2VydGlmaWNhdGU=:",
        CERTIFICATE[1:-1],
        CERTIFICATE + CERTIFICATE,
        f"{CERTIFICATE}, {CERTIFICATE}",
        CERTIFICATE[:100] + "!" + CERTIFICATE[101:],
        ":" + "A" * 9_000 + ":",
    ],
)
def test_what_is_no_certificate_is_refused(value: str) -> None:
    with pytest.raises(CertificateMalformed):
        proxies().sender_of(scope("10.0.0.5", {"client-cert": value}), NOW)


def test_two_certificates_are_none() -> None:
    twice = scope("10.0.0.5", {"client-cert": CERTIFICATE})
    twice["headers"] *= 2
    with pytest.raises(CertificateMalformed):
        proxies().sender_of(twice, NOW)


@pytest.mark.parametrize("age", [timedelta(days=-400), timedelta(days=40_000)], ids=["not yet", "no more"])
def test_a_certificate_outside_its_validity_is_refused(age: timedelta) -> None:
    with pytest.raises(CertificateMalformed):
        proxies().sender_of(scope("10.0.0.5", {"client-cert": CERTIFICATE}), NOW + age)


def test_networks_are_read_strictly() -> None:
    assert [str(one) for one in read_networks(PROXIES)] == ["10.0.0.0/28", "2001:db8::/64"]
    assert read_networks(None) == ()
    for wrong in ("10.0.0.1/28", "all", "10.0.0.0/28;::/0"):
        with pytest.raises(SettingsError):
            read_networks(wrong)
