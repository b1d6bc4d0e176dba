"""The rules of webhooks: which addresses may be called, how a body is signed, when a failed delivery is tried again."""

import base64
import binascii
import hmac
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Literal
from urllib.parse import SplitResult

from msgspec import Struct

from kernel import outbound
from kernel.errors import Unprocessable
from kernel.outbound import is_public
from partners.webhooks.model import Answer

__all__ = [
    "JITTER_PERMILLE",
    "RETRY_AFTER_SECONDS_MAX",
    "Mode",
    "NextStep",
    "WebhookSecretRefused",
    "WebhookUrlRefused",
    "check_secret",
    "check_url",
    "is_public",
    "parse_retry_after",
    "plan_next_step",
    "sign",
]

Mode = Literal["sandbox", "live"]


class WebhookUrlRefused(Unprocessable):
    """The webhook URL must be https on port 443 of a public host name, without user name and fragment."""


class WebhookSecretRefused(Unprocessable):
    """A webhook secret is `whsec_` and the base64 of 24 to 64 bytes."""


def check_url(url: str, mode: Mode) -> SplitResult:
    """The URL in its parts. This is about its text; where the name leads is checked when it is called."""
    try:
        return outbound.check_url(url, loopback=mode == "sandbox")
    except outbound.UrlRefused as refused:
        raise WebhookUrlRefused(reason=refused.reason) from None


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
