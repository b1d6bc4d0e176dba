"""Whom a request claims to come from, read before anything is proved: only to have the client's keys at hand in time."""

import msgspec
from msgspec import Struct

from partners.oauth.rules import CLIENT_ID
from partners.registry.jwk import decode

_FIELD = b"client_assertion="
ASSERTION_BYTES = 8_192


class Claimed(Struct, frozen=True):
    """A client and the key it says it has signed with."""

    client_id: str
    kid: str


class _Header(Struct, frozen=True):
    kid: str


class _Claims(Struct, frozen=True):
    iss: str


_header = msgspec.json.Decoder(_Header)
_claims = msgspec.json.Decoder(_Claims)


def read_claimed(body: bytes) -> Claimed | None:
    """What the form's assertion says of itself; None if there is none that can be read. Proves nothing."""
    place = 0 if body.startswith(_FIELD) else body.find(b"&" + _FIELD) + 1
    if not body.startswith(_FIELD, place):
        return None
    assertion = body[place + len(_FIELD) :].partition(b"&")[0]
    parts = assertion.split(b".")
    if len(parts) != 3 or len(assertion) > ASSERTION_BYTES:
        return None
    try:
        kid = _header.decode(decode(parts[0].decode("ascii"))).kid
        client_id = _claims.decode(decode(parts[1].decode("ascii"))).iss
    except (ValueError, msgspec.MsgspecError, RecursionError):
        return None
    return Claimed(client_id, kid) if CLIENT_ID.fullmatch(client_id) else None
