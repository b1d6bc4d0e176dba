"""The token endpoint: who the client is, whether it holds its key, and what its token will allow.

Refusals are returned, not raised: an assertion or proof that was used in a refused request stays used.
"""

import secrets
from datetime import datetime, timedelta

import msgspec

from kernel.database import Connection
from kernel.one_time import use_once
from partners.oauth import rules
from partners.oauth.client_authentication import MEMORY, authenticate_client, check_may_ask
from partners.oauth.jws import JwsInvalid
from partners.oauth.keys import Signer
from partners.oauth.model import (
    TOKEN_SECONDS,
    AccessClaims,
    Confirmation,
    Proof,
    TokenIssued,
    TokenRefused,
)
from partners.oauth.rules import RequestRefused
from partners.registry.model import Client

TOKEN_PATH = "/oauth2/token"
RESOURCE_PATH = "/v1"
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
        client = await authenticate_client(connection, form, issuer=signer.issuer, now=now)
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
