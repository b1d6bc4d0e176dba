"""The nonce a proof may have to carry: a keyed hash of the minute, so that no process remembers any (RFC 9449 §8, §9)."""

import hmac
from datetime import datetime

from partners.registry.jwk import encode

WINDOW_SECONDS = 60
#: gateways agree on the time to a fraction of this; what another one offers a moment early is good here
AHEAD_SECONDS = 1
_BYTES = 16


class Nonces:
    """Offers this minute's nonce and accepts it until the end of the next; every process with the key makes the same."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._windows = (-1, -1)
        self._offered = ""
        self._accepted: frozenset[str] = frozenset()

    def offered(self, now: datetime) -> str:
        """The nonce to send out."""
        self._turn(now)
        return self._offered

    def accepts(self, nonce: str, now: datetime) -> bool:
        """Whether `nonce` was offered in this minute or the one before."""
        self._turn(now)
        return nonce in self._accepted

    def _turn(self, now: datetime) -> None:
        seconds = int(now.timestamp())
        windows = (seconds // WINDOW_SECONDS, (seconds + AHEAD_SECONDS) // WINDOW_SECONDS)
        if windows != self._windows:
            self._windows = windows
            present, ahead = windows
            self._offered = self._nonce_of(present)
            self._accepted = frozenset(map(self._nonce_of, (present - 1, present, ahead)))

    def _nonce_of(self, window: int) -> str:
        return encode(hmac.digest(self._key, b"dpop-nonce:%d" % window, "sha256")[:_BYTES])
