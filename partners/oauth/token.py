"""The token endpoint: who the client is, whether it holds its key, and what its token will allow.

Refusals are returned, not raised: an assertion, proof or code that was used in a refused request stays used.
"""

import secrets
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

import msgspec
from msgspec import Struct

from kernel.database import Connection
from kernel.one_time import use_once
from kernel.sender import NOBODY, Sender
from kernel.vault import Vault
from partners.oauth import rules
from partners.oauth.client_authentication import (
    MEMORY,
    REQUESTS_PER_MINUTE,
    authenticate_client,
    check_may_ask,
)
from partners.oauth.jws import JwsInvalid
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
from partners.registry.model import Client

TOKEN_PATH = "/oauth2/token"
RESOURCE_PATH = "/v1"
PROOF_MEMORY = timedelta(seconds=rules.PROOF_SECONDS + rules.FUTURE_SECONDS) + MEMORY


class Allowance(Struct, frozen=True, kw_only=True):
    """What a good request is given: the token's extent, and of a member's token whose it is."""

    scopes: list[str]
    #: pairwise subject; None for the client itself
    sub: str | None = None
    grant_id: str | None = None
    #: the grant's end: no token outlives it
    ends_at: datetime | None = None
    origin: str | None = None
    authorization_details: list[dict[str, Any]] | None = None
    refresh_token: str | None = None


class TokenRequest(Struct, frozen=True, kw_only=True):
    """A token request whose client and key are proved."""

    form: TokenForm
    client: Client
    proof: Proof
    #: what the token will be bound to
    bound_to: Confirmation
    now: datetime


#: what one grant type makes of a request; raises RequestRefused
Grant = Callable[[Connection, TokenRequest, Vault | None], Awaitable[Allowance]]


async def grant_client_credentials(
    _connection: Connection, request: TokenRequest, _vault: Vault | None
) -> Allowance:
    """The client's own token (RFC 6749 §4.4)."""
    return Allowance(scopes=rules.choose_scope(request.form.scope, request.client.scopes))


OWN_GRANTS: dict[str, Grant] = {"client_credentials": grant_client_credentials}


async def request_token(
    connection: Connection,
    *,
    body: bytes,
    content_type: str,
    proofs: list[str],
    signer: Signer,
    base_url: str,
    livemode: bool,
    vault: Vault | None = None,
    grants: dict[str, Grant] = OWN_GRANTS,
    sender: Sender = NOBODY,
    requests_per_minute: int = REQUESTS_PER_MINUTE,
    now: datetime,
) -> TokenIssued | TokenRefused:
    """A token bound to the key of the proof (RFC 7523 §2.2, RFC 9449 §5), or why not.

    Or to the certificate of the connection (RFC 8705 §3), where that is what the app's tokens are bound to.
    """
    try:
        form = rules.read_form(body, content_type)
        grant = find_grant_type(form.grant_type, grants)
        client = await authenticate_client(
            connection,
            form,
            issuer=signer.issuer,
            sender=sender,
            requests_per_minute=requests_per_minute,
            now=now,
        )
        proof, bound_to = await bind(connection, client, proofs, sender, url=base_url + TOKEN_PATH, now=now)
        check_may_ask(client)
        if form.grant_type not in client.grant_types:
            raise RequestRefused("unauthorized_client", "the app may not use this grant type")
        rules.check_resource(form.resource, resource=base_url + RESOURCE_PATH)
        request = TokenRequest(form=form, client=client, proof=proof, bound_to=bound_to, now=now)
        allowance = await grant(connection, request, vault)
    except RequestRefused as refused:
        return refused.outcome()
    return issue(request, allowance, signer=signer, base_url=base_url, livemode=livemode)


def issue(
    request: TokenRequest, allowance: Allowance, *, signer: Signer, base_url: str, livemode: bool
) -> TokenIssued:
    """The token, signed."""
    claims = _claims(request, allowance, signer.issuer, base_url, livemode=livemode)
    return TokenIssued(
        access_token=signer.sign(msgspec.to_builtins(claims), typ="at+jwt"),
        # RFC 8705 §3: a token that is bound to a certificate is sent as Bearer, over that certificate's connection.
        token_type="DPoP" if request.bound_to.jkt else "Bearer",
        expires_in=claims.exp - claims.iat,
        scope=claims.scope,
        refresh_token=allowance.refresh_token,
        grant_id=allowance.grant_id,
        authorization_details=allowance.authorization_details,
    )


def find_grant_type(grant_type: str | None, grants: dict[str, Grant]) -> Grant:
    if grant_type is None:
        raise RequestRefused("invalid_request", "grant_type is missing")
    grant = grants.get(grant_type)
    if grant is None:
        raise RequestRefused("unsupported_grant_type", f"this server grants {', '.join(grants)}")
    return grant


async def bind(
    connection: Connection, client: Client, proofs: list[str], sender: Sender, *, url: str, now: datetime
) -> tuple[Proof, Confirmation]:
    """What the token will be bound to: the app's policy says whether to a key or to a certificate.

    What is kept with a code or refresh token is then no key's name: the certificate may be renewed in between, and the
    client authenticates itself each time (RFC 8705 §4).
    """
    if client.token_binding == "dpop":
        proof = await prove(connection, proofs, url=url, now=now)
        return proof, Confirmation(jkt=proof.jkt)
    if proofs or sender.certificate is None:
        raise RequestRefused(
            "invalid_request",
            "this app's tokens are bound to its certificate: connect with it, and send no DPoP proof",
        )
    return Proof(jkt="certificate", jti=""), Confirmation(x5t=sender.certificate.thumbprint)


async def prove(connection: Connection, proofs: list[str], *, url: str, now: datetime) -> Proof:
    """The one proof of possession of a request to the endpoint at `url`, used up by this."""
    # RFC 9449 §4.3 step 1
    if len(proofs) != 1:
        raise RequestRefused("invalid_dpop_proof", "send exactly one DPoP header")
    normal = rules.normal_url(url)
    assert normal is not None, "the base URL is not a URL"
    try:
        proof = rules.check_proof(proofs[0], method="POST", url=normal, now=now.timestamp())
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
    request: TokenRequest, allowance: Allowance, issuer: str, base_url: str, *, livemode: bool
) -> AccessClaims:
    issued_at = int(request.now.timestamp())
    expires_at = issued_at + TOKEN_SECONDS
    if allowance.ends_at is not None:
        expires_at = min(expires_at, int(allowance.ends_at.timestamp()))
    client_id = request.client.client_id
    return AccessClaims(
        iss=issuer,
        aud=base_url + RESOURCE_PATH,
        sub=client_id if allowance.sub is None else allowance.sub,
        client_id=client_id,
        jti=secrets.token_urlsafe(16),
        iat=issued_at,
        nbf=issued_at,
        exp=expires_at,
        scope=" ".join(allowance.scopes),
        cnf=request.bound_to,
        livemode=livemode,
        pse=request.client.epoch,
        grant_id=allowance.grant_id,
        origin=allowance.origin,
        authorization_details=allowance.authorization_details,
    )
