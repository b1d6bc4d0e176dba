"""A member's tokens: a code exchanged once, and refreshed for as long as the grant stands.

A refused exchange may leave a mark, for its request is not rolled back: a code that comes a second time ends all that
came of it the first time.
"""

import secrets
from datetime import datetime, timedelta
from uuid import UUID

from kernel.caller import MemberRef
from kernel.database import Connection
from kernel.ids import to_wire
from kernel.vault import Vault, sha256
from partners.oauth import flow_queries, grants, refresh_queries, rules
from partners.oauth.details import to_claims
from partners.oauth.flow_queries import StoredCode
from partners.oauth.model import Consent, TokenForm
from partners.oauth.rules import RequestRefused
from partners.oauth.service import subject_for
from partners.oauth.token import Allowance, Grant, TokenRequest, grant_client_credentials
from partners.registry.model import Client

IDLE = timedelta(days=30)
SECRET_LENGTH_MAX = 128


async def grant_authorization_code(
    connection: Connection, request: TokenRequest, vault: Vault | None
) -> Allowance:
    """The tokens of a code (RFC 6749 §4.1.3, RFC 7636 §4.6, RFC 9449 §10): to one caller, once."""
    assert vault is not None, "subjects are made from the vault's key"
    form, client, now = request.form, request.client, request.now
    code_hash = hash_of(form.code, "code")
    stored = await flow_queries.find_code(connection, code_hash)
    check_code(stored, form, client, jkt=request.proof.jkt, now=now)
    assert stored is not None
    # RFC 6749 §4.1.2, FAPI 2.0 §5.3.2.2: a code that was used is refused, and what came of it is revoked. Parallel
    # copies meet at the conditional update, so one of them is first.
    if stored.used_at is not None or not await flow_queries.use_code(connection, code_hash, now=now):
        await end_origin(connection, stored.origin, now=now)
        raise RequestRefused("invalid_grant", "the code was used before; what was issued for it is revoked")
    document = stored.document
    grant = await find_standing(connection, client, document.grant_id, now=now)
    sub = await subject_for(
        connection,
        partner_id=client.partner_id,
        member=MemberRef(member_id=document.member_id, bucket=document.bucket),
        vault=vault,
        now=now,
    )
    refresh_token = None
    if "refresh_token" in client.grant_types:
        refresh_token = secrets.token_urlsafe(32)
        await refresh_queries.insert_refresh(
            connection,
            sha256(refresh_token),
            origin=stored.origin,
            client_id=client.client_id,
            consent_id=grant.id,
            sub=sub,
            jkt=request.proof.jkt,
            scopes=document.scopes,
            now=now,
        )
    return make_allowance(
        grant, client, document.scopes, sub=sub, origin=stored.origin, refresh_token=refresh_token
    )


def check_code(
    stored: StoredCode | None, form: TokenForm, client: Client, *, jkt: str, now: datetime
) -> None:
    """Whether this client may exchange this code here and now; whether it was used before is not asked here."""
    # RFC 6749 §4.1.3: it was issued to this client.
    if stored is None or stored.client_id != client.client_id:
        raise RequestRefused("invalid_grant", "there is no such code for this client")
    if stored.used_at is not None:
        return  # decided by the caller, who leaves a mark
    if stored.expires_at <= now:
        raise RequestRefused("invalid_grant", "the code has expired")
    # RFC 6749 §4.1.3: the same redirect_uri as in the authorization request.
    if form.redirect_uri != stored.document.redirect_uri:
        raise RequestRefused("invalid_grant", "redirect_uri is not the one of the authorization request")
    rules.check_verifier(form.code_verifier, stored.document.code_challenge)
    # RFC 9449 §10
    if stored.document.dpop_jkt not in (None, jkt):
        raise RequestRefused("invalid_grant", "the code is bound to another key than that of the proof")


async def grant_refresh_token(
    connection: Connection, request: TokenRequest, _vault: Vault | None
) -> Allowance:
    """A new access token for the same refresh token: FAPI 2.0 §5.3.2.1 forbids rotation for confidential clients."""
    form, client, now = request.form, request.client, request.now
    stored = await refresh_queries.find_refresh(connection, hash_of(form.refresh_token, "refresh_token"))
    if stored is None or stored.client_id != client.client_id or stored.jkt != request.proof.jkt:
        raise RequestRefused(
            "invalid_grant", "there is no such refresh token for this client and this DPoP key"
        )
    if not await refresh_queries.touch_refresh(connection, stored.token_hash, idle_since=now - IDLE, now=now):
        raise RequestRefused("invalid_grant", "the refresh token was revoked or was not used for too long")
    grant = await find_standing(connection, client, stored.consent_id, now=now)
    scopes = stored.scopes
    if form.scope is not None:
        scopes = rules.choose_scope(form.scope, scopes)
    return make_allowance(grant, client, scopes, sub=stored.sub, origin=stored.origin)


async def end_origin(connection: Connection, origin: UUID, *, now: datetime) -> None:
    """End everything that came of one code."""
    await refresh_queries.revoke_refresh(connection, origin, now=now)
    await grants.revoke(connection, [f"origin:{origin}"], now=now)


async def find_standing(connection: Connection, client: Client, grant_id: UUID, *, now: datetime) -> Consent:
    """The grant a token stands on, or invalid_grant."""
    grant = await grants.find_grant(connection, partner_id=client.partner_id, grant_id=grant_id, now=now)
    if grant is None:
        raise RequestRefused("invalid_grant", "the member's grant has ended")
    return grant


def scopes_left(grant: Consent, client: Client, scopes: list[str]) -> list[str]:
    """Of what was asked what the grant and the app still have."""
    return [scope for scope in scopes if scope in grant.scopes and scope in client.scopes]


def make_allowance(
    grant: Consent,
    client: Client,
    scopes: list[str],
    *,
    sub: str,
    origin: UUID,
    refresh_token: str | None = None,
) -> Allowance:
    """What was asked, as far as the grant and the app still have it."""
    return Allowance(
        scopes=scopes_left(grant, client, scopes),
        sub=sub,
        grant_id=to_wire("grt", grant.id),
        ends_at=grant.ends_at,
        origin=str(origin),
        authorization_details=to_claims(grant.authorization_details) or None,
        refresh_token=refresh_token,
    )


def hash_of(secret: str | None, name: str) -> bytes:
    """Under which a secret lies in the database; one that cannot be ours is refused unread."""
    if secret is None:
        raise RequestRefused("invalid_request", f"{name} is missing")
    if len(secret) > SECRET_LENGTH_MAX or not secret.isascii():
        raise RequestRefused("invalid_grant", f"there is no such {name}")
    return sha256(secret)


GRANTS: dict[str, Grant] = {
    "client_credentials": grant_client_credentials,
    "authorization_code": grant_authorization_code,
    "refresh_token": grant_refresh_token,
}
