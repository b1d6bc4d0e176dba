"""What another server answers to the same requests, and what ours answers: the same, or the reason beside it.

The other is the npm package `oidc-provider` 9.13.3 with its FAPI 2.0 profile switched on, as observed.
"""

from collections.abc import Awaitable, Callable

import httpx
import jwt
import pytest
from conformance.bank import INTROSPECT, ISSUER, TOKEN, RelyingParty
from msgspec import Struct
from partner_client import DROP

Ask = Callable[[RelyingParty], Awaitable[httpx.Response]]


class Row(Struct, frozen=True, kw_only=True):
    """One request and both answers."""

    ask: Ask
    theirs: tuple[int, str]
    ours: tuple[int, str]
    #: empty where both answer the same
    because: str = ""


async def replayed_assertion(party: RelyingParty) -> httpx.Response:
    assertion = party.assertion()
    assert (await party.ask_token(client_assertion=assertion)).status_code == 200
    return await party.ask_token(client_assertion=assertion)


async def replayed_proof(party: RelyingParty) -> httpx.Response:
    proof = party.proof("POST", TOKEN)
    assert (await party.ask_token(proofs=[proof])).status_code == 200
    return await party.ask_token(proofs=[proof])


def asserting(**changes: object) -> Ask:
    return lambda party: party.ask_token(client_assertion=party.assertion(**changes))


def proving(**changes: object) -> Ask:
    return lambda party: party.ask_token(proofs=[party.proof("POST", TOKEN, **changes)])


def an_hour_ahead(party: RelyingParty) -> Awaitable[httpx.Response]:
    iat = int(party.bank.clock.now().timestamp()) + 3600
    return party.ask_token(proofs=[party.proof("POST", TOKEN, iat=iat)])


def with_the_private_key(party: RelyingParty) -> Awaitable[httpx.Response]:
    return party.ask_token(proofs=[party.proof("POST", TOKEN, headers={"jwk": party.private_proof_jwk})])


async def introspected(party: RelyingParty) -> httpx.Response:
    return await party.send_form(INTROSPECT, proofs=[], token=await party.token())


CLIENT = (401, "invalid_client")
PROOF = (400, "invalid_dpop_proof")

TABLE = {
    "aud is the token endpoint": Row(ask=asserting(aud=ISSUER + TOKEN), theirs=CLIENT, ours=CLIENT),
    "aud is a list of the issuer": Row(ask=asserting(aud=[ISSUER]), theirs=CLIENT, ours=CLIENT),
    "no sub": Row(ask=asserting(sub=DROP), theirs=CLIENT, ours=CLIENT),
    "assertion sent again": Row(ask=replayed_assertion, theirs=CLIENT, ours=CLIENT),
    "no DPoP header": Row(
        ask=lambda party: party.ask_token(proofs=[]),
        theirs=(400, "invalid_grant"),
        ours=PROOF,
        because="RFC 9449 §5 gives the token endpoint invalid_dpop_proof for a proof that does not hold, and a client "
        "told invalid_grant would throw its grant away; the description says that exactly one header is needed",
    ),
    "htm of another method": Row(ask=proving(htm="GET"), theirs=PROOF, ours=PROOF),
    "htu of another address": Row(ask=proving(htu=ISSUER + "/oauth2/par"), theirs=PROOF, ours=PROOF),
    "typ of an ordinary JWT": Row(ask=proving(headers={"typ": "JWT"}), theirs=PROOF, ours=PROOF),
    "private key in the proof": Row(ask=with_the_private_key, theirs=PROOF, ours=PROOF),
    "proof sent again": Row(
        ask=replayed_proof,
        theirs=(400, "invalid_grant"),
        ours=PROOF,
        because="RFC 9449 §4.3 counts an unused jti among the checks of the proof, so the error is the proof's",
    ),
    "iat an hour ahead": Row(
        ask=an_hour_ahead,
        theirs=(400, "use_dpop_nonce"),
        ours=PROOF,
        because="RFC 9449 §8 lets a server ask for a nonce; ours goes by iat here, and a client whose clock is an hour "
        "wrong is told so rather than carried along",
    ),
    "introspection of a JWT access token": Row(
        ask=introspected,
        theirs=(400, "unsupported_token_type"),
        ours=(200, ""),
        because="RFC 7662 §2.1 leaves the kinds of tokens to the server; a partner that holds a token of its own is told "
        "at once when it was revoked, which the token itself cannot say",
    ),
}


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)
async def test_our_answer_is_theirs_or_differs_for_a_reason(row: Row, first: RelyingParty) -> None:
    answer = await row.ask(first)
    assert (answer.status_code, answer.json().get("error", "")) == row.ours
    assert (row.ours == row.theirs) == (row.because == "")


async def test_a_good_request_gets_what_the_other_server_gives(first: RelyingParty) -> None:
    answer = (await first.ask_token()).json()
    token = answer["access_token"]
    assert (answer["token_type"], answer["expires_in"]) == ("DPoP", 300)
    assert jwt.get_unverified_header(token)["typ"] == "at+jwt"
    claims = jwt.decode(token, options={"verify_signature": False})
    theirs = {"jti", "sub", "iat", "exp", "scope", "client_id", "iss", "aud", "cnf"}
    assert theirs <= set(claims)
    assert set(claims["cnf"]) == {"jkt"}
