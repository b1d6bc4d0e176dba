"""The token endpoint: who the client is, whether it holds its key, and what its token will allow.

Refusals are returned, not raised: an assertion or proof that was used in a refused request stays used.
"""

import secrets
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import get_args

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from kernel.database import Connection
from kernel.one_time import use_once
from partners.oauth import rules
from partners.oauth.jws import Jws, JwsInvalid
from partners.oauth.keys import Signer
from partners.oauth.model import (
    TOKEN_SECONDS,
    AccessClaims,
    Confirmation,
    Proof,
    TokenForm,
    TokenIssued,
    TokenRefused,
)
from partners.oauth.rules import RequestRefused
from partners.registry.jwk import Algorithm, VerificationKey, encode, read_jwk
from partners.registry.model import Client
from partners.registry.service import find_client

TOKEN_PATH = "/oauth2/token"
RESOURCE_PATH = "/v1"
# How long a used identifier is remembered beyond the last moment it could be accepted.
MEMORY = timedelta(seconds=60)
PROOF_MEMORY = timedelta(seconds=rules.PROOF_SECONDS + rules.FUTURE_SECONDS) + MEMORY


async def request_token(
    connection: Connection,
    *,
    body: bytes,
    content_type: str,
    proofs: list[str],
    signer: Signer,
    base_url: str,
    livemode: bool,
    now: datetime,
) -> TokenIssued | TokenRefused:
    """A token bound to the key of the proof (RFC 6749 §4.4, RFC 7523 §2.2, RFC 9449 §5), or why not."""
    try:
        form = rules.read_form(body, content_type)
        check_grant_type(form.grant_type)
        client = await _authenticate(connection, form, issuer=signer.issuer, now=now)
        proof = await _prove(connection, proofs, base_url=base_url, now=now)
        check_may_ask(client)
        rules.check_resource(form.resource, resource=base_url + RESOURCE_PATH)
        scope = " ".join(rules.choose_scope(form.scope, client.scopes))
    except RequestRefused as refused:
        return TokenRefused(status=refused.status, error=refused.error, description=refused.description)
    claims = _claims(client, proof, scope, signer.issuer, base_url, livemode=livemode, now=now)
    return TokenIssued(access_token=signer.sign(msgspec.to_builtins(claims), typ="at+jwt"), scope=scope)


def check_grant_type(grant_type: str | None) -> None:
    if grant_type is None:
        raise RequestRefused("invalid_request", "grant_type is missing")
    if grant_type != "client_credentials":
        raise RequestRefused("unsupported_grant_type", "this server grants client_credentials")


def check_may_ask(client: Client) -> None:
    if client.partner_status != "live":
        raise RequestRefused("unauthorized_client", "the partner is not live")
    if client.app_status != "active":
        raise RequestRefused("unauthorized_client", "the app is not active")


async def _authenticate(connection: Connection, form: TokenForm, *, issuer: str, now: datetime) -> Client:
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


def _verifies(jws: Jws, client: Client | None) -> bool:
    """Whether one of the client's keys made the signature; a stranger's costs the same work and the same time."""
    jwk = None if client is None else client.keys.get(jws.header.kid or "")
    key = None if jwk is None else read_jwk(jwk)
    if key is None or key.alg != jws.header.alg:
        decoy(jws.header.alg).verifies(jws.signature, jws.signed)
        return False
    return key.verifies(jws.signature, jws.signed)


async def _prove(connection: Connection, proofs: list[str], *, base_url: str, now: datetime) -> Proof:
    # RFC 9449 §4.3 step 1
    if len(proofs) != 1:
        raise RequestRefused("invalid_dpop_proof", "send exactly one DPoP header")
    url = rules.normal_url(base_url + TOKEN_PATH)
    assert url is not None, "the base URL is not a URL"
    try:
        proof = rules.check_proof(proofs[0], method="POST", url=url, now=now.timestamp())
    except JwsInvalid as invalid:
        raise RequestRefused("invalid_dpop_proof", f"DPoP proof: {invalid}") from None
    scope, expires_at = proof_scope(proof), now + PROOF_MEMORY
    if not await use_once(connection, scope=scope, identifier=proof.jti, expires_at=expires_at):
        raise RequestRefused("invalid_dpop_proof", "DPoP proof: its jti was used before")
    return proof


def proof_scope(proof: Proof) -> str:
    """Identifiers are one-time for each key, so nobody can use up another's."""
    return f"proof:{proof.jkt}"


def _claims(
    client: Client, proof: Proof, scope: str, issuer: str, base_url: str, *, livemode: bool, now: datetime
) -> AccessClaims:
    issued_at = int(now.timestamp())
    return AccessClaims(
        iss=issuer,
        aud=base_url + RESOURCE_PATH,
        sub=client.client_id,
        client_id=client.client_id,
        jti=secrets.token_urlsafe(16),
        iat=issued_at,
        nbf=issued_at,
        exp=issued_at + TOKEN_SECONDS,
        scope=scope,
        cnf=Confirmation(jkt=proof.jkt),
        livemode=livemode,
        pse=client.epoch,
    )


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
