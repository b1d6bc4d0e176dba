"""Access to the mobile API: a token of the mobile issuer, a proof of its key, a session that stands at this moment."""

import hashlib
from datetime import datetime
from uuid import UUID

from kernel.caller import MemberCaller, MemberRef
from kernel.database import Pool, acquire
from kernel.errors import Absent
from kernel.ids import from_wire
from partners.mobile import queries
from partners.mobile.model import MobileClaims, Session
from partners.mobile.tokens import Bank
from partners.oauth import rules
from partners.oauth.access import SKEW_SECONDS, InvalidDpopProof, InvalidToken, read_token
from partners.oauth.jws import JwsInvalid, convert
from partners.oauth.model import AuthenticatedMember, Proof
from partners.oauth.token import PROOF_MEMORY, proof_scope
from partners.registry.jwk import encode

#: of one phone
RATE_PER_SECOND = 20
BURST = 60


class MemberVerifier:
    """One per process. Every request looks its session up, so what has ended is refused from that commit on."""

    def __init__(self, *, bank: Bank, pool: Pool) -> None:
        self._bank = bank
        self._pool = pool
        origin = rules.normal_url(bank.base_url)
        assert origin is not None, "the base URL is not a URL"
        self._origin = origin.rstrip("/")

    async def authenticate(
        self, *, method: str, path: str, authorization: list[str], proofs: list[str], now: datetime
    ) -> AuthenticatedMember:
        """Who is asking. `path` is as sent, without the query; the proof's identifier is the edge's to use up."""
        _, token = read_token(authorization)
        try:
            claims = convert(self._bank.signer.verify(token, "at+jwt"), MobileClaims)
        except JwsInvalid as invalid:
            raise InvalidToken(reason=str(invalid)) from None
        check_claims(claims, self._bank, now=now.timestamp())
        ath = encode(hashlib.sha256(token.encode()).digest())
        proof = self._proof_of(proofs, method=method, path=path, ath=ath, now=now)
        # RFC 9449 §7.1: the proof's key is the one the token is bound to.
        if proof.jkt != claims.cnf.jkt:
            raise InvalidDpopProof(reason="it was made with another key than the token is bound to")
        async with acquire(self._pool) as connection:
            session = await queries.find_standing_session(connection, _session_id(claims))
        if session is None or session.jkt != proof.jkt:
            raise InvalidToken(reason="its session has ended; log in again")
        return AuthenticatedMember(
            member=_caller(claims, session),
            proof_scope=proof_scope(proof),
            proof_jti=proof.jti,
            proof_expires_at=now + PROOF_MEMORY,
            rate_per_second=RATE_PER_SECOND,
            burst=BURST,
            nonce=proof.nonce,
        )

    def _proof_of(self, proofs: list[str], *, method: str, path: str, ath: str, now: datetime) -> Proof:
        # RFC 9449 §4.3 step 1
        if len(proofs) != 1:
            raise InvalidDpopProof(reason="send exactly one DPoP header")
        url = self._origin + path
        try:
            return rules.check_proof(proofs[0], method=method, url=url, now=now.timestamp(), ath=ath)
        except JwsInvalid as invalid:
            raise InvalidDpopProof(reason=str(invalid)) from None


def check_claims(claims: MobileClaims, bank: Bank, *, now: float) -> None:
    """Whether a token we signed is good here and now (RFC 9068 §4)."""
    if claims.iss != bank.issuer:
        raise InvalidToken(reason="it is of another issuer")
    if claims.aud != bank.resource:
        raise InvalidToken(reason="it is for another resource")
    if claims.livemode != bank.livemode:
        raise InvalidToken(reason="it is of another mode: sandbox and live never cross")
    if claims.exp <= now:
        raise InvalidToken(reason="it has expired")
    if max(claims.nbf, claims.iat) > now + SKEW_SECONDS:
        raise InvalidToken(reason="it is not valid yet")


def _session_id(claims: MobileClaims) -> UUID:
    try:
        return from_wire("ses", claims.sid)
    except Absent:
        raise InvalidToken(reason="its sid is malformed") from None


def _caller(claims: MobileClaims, session: Session) -> MemberCaller:
    return MemberCaller(
        member=MemberRef(member_id=session.member_id, bucket=session.bucket),
        subject=claims.sub,
        client_id=session.client_id,
        # A scope taken from the session is gone at once, whatever the token says.
        scopes=frozenset(claims.scope.split()) & frozenset(session.scopes),
        session_id=session.id,
        authenticated_at=session.authenticated_at,
        methods=session.methods,
    )
