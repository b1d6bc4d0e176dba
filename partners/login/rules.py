"""Names, limits and lifetimes of a login: pure decisions."""

import unicodedata
from datetime import datetime, timedelta
from ipaddress import ip_address

import pyotp
from msgspec import Struct

from partners.login.model import AttemptKind

SESSION_LIFE = timedelta(minutes=10)
CODE_LIFE = timedelta(minutes=5)
DEVICE_LIFE = timedelta(days=365)
#: the table's own checks say the same
CODE_ATTEMPTS_MAX = 5
CODE_SENDS_MAX = 3
CODE_DIGITS = 6
DEVICES_MAX = 10
PASSKEYS_MAX = 5
TOTP_SECONDS = 30


class Limit(Struct, frozen=True, kw_only=True):
    """So many attempts in a window that begins with the first."""

    attempts: int
    window: timedelta


#: A stranger's guesses at a name do not lock out the member, whose bound device counts for itself.
LIMITS: dict[AttemptKind, Limit] = {
    "name": Limit(attempts=10, window=timedelta(minutes=15)),
    "device": Limit(attempts=10, window=timedelta(minutes=15)),
    "address": Limit(attempts=200, window=timedelta(minutes=15)),
    "code": Limit(attempts=15, window=timedelta(hours=1)),
    "app": Limit(attempts=10, window=timedelta(minutes=15)),
    "passkey": Limit(attempts=10, window=timedelta(minutes=15)),
    "send": Limit(attempts=10, window=timedelta(hours=1)),
}


def within(kind: AttemptKind, attempts: int) -> bool:
    """Whether the latest of `attempts` is still allowed."""
    return attempts <= LIMITS[kind].attempts


def login_name(typed: str) -> str:
    """The name as it is indexed: full-width letters, capitals and spaces around it make no other name."""
    return unicodedata.normalize("NFKC", typed).strip().casefold()


def typed_code(text: str) -> str:
    """The digits of a code as people type it, with spaces or hyphens and in full-width digits."""
    return "".join(unicodedata.normalize("NFKC", text).split()).replace("-", "")


def network(address: str) -> str:
    """Whom an address stands for: with IPv6 one subscriber has a whole /64."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return str(parsed)
    mapped = parsed.ipv4_mapped
    return str(mapped) if mapped is not None else parsed.exploded[:19]


def totp_step(secret: str, code: str, now: datetime) -> int | None:
    """The time step whose code this is: RFC 6238 §5.2 lets one step each way be right; None if it is no code."""
    if len(code) != CODE_DIGITS or not code.isascii() or not code.isdigit():
        return None
    present = int(now.timestamp()) // TOTP_SECONDS
    generator = pyotp.HOTP(secret)
    for step in (present, present - 1, present + 1):
        if pyotp.utils.strings_equal(generator.at(step), code):
            return step
    return None
