"""The keys the bank signs with: kept sealed in the database, published as a JWK set, loaded by every process.

A process looks every few seconds whether they have changed (`Signer.reload`); partners/oauth/rotation.py changes them.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from msgspec import Struct

from kernel.database import Connection
from kernel.errors import Conflict
from kernel.vault import Vault
from partners.oauth import queries
from partners.oauth.jws import JwsInvalid, parse
from partners.registry.jwk import VerificationKey, encode, read_jwk

_ECDSA = ec.ECDSA(SHA256())

SigningStatus = Literal["pending", "active", "retiring", "retired"]


class SigningKeyNotStaged(Conflict):
    """No key of this name is waiting to be used."""


class SigningKey(Struct, frozen=True, kw_only=True):
    """One key pair of the bank."""

    kid: str
    status: SigningStatus
    private: ec.EllipticCurvePrivateKey
    public_jwk: dict[str, str]

    def __repr__(self) -> str:
        return f"SigningKey({self.kid}, {self.status})"


class Signer:
    """Signs with the active key, verifies what any published key signed."""

    def __init__(self, *, issuer: str, keys: Sequence[SigningKey]) -> None:
        self.issuer = issuer
        self._use(keys)

    def _use(self, keys: Sequence[SigningKey]) -> None:
        self._states = [(key.kid, str(key.status)) for key in keys]
        self._active = next(key for key in keys if key.status == "active")
        self._publish({key.kid: key.public_jwk for key in keys})

    def _publish(self, keys: Mapping[str, dict[str, str]]) -> None:
        self._public: dict[str, VerificationKey] = {kid: read_jwk(jwk) for kid, jwk in keys.items()}
        self._published = list(keys.values())

    @property
    def kid(self) -> str:
        return self._active.kid

    async def reload(self, connection: Connection, vault: Vault) -> bool:
        """Take over what has changed since; True when something had.

        Where the vault cannot open what there is, signing goes on with the key at hand; what was taken back is gone.
        """
        if await queries.list_signing_key_states(connection) == self._states:
            return False
        stored = await queries.list_signing_keys(connection)
        self._publish({key.kid: key.public_jwk for key in stored})
        self._use([open_key(vault, key) for key in stored])
        return True

    def sign(self, claims: dict[str, Any], *, typ: str) -> str:
        """A compact JWS over `claims`, ES256, with `typ` and `kid` in its header."""
        header = {"alg": "ES256", "typ": typ, "kid": self._active.kid}
        signed = f"{encode(msgspec.json.encode(header))}.{encode(msgspec.json.encode(claims))}"
        r, s = decode_dss_signature(self._active.private.sign(signed.encode(), _ECDSA))
        # RFC 7518 §3.4: R and S, 32 bytes each.
        return f"{signed}.{encode(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"

    def sign_bytes(self, data: bytes) -> bytes:
        """The active key's signature over `data`, R and S of 32 bytes each (RFC 9421 §3.3.4)."""
        r, s = decode_dss_signature(self._active.private.sign(data, ec.ECDSA(SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    def verify(self, token: str, typ: str) -> dict[str, Any]:
        """The claims of a JWS this deployment signed as `typ`; JwsInvalid for any other. Claims are the caller's to judge."""
        jws = parse(token)
        key = self._public.get(jws.header.kid or "")
        # RFC 8725 §3.11: one kind of token never passes for another.
        if jws.header.typ != typ or jws.header.alg != "ES256" or jws.header.key is not None:
            raise JwsInvalid(f"it is not a token of type {typ}")
        if key is None or not key.verifies(jws.signature, jws.signed):
            raise JwsInvalid("its signature is not ours")
        return jws.claims

    def jwks(self) -> dict[str, Any]:
        """The public keys (RFC 7517 §5), the next one included, so that nobody meets it unprepared."""
        return {"keys": self._published}


async def load_signer(connection: Connection, vault: Vault, issuer: str, now: datetime) -> Signer:
    """The signer with all keys in use; a new deployment makes its first, and of several processes one wins."""
    if not await queries.list_signing_keys(connection):
        await insert_key(connection, vault, status="active", now=now)
    stored = await queries.list_signing_keys(connection)
    return Signer(issuer=issuer, keys=[open_key(vault, key) for key in stored])


async def stage_signing_key(connection: Connection, vault: Vault, *, now: datetime) -> str:
    """Publish the next key without signing with it yet; returns its kid."""
    return await insert_key(connection, vault, status="pending", now=now)


async def promote_signing_key(connection: Connection, kid: str, *, now: datetime | None = None) -> None:
    """Sign with the staged key; the one before stays published."""
    if kid not in {key.kid for key in await queries.list_signing_keys(connection) if key.status == "pending"}:
        raise SigningKeyNotStaged
    await queries.move_signing_keys(connection, present="active", wanted="retiring", now=now)
    await queries.move_signing_key(connection, kid, present="pending", wanted="active", now=now)


async def insert_key(connection: Connection, vault: Vault, *, status: SigningStatus, now: datetime) -> str:
    """A new pair; returns its kid."""
    private = ec.generate_private_key(ec.SECP256R1())
    numbers = private.private_numbers()
    x, y = (encode(n.to_bytes(32, "big")) for n in (numbers.public_numbers.x, numbers.public_numbers.y))
    members = {"kty": "EC", "crv": "P-256", "x": x, "y": y}
    kid = read_jwk(members).thumbprint
    private_jwk = {**members, "d": encode(numbers.private_value.to_bytes(32, "big"))}
    await queries.insert_signing_key(
        connection,
        kid=kid,
        private_jwk=vault.encrypt(msgspec.json.encode(private_jwk).decode(), **_place(kid)),
        public_jwk={**members, "kid": kid, "alg": "ES256", "use": "sig"},
        status=status,
        now=now,
    )
    return kid


def open_key(vault: Vault, stored: queries.StoredKey) -> SigningKey:
    """The stored pair with its private half unsealed."""
    private = jwt.PyJWK.from_json(vault.decrypt(stored.private_jwk, **_place(stored.kid)), "ES256").key
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    return SigningKey(
        kid=stored.kid,
        status=stored.status,
        private=private,
        public_jwk=stored.public_jwk,
    )


def _place(kid: str) -> dict[str, str]:
    return {"table": "oauth_signing_key", "column": "private_jwk", "row": kid}
