"""The token endpoint: one way in, and every way that must stay closed."""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from partner_client import ASSERTION_TYPE, DROP, PartnerClient, b64, forge, forge_hs256, generate, private_jwk

from kernel.database import Connection, Pool, transaction
from partners.oauth.client_authentication import decoy
from partners.oauth.keys import Signer
from partners.oauth.model import TokenIssued, TokenRefused
from partners.oauth.token import request_token
from partners.registry import client_keys
from partners.registry import queries as registry_queries
from partners.registry import service as registry
from partners.registry.model import App, PartnerStatus

FORM = "application/x-www-form-urlencoded"
URL = "https://bank.example/oauth2/token"

Ask = Callable[..., Coroutine[Any, Any, TokenIssued | TokenRefused]]


@pytest.fixture
def ask(connection: Connection, signer: Signer, client: PartnerClient, base_url: str, now: datetime) -> Ask:
    """A token request with a good form and a good proof, except for what the test says."""

    async def asked(
        *, body: bytes | None = None, proofs: list[str] | None = None, **form: Any
    ) -> TokenIssued | TokenRefused:
        return await request_token(
            connection,
            body=client.form(now, **form) if body is None else body,
            content_type=FORM,
            proofs=[client.proof("POST", URL, now)] if proofs is None else proofs,
            signer=signer,
            base_url=base_url,
            livemode=False,
            now=now,
        )

    return asked


def error_of(outcome: TokenIssued | TokenRefused) -> tuple[int, str]:
    assert isinstance(outcome, TokenRefused)
    return outcome.status, outcome.error


async def test_a_good_request_gets_a_bound_token(
    ask: Ask, client: PartnerClient, signer: Signer, now: datetime
) -> None:
    outcome = await ask()
    assert isinstance(outcome, TokenIssued)
    assert (outcome.token_type, outcome.expires_in) == ("DPoP", 300)
    assert outcome.scope == "members:read points:earn settlement:read"
    assert jwt.get_unverified_header(outcome.access_token) == {
        "alg": "ES256",
        "typ": "at+jwt",
        "kid": signer.kid,
    }
    claims = jwt.decode(
        outcome.access_token,
        jwt.PyJWK(signer.jwks()["keys"][0]),
        algorithms=["ES256"],
        audience="https://bank.example/v1",
        options={"verify_exp": False, "verify_iat": False, "verify_nbf": False, "strict_aud": True},
    )
    moment = int(now.timestamp())
    assert len(claims.pop("jti")) >= 22
    assert len(claims.pop("cnf")["jkt"]) == 43
    assert claims == {
        "iss": "https://bank.example",
        "aud": "https://bank.example/v1",
        "sub": client.client_id,
        "client_id": client.client_id,
        "iat": moment,
        "nbf": moment,
        "exp": moment + 300,
        "scope": outcome.scope,
        "livemode": False,
        "pse": 1,
    }


@pytest.mark.parametrize("alg", ["ES256", "PS256", "EdDSA"])
async def test_assertions_and_proofs_may_use_any_of_the_three_algorithms(
    alg: str, connection: Connection, signer: Signer, register: Any, base_url: str, now: datetime
) -> None:
    _, client = await register(connection, now, alg=alg)
    client.proof_alg, client.proof_key = alg, generate(alg)
    outcome = await request_token(
        connection,
        body=client.form(now),
        content_type=FORM,
        proofs=[client.proof("POST", URL, now)],
        signer=signer,
        base_url=base_url,
        livemode=False,
        now=now,
    )
    assert isinstance(outcome, TokenIssued)


def at(seconds: float) -> Callable[[datetime], int]:
    return lambda now: int((now + timedelta(seconds=seconds)).timestamp())


ASSERTIONS: dict[str, dict[str, Any]] = {
    "aud is the token endpoint": {"aud": URL},
    "aud is a list": {"aud": ["https://bank.example"]},
    "aud has a slash more": {"aud": "https://bank.example/"},
    "no aud": {"aud": DROP},
    "no exp": {"exp": DROP},
    "no jti": {"jti": DROP},
    "empty jti": {"jti": ""},
    "long jti": {"jti": "x" * 129},
    "no sub": {"sub": DROP},
    "no iss": {"iss": DROP},
    "sub of another": {"sub": "app_00000000000000000000000000"},
    "iss with NUL": {"iss": "app_\0", "sub": "app_\0"},
    "expired now": {"exp": at(0)},
    "expired 5 minutes ago": {"iat": at(-400), "exp": at(-300)},
    "lives 301 seconds": {"exp": at(301)},
    "lives long without iat": {"iat": DROP, "exp": at(400)},
    "iat 61 seconds ahead": {"iat": at(61), "exp": at(120)},
    "nbf 61 seconds ahead": {"nbf": at(61)},
    "exp is a text": {"exp": "soon"},
}


@pytest.mark.parametrize("changes", ASSERTIONS.values(), ids=ASSERTIONS)
async def test_an_assertion_with_wrong_claims_is_refused(
    changes: dict[str, Any], ask: Ask, client: PartnerClient, now: datetime
) -> None:
    claims = {name: value(now) if callable(value) else value for name, value in changes.items()}
    # PyJWT will not write some of these itself
    jws = signed(client, {"alg": "ES256", "kid": "k1"}, client.claims(now, **claims))
    assert error_of(await ask(client_assertion=jws)) == (401, "invalid_client")


def signed(client: PartnerClient, header: dict[str, Any], claims: dict[str, Any]) -> str:
    """A JWS with any header and claims and a good signature."""
    text: str = forge(header, claims).rpartition(".")[0]
    return f"{text}.{b64(jwt.get_algorithm_by_name('ES256').sign(text.encode(), client.key))}"


async def test_the_refusal_says_which_audience_is_expected(
    ask: Ask, client: PartnerClient, now: datetime
) -> None:
    outcome = await ask(client_assertion=client.assertion(now, aud=URL))
    assert isinstance(outcome, TokenRefused)
    assert '"https://bank.example"' in outcome.description


@pytest.mark.parametrize(
    "changes",
    [
        {"iat": at(10), "exp": at(70)},
        {"nbf": at(10)},
        {"iat": at(-299), "exp": at(1)},
        {"exp": at(300)},
        {"iat": DROP, "exp": at(300)},
        {"note": "other claims are of no interest"},
    ],
    ids=" ".join,
)
async def test_a_clock_a_little_off_is_tolerated(
    changes: dict[str, Any], ask: Ask, client: PartnerClient, now: datetime
) -> None:
    claims = {name: value(now) if callable(value) else value for name, value in changes.items()}
    assert isinstance(await ask(client_assertion=client.assertion(now, **claims)), TokenIssued)


HEADERS: dict[str, dict[str, Any]] = {
    "jku": {"jku": "https://evil.example/jwks"},
    "x5u": {"x5u": "https://evil.example/cert"},
    "x5c": {"x5c": ["MIIB"]},
    "crit": {"crit": ["b64"], "b64": True},
    "typ of an access token": {"typ": "at+jwt"},
    "typ of a proof": {"typ": "dpop+jwt"},
    "typ of a request object": {"typ": "oauth-authz-req+jwt"},
    "another kid": {"kid": "k2"},
    "a path for a kid": {"kid": "../../dev/null"},
    "no kid": {"kid": None},
    "jwk": {"jwk": {"kty": "EC"}},
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
async def test_an_assertion_with_a_wrong_header_is_refused(
    header: dict[str, Any], ask: Ask, client: PartnerClient, now: datetime
) -> None:
    members = {
        name: value for name, value in {"alg": "ES256", "kid": "k1", **header}.items() if value is not None
    }
    jws = signed(client, members, client.claims(now))
    assert error_of(await ask(client_assertion=jws)) == (401, "invalid_client")


async def test_a_good_key_in_the_assertion_itself_proves_nothing(
    ask: Ask, client: PartnerClient, now: datetime
) -> None:
    thief = PartnerClient(client_id=client.client_id, issuer=client.issuer)
    jws = thief.assertion(now, headers={"jwk": thief.public_jwk})
    assert error_of(await ask(client_assertion=jws)) == (401, "invalid_client")


async def test_algorithms_are_not_confused(ask: Ask, client: PartnerClient, now: datetime) -> None:
    claims, header = client.claims(now), {"alg": "none", "kid": "k1"}
    pem = client.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for jws in (
        forge(header, claims),
        forge({**header, "alg": "nOnE"}, claims),
        forge({**header, "alg": "ES256"}, claims),
        forge({**header, "alg": "ES256"}, claims, bytes(64)),
        forge({**header, "alg": "EdDSA"}, claims, bytes(64)),
        forge({**header, "alg": "PS256"}, claims, bytes(256)),
        forge_hs256(header, claims, pem),
    ):
        assert error_of(await ask(client_assertion=jws)) == (401, "invalid_client")


async def test_a_stranger_a_wrong_key_and_a_wrong_kid_look_the_same(
    ask: Ask, connection: Connection, client: PartnerClient, register: Any, now: datetime
) -> None:
    _, other = await register(connection, now)
    stranger = PartnerClient(client_id="app_00000000000000000000000000", issuer=client.issuer)
    answers = [
        await ask(client_assertion=jws)
        for jws in (
            stranger.assertion(now),
            client.assertion(now, key=stranger.key),
            client.assertion(now, headers={"kid": "k9"}),
            other.assertion(now, iss=client.client_id, sub=client.client_id),
        )
    ]
    assert all(answer == answers[0] for answer in answers)
    assert error_of(answers[0]) == (401, "invalid_client")


@pytest.mark.parametrize("alg", ["ES256", "PS256", "EdDSA"])
def test_there_is_a_decoy_for_every_algorithm(alg: str) -> None:
    assert decoy(alg).alg == alg
    assert not decoy(alg).verifies(bytes(64), b"x")


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({"grant_type": DROP}, (400, "invalid_request")),
        ({"grant_type": "password"}, (400, "unsupported_grant_type")),
        ({"grant_type": "authorization_code"}, (400, "unsupported_grant_type")),
        ({"client_assertion": DROP}, (401, "invalid_client")),
        ({"client_assertion_type": DROP}, (401, "invalid_client")),
        ({"client_assertion_type": "urn:x"}, (401, "invalid_client")),
        ({"client_secret": "s"}, (401, "invalid_client")),
        ({"client_id": "app_00000000000000000000000000"}, (401, "invalid_client")),
        ({"scope": "points:earn offers:read"}, (400, "invalid_scope")),
        ({"scope": "admin"}, (400, "invalid_scope")),
        ({"resource": "https://bank.example/mobile/v1"}, (400, "invalid_target")),
        ({"grant_type": ["client_credentials", "client_credentials"]}, (400, "invalid_request")),
    ],
    ids=str,
)
async def test_a_wrong_form_is_refused(form: dict[str, Any], error: tuple[int, str], ask: Ask) -> None:
    assert error_of(await ask(**form)) == error


async def test_scope_resource_and_client_id_may_be_named(ask: Ask, client: PartnerClient) -> None:
    outcome = await ask(scope="points:earn", resource="https://bank.example/v1", client_id=client.client_id)
    assert isinstance(outcome, TokenIssued)
    assert outcome.scope == "points:earn"


PROOFS: dict[str, dict[str, Any]] = {
    "htm GET": {"htm": "GET"},
    "htm in lower case": {"htm": "post"},
    "htu of another path": {"htu": "https://bank.example/oauth2/par"},
    "htu of another host": {"htu": "https://evil.example/oauth2/token"},
    "htu of another scheme": {"htu": "http://bank.example/oauth2/token"},
    "htu of another port": {"htu": "https://bank.example:8443/oauth2/token"},
    "htu is the issuer": {"htu": "https://bank.example"},
    "htu with a user": {"htu": "https://x@bank.example/oauth2/token"},
    "no htm": {"htm": DROP},
    "no htu": {"htu": DROP},
    "no iat": {"iat": DROP},
    "no jti": {"jti": DROP},
    "long jti": {"jti": "x" * 129},
    "61 seconds old": {"iat": at(-61)},
    "61 seconds ahead": {"iat": at(61)},
    "an hour old": {"iat": at(-3600)},
    "expired": {"exp": at(0)},
    "not yet valid": {"nbf": at(61)},
    "iat is a text": {"iat": "now"},
}


@pytest.mark.parametrize("changes", PROOFS.values(), ids=PROOFS)
async def test_a_proof_with_wrong_claims_is_refused(
    changes: dict[str, Any], ask: Ask, client: PartnerClient, now: datetime
) -> None:
    claims = {name: value(now) if callable(value) else value for name, value in changes.items()}
    header = {
        "alg": "ES256",
        "typ": "dpop+jwt",
        "jwk": jwt.get_unverified_header(client.proof("POST", URL, now))["jwk"],
    }
    good = jwt.decode(client.proof("POST", URL, now), options={"verify_signature": False})
    wrong = {name: value for name, value in {**good, **claims}.items() if value is not DROP}
    text = forge(header, wrong).rpartition(".")[0]
    proof = f"{text}.{b64(jwt.get_algorithm_by_name('ES256').sign(text.encode(), client.proof_key))}"
    assert error_of(await ask(proofs=[proof])) == (400, "invalid_dpop_proof")


@pytest.mark.parametrize(
    "changes",
    [
        {"iat": at(10)},
        {"iat": at(-60)},
        {"htu": "HTTPS://BANK.example:443/oauth2/token"},
        {"htu": f"{URL}?a=b#c"},
        {"note": "x"},
        {"exp": at(60), "nbf": at(-60)},
    ],
    ids=" ".join,
)
async def test_a_proof_may_differ_where_it_does_not_matter(
    changes: dict[str, Any], ask: Ask, client: PartnerClient, now: datetime
) -> None:
    claims = {name: value(now) if callable(value) else value for name, value in changes.items()}
    assert isinstance(await ask(proofs=[client.proof("POST", URL, now, **claims)]), TokenIssued)


async def test_a_proof_with_a_wrong_header_is_refused(ask: Ask, client: PartnerClient, now: datetime) -> None:
    def proof(**headers: Any) -> str:
        return client.proof("POST", URL, now, headers=headers)

    good = proof()
    for proofs in (
        [],
        [good, good],
        ["not a proof"],
        [proof(typ="JWT")],
        [proof(typ="at+jwt")],
        [proof(jwk=private_jwk("ES256", client.proof_key))],
        [client.proof("POST", URL, now, key=generate("ES256"))],
        [jwt.encode({"jti": "x"}, client.proof_key, algorithm="ES256", headers={"typ": "dpop+jwt"})],
        [client.assertion(now)],
    ):
        assert error_of(await ask(proofs=proofs)) == (400, "invalid_dpop_proof")


async def test_a_proof_works_once(ask: Ask, client: PartnerClient, now: datetime) -> None:
    proof = client.proof("POST", URL, now)
    assert isinstance(await ask(proofs=[proof]), TokenIssued)
    assert error_of(await ask(proofs=[proof])) == (400, "invalid_dpop_proof")


async def test_nobody_uses_up_the_proofs_of_another(ask: Ask, client: PartnerClient, now: datetime) -> None:
    assert isinstance(await ask(proofs=[client.proof("POST", URL, now, jti="one")]), TokenIssued)
    client.proof_key = generate("ES256")
    assert isinstance(await ask(proofs=[client.proof("POST", URL, now, jti="one")]), TokenIssued)


async def test_an_assertion_is_used_up_even_where_the_request_is_refused(
    ask: Ask, client: PartnerClient, now: datetime
) -> None:
    assertion = client.assertion(now)
    assert error_of(await ask(client_assertion=assertion, proofs=[])) == (400, "invalid_dpop_proof")
    assert error_of(await ask(client_assertion=assertion)) == (401, "invalid_client")


async def test_an_assertion_that_does_not_verify_uses_nothing_up(
    ask: Ask, client: PartnerClient, now: datetime
) -> None:
    thief = PartnerClient(client_id=client.client_id, issuer=client.issuer)
    await ask(client_assertion=thief.assertion(now, jti="one"))
    assert isinstance(await ask(client_assertion=client.assertion(now, jti="one")), TokenIssued)


@pytest.mark.parametrize("status", ["draft", "approved", "suspended", "terminating"])
async def test_only_a_live_partner_gets_tokens(
    status: PartnerStatus, ask: Ask, connection: Connection, app: App
) -> None:
    await connection.execute("UPDATE registry_partner SET status = $2 WHERE id = $1", app.partner_id, status)
    assert error_of(await ask()) == (400, "unauthorized_client")


async def test_only_an_active_app_gets_tokens(
    ask: Ask, connection: Connection, app: App, now: datetime
) -> None:
    await registry.set_app_status(connection, app_id=app.id, status="inactive", actor="admin:duty", now=now)
    assert error_of(await ask()) == (400, "unauthorized_client")


async def test_keys_are_rotated_without_a_gap(
    ask: Ask, connection: Connection, app: App, client: PartnerClient, now: datetime
) -> None:
    new = PartnerClient(client_id=client.client_id, issuer=client.issuer, kid="k2")
    await registry.add_key(connection, app_id=app.id, jwk=new.public_jwk, status="pending", now=now)
    await registry_queries.move_key(connection, app.id, "k2", present="pending", wanted="active")
    await registry_queries.move_key(connection, app.id, "k1", present="active", wanted="retiring")
    for one in (client, new):
        assert isinstance(await ask(client_assertion=one.assertion(now)), TokenIssued)
    await client_keys.revoke_key(connection, app_id=app.id, kid="k1", actor="app:test", now=now)
    assert error_of(await ask(client_assertion=client.assertion(now))) == (401, "invalid_client")


async def test_of_fifty_copies_of_one_assertion_one_gets_a_token(
    pool: Pool, register: Any, lasting_signer: Signer, base_url: str, now: datetime
) -> None:
    async with transaction(pool) as connection:
        _, client = await register(connection, now)
    assertion = client.assertion(now)

    async def ask_once() -> TokenIssued | TokenRefused:
        proof = client.proof("POST", URL, now)
        async with transaction(pool) as connection:
            return await request_token(
                connection,
                body=client.form(now, client_assertion=assertion, client_assertion_type=ASSERTION_TYPE),
                content_type=FORM,
                proofs=[proof],
                signer=lasting_signer,
                base_url=base_url,
                livemode=False,
                now=now,
            )

    gate = asyncio.Semaphore(8)

    async def admitted() -> TokenIssued | TokenRefused:
        async with gate:
            return await ask_once()

    outcomes = await asyncio.gather(*(admitted() for _ in range(50)))
    assert sum(isinstance(outcome, TokenIssued) for outcome in outcomes) == 1
    assert {error_of(outcome) for outcome in outcomes if isinstance(outcome, TokenRefused)} == {
        (401, "invalid_client")
    }
