"""Access to the partner API: a token of ours, a proof that the sender holds its key, a client that is active now."""

import hashlib
from collections import OrderedDict
from datetime import datetime
from typing import ClassVar

from msgspec import Struct

from kernel.caller import Caller
from kernel.errors import Forbidden, Unauthenticated
from kernel.sender import NOBODY, Sender
from partners.oauth import rules
from partners.oauth.jws import JwsInvalid, convert
from partners.oauth.keys import Signer
from partners.oauth.model import AccessClaims, Authenticated, Proof
from partners.oauth.revocations import RevocationList, revocation_subjects
from partners.oauth.token import PROOF_MEMORY, proof_scope
from partners.registry.access import allows
from partners.registry.directory import AppDirectory
from partners.registry.jwk import ALGORITHMS, encode
from partners.registry.model import Client

TOKENS_MAX = 10_000
# Gateways agree on the time to a fraction of a second; a token fresh from another must not fail for that fraction.
SKEW_SECONDS = 5


class AccessRefused(Unauthenticated):
    """The request does not prove who is asking."""

    #: the error of RFC 6750 §3.1 or RFC 9449 §7.1; none where the request carried no authentication at all
    error: ClassVar[str | None] = None

    def challenge(self) -> str:
        """The value of WWW-Authenticate."""
        named = f'error="{self.error}", ' if self.error else ""
        return f'DPoP {named}algs="{" ".join(ALGORITHMS)}"'


class TokenMissing(AccessRefused):
    """This call needs `Authorization: DPoP` with an access token, and a proof in the DPoP header."""


class InvalidToken(AccessRefused):
    """The access token is not acceptable; ask the token endpoint for a new one."""

    error = "invalid_token"


class InvalidDpopProof(AccessRefused):
    """The DPoP proof is not acceptable; make a new one for each request."""

    error = "invalid_dpop_proof"


class UseDpopNonce(AccessRefused):
    """The DPoP proof must carry the nonce of the DPoP-Nonce header; make a new proof with it."""

    error = "use_dpop_nonce"


class PartnerNotActive(Forbidden):
    """The partner is not live, so its apps may not call the API."""


class AppNotActive(Forbidden):
    """The app has been switched off."""


class IpNotAllowed(Forbidden):
    """The app may be used from the networks it has registered, and this address is in none of them."""


class _Remembered(Struct, kw_only=True):
    """A token that was verified, and what it meant for its client when it was last used."""

    claims: AccessClaims
    digest: bytes
    #: the same as its proofs name it (RFC 9449 §4.2)
    ath: str
    #: under which it may have been revoked
    names: list[str]
    client: Client | None = None
    caller: Caller | None = None


class AccessVerifier:
    """One per process. Remembers verified tokens until they expire, and asks the directory at every request."""

    def __init__(
        self,
        *,
        signer: Signer,
        resource: str,
        base_url: str,
        directory: AppDirectory,
        revocations: RevocationList,
        livemode: bool,
        tokens_max: int = TOKENS_MAX,
    ) -> None:
        self._signer = signer
        self._resource = resource
        origin = rules.normal_url(base_url)
        assert origin is not None, "the base URL is not a URL"
        self._origin = origin.rstrip("/")
        self._directory = directory
        self._revocations = revocations
        self._livemode = livemode
        self._tokens_max = tokens_max
        self._tokens: OrderedDict[bytes, _Remembered] = OrderedDict()

    @property
    def remembered(self) -> int:
        """How many verified tokens are in memory."""
        return len(self._tokens)

    def forget(self) -> None:
        """Verify every token anew: the keys have changed."""
        self._tokens.clear()

    async def authenticate(
        self,
        *,
        method: str,
        path: str,
        authorization: list[str],
        proofs: list[str],
        sender: Sender = NOBODY,
        now: datetime,
    ) -> Authenticated:
        """Who is asking. `path` is as sent, without the query; the proof's identifier is the edge's to use up."""
        scheme, token = read_token(authorization, sender)
        remembered = self._remembered(token, now=now.timestamp())
        claims = remembered.claims
        proof = None
        if scheme == "bearer":
            check_certificate(claims, sender)
        else:
            if claims.cnf.jkt is None:
                raise InvalidToken(
                    reason="it is bound to a certificate: send it as Bearer over that connection"
                )
            proof = self._proof_of(proofs, method=method, path=path, ath=remembered.ath, now=now)
            # RFC 9449 §7.1: the proof's key is the one the token is bound to.
            if proof.jkt != claims.cnf.jkt:
                raise InvalidDpopProof(reason="it was made with another key than the token is bound to")
        client = await self._directory.find(claims.client_id)
        check_client(client, claims)
        assert client is not None
        if not allows(client.ip_allow, sender.address):
            raise IpNotAllowed
        # FAPI 2.0 §5.3.4: the revocation status too, however long ago the token was verified.
        if await self._revocations.includes(remembered.names, now=now):
            self._tokens.pop(remembered.digest, None)
            raise InvalidToken(reason="it was revoked")
        return Authenticated(
            caller=_caller_of(remembered, client),
            client=client,
            proof_scope="" if proof is None else proof_scope(proof),
            proof_jti=None if proof is None else proof.jti,
            proof_expires_at=now + PROOF_MEMORY,
            rate_per_second=client.rate_per_second,
            burst=client.burst,
            nonce=None if proof is None else proof.nonce,
            nonce_required=client.dpop_nonce_required,
        )

    def _remembered(self, token: str, *, now: float) -> _Remembered:
        """The token, verified now or before; by its hash, so that no token lies in memory."""
        digest = hashlib.sha256(token.encode()).digest()
        remembered = self._tokens.get(digest)
        if remembered is None:
            try:
                claims = convert(self._signer.verify(token, "at+jwt"), AccessClaims)
            except JwsInvalid as invalid:
                raise InvalidToken(reason=str(invalid)) from None
            remembered = _Remembered(
                claims=claims, digest=digest, ath=encode(digest), names=revocation_subjects(claims)
            )
        try:
            check_claims(
                remembered.claims,
                issuer=self._signer.issuer,
                resource=self._resource,
                livemode=self._livemode,
                now=now,
            )
        except InvalidToken:
            self._tokens.pop(digest, None)
            raise
        self._tokens[digest] = remembered
        self._tokens.move_to_end(digest)
        if len(self._tokens) > self._tokens_max:
            self._tokens.popitem(last=False)
        return remembered

    def _proof_of(self, proofs: list[str], *, method: str, path: str, ath: str, now: datetime) -> Proof:
        # RFC 9449 §4.3 step 1
        if len(proofs) != 1:
            raise InvalidDpopProof(reason="send exactly one DPoP header")
        url = self._origin + path
        try:
            return rules.check_proof(proofs[0], method=method, url=url, now=now.timestamp(), ath=ath)
        except JwsInvalid as invalid:
            raise InvalidDpopProof(reason=str(invalid)) from None


def _caller_of(remembered: _Remembered, client: Client) -> Caller:
    """The caller of a token, made anew whenever the directory has a new answer about its client."""
    if remembered.caller is None or remembered.client is not client:
        claims = remembered.claims
        remembered.client = client
        remembered.caller = Caller(
            partner_id=client.partner_id,
            app_id=client.app_id,
            client_id=client.client_id,
            # A scope taken from the app is gone at once, whatever the token says.
            scopes=frozenset(claims.scope.split()) & frozenset(client.scopes),
            # Of the two exactly one is there: check_claims.
            key_thumbprint=claims.cnf.jkt or claims.cnf.x5t or "",
            subject=None if claims.sub == claims.client_id else claims.sub,
            grant_id=claims.grant_id,
            authorization_details=tuple(claims.authorization_details or ()),
        )
    return remembered.caller


def check_claims(claims: AccessClaims, *, issuer: str, resource: str, livemode: bool, now: float) -> None:
    """Whether a token we signed is good here and now (RFC 9068 §4)."""
    if claims.iss != issuer:
        raise InvalidToken(reason="it is of another issuer")
    if claims.aud != resource:
        raise InvalidToken(reason="it is for another resource")
    if claims.livemode != livemode:
        raise InvalidToken(reason="it is of another mode: sandbox and live never cross")
    if (claims.cnf.jkt is None) == (claims.cnf.x5t is None):
        raise InvalidToken(reason="it is not bound to a key")
    if claims.exp <= now:
        raise InvalidToken(reason="it has expired")
    if max(claims.nbf, claims.iat) > now + SKEW_SECONDS:
        raise InvalidToken(reason="it is not valid yet")


def check_client(client: Client | None, claims: AccessClaims) -> None:
    """Whether the token's client may call at this moment, whatever was true when the token was issued."""
    if client is None:
        raise InvalidToken(reason="its client is not registered")
    if client.partner_status != "live":
        raise PartnerNotActive(partner_status=client.partner_status)
    if client.app_status != "active":
        raise AppNotActive(app_status=client.app_status)
    if client.epoch != claims.pse:
        raise InvalidToken(reason="it was revoked when the partner's status, an app or a key changed")


def check_certificate(claims: AccessClaims, sender: Sender) -> None:
    """RFC 8705 §3: the certificate of this connection is the one the token is bound to."""
    certificate = sender.certificate
    if certificate is None or claims.cnf.x5t is None or claims.cnf.x5t != certificate.thumbprint:
        raise InvalidToken(reason="it is not bound to the certificate of this connection")


def read_token(authorization: list[str], sender: Sender = NOBODY) -> tuple[str, str]:
    """The scheme and the token (RFC 9449 §7.1, RFC 8705 §3)."""
    if not authorization:
        raise TokenMissing
    if len(authorization) > 1:
        raise InvalidToken(reason="send exactly one Authorization header")
    scheme, _, token = authorization[0].partition(" ")
    # RFC 9110 §11.1: the scheme's case does not matter. RFC 9449 §7.2: a bound token is never taken as a bearer's.
    scheme = scheme.lower()
    # Only a connection with a certificate can carry a token that is bound to one.
    if scheme == "bearer" and sender.certificate is None:
        raise InvalidToken(
            reason="tokens are bound to a key: send Authorization: DPoP and a proof, not Bearer"
        )
    if scheme not in ("dpop", "bearer") or not token or not token.isascii():
        raise InvalidToken(reason="the Authorization header must be DPoP and the access token")
    return scheme, token
