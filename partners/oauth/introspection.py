"""What a client may ask of its own tokens: whether they are good (RFC 7662), and that they be good no longer (RFC 7009).

Both are answered from the database, so an answer is never older than the question. Of anybody else's token, of an
unknown or an ended one, nothing is told but that it is not active.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

from msgspec import to_builtins

from kernel.database import Connection
from kernel.errors import Absent
from kernel.ids import from_wire, to_wire
from kernel.sender import NOBODY, Sender
from kernel.vault import sha256
from partners.oauth import flow_queries, grants, refresh_queries, rules
from partners.oauth.client_authentication import REQUESTS_PER_MINUTE, authenticate_client
from partners.oauth.details import to_claims
from partners.oauth.exchange import IDLE, SECRET_LENGTH_MAX, end_origin, scopes_left
from partners.oauth.jws import LENGTH_MAX, JwsInvalid, convert
from partners.oauth.keys import Signer
from partners.oauth.model import AccessClaims, TokenQuestion, TokenRefused
from partners.oauth.refresh_queries import StoredRefresh
from partners.oauth.revocations import revocation_subjects
from partners.oauth.rules import RequestRefused
from partners.registry.model import Client

INTROSPECTION_PATH = "/oauth2/introspect"
REVOCATION_PATH = "/oauth2/revoke"
INACTIVE: dict[str, Any] = {"active": False}


async def introspect_token(
    connection: Connection,
    *,
    body: bytes,
    content_type: str,
    signer: Signer,
    sender: Sender = NOBODY,
    requests_per_minute: int = REQUESTS_PER_MINUTE,
    now: datetime,
) -> dict[str, Any] | TokenRefused:
    """The answer of RFC 7662 §2.2 about one of the client's own tokens."""
    try:
        client, token = await _ask(connection, body, content_type, signer, sender, requests_per_minute, now)
    except RequestRefused as refused:
        return refused.outcome()
    if client.partner_status != "live" or client.app_status != "active":
        return INACTIVE
    claims = _own_claims(token, client, signer)
    if claims is not None:
        return await _tell_access(connection, claims, client, now)
    stored = await _own_refresh(connection, token, client)
    return INACTIVE if stored is None else await _tell_refresh(connection, stored, client, signer, now)


async def revoke_token(
    connection: Connection,
    *,
    body: bytes,
    content_type: str,
    signer: Signer,
    sender: Sender = NOBODY,
    requests_per_minute: int = REQUESTS_PER_MINUTE,
    now: datetime,
) -> TokenRefused | None:
    """End one of the client's own tokens or grants; None also when there was nothing to end (RFC 7009 §2.2).

    A suspended partner may revoke too. Ending a refresh token ends the access tokens that came with it; the id of a
    grant in place of a token ends the grant with all its tokens.
    """
    try:
        client, token = await _ask(connection, body, content_type, signer, sender, requests_per_minute, now)
    except RequestRefused as refused:
        return refused.outcome()
    claims = _own_claims(token, client, signer)
    if claims is not None:
        await grants.revoke(connection, [f"token:{claims.jti}"], now=now)
        return None
    stored = await _own_refresh(connection, token, client)
    if stored is not None:
        await end_origin(connection, stored.origin, now=now)
        return None
    grant_id = _read_grant_id(token)
    if grant_id is not None:
        await grants.withdraw_grant(connection, partner_id=client.partner_id, grant_id=grant_id, now=now)
    return None


async def _ask(
    connection: Connection,
    body: bytes,
    content_type: str,
    signer: Signer,
    sender: Sender,
    requests_per_minute: int,
    now: datetime,
) -> tuple[Client, str]:
    form = rules.read_parameters(body, content_type, TokenQuestion)
    client = await authenticate_client(
        connection,
        form,
        issuer=signer.issuer,
        sender=sender,
        requests_per_minute=requests_per_minute,
        now=now,
    )
    if form.token is None:
        raise RequestRefused("invalid_request", "token is missing")
    return client, form.token


def _own_claims(token: str, client: Client, signer: Signer) -> AccessClaims | None:
    if len(token) > LENGTH_MAX:
        return None
    try:
        claims = convert(signer.verify(token, "at+jwt"), AccessClaims)
    except JwsInvalid:
        return None
    return claims if claims.iss == signer.issuer and claims.client_id == client.client_id else None


async def _own_refresh(connection: Connection, token: str, client: Client) -> StoredRefresh | None:
    if len(token) > SECRET_LENGTH_MAX or not token.isascii():
        return None
    stored = await refresh_queries.find_refresh(connection, sha256(token))
    return stored if stored is not None and stored.client_id == client.client_id else None


def _read_grant_id(token: str) -> UUID | None:
    try:
        return from_wire("grt", token)
    except Absent:
        return None


async def _tell_access(
    connection: Connection, claims: AccessClaims, client: Client, now: datetime
) -> dict[str, Any]:
    if claims.exp <= now.timestamp() or claims.pse != client.epoch:
        return INACTIVE
    if await flow_queries.list_revoked(connection, revocation_subjects(claims), now=now):
        return INACTIVE
    if claims.grant_id is not None:
        grant = await grants.find_grant(
            connection, partner_id=client.partner_id, grant_id=from_wire("grt", claims.grant_id), now=now
        )
        if grant is None:
            return INACTIVE
    answer: dict[str, Any] = {
        "active": True,
        "scope": " ".join(scope for scope in claims.scope.split() if scope in client.scopes),
        "client_id": claims.client_id,
        "token_type": "DPoP" if claims.cnf.jkt else "Bearer",
        "exp": claims.exp,
        "iat": claims.iat,
        "nbf": claims.nbf,
        "sub": claims.sub,
        "aud": claims.aud,
        "iss": claims.iss,
        "jti": claims.jti,
        "cnf": to_builtins(claims.cnf),
        "grant_id": claims.grant_id,
        "authorization_details": claims.authorization_details,
    }
    return {name: value for name, value in answer.items() if value is not None}


async def _tell_refresh(
    connection: Connection, stored: StoredRefresh, client: Client, signer: Signer, now: datetime
) -> dict[str, Any]:
    if stored.revoked_at is not None or stored.used_at <= now - IDLE:
        return INACTIVE
    grant = await grants.find_grant(
        connection, partner_id=client.partner_id, grant_id=stored.consent_id, now=now
    )
    if grant is None:
        return INACTIVE
    answer: dict[str, Any] = {
        "active": True,
        "scope": " ".join(scopes_left(grant, client, stored.scopes)),
        "client_id": stored.client_id,
        "exp": int(min(grant.ends_at, stored.used_at + IDLE).timestamp()),
        "iat": int(stored.issued_at.timestamp()),
        "sub": stored.sub,
        "iss": signer.issuer,
        "grant_id": to_wire("grt", grant.id),
        "authorization_details": to_claims(grant.authorization_details) or None,
    }
    return {name: value for name, value in answer.items() if value is not None}
