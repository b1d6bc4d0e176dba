"""The partner file: who the partner is, where the platform is, and the private key to sign with."""

import base64
from pathlib import Path
from typing import Any, Self

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from msgspec import Struct


class CredentialsUnreadable(Exception):
    """The credentials file is missing or not one of ours; the text names it."""


class SandboxMember(Struct, frozen=True, kw_only=True):
    """A member the partner may try things with."""

    #: the partner's own name for the member
    sub: str
    bank_level: str
    shop_level: str


class Credentials(Struct, frozen=True, kw_only=True):
    """The partner file: who the partner is, where the platform is, and the private key."""

    base_url: str
    issuer: str
    client_id: str
    kid: str
    private_jwk: dict[str, str]
    scopes: list[str]
    webhook_secret: str
    members: list[SandboxMember] = []


def read_credentials(path: Path) -> Credentials:
    """The partner file at `path`."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Credentials)
    except OSError as fault:
        raise CredentialsUnreadable(f"{path} cannot be read: {fault.strerror}") from None
    except msgspec.DecodeError as fault:
        raise CredentialsUnreadable(f"{path} is not a partner file: {fault}") from None


class SigningKey:
    """A P-256 key that signs compact JWS with ES256."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key
        numbers = key.public_key().public_numbers()
        self.public_jwk = {
            "kty": "EC",
            "crv": "P-256",
            "x": base64url(numbers.x.to_bytes(32, "big")),
            "y": base64url(numbers.y.to_bytes(32, "big")),
        }

    @classmethod
    def generate(cls) -> Self:
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def read(cls, jwk: dict[str, str]) -> Self:
        return cls(ec.derive_private_key(int.from_bytes(unbase64url(jwk["d"]), "big"), ec.SECP256R1()))

    def private_jwk(self) -> dict[str, str]:
        return self.public_jwk | {
            "d": base64url(self._key.private_numbers().private_value.to_bytes(32, "big"))
        }

    def sign(self, header: dict[str, Any], claims: dict[str, Any]) -> str:
        """RFC 7515 §7.1, with the fixed-length signature of RFC 7518 §3.4."""
        signed = f"{base64url(msgspec.json.encode(header))}.{base64url(msgspec.json.encode(claims))}"
        return f"{signed}.{base64url(self.sign_bytes(signed.encode()))}"

    def sign_bytes(self, data: bytes) -> bytes:
        """The signature over `data`, R and S of 32 bytes each."""
        r, s = decode_dss_signature(self._key.sign(data, ec.ECDSA(SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unbase64url(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
