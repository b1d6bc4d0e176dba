"""Tokens, proofs, consents as values."""

from datetime import date, datetime, timedelta
from typing import Annotated, Any, Literal, Protocol
from uuid import UUID

from msgspec import Meta, Struct, field

from kernel.calendar import start_of_day
from kernel.caller import Caller, MemberCaller, MemberRef
from partners.oauth.details import AuthorizationDetail
from partners.registry.model import Client

TOKEN_SECONDS = 300

# RFC 7519 §2: a NumericDate may have a fraction; the bound keeps arithmetic on it exact.
Seconds = Annotated[int, Meta(ge=0, le=2**53)] | Annotated[float, Meta(ge=0, le=2**53)]
# The pattern keeps out what no store would take: control characters and lone surrogates.
OneTimeId = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[ -~]+\Z")]


class AssertionClaims(Struct, frozen=True, kw_only=True):
    """What a client says of itself (RFC 7523 §3); other claims are of no interest."""

    iss: str
    sub: str
    #: a string, by FAPI 2.0; read as anything to be able to say what is wrong with it
    aud: Any
    exp: Seconds
    jti: OneTimeId
    iat: Seconds | None = None
    nbf: Seconds | None = None


class ProofClaims(Struct, frozen=True, kw_only=True):
    """What a proof of possession says (RFC 9449 §4.2)."""

    jti: OneTimeId
    htm: str
    htu: str
    iat: Seconds
    ath: str | None = None
    nonce: str | None = None
    nbf: Seconds | None = None
    exp: Seconds | None = None


class Proof(Struct, frozen=True, kw_only=True):
    """A proof that holds, except that its `jti` may have been used before."""

    #: RFC 7638 thumbprint of the key that signed it
    jkt: str
    jti: str
    #: the server's nonce, if it carries one; whether it is right is for the one who offers them
    nonce: str | None = None


class Confirmation(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a token is bound to: a key (RFC 9449 §6.1) or a certificate (RFC 8705 §3.1), never both or neither."""

    jkt: str | None = None
    x5t: str | None = field(name="x5t#S256", default=None)


class AccessClaims(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Our own access token (RFC 9068 and some claims of ours)."""

    iss: str
    aud: str
    sub: str
    client_id: str
    jti: str
    iat: int
    nbf: int
    exp: int
    scope: str
    cnf: Confirmation
    livemode: bool
    #: epoch of the partner when the token was issued
    pse: int
    #: of a member's token: the grant it stands on, `grt_…`
    grant_id: str | None = None
    #: of a member's token: the code it came of; revoking that ends all that came of it
    origin: str | None = None
    authorization_details: list[dict[str, Any]] | None = None


class ClientForm(Struct, frozen=True, kw_only=True):
    """The parameters by which a client authenticates, at every OAuth endpoint."""

    client_assertion_type: str | None = None
    client_assertion: str | None = None
    client_id: str | None = None
    client_secret: str | None = None
    #: RFC 8707; may be given more than once
    resource: tuple[str, ...] = ()


class TokenForm(ClientForm, frozen=True, kw_only=True):
    """The parameters of a token request that this server knows."""

    grant_type: str | None = None
    scope: str | None = None
    code: str | None = None
    redirect_uri: str | None = None
    code_verifier: str | None = None
    refresh_token: str | None = None
    auth_req_id: str | None = None


class AskForm(ClientForm, frozen=True, kw_only=True):
    """The parameters by which a partner says what it asks of a member."""

    scope: str | None = None
    authorization_details: str | None = None
    grant_management_action: str | None = None
    grant_id: str | None = None
    #: ours: the last day of the grant asked for
    grant_ends_on: str | None = None
    ui_locales: str | None = None
    request: str | None = None


class PushForm(AskForm, frozen=True, kw_only=True):
    """The parameters of a pushed authorization request that this server knows."""

    response_type: str | None = None
    response_mode: str | None = None
    redirect_uri: str | None = None
    state: str | None = None
    nonce: str | None = None
    code_challenge: str | None = None
    code_challenge_method: str | None = None
    dpop_jkt: str | None = None
    prompt: str | None = None
    request_uri: str | None = None


class BackchannelForm(AskForm, frozen=True, kw_only=True):
    """The parameters of a backchannel authentication request (OpenID CIBA §7.1) that this server knows."""

    login_hint: str | None = None
    login_hint_token: str | None = None
    id_token_hint: str | None = None
    binding_message: str | None = None
    requested_expiry: str | None = None
    user_code: str | None = None


class TokenQuestion(ClientForm, frozen=True, kw_only=True):
    """The parameters of introspection and revocation."""

    token: str | None = None
    token_type_hint: str | None = None


class TokenIssued(Struct, frozen=True, kw_only=True):
    """The answer to a good token request (RFC 6749 §5.1)."""

    access_token: str
    token_type: str = "DPoP"
    expires_in: int = TOKEN_SECONDS
    scope: str
    refresh_token: str | None = None
    grant_id: str | None = None
    authorization_details: list[dict[str, Any]] | None = None


class TokenRefused(Struct, frozen=True, kw_only=True):
    """The answer to any other (RFC 6749 §5.2); an outcome, not an exception, so that used identifiers stay used."""

    status: int
    error: str
    description: str
    retry_after_seconds: int | None = None


class Proved(Struct, frozen=True, kw_only=True):
    """What the edge learns about any request that carried a good token and a good proof."""

    #: scope and value of the proof's identifier, which the edge still has to use up
    proof_scope: str
    #: None for a token that is bound to the connection's certificate: there is no proof
    proof_jti: str | None
    #: after this the proof is too old anyway
    proof_expires_at: datetime
    rate_per_second: int
    burst: int
    #: of the proof; the edge still has to judge it
    nonce: str | None = None
    #: whether the app's writes must carry one
    nonce_required: bool = False


class Authenticated(Proved, frozen=True, kw_only=True):
    """A partner's app is asking."""

    caller: Caller
    #: what is registered of the caller's app, as it was less than a second ago
    client: Client

    @property
    def counted_as(self) -> str:
        """Whose quota the request is taken from."""
        return self.caller.client_id


class AuthenticatedMember(Proved, frozen=True, kw_only=True):
    """A member is asking, with the bank's own app."""

    member: MemberCaller

    @property
    def counted_as(self) -> str:
        """Whose quota the request is taken from."""
        return f"session:{self.member.session_id}"


class Consent(Struct, frozen=True, kw_only=True):
    """What a member allows one partner at present."""

    id: UUID
    member: MemberRef
    scopes: list[str]
    purposes: list[str]
    granted_at: datetime
    #: the last day
    ends_on: date
    data_kinds: list[str] = []
    authorization_details: list[AuthorizationDetail] = []
    #: the member agreed separately to the use of sensitive data (PIPL §29)
    sensitive: bool = False

    @property
    def ends_at(self) -> datetime:
        """From this moment on it does not stand."""
        return start_of_day(self.ends_on + timedelta(days=1))


class MemberGrant(Struct, frozen=True, kw_only=True):
    """One standing grant of a member, to whichever partner."""

    id: UUID
    partner_id: UUID
    scopes: list[str]
    purposes: list[str]
    data_kinds: list[str]
    authorization_details: list[AuthorizationDetail]
    sensitive: bool
    granted_at: datetime
    ends_on: date


class Standing(Struct, frozen=True, kw_only=True):
    """A subject, and whether its member consents to what was asked."""

    sub: str
    member_id: int
    bucket: int
    consented: bool


class Asked(Struct, frozen=True, kw_only=True):
    """What a partner asks a member for, checked at the moment it was asked."""

    scopes: list[str]
    purposes: list[str]
    data_kinds: list[str]
    authorization_details: list[AuthorizationDetail]
    sensitive: bool
    ends_on: date
    grant_action: Literal["create", "merge", "replace"]
    #: the grant to merge into or to replace
    grant_id: UUID | None
    #: the only member who may agree, where the request is about one
    member_id: int | None
    ui_locales: str | None


class AuthorizationRequest(Asked, frozen=True, kw_only=True):
    """What is asked by way of the member's browser; the `document` of oauth_request."""

    #: of the answer (RFC 9207)
    issuer: str
    redirect_uri: str
    state: str | None
    nonce: str | None
    #: S256
    code_challenge: str
    #: the key the code is bound to (RFC 9449 §10)
    dpop_jkt: str | None


class BackchannelDocument(Asked, frozen=True, kw_only=True):
    """What is asked by way of the member's phone; the `document` of oauth_backchannel."""

    #: the words by which the member knows that phone and counter speak of the same thing (CIBA §7.1)
    binding_message: str | None


class Request(Protocol):
    """A request of a partner that a member may grant, whichever way it came."""

    @property
    def id(self) -> UUID: ...

    @property
    def partner_id(self) -> UUID: ...

    @property
    def client_id(self) -> str: ...

    @property
    def document(self) -> Asked: ...


class PushedRequest(Struct, frozen=True, kw_only=True):
    """An authorization request that waits for a member's answer."""

    id: UUID
    partner_id: UUID
    client_id: str
    document: AuthorizationRequest
    expires_at: datetime


class CodeDocument(Struct, frozen=True, kw_only=True):
    """What a code stands for; the `document` of oauth_code."""

    request_id: UUID
    partner_id: UUID
    grant_id: UUID
    member_id: int
    bucket: int
    redirect_uri: str
    code_challenge: str
    dpop_jkt: str | None
    scopes: list[str]
    authenticated_at: datetime
    methods: list[str]
