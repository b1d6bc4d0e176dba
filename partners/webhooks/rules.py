"""The rules of webhooks: which addresses may be called, how a body is signed, when a failed delivery is tried again."""

import base64
import binascii
import hmac
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Literal
from urllib.parse import SplitResult, urlsplit

from msgspec import Struct

from kernel.errors import Unprocessable
from partners.webhooks.model import Answer

Mode = Literal["sandbox", "live"]

LOOPBACK_HOSTS = frozenset(("localhost", "127.0.0.1", "::1"))

_PRINTABLE = re.compile(r"[!-\[\]-~]{1,2048}")  # visible ASCII but no backslash: parsers disagree about it
_HOST = re.compile(
    r"(?=.{4,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])", re.ASCII
)
_INNER_NAMES = (
    ".arpa",
    ".corp",
    ".home",
    ".internal",
    ".intranet",
    ".invalid",
    ".lan",
    ".local",
    ".localhost",
    ".onion",
)


class WebhookUrlRefused(Unprocessable):
    """The webhook URL must be https on port 443 of a public host name, without user name and fragment."""


class WebhookSecretRefused(Unprocessable):
    """A webhook secret is `whsec_` and the base64 of 24 to 64 bytes."""


def check_url(url: str, mode: Mode) -> SplitResult:
    """The URL in its parts. This is about its text; where the name leads is checked when it is called."""
    if not _PRINTABLE.fullmatch(url):
        raise WebhookUrlRefused(reason="characters")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise WebhookUrlRefused(reason="malformed") from None
    host = parts.hostname or ""
    if "@" in parts.netloc:
        raise WebhookUrlRefused(reason="userinfo")
    if "#" in url:
        raise WebhookUrlRefused(reason="fragment")
    if mode == "sandbox" and parts.scheme == "http" and host in LOOPBACK_HOSTS and port != 0:
        return parts
    if parts.scheme != "https":
        raise WebhookUrlRefused(reason="scheme")
    if port not in (None, 443):
        raise WebhookUrlRefused(reason="port")
    # A last label that begins with a letter leaves no room for the many spellings of an IPv4 address.
    if not _HOST.fullmatch(host) or host.endswith(_INNER_NAMES):
        raise WebhookUrlRefused(reason="host")
    return parts


# IANA special-purpose registries, and what `ipaddress.is_global` lets through: 6to4 relays, AS112, AMT, multicast,
# a cloud's wire server.
_NO_IPV4 = [
    IPv4Network(network)
    for network in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "168.63.129.16/32", "169.254.0.0/16",
        "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24",
        "192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3",
    )
]  # fmt: skip

# Of IPv6 only global unicast is called at all, so mapped, NAT64, unique-local, link-local, multicast and SRv6 addresses
# are out from the start; then come the holes inside it: Teredo and its neighbours, 6to4, documentation, 6bone, AS112.
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NO_IPV6 = [
    IPv6Network(network)
    for network in ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3ffe::/16", "3fff::/20")
]


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether the platform may open a connection to `address`."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NO_IPV4)
    if address.scope_id is not None or address not in _GLOBAL_UNICAST:
        return False
    return not any(address in network for network in _NO_IPV6)


def check_secret(secret: str) -> bytes:
    """The key inside `secret` (Standard Webhooks, "Secrets"): 24 to 64 bytes."""
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        raise WebhookSecretRefused from None
    if not secret.startswith("whsec_") or not 24 <= len(key) <= 64:
        raise WebhookSecretRefused
    return key


def sign(secrets: Sequence[str], *, event_id: str, timestamp: int, body: bytes) -> str:
    """The webhook-signature header (Standard Webhooks, "Signature scheme"): one signature per live secret, newest first."""
    content = f"{event_id}.{timestamp}.".encode() + body
    return " ".join(
        "v1," + base64.b64encode(hmac.digest(check_secret(secret), content, "sha256")).decode()
        for secret in secrets
    )


#: as many as nine digits can say; the sum of a moment and more need not be a moment
RETRY_AFTER_SECONDS_MAX = 999_999_999


def parse_retry_after(value: str | None, *, now: datetime) -> int | None:
    """Seconds asked for by a Retry-After header (RFC 9110 §10.2.3): a number, or a date; nonsense is ignored."""
    if value is None:
        return None
    if re.fullmatch(r"[0-9]{1,9}", value.strip(), re.ASCII):
        return int(value)
    try:
        asked = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    if asked.tzinfo is None:
        return None
    return min(max(0, int((asked - now).total_seconds())), RETRY_AFTER_SECONDS_MAX)


_DELAYS = (10, 60, 300, 1_800, 7_200, 21_600)
_GIVE_UP_AFTER = timedelta(hours=72)
_DISABLE_AFTER = timedelta(hours=120)
JITTER_PERMILLE = 200


class NextStep(Struct, frozen=True, kw_only=True):
    """What follows a failed attempt."""

    #: None: no further try, the delivery is dead
    next_at: datetime | None
    #: why the endpoint is switched off, if it is
    disable_reason: str | None = None


def plan_next_step(
    answer: Answer,
    *,
    attempt: int,
    started_at: datetime,
    failing_since: datetime | None,
    jitter_permille: int,
    now: datetime,
) -> NextStep:
    """Try again after 10 s, 1 min, 5 min, 30 min, 2 h, 6 h and then every 6 h, each ±20 %, for 72 h in all."""
    assert -JITTER_PERMILLE <= jitter_permille <= JITTER_PERMILLE
    if answer.status == 410:
        return NextStep(next_at=None, disable_reason="gone")
    disable_reason = "failing" if failing_since and now - failing_since >= _DISABLE_AFTER else None
    delay = _DELAYS[min(attempt, len(_DELAYS)) - 1] * (1000 + jitter_permille) // 1000
    next_at = now + timedelta(seconds=max(delay, answer.retry_after_seconds or 0))
    if next_at > started_at + _GIVE_UP_AFTER:
        return NextStep(next_at=None, disable_reason=disable_reason)
    return NextStep(next_at=next_at, disable_reason=disable_reason)
