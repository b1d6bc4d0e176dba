"""What may become of partners and keys: pure decisions."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from kernel.errors import Conflict, Unprocessable
from partners.registry.jwk import VerificationKey, read_jwk
from partners.registry.model import Key, KeyStatus, PartnerStatus

KID_LENGTH_MAX = 64
REDIRECT_LENGTH_MAX = 256
REDIRECTS_MAX = 16
ACTIVE_KEYS_MAX = 2
#: an app's keys of all times, so that nobody fills our tables with them
KEYS_MAX = 200
OVERLAP_DAYS = 7
OVERLAP_DAYS_MAX = 30
#: members that point at a key elsewhere or repeat it as a certificate: what is registered is the key itself
_POINTERS = frozenset(("jku", "x5u", "x5c", "x5t", "x5t#S256"))
_PATH_SAFE = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9._~:@=+-]+", re.ASCII)

PARTNER_MOVES: dict[PartnerStatus, frozenset[PartnerStatus]] = {
    "draft": frozenset(("submitted",)),
    "submitted": frozenset(("in_review",)),
    "in_review": frozenset(("approved", "rejected")),
    "approved": frozenset(("live",)),
    "live": frozenset(("suspended", "terminating")),
    "suspended": frozenset(("live", "terminating")),
    "terminating": frozenset(("terminated",)),
    "terminated": frozenset(),
    "rejected": frozenset(),
}


class PartnerMoveNotAllowed(Conflict):
    """The partner cannot go from its present status to this one."""


class KeyMoveNotAllowed(Conflict):
    """The key cannot go from its present status to this one."""


class KidInvalid(Unprocessable):
    """The key needs a `kid` of 1 to 64 visible ASCII characters."""


class KeyAlreadyRegistered(Conflict):
    """The app has already used this `kid` or this key; a key is registered once and never returns."""


class KeyLimitReached(Conflict):
    """The app has two active keys already; retire or revoke one first."""


class KeyElsewhere(Unprocessable):
    """The JWK must contain the key itself; `jku`, `x5u`, `x5c` and certificate thumbprints are not followed."""


class KidNotForPaths(Unprocessable):
    """The `kid` may contain letters, digits and `. _ ~ : @ = + -`, for it stands in the key's address."""


class KeyRotationPending(Conflict):
    """A new key is still waiting for its first use; sign an assertion with it, or revoke it, before you register another."""


class LastUsableKey(Conflict):
    """Without this key the app could not authenticate any more; repeat with `"last": true` if that is what you want."""


class KeyStoreFull(Conflict):
    """The app has registered 200 keys in its time; ask the bank for a new app."""


class RedirectUriInvalid(Unprocessable):
    """A redirect URI is an https address without user, fragment or wildcard, of at most 256 visible characters.

    In the sandbox it may also be http on 127.0.0.1 or [::1].
    """


class RedirectUriLimitReached(Conflict):
    """The app has sixteen redirect URIs already; remove one first."""


def check_redirect_uri(uri: str, *, sandbox: bool) -> None:
    """FAPI 2.0 §5.3.2.2 and RFC 9700 §2.1: https, and nothing in it that two readers could read differently."""
    if not _visible(uri) or not 0 < len(uri) <= REDIRECT_LENGTH_MAX or any(c in uri for c in '#\\*"<>^`{|}'):
        raise RedirectUriInvalid
    try:
        parts = urlsplit(uri)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        raise RedirectUriInvalid from None
    loopback = sandbox and parts.scheme == "http" and host in ("127.0.0.1", "::1")
    if not host or "@" in parts.netloc or (parts.scheme != "https" and not loopback):
        raise RedirectUriInvalid
    if (
        any(segment in (".", "..") for segment in parts.path.split("/"))
        or parts.netloc != parts.netloc.lower()
    ):
        raise RedirectUriInvalid


def check_partner_move(present: PartnerStatus, wanted: PartnerStatus) -> None:
    if wanted not in PARTNER_MOVES[present]:
        raise PartnerMoveNotAllowed(present=present, wanted=wanted)


def check_new_key(
    jwk: Mapping[str, Any], registered: Sequence[tuple[str, Mapping[str, Any], KeyStatus]]
) -> tuple[str, VerificationKey]:
    """The kid and the key, if the app may add it to the `registered` (kid, jwk, status)."""
    key = read_jwk(jwk)
    kid = jwk.get("kid")
    if not isinstance(kid, str) or not 0 < len(kid) <= KID_LENGTH_MAX or not _visible(kid):
        raise KidInvalid
    for known_kid, known, _ in registered:
        if known_kid == kid or read_jwk(known).thumbprint == key.thumbprint:
            raise KeyAlreadyRegistered(kid=known_kid)
    check_active_keys([status for _, _, status in registered])
    return kid, key


def check_active_keys(statuses: Sequence[KeyStatus]) -> None:
    """Whether one more key may become active."""
    if sum(status == "active" for status in statuses) >= ACTIVE_KEYS_MAX:
        raise KeyLimitReached(active_keys_max=ACTIVE_KEYS_MAX)


def check_rotation(
    jwk: Mapping[str, Any], registered: Sequence[Key], *, now: datetime
) -> tuple[str, VerificationKey]:
    """The kid and the key, if the app may put it beside those it has, to be used from its first assertion on."""
    if _POINTERS & jwk.keys():
        raise KeyElsewhere
    # A key that is past its end takes no place any more.
    states = [(key.kid, key.jwk, key.status if is_usable(key, now=now) else "revoked") for key in registered]
    pending = next((key.kid for key in registered if key.status == "pending"), None)
    if pending is not None:
        raise KeyRotationPending(kid=pending)
    kid, key = check_new_key(jwk, states)
    if _PATH_SAFE.fullmatch(kid) is None:
        raise KidNotForPaths
    if sum(is_usable(known, now=now) for known in registered) >= ACTIVE_KEYS_MAX:
        raise KeyLimitReached(active_keys_max=ACTIVE_KEYS_MAX)
    if len(registered) >= KEYS_MAX:
        raise KeyStoreFull
    return kid, key


def is_usable(key: Key, *, now: datetime) -> bool:
    """Whether an assertion signed with the key is good, or would be from its first use on."""
    return key.status != "revoked" and (key.not_after is None or key.not_after > now)


def public_jwk(kid: str, key: VerificationKey) -> dict[str, str]:
    """The JWK that is stored and shown: the members of the key and what it is for."""
    return {**key.members, "kid": kid, "alg": key.alg, "use": "sig"}


def _visible(text: str) -> bool:
    return all("!" <= character <= "~" for character in text)
