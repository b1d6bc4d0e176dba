"""JSON Web Signatures in compact form: taken apart strictly, verified directly, claims read into structs.

Written against `cryptography` because a proof is verified on every request and this takes half the time of a general
library. The tests sign and verify with PyJWT, so each side checks the other.
"""

import json
from functools import lru_cache
from typing import Any, NoReturn, TypeVar

import msgspec
from msgspec import Struct

from kernel.errors import Unprocessable
from partners.registry.jwk import ALGORITHMS, VerificationKey, decode, read_jwk

T = TypeVar("T")

LENGTH_MAX = 8_192
# Members that would let a sender choose where the key comes from (RFC 8725 §3.10) or what we must understand.
FORBIDDEN_MEMBERS = ("crit", "jku", "x5u", "x5c", "b64")


class JwsInvalid(ValueError):
    """The text says what is wrong, for the one who made the signature; it never repeats what was sent."""


class JwsHeader(Struct, frozen=True, kw_only=True):
    """The protected header, checked."""

    alg: str
    typ: str | None
    kid: str | None
    #: the embedded key; only proofs may have one
    key: VerificationKey | None


class Jws(Struct, frozen=True, kw_only=True):
    """A compact JWS taken apart; nothing is verified yet."""

    header: JwsHeader
    claims: dict[str, Any]
    signed: bytes
    signature: bytes


def parse(token: str) -> Jws:
    """The parts of `token`, or JwsInvalid."""
    if len(token) > LENGTH_MAX:
        raise JwsInvalid(f"it is longer than {LENGTH_MAX} characters")
    parts = token.split(".")
    if len(parts) != 3 or not token.isascii():
        raise JwsInvalid("it is not a signed JWT in compact form")
    header, claims, signature = parts
    return Jws(
        header=read_header(header),
        claims=_read_object(_decode(claims)),
        signed=f"{header}.{claims}".encode(),
        signature=_decode(signature),
    )


@lru_cache(maxsize=4096)
def read_header(segment: str) -> JwsHeader:
    """The header behind its base64url text; a client sends the same one each time, so it is remembered."""
    members = _read_object(_decode(segment))
    for name in FORBIDDEN_MEMBERS:
        if name in members:
            raise JwsInvalid(f"its header must not contain {name}")
    alg, typ, kid, jwk = (members.get(name) for name in ("alg", "typ", "kid", "jwk"))
    # FAPI 2.0 §5.4.1: these three and no other; `none` and HMAC are not among them.
    if alg not in ALGORITHMS:
        raise JwsInvalid(f"its alg must be one of {', '.join(ALGORITHMS)}")
    if not isinstance(typ, str | None) or not isinstance(kid, str | None) or not isinstance(jwk, dict | None):
        raise JwsInvalid("its header has a member of the wrong type")
    return JwsHeader(alg=alg, typ=typ, kid=kid, key=None if jwk is None else _embedded(jwk, alg))


def convert(claims: dict[str, Any], kind: type[T]) -> T:
    """The claims as `kind`, or JwsInvalid naming the one that is missing or wrong."""
    try:
        return msgspec.convert(claims, kind)
    except msgspec.ValidationError as mistake:
        raise JwsInvalid(f"its claims are wrong: {mistake}") from None


def _embedded(jwk: dict[str, Any], alg: str) -> VerificationKey:
    try:
        key = read_jwk(jwk)
    except Unprocessable as refusal:
        raise JwsInvalid(f"its jwk is refused: {refusal.sentence()}") from None
    if key.alg != alg:
        raise JwsInvalid("its alg does not fit its jwk")
    return key


def _decode(segment: str) -> bytes:
    try:
        return decode(segment)
    except ValueError:
        raise JwsInvalid("a part of it is not base64url without padding") from None


def _read_object(data: bytes) -> dict[str, Any]:
    try:
        value = _JSON.decode(data.decode())
    except JwsInvalid:
        raise
    except (ValueError, RecursionError):
        raise JwsInvalid("a part of it is not JSON") from None
    if not isinstance(value, dict):
        raise JwsInvalid("a part of it is not a JSON object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # RFC 7515 §5.2 and RFC 7519 §4: of a repeated name, two readers may see different values.
    members = dict(pairs)
    if len(members) != len(pairs):
        raise JwsInvalid("it names a JSON member twice")
    return members


def _not_a_number(name: str) -> NoReturn:
    raise JwsInvalid("it contains a number JSON does not have")


_JSON = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_not_a_number)
