"""Who the client is: the one place where every OAuth endpoint authenticates its caller.

RequestRefused is caught by the endpoint's service function and answered as an outcome, so that an assertion that was
used in a refused request stays used.
"""

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import get_args

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from kernel import attempts
from kernel.attempts import address_subject, use_once_counted
from kernel.database import Connection
from kernel.sender import NOBODY, Certificate, Sender
from partners.oauth import rules
from partners.oauth.jws import Jws, JwsInvalid
from partners.oauth.model import ClientForm
from partners.oauth.rules import RequestRefused
from partners.registry.access import allows
from partners.registry.client_keys import use_pending_key
from partners.registry.jwk import Algorithm, VerificationKey, encode, read_jwk
from partners.registry.model import Client
from partners.registry.service import find_client

# How long a used identifier is remembered beyond the last moment it could be accepted.
MEMORY = timedelta(seconds=60)
# What a deployment may set: good requests of one client.
REQUESTS_PER_MINUTE = 12_000


async def authenticate_client(
    connection: Connection,
    form: ClientForm,
    *,
    issuer: str,
    sender: Sender = NOBODY,
    requests_per_minute: int = REQUESTS_PER_MINUTE,
    now: datetime,
) -> Client:
    """The client behind the form's assertion (RFC 7523 §3, FAPI 2.0 §5.3.2.1) or its certificate (RFC 8705 §2.1).

    RequestRefused otherwise, and the failure is counted for the sender's address. Whether the client and its partner are
    active is the endpoint's to judge: a suspended partner may still revoke.
    """
    try:
        if form.client_assertion is None and form.client_secret is None and sender.certificate is not None:
            client = await _by_certificate(connection, form.client_id, sender.certificate)
            check_network(client, sender)
            within = await _count(connection, client, requests_per_minute, now=now)
        else:
            client, within = await _by_assertion(
                connection,
                form,
                issuer=issuer,
                sender=sender,
                requests_per_minute=requests_per_minute,
                now=now,
            )
    except RequestRefused:
        await attempts.count(connection, address_subject(sender.network()), failures=1, now=now)
        raise
    if not within:
        raise too_many_requests(now)
    return client


def check_network(client: Client, sender: Sender) -> None:
    """Whether the client may be used from there: asked once it is known to be the client, and before anything is used up."""
    if not allows(client.ip_allow, sender.address):
        raise RequestRefused(
            "unauthorized_client",
            "ip_not_allowed: the app may be used from the networks it has registered",
            status=403,
        )


async def _by_certificate(connection: Connection, client_id: str | None, certificate: Certificate) -> Client:
    known = client_id is not None and rules.CLIENT_ID.fullmatch(client_id) is not None
    client = await find_client(connection, client_id) if known and client_id is not None else None
    # RFC 8705 §2.1.2: one registered subject, compared exactly; and, where some are pinned, one of those certificates.
    if (
        client is None
        or client.certificate_subject is None
        or not certificate.answers_to(client.certificate_subject)
        or (client.certificate_thumbprints and certificate.thumbprint not in client.certificate_thumbprints)
    ):
        raise RequestRefused("invalid_client", "the certificate is not one of this client", status=401)
    return client


async def _count(connection: Connection, client: Client, requests_per_minute: int, *, now: datetime) -> bool:
    counted = await attempts.count(connection, f"client:{client.client_id}", requests=1, now=now)
    return counted.requests <= requests_per_minute


async def _by_assertion(
    connection: Connection,
    form: ClientForm,
    *,
    issuer: str,
    sender: Sender,
    requests_per_minute: int,
    now: datetime,
) -> tuple[Client, bool]:
    """The client, and whether it is within its limit."""
    try:
        jws, claims = rules.read_assertion(form)
        known = rules.CLIENT_ID.fullmatch(claims.iss) is not None
        client = await find_client(connection, claims.iss) if known else None
        if not _verifies(jws, client) or client is None:
            raise JwsInvalid("it does not verify with a registered key of this client")
        rules.check_assertion(claims, issuer=issuer, now=now.timestamp())
    except JwsInvalid as invalid:
        raise RequestRefused("invalid_client", f"client_assertion: {invalid}", status=401) from None
    check_network(client, sender)
    expires_at = datetime.fromtimestamp(claims.exp, UTC) + MEMORY
    first, within = await use_once_counted(
        connection,
        scope=f"assertion:{client.client_id}",
        identifier=claims.jti,
        expires_at=expires_at,
        subject=f"client:{client.client_id}",
        limit=requests_per_minute,
        now=now,
    )
    if not first:
        raise RequestRefused("invalid_client", "client_assertion: its jti was used before", status=401)
    kid = jws.header.kid or ""
    # A key that was revoked since it was looked up is none: it must not become active by this very assertion.
    if kid in client.pending and not await use_pending_key(
        connection, app_id=client.app_id, kid=kid, now=now
    ):
        raise RequestRefused("invalid_client", "client_assertion: its key was revoked", status=401)
    return client, within


def too_many_requests(now: datetime) -> RequestRefused:
    seconds = attempts.seconds_left(now)
    return RequestRefused(
        "temporarily_unavailable",
        f"the client has used up its requests of this minute; try again in {seconds} s",
        status=429,
        retry_after_seconds=seconds,
    )


def check_may_ask(client: Client) -> None:
    """Whether the client may have anything new at this moment."""
    if client.partner_status != "live":
        raise RequestRefused("unauthorized_client", "the partner is not live")
    if client.app_status != "active":
        raise RequestRefused("unauthorized_client", "the app is not active")


def _verifies(jws: Jws, client: Client | None) -> bool:
    """Whether one of the client's keys made the signature; a stranger's costs the same work and the same time."""
    kid = jws.header.kid or ""
    jwk = None if client is None else client.keys.get(kid) or client.pending.get(kid)
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
