"""What may become of partners and keys: pure decisions."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from kernel.errors import Conflict, Unprocessable
from partners.registry.jwk import VerificationKey, read_jwk
from partners.registry.model import KeyStatus, PartnerStatus

KID_LENGTH_MAX = 64
REDIRECT_LENGTH_MAX = 256
REDIRECTS_MAX = 16
ACTIVE_KEYS_MAX = 2

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

KEY_MOVES: dict[KeyStatus, frozenset[KeyStatus]] = {
    "pending": frozenset(("active", "revoked")),
    "active": frozenset(("retiring", "revoked")),
    "retiring": frozenset(("revoked",)),
    "revoked": frozenset(),
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


def check_key_move(present: KeyStatus, wanted: KeyStatus) -> None:
    if wanted not in KEY_MOVES[present]:
        raise KeyMoveNotAllowed(present=present, wanted=wanted)


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


def public_jwk(kid: str, key: VerificationKey) -> dict[str, str]:
    """The JWK that is stored and shown: the members of the key and what it is for."""
    return {**key.members, "kid": kid, "alg": key.alg, "use": "sig"}


def _visible(text: str) -> bool:
    return all("!" <= character <= "~" for character in text)
