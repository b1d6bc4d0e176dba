"""The mobile issuer's tokens: a code exchanged once, refresh tokens that each make the next one, sessions that end.

Refusals are returned, not raised: a proof, a code or a reuse of what was used before leaves its mark.
"""

import hmac
import secrets
from datetime import datetime
from uuid import UUID

import msgspec
from msgspec import Struct

from kernel import audit
from kernel.audit import AuditRecord
from kernel.caller import MemberRef
from kernel.database import Connection
from kernel.errors import Absent
from kernel.ids import from_wire, to_wire
from kernel.vault import Vault, sha256
from partners.mobile import queries, rules, service
from partners.mobile.model import App, EndReason, MobileClaims, Session, TokensIssued
from partners.oauth.exchange import SECRET_LENGTH_MAX, hash_of
from partners.oauth.jws import JwsInvalid, convert
from partners.oauth.keys import Signer
from partners.oauth.model import (
    TOKEN_SECONDS,
    ClientForm,
    Confirmation,
    TokenForm,
    TokenQuestion,
    TokenRefused,
)
from partners.oauth.rules import (
    RequestRefused,
    check_resource,
    choose_scope,
    read_form,
    read_parameters,
)
from partners.oauth.service import pairwise, pairwise_key
from partners.oauth.token import prove
from partners.registry.jwk import encode

#: no partner has this id, so no partner ever sees the name members have here
SECTOR = UUID(int=0)
GRANT_TYPES = ("authorization_code", "refresh_token")


class Bank(Struct, frozen=True, kw_only=True):
    """What tokens are made with."""

    signer: Signer
    vault: Vault
    base_url: str
    livemode: bool

    @property
    def issuer(self) -> str:
        return self.base_url + rules.ISSUER_PATH

    @property
    def resource(self) -> str:
        return self.base_url + rules.RESOURCE_PATH


class _Allowed(Struct, frozen=True, kw_only=True):
    """What a good request is given."""

    session: Session
    scopes: list[str]
    refresh_token: str


async def request_tokens(
    connection: Connection, bank: Bank, *, body: bytes, content_type: str, proofs: list[str], now: datetime
) -> TokensIssued | TokenRefused:
    """Tokens bound to the key of the proof (RFC 9449 §5), or why not."""
    try:
        form = read_form(body, content_type)
        if form.grant_type is None:
            raise RequestRefused("invalid_request", "grant_type is missing")
        if form.grant_type not in GRANT_TYPES:
            raise RequestRefused("unsupported_grant_type", f"this server grants {', '.join(GRANT_TYPES)}")
        app = await _find_app(connection, form)
        proof = await prove(connection, proofs, url=bank.base_url + rules.TOKEN_PATH, now=now)
        check_resource(form.resource, resource=bank.resource)
        if form.grant_type == "authorization_code":
            allowed = await _exchange_code(connection, bank, form, jkt=proof.jkt, now=now)
        else:
            allowed = await _refresh(connection, bank, form, jkt=proof.jkt, now=now)
    except RequestRefused as refused:
        return refused.outcome()
    return _issue(bank, app, allowed, now=now)


async def _find_app(connection: Connection, form: ClientForm) -> App:
    rules.check_public(form)
    app = await service.find_app(connection, form.client_id or "")
    if app is None:
        raise RequestRefused("invalid_client", "client_id is no app of this issuer", status=401)
    return app


async def _exchange_code(
    connection: Connection, bank: Bank, form: TokenForm, *, jkt: str, now: datetime
) -> _Allowed:
    """RFC 6749 §4.1.3, RFC 7636 §4.6: to one caller, once; a second use ends what came of the first (§4.1.2)."""
    login = await queries.find_code(connection, hash_of(form.code, "code"))
    rules.check_code(login, form, jkt=jkt, now=now)
    assert login is not None
    if login.state == "used" or not await queries.use_code(connection, login.id):
        await _end_session(connection, login.id, login.client_id, "code_reused", now=now)
        raise RequestRefused("invalid_grant", "the code was used before; what was issued for it is revoked")
    await queries.insert_session(connection, login, jkt=jkt, now=now)
    await queries.end_old_sessions(connection, login.member_id, keep=rules.SESSIONS_MAX, now=now)
    refresh_token = secrets.token_urlsafe(32)
    await queries.insert_refresh(
        connection, sha256(refresh_token), session_id=login.id, generation=0, now=now
    )
    session = await queries.find_session(connection, login.id)
    assert session is not None, "it was inserted above"
    return _Allowed(session=session, scopes=session.scopes, refresh_token=refresh_token)


async def _refresh(
    connection: Connection, bank: Bank, form: TokenForm, *, jkt: str, now: datetime
) -> _Allowed:
    """OAuth 2.1 §4.3.1, RFC 9700 §4.14.2: a public client's refresh token is replaced at each use.

    The successor follows from the token and a key of ours, so every copy that comes within the grace gets the same one,
    and an answer that was lost is not a logout. After the grace somebody else has the token: the family ends.
    """
    token_hash = hash_of(form.refresh_token, "refresh_token")
    stored = await queries.find_refresh(connection, token_hash)
    session = None if stored is None else await queries.find_session(connection, stored.session_id)
    rules.check_session(session, form, jkt=jkt, now=now)
    assert stored is not None and session is not None and form.refresh_token is not None
    scopes = session.scopes if form.scope is None else choose_scope(form.scope, session.scopes)
    successor = _successor(bank, session.id, stored.generation, form.refresh_token)
    if await queries.use_refresh(connection, token_hash, now=now):
        await queries.insert_refresh(
            connection,
            sha256(successor),
            session_id=session.id,
            generation=stored.generation + 1,
            now=now,
        )
        await queries.refresh_session(connection, session.id, now=now)
    else:
        used = await queries.find_refresh(connection, token_hash)
        assert used is not None and used.used_at is not None, "somebody else has just used it"
        if now - used.used_at > rules.GRACE:
            await _end_session(connection, session.id, session.client_id, "refresh_reused", now=now)
            raise RequestRefused(
                "invalid_grant", "the refresh token was used before; the session is ended, log in again"
            )
    return _Allowed(session=session, scopes=scopes, refresh_token=successor)


def _successor(bank: Bank, session_id: UUID, generation: int, token: str) -> str:
    """256 bits that nobody can compute without the token and our key."""
    made_of = f"{session_id}:{generation}:{token}"
    return encode(hmac.digest(bank.vault.key("mobile-refresh"), made_of.encode(), "sha256"))


async def revoke_token(
    connection: Connection, bank: Bank, *, body: bytes, content_type: str, now: datetime
) -> TokenRefused | None:
    """RFC 7009: whichever token of a session is revoked, the session ends; an unknown one is fine as well."""
    try:
        form = read_parameters(body, content_type, TokenQuestion)
        app = await _find_app(connection, form)
        if form.token is None:
            raise RequestRefused("invalid_request", "token is missing")
    except RequestRefused as refused:
        return refused.outcome()
    session_id = await _session_of(connection, bank, form.token)
    session = None if session_id is None else await queries.find_session(connection, session_id)
    if session is not None and session.client_id == app.client_id:
        await _end_session(connection, session.id, app.client_id, "revoked", now=now)
    return None


async def _session_of(connection: Connection, bank: Bank, token: str) -> UUID | None:
    if token.count(".") == 2:
        try:
            claims = convert(bank.signer.verify(token, "at+jwt"), MobileClaims)
            return from_wire("ses", claims.sid) if claims.iss == bank.issuer else None
        except (JwsInvalid, Absent):
            return None
    if len(token) > SECRET_LENGTH_MAX or not token.isascii():
        return None
    stored = await queries.find_refresh(connection, sha256(token))
    return None if stored is None else stored.session_id


async def _end_session(
    connection: Connection, session_id: UUID, client_id: str, because: EndReason, *, now: datetime
) -> None:
    """From the commit on none of its tokens is taken; what points to a thief is audited, once."""
    if not await queries.end_session(connection, session_id, because=because, now=now):
        return
    if because in ("code_reused", "refresh_reused"):
        action = "mobile.code_reuse_detected" if because == "code_reused" else "mobile.refresh_reuse_detected"
        record = AuditRecord(
            actor=f"app:{client_id}", action=action, subject=to_wire("ses", session_id), detail={}
        )
        await audit.append(connection, record, partner_id=None, now=now)


def subject_of(member: MemberRef, vault: Vault) -> str:
    """The member's name towards the bank's own apps."""
    return pairwise(pairwise_key(vault), SECTOR, member.member_id)


def _issue(bank: Bank, app: App, allowed: _Allowed, *, now: datetime) -> TokensIssued:
    session, issued_at = allowed.session, int(now.timestamp())
    scope = " ".join(scope for scope in allowed.scopes if scope in app.scopes)
    claims = MobileClaims(
        iss=bank.issuer,
        aud=bank.resource,
        sub=subject_of(MemberRef(member_id=session.member_id, bucket=session.bucket), bank.vault),
        client_id=app.client_id,
        jti=secrets.token_urlsafe(16),
        iat=issued_at,
        nbf=issued_at,
        exp=issued_at + TOKEN_SECONDS,
        scope=scope,
        cnf=Confirmation(jkt=session.jkt),
        livemode=bank.livemode,
        sid=to_wire("ses", session.id),
        auth_time=int(session.authenticated_at.timestamp()),
        amr=session.methods,
    )
    return TokensIssued(
        access_token=bank.signer.sign(msgspec.to_builtins(claims), typ="at+jwt"),
        refresh_token=allowed.refresh_token,
        scope=scope,
    )
