"""The bank's app, its logins, sessions and tokens as values."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from msgspec import Struct

from partners.oauth.model import TOKEN_SECONDS, Confirmation

EndReason = Literal["revoked", "replaced", "code_reused", "refresh_reused"]


class App(Struct, frozen=True, kw_only=True):
    """An app of the bank: a public client (RFC 8252)."""

    client_id: str
    name_zh: str
    name_en: str
    #: compared character by character
    redirect_uris: list[str]
    scopes: list[str]
    status: Literal["active", "inactive"]


class LoginDocument(Struct, frozen=True, kw_only=True):
    """What the app asked for; the `document` of mobile_login."""

    #: of the answer (RFC 9207)
    issuer: str
    redirect_uri: str
    state: str | None
    #: S256
    code_challenge: str
    #: the key the code is bound to (RFC 9449 §10)
    dpop_jkt: str | None
    scopes: list[str]
    ui_locales: str | None


class Login(Struct, frozen=True, kw_only=True):
    """A login whose page is open."""

    id: UUID
    client_id: str
    document: LoginDocument
    expires_at: datetime


class CodedLogin(Struct, frozen=True, kw_only=True):
    """A login that a code was issued for."""

    id: UUID
    client_id: str
    state: Literal["approved", "used"]
    document: LoginDocument
    code_expires_at: datetime
    member_id: int
    bucket: int
    authenticated_at: datetime
    methods: list[str]


class Session(Struct, frozen=True, kw_only=True):
    """The app on one phone, logged in as one member."""

    id: UUID
    client_id: str
    member_id: int
    bucket: int
    #: thumbprint of the key on the phone
    jkt: str
    scopes: list[str]
    authenticated_at: datetime
    methods: list[str]
    refreshed_at: datetime
    ended_at: datetime | None


class Refresh(Struct, frozen=True, kw_only=True):
    """A refresh token as it lies in the database."""

    session_id: UUID
    #: how many came before it in the family
    generation: int
    used_at: datetime | None


class MobileClaims(Struct, frozen=True, kw_only=True):
    """An access token of the mobile issuer (RFC 9068)."""

    iss: str
    aud: str
    #: the member, as the bank's apps know one; no partner knows this name
    sub: str
    client_id: str
    jti: str
    iat: int
    nbf: int
    exp: int
    scope: str
    cnf: Confirmation
    livemode: bool
    #: the session, `ses_…`
    sid: str
    auth_time: int
    amr: list[str]


class TokensIssued(Struct, frozen=True, kw_only=True):
    """The answer to a good token request (RFC 6749 §5.1)."""

    access_token: str
    refresh_token: str
    scope: str
    token_type: str = "DPoP"
    expires_in: int = TOKEN_SECONDS
