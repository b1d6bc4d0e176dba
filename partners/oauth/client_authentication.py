"""Who the client is: the one place where every OAuth endpoint authenticates its caller.

RequestRefused is caught by the endpoint's service function and answered as an outcome, so that an assertion that was
used in a refused request stays used.
"""

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import get_args

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from kernel.database import Connection
from kernel.one_time import use_once
from partners.oauth import rules
from partners.oauth.jws import Jws, JwsInvalid
from partners.oauth.model import ClientForm
from partners.oauth.rules import RequestRefused
from partners.registry.jwk import Algorithm, VerificationKey, encode, read_jwk
from partners.registry.model import Client
from partners.registry.service import find_client

# How long a used identifier is remembered beyond the last moment it could be accepted.
MEMORY = timedelta(seconds=60)


async def authenticate_client(
    connection: Connection, form: ClientForm, *, issuer: str, now: datetime
) -> Client:
    """The client behind the form's assertion (RFC 7523 §3, FAPI 2.0 §5.3.2.1), or RequestRefused with invalid_client.

    Whether the client and its partner are active is the endpoint's to judge: a suspended partner may still revoke.
    """
    try:
        jws, claims = rules.read_assertion(form)
        known = rules.CLIENT_ID.fullmatch(claims.iss) is not None
        client = await find_client(connection, claims.iss) if known else None
        if not _verifies(jws, client) or client is None:
            raise JwsInvalid("it does not verify with a registered key of this client")
        rules.check_assertion(claims, issuer=issuer, now=now.timestamp())
    except JwsInvalid as invalid:
        raise RequestRefused("invalid_client", f"client_assertion: {invalid}", status=401) from None
    expires_at = datetime.fromtimestamp(claims.exp, UTC) + MEMORY
    scope = f"assertion:{client.client_id}"
    if not await use_once(connection, scope=scope, identifier=claims.jti, expires_at=expires_at):
        raise RequestRefused("invalid_client", "client_assertion: its jti was used before", status=401)
    return client


def check_may_ask(client: Client) -> None:
    """Whether the client may have anything new at this moment."""
    if client.partner_status != "live":
        raise RequestRefused("unauthorized_client", "the partner is not live")
    if client.app_status != "active":
        raise RequestRefused("unauthorized_client", "the app is not active")


def _verifies(jws: Jws, client: Client | None) -> bool:
    """Whether one of the client's keys made the signature; a stranger's costs the same work and the same time."""
    jwk = None if client is None else client.keys.get(jws.header.kid or "")
    key = None if jwk is None else read_jwk(jwk)
    if key is None or key.alg != jws.header.alg:
        decoy(jws.header.alg).verifies(jws.signature, jws.signed)
        return False
    return key.verifies(jws.signature, jws.signed)


@cache
def decoy(alg: str) -> VerificationKey:
    """A key nobody has the private half of, to verify strangers' signatures with."""
    assert alg in get_args(Algorithm)
    match alg:
        case "ES256":
            point = ec.generate_private_key(ec.SECP256R1()).public_key().public_numbers()
            members = {"kty": "EC", "crv": "P-256", "x": _encode(point.x), "y": _encode(point.y)}
        case "EdDSA":
            public = ed25519.Ed25519PrivateKey.generate().public_key()
            members = {"kty": "OKP", "crv": "Ed25519", "x": encode(public.public_bytes_raw())}
        case _:
            modulus = rsa.generate_private_key(65537, 2048).public_key().public_numbers().n
            members = {"kty": "RSA", "n": encode(modulus.to_bytes(256, "big")), "e": "AQAB"}
    return read_jwk(members)


def _encode(coordinate: int) -> str:
    return encode(coordinate.to_bytes(32, "big"))
