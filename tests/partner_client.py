"""A partner's side of authentication, made with PyJWT alone: it shares no code with what it tests."""

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


class _Drop:
    def __repr__(self) -> str:
        return "DROP"


DROP = _Drop()


def generate(alg: str) -> Any:
    """A private key for `alg`."""
    match alg:
        case "ES256":
            return ec.generate_private_key(ec.SECP256R1())
        case "EdDSA":
            return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(65537, 2048)


def private_jwk(alg: str, key: Any) -> dict[str, Any]:
    jwk = jwt.get_algorithm_by_name(alg).to_jwk(key, as_dict=True)
    return {name: value for name, value in dict(jwk).items() if name != "key_ops"}


def public_jwk(alg: str, key: Any) -> dict[str, Any]:
    return private_jwk(alg, key.public_key()) | {"alg": alg, "use": "sig"}


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def merge(good: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`good` with `changes`; DROP takes a member away."""
    return {name: value for name, value in {**good, **changes}.items() if value is not DROP}


class PartnerClient:
    """Keys and name of one app; every method takes changes by which a test makes it misbehave."""

    def __init__(self, *, client_id: str, issuer: str, alg: str = "ES256", kid: str = "k1", key: Any = None):
        self.client_id = client_id
        self.issuer = issuer
        self.alg = alg
        self.kid = kid
        self.key = key or generate(alg)
        self.proof_alg = "ES256"
        self.proof_key: Any = generate("ES256")

    @property
    def public_jwk(self) -> dict[str, Any]:
        return {**public_jwk(self.alg, self.key), "kid": self.kid}

    def claims(self, now: datetime, **changes: Any) -> dict[str, Any]:
        moment = int(now.timestamp())
        good = {
            "iss": self.client_id,
            "sub": self.client_id,
            "aud": self.issuer,
            "jti": secrets.token_urlsafe(16),
            "iat": moment,
            "exp": moment + 60,
        }
        return merge(good, changes)

    def assertion(
        self,
        now: datetime,
        *,
        headers: Mapping[str, Any] | None = None,
        alg: str | None = None,
        key: Any = None,
        **changes: Any,
    ) -> str:
        return jwt.encode(
            self.claims(now, **changes),
            key or self.key,
            algorithm=alg or self.alg,
            headers={"kid": self.kid, **(headers or {})},
        )

    def form(self, now: datetime, **changes: Any) -> bytes:
        good = {
            "grant_type": "client_credentials",
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": self.assertion(now) if "client_assertion" not in changes else "",
        }
        return urlencode(merge(good, changes), doseq=True).encode()

    def proof(
        self,
        method: str,
        url: str,
        now: datetime,
        *,
        token: str | None = None,
        headers: Mapping[str, Any] | None = None,
        key: Any = None,
        **changes: Any,
    ) -> str:
        good: dict[str, Any] = {
            "jti": secrets.token_urlsafe(16),
            "htm": method,
            "htu": url,
            "iat": int(now.timestamp()),
        }
        if token is not None:
            good["ath"] = b64(hashlib.sha256(token.encode()).digest())
        jwk = public_jwk(self.proof_alg, self.proof_key)
        header = {"typ": "dpop+jwt", "jwk": jwk, **(headers or {})}
        return jwt.encode(
            merge(good, changes), key or self.proof_key, algorithm=self.proof_alg, headers=header
        )


def forge(header: Any, claims: Any, signature: bytes = b"") -> str:
    """A compact JWS of any content; a text is taken as the JSON itself."""
    parts = [part if isinstance(part, str) else json.dumps(part) for part in (header, claims)]
    return ".".join([*(b64(part.encode()) for part in parts), b64(signature)])


def forge_hs256(header: Mapping[str, Any], claims: Mapping[str, Any], secret: bytes) -> str:
    """The confusion attack: the public key taken for a shared secret."""
    signed = forge({**header, "alg": "HS256"}, claims).rpartition(".")[0]
    return f"{signed}.{b64(hmac.digest(secret, signed.encode(), 'sha256'))}"
