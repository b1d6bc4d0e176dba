"""Tokens, proofs, consents as values."""

from datetime import date, datetime
from typing import Annotated, Any
from uuid import UUID

from msgspec import Meta, Struct

from kernel.caller import Caller, MemberRef

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


class Confirmation(Struct, frozen=True, kw_only=True):
    """Whom a token is bound to (RFC 9449 §6.1)."""

    jkt: str


class AccessClaims(Struct, frozen=True, kw_only=True):
    """Our own access token (RFC 9068 and two claims of ours)."""

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


class TokenForm(Struct, frozen=True, kw_only=True):
    """The parameters of a token request that this server knows."""

    grant_type: str | None = None
    client_assertion_type: str | None = None
    client_assertion: str | None = None
    client_id: str | None = None
    client_secret: str | None = None
    scope: str | None = None
    #: RFC 8707; may be given more than once
    resource: tuple[str, ...] = ()


class TokenIssued(Struct, frozen=True, kw_only=True):
    """The answer to a good token request (RFC 6749 §5.1)."""

    access_token: str
    token_type: str = "DPoP"
    expires_in: int = TOKEN_SECONDS
    scope: str


class TokenRefused(Struct, frozen=True, kw_only=True):
    """The answer to any other (RFC 6749 §5.2); an outcome, not an exception, so that used identifiers stay used."""

    status: int
    error: str
    description: str


class Authenticated(Struct, frozen=True, kw_only=True):
    """What the edge learns about a request that carried a good token and a good proof."""

    caller: Caller
    #: scope and value of the proof's identifier, which the edge still has to use up
    proof_scope: str
    proof_jti: str
    #: after this the proof is too old anyway
    proof_expires_at: datetime
    rate_per_second: int
    burst: int
    #: of the proof; the edge still has to judge it
    nonce: str | None = None
    #: whether the app's writes must carry one
    nonce_required: bool = False

    @property
    def proof_id(self) -> str:
        """Both parts in one, for a replay window with a single key."""
        return f"{self.proof_scope}:{self.proof_jti}"


class Consent(Struct, frozen=True, kw_only=True):
    """What a member allows one partner at present."""

    id: UUID
    member: MemberRef
    scopes: list[str]
    purposes: list[str]
    granted_at: datetime
    #: the last day
    ends_on: date


class Standing(Struct, frozen=True, kw_only=True):
    """A subject, and whether its member consents to what was asked."""

    sub: str
    member_id: int
    bucket: int
    consented: bool
