"""Access to the partner API: a token of ours, a proof that the sender holds its key, a client that is active now."""

import hashlib
from collections import OrderedDict
from datetime import datetime
from typing import ClassVar

from kernel.caller import Caller
from kernel.errors import Forbidden, Unauthenticated
from partners.oauth import rules
from partners.oauth.jws import JwsInvalid, convert
from partners.oauth.keys import Signer
from partners.oauth.model import AccessClaims, Authenticated, Proof
from partners.oauth.revocations import RevocationList, revocation_subjects
from partners.oauth.token import PROOF_MEMORY, proof_scope
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


class PartnerNotActive(Forbidden):
    """The partner is not live, so its apps may not call the API."""


class AppNotActive(Forbidden):
    """The app has been switched off."""


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
        self._tokens: OrderedDict[bytes, AccessClaims] = OrderedDict()

    @property
    def remembered(self) -> int:
        """How many verified tokens are in memory."""
        return len(self._tokens)

    async def authenticate(
        self, *, method: str, path: str, authorization: list[str], proofs: list[str], now: datetime
    ) -> Authenticated:
        """Who is asking. `path` is as sent, without the query; the proof's identifier is the edge's to use up."""
        token = read_token(authorization)
        digest = hashlib.sha256(token.encode()).digest()
        claims = self._claims_of(token, digest, now=now)
        proof = self._proof_of(proofs, method=method, path=path, ath=encode(digest), now=now)
        # RFC 9449 §7.1: the proof's key is the one the token is bound to.
        if proof.jkt != claims.cnf.jkt:
            raise InvalidDpopProof(reason="it was made with another key than the token is bound to")
        client = await self._directory.find(claims.client_id)
        check_client(client, claims)
        assert client is not None
        # FAPI 2.0 §5.3.4: the revocation status too, however long ago the token was verified.
        if await self._revocations.includes(revocation_subjects(claims), now=now):
            self._tokens.pop(digest, None)
            raise InvalidToken(reason="it was revoked")
        own = claims.sub == claims.client_id
        caller = Caller(
            partner_id=client.partner_id,
            app_id=client.app_id,
            client_id=client.client_id,
            # A scope taken from the app is gone at once, whatever the token says.
            scopes=frozenset(claims.scope.split()) & frozenset(client.scopes),
            key_thumbprint=proof.jkt,
            subject=None if own else claims.sub,
            grant_id=claims.grant_id,
            authorization_details=tuple(claims.authorization_details or ()),
        )
        return Authenticated(
            caller=caller,
            proof_scope=proof_scope(proof),
            proof_jti=proof.jti,
            proof_expires_at=now + PROOF_MEMORY,
            rate_per_second=client.rate_per_second,
            burst=client.burst,
        )

    def _claims_of(self, token: str, digest: bytes, *, now: datetime) -> AccessClaims:
        claims = self._tokens.get(digest)
        if claims is None:
            try:
                claims = convert(self._signer.verify(token, "at+jwt"), AccessClaims)
            except JwsInvalid as invalid:
                raise InvalidToken(reason=str(invalid)) from None
        try:
            check_claims(
                claims,
                issuer=self._signer.issuer,
                resource=self._resource,
                livemode=self._livemode,
                now=now.timestamp(),
            )
        except InvalidToken:
            self._tokens.pop(digest, None)
            raise
        self._tokens[digest] = claims
        self._tokens.move_to_end(digest)
        if len(self._tokens) > self._tokens_max:
            self._tokens.popitem(last=False)
        return claims

    def _proof_of(self, proofs: list[str], *, method: str, path: str, ath: str, now: datetime) -> Proof:
        # RFC 9449 §4.3 step 1
        if len(proofs) != 1:
            raise InvalidDpopProof(reason="send exactly one DPoP header")
        url = self._origin + path
        try:
            return rules.check_proof(proofs[0], method=method, url=url, now=now.timestamp(), ath=ath)
        except JwsInvalid as invalid:
            raise InvalidDpopProof(reason=str(invalid)) from None


def check_claims(claims: AccessClaims, *, issuer: str, resource: str, livemode: bool, now: float) -> None:
    """Whether a token we signed is good here and now (RFC 9068 §4)."""
    if claims.iss != issuer:
        raise InvalidToken(reason="it is of another issuer")
    if claims.aud != resource:
        raise InvalidToken(reason="it is for another resource")
    if claims.livemode != livemode:
        raise InvalidToken(reason="it is of another mode: sandbox and live never cross")
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


def read_token(authorization: list[str]) -> str:
    """The token of a DPoP request (RFC 9449 §7.1)."""
    if not authorization:
        raise TokenMissing
    if len(authorization) > 1:
        raise InvalidToken(reason="send exactly one Authorization header")
    scheme, _, token = authorization[0].partition(" ")
    # RFC 9110 §11.1: the scheme's case does not matter. RFC 9449 §7.2: a bound token is never taken as a bearer's.
    if scheme.lower() == "bearer":
        raise InvalidToken(
            reason="tokens are bound to a key: send Authorization: DPoP and a proof, not Bearer"
        )
    if scheme.lower() != "dpop" or not token or not token.isascii():
        raise InvalidToken(reason="the Authorization header must be DPoP and the access token")
    return token
