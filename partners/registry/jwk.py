"""Public keys as JSON Web Keys: which ones are accepted, what they verify, and their thumbprint."""

import base64
import binascii
import hashlib
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from msgspec import Struct

from kernel.errors import Unprocessable

Algorithm = Literal["ES256", "PS256", "EdDSA"]
ALGORITHMS: tuple[Algorithm, ...] = ("ES256", "PS256", "EdDSA")

PRIVATE_MEMBERS = frozenset(("d", "p", "q", "dp", "dq", "qi", "oth", "k"))
RSA_BITS_MIN = 2048
RSA_BITS_MAX = 4096

_ECDSA = ec.ECDSA(SHA256())
# RFC 7518 §3.5: the salt is as long as the hash.
_PSS = padding.PSS(padding.MGF1(SHA256()), salt_length=32)


class PrivateKeySent(Unprocessable):
    """The key contains private members; send the public half only, and replace this key, for it is no longer secret."""


class KeyNotSupported(Unprocessable):
    """The key must be EC on P-256 (ES256), OKP Ed25519 (EdDSA) or RSA of 2048 to 4096 bits (PS256), as a valid JWK."""


class KeyNotForSigning(Unprocessable):
    """The key's `use`, `key_ops` or `alg` says that it does not verify signatures of its kind."""


class VerificationKey(Struct, frozen=True, kw_only=True):
    """A public key, ready to verify."""

    alg: Algorithm
    #: RFC 7638, SHA-256, base64url
    thumbprint: str
    #: the members that make the key, nothing else
    members: dict[str, str]
    public: Any

    def verifies(self, signature: bytes, signed: bytes) -> bool:
        """Whether `signature` over `signed` was made with the private half."""
        try:
            if isinstance(self.public, ec.EllipticCurvePublicKey):
                # RFC 7518 §3.4: R and S, 32 bytes each.
                if len(signature) != 64:
                    return False
                r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
                self.public.verify(encode_dss_signature(r, s), signed, _ECDSA)
            elif isinstance(self.public, ed25519.Ed25519PublicKey):
                self.public.verify(signature, signed)
            else:
                self.public.verify(signature, signed, _PSS, SHA256())
        except InvalidSignature:
            return False
        return True


def read_jwk(jwk: Mapping[str, Any]) -> VerificationKey:
    """The key behind `jwk`, or why it is not accepted."""
    if PRIVATE_MEMBERS & jwk.keys():
        raise PrivateKeySent
    match jwk:
        case {"kty": "EC", "crv": "P-256", "x": str(x), "y": str(y)}:
            key = _elliptic(x, y)
        case {"kty": "OKP", "crv": "Ed25519", "x": str(x)}:
            key = _edwards(x)
        case {"kty": "RSA", "n": str(n), "e": str(e)}:
            key = _rsa(n, e)
        case _:
            raise KeyNotSupported
    # RFC 7517 §4.2-4.4: the optional members narrow what the key is for.
    operations = jwk.get("key_ops", ["verify"])
    if jwk.get("use", "sig") != "sig" or jwk.get("alg", key.alg) != key.alg or operations != ["verify"]:
        raise KeyNotForSigning
    return key


def thumbprint(members: Mapping[str, str]) -> str:
    """RFC 7638 §3: SHA-256 of the required members, sorted, without white space."""
    return encode(hashlib.sha256(msgspec.json.encode(dict(sorted(members.items())))).digest())


def encode(data: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(text: str) -> bytes:
    """The bytes behind base64url without padding (RFC 7515 §2); ValueError for anything else."""
    # RFC 4648 §3.5: the bits that are left over are zero, so that no bytes have two spellings.
    if text and text[-1] not in _LAST[len(text) % 4]:
        raise ValueError("not base64url without padding")
    try:
        standard = text.encode("ascii").translate(_TO_STANDARD) + _PADDING[-len(text) % 4]
        return binascii.a2b_base64(standard, strict_mode=True) if text else b""
    except (binascii.Error, UnicodeEncodeError):
        raise ValueError("not base64url without padding") from None


#: what is standard's own becomes what neither alphabet has
_TO_STANDARD = bytes.maketrans(b"-_+/=", b"+/\0\0\0")
_PADDING = (b"", b"=", b"==", b"===")
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
#: which letter may be the last, by the length of the text modulo four
_LAST = (_LETTERS, "", _LETTERS[::16], _LETTERS[::4])


@lru_cache(maxsize=4096)
def _elliptic(x: str, y: str) -> VerificationKey:
    # RFC 7518 §6.2.1.2: coordinates have their full length.
    numbers = ec.EllipticCurvePublicNumbers(_number(x, 32), _number(y, 32), ec.SECP256R1())
    try:
        public = numbers.public_key()
    except ValueError:
        raise KeyNotSupported from None
    return _key("ES256", {"crv": "P-256", "kty": "EC", "x": x, "y": y}, public)


_SIGN = 1 << 255
_PRIME = 2**255 - 19
#: the y coordinates of the eight points of Ed25519 that vanish when they are multiplied by eight
_SMALL_ORDER = frozenset(
    (
        0,
        1,
        _PRIME - 1,
        0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
        0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7,
    )
)


@lru_cache(maxsize=4096)
def _edwards(x: str) -> VerificationKey:
    data = _number(x, 32).to_bytes(32, "big")
    # RFC 8032 §5.1.3 step 1 and §8.4: one key, one spelling; and a point of small order would verify forgeries.
    y = int.from_bytes(data, "little") & ~_SIGN
    if y >= _PRIME or y in _SMALL_ORDER:
        raise KeyNotSupported
    return _key(
        "EdDSA",
        {"crv": "Ed25519", "kty": "OKP", "x": x},
        ed25519.Ed25519PublicKey.from_public_bytes(data),
    )


@lru_cache(maxsize=4096)
def _rsa(n: str, e: str) -> VerificationKey:
    modulus, exponent = _number(n), _number(e)
    # A large exponent would make every verification slow for us.
    if not RSA_BITS_MIN <= modulus.bit_length() <= RSA_BITS_MAX or exponent.bit_length() > 32:
        raise KeyNotSupported
    try:
        public = rsa.RSAPublicNumbers(exponent, modulus).public_key()
    except ValueError:
        raise KeyNotSupported from None
    return _key("PS256", {"e": e, "kty": "RSA", "n": n}, public)


def _key(alg: Algorithm, members: dict[str, str], public: Any) -> VerificationKey:
    return VerificationKey(alg=alg, thumbprint=thumbprint(members), members=members, public=public)


def _number(text: str, length: int | None = None) -> int:
    try:
        data = decode(text)
    except ValueError:
        raise KeyNotSupported from None
    # One key, one spelling: otherwise it would have several thumbprints.
    if encode(data) != text or (length is not None and len(data) != length):
        raise KeyNotSupported
    return int.from_bytes(data, "big")
