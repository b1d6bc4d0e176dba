"""Which addresses may be called, how bodies are signed, when a delivery is tried again."""

import base64
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from partners.webhooks.model import Answer
from partners.webhooks.rules import (
    Mode,
    WebhookSecretRefused,
    WebhookUrlRefused,
    check_secret,
    check_url,
    is_public,
    parse_retry_after,
    plan_next_step,
    sign,
)

REFUSED = [
    ("http://hooks.example.com/", "scheme"),
    ("ftp://hooks.example.com/", "scheme"),
    ("gopher://hooks.example.com/", "scheme"),
    ("file:///etc/passwd", "scheme"),
    ("//hooks.example.com/", "scheme"),
    ("hooks.example.com", "scheme"),
    ("https://hooks.example.com:22/", "port"),
    ("https://hooks.example.com:80/", "port"),
    ("https://hooks.example.com:8443/", "port"),
    ("https://hooks.example.com:99999/", "malformed"),
    ("https://hooks.example.com:https/", "malformed"),
    ("https://[::1/", "malformed"),
    ("https://user@hooks.example.com/", "userinfo"),
    ("https://user:secret@hooks.example.com/", "userinfo"),
    ("https://hooks.example.com@127.0.0.1/", "userinfo"),
    ("https://hooks.example.com/#at", "fragment"),
    ("https://127.0.0.1#hooks.example.com/", "fragment"),
    ("https://hooks.example.com\\@127.0.0.1/", "characters"),
    ("https://hooks.example.com/ x", "characters"),
    ("https://hooks.example.com/\r\nX-Header: 1", "characters"),
    ("https://hooks.example.com\t.evil.com/", "characters"),
    ("https://hoöks.example.com/", "characters"),
    ("https://１２７.0.0.1/", "characters"),
    ("https://hooks。example.com/", "characters"),
    ("https://" + "a" * 2100 + ".com/", "characters"),
    ("https:///path", "host"),
    ("https://127.0.0.1/", "host"),
    ("https://127.1/", "host"),
    ("https://2130706433/", "host"),
    ("https://0x7f000001/", "host"),
    ("https://0x7f.0.0.1/", "host"),
    ("https://0177.0.0.1/", "host"),
    ("https://017700000001/", "host"),
    ("https://169.254.169.254/latest/meta-data/", "host"),
    ("https://100.100.100.200/", "host"),
    ("https://[::1]/", "host"),
    ("https://[::ffff:127.0.0.1]/", "host"),
    ("https://[::ffff:7f00:1]/", "host"),
    ("https://[64:ff9b::7f00:1]/", "host"),
    ("https://[2002:7f00:1::]/", "host"),
    ("https://[fd00:ec2::254]/", "host"),
    ("https://[fe80::1]/", "host"),
    ("https://8.8.8.8/", "host"),
    ("https://localhost/", "host"),
    ("https://localhost./", "host"),
    ("https://app.localhost/", "host"),
    ("https://intranet/", "host"),
    ("https://metadata.google.internal/", "host"),
    ("https://printer.local/", "host"),
    ("https://1.0.0.127.in-addr.arpa/", "host"),
    ("https://hooks.example.com./", "host"),
    ("https://hooks..example.com/", "host"),
    ("https://-hooks.example.com/", "host"),
    ("https://hooks_1.example.com/", "host"),
    ("https://%31%32%37.0.0.1/", "host"),
    ("https://hooks.example.1/", "host"),
    ("https://hooks.example.0x7f/", "host"),
    ("https://*.example.com/", "host"),
]


@pytest.mark.parametrize("mode", ["live", "sandbox"])
@pytest.mark.parametrize(("url", "reason"), REFUSED)
def test_a_url_that_could_lead_inside_is_refused(url: str, reason: str, mode: Mode) -> None:
    with pytest.raises(WebhookUrlRefused) as refusal:
        check_url(url, mode)
    assert refusal.value.facts == {"reason": reason}


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.com",
        "https://hooks.example.com:443/in?tenant=7",
        "https://HOOKS.Example.COM/",
        "https://xn--hks-snaa.example.com/a/b",
        "https://a.xn--fiqs8s/",
    ],
)
def test_an_https_url_of_a_public_name_is_taken(url: str) -> None:
    assert check_url(url, "live").hostname


@pytest.mark.parametrize("url", ["http://127.0.0.1:9000/in", "http://localhost:9000/", "http://[::1]:9000/"])
def test_only_the_sandbox_calls_loopback(url: str) -> None:
    assert check_url(url, "sandbox").port == 9000
    with pytest.raises(WebhookUrlRefused):
        check_url(url, "live")


@pytest.mark.parametrize(
    "url", ["http://127.0.0.2:9000/", "http://10.0.0.1/", "http://127.1/", "http://localhost:0/"]
)
def test_the_sandbox_calls_nothing_else_over_http(url: str) -> None:
    with pytest.raises(WebhookUrlRefused):
        check_url(url, "sandbox")


CLOSED = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.100.100.200",
    "100.127.255.255",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "169.254.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.0.170",
    "192.0.2.1",
    "192.31.196.1",
    "192.52.193.1",
    "192.88.99.1",
    "192.168.0.1",
    "192.175.48.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "::127.0.0.1",
    "64:ff9b::a00:1",
    "64:ff9b::808:808",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:10::1",
    "2001:20::1",
    "2001:db8::1",
    "2002:a00:1::",
    "2002:808:808::",
    "2620:4f:8000::1",
    "3ffe::1",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "2a00::1%eth0",
    "fec0::1",
    "ff02::1",
]


@pytest.mark.parametrize("address", CLOSED)
def test_an_address_that_is_not_plainly_public_is_never_called(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        "1.1.1.1",
        "8.8.8.8",
        "100.63.255.255",
        "172.32.0.1",
        "223.255.255.1",
        "2400:3200::1",
        "2606:4700::1111",
    ],
)
def test_a_public_address_is_called(address: str) -> None:
    assert is_public(ip_address(address))


SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()
OTHER = "whsec_" + base64.b64encode(b"another-secret-of-32-bytes-long!").decode()


def _headers(signature: str, timestamp: int) -> dict[str, str]:
    return {"webhook-id": "evt_1", "webhook-timestamp": str(timestamp), "webhook-signature": signature}


def test_the_standard_webhooks_library_accepts_the_signature() -> None:
    now = int(datetime.now(UTC).timestamp())
    body = b'{"type":"points.earned"}'
    signature = sign([SECRET, OTHER], event_id="evt_1", timestamp=now, body=body)
    for secret in (SECRET, OTHER):
        assert Webhook(secret).verify(body, _headers(signature, now)) == {"type": "points.earned"}


@pytest.mark.parametrize(
    ("body", "event_id", "aged_seconds", "secret"),
    [
        (b'{"type":"points.earnee"}', "evt_1", 0, SECRET),
        (b'{"type":"points.earned"}', "evt_2", 0, SECRET),
        (b'{"type":"points.earned"}', "evt_1", 301, SECRET),
        (b'{"type":"points.earned"}', "evt_1", -301, SECRET),
        (b'{"type":"points.earned"}', "evt_1", 0, OTHER),
    ],
)
def test_the_standard_webhooks_library_rejects_what_was_changed_or_kept(
    body: bytes, event_id: str, aged_seconds: int, secret: str
) -> None:
    signed_at = int(datetime.now(UTC).timestamp()) - aged_seconds
    signature = sign([SECRET], event_id="evt_1", timestamp=signed_at, body=b'{"type":"points.earned"}')
    headers = {**_headers(signature, signed_at), "webhook-id": event_id}
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(body, headers)


@pytest.mark.parametrize(
    "secret", ["", "whsec_", "whsec_AAAA", "whsec_" + "!" * 40, SECRET.removeprefix("whsec_")]
)
def test_a_weak_or_misspelt_secret_is_refused(secret: str) -> None:
    with pytest.raises(WebhookSecretRefused):
        check_secret(secret)


NOW = datetime(2026, 11, 20, 4, 0, tzinfo=UTC)


def test_the_schedule_of_a_receiver_that_stays_down_ends_after_three_days() -> None:
    moment, attempt, waits = NOW, 1, []
    while True:
        step = plan_next_step(
            Answer(status=503),
            attempt=attempt,
            started_at=NOW,
            failing_since=None,
            jitter_permille=0,
            now=moment,
        )
        if step.next_at is None:
            break
        waits.append(int((step.next_at - moment).total_seconds()))
        moment, attempt = step.next_at, attempt + 1
    assert waits[:7] == [10, 60, 300, 1_800, 7_200, 21_600, 21_600]
    assert set(waits[6:]) == {21_600}
    assert timedelta(hours=66) < moment - NOW <= timedelta(hours=72)


@pytest.mark.parametrize(
    ("answer", "attempt", "jitter", "seconds"),
    [
        (Answer(error="timeout"), 1, -200, 8),
        (Answer(error="timeout"), 1, 200, 12),
        (Answer(status=500), 2, -200, 48),
        (Answer(status=302), 9, 200, 25_920),
        (Answer(status=429, retry_after_seconds=3_600), 1, 0, 3_600),
        (Answer(status=503, retry_after_seconds=1), 3, 0, 300),
    ],
)
def test_the_next_try(answer: Answer, attempt: int, jitter: int, seconds: int) -> None:
    step = plan_next_step(
        answer, attempt=attempt, started_at=NOW, failing_since=None, jitter_permille=jitter, now=NOW
    )
    assert step.next_at == NOW + timedelta(seconds=seconds)
    assert step.disable_reason is None


def test_gone_means_gone() -> None:
    step = plan_next_step(
        Answer(status=410), attempt=1, started_at=NOW, failing_since=None, jitter_permille=0, now=NOW
    )
    assert (step.next_at, step.disable_reason) == (None, "gone")


def test_an_endpoint_that_fails_for_five_days_is_switched_off() -> None:
    step = plan_next_step(
        Answer(status=500),
        attempt=1,
        started_at=NOW,
        failing_since=NOW - timedelta(hours=120),
        jitter_permille=0,
        now=NOW,
    )
    assert step.disable_reason == "failing"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("120", 120),
        ("Fri, 20 Nov 2026 04:02:00 GMT", 120),
        ("Fri, 20 Nov 2026 03:00:00 GMT", 0),
        ("soon", None),
        ("-5", None),
        ("٣", None),
        ("9" * 30, None),
    ],
)
def test_retry_after_is_a_number_or_a_date(value: str | None, seconds: int | None) -> None:
    assert parse_retry_after(value, now=NOW) == seconds
