"""Access to the API: the token, the proof and the present state of the client must all agree."""

import hashlib
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

import jwt
import pytest
from partner_client import DROP, PartnerClient, b64, forge, generate, private_jwk

from kernel.database import Pool, transaction
from kernel.errors import Refusal
from partners.oauth.access import (
    AccessVerifier,
    AppNotActive,
    InvalidDpopProof,
    InvalidToken,
    PartnerNotActive,
    TokenMissing,
)
from partners.oauth.keys import Signer
from partners.oauth.model import Authenticated, TokenIssued
from partners.oauth.revocations import RevocationList
from partners.oauth.token import request_token
from partners.registry import client_keys
from partners.registry import service as registry
from partners.registry.directory import AppDirectory
from partners.registry.model import App

BASE_URL = "https://bank.example"
URL = f"{BASE_URL}/v1/me"

Call = Callable[..., Awaitable[Authenticated]]


class Timer:
    """The directory's monotonic timer; a test winds it past the lifetime."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


class Bank:
    """The verifier of one process and what it stands on."""

    def __init__(self, pool: Pool, signer: Signer, app: App, client: PartnerClient, token: str) -> None:
        self.pool, self.signer, self.app, self.client, self.token = pool, signer, app, client, token
        self.timer = Timer()
        self.directory = AppDirectory(pool, life_seconds=1, monotonic=self.timer)
        self.revocations = RevocationList(pool, life_seconds=1, monotonic=self.timer)

    def verifier(self, **changes: Any) -> AccessVerifier:
        return AccessVerifier(
            **{
                "signer": self.signer,
                "resource": f"{BASE_URL}/v1",
                "base_url": BASE_URL,
                "directory": self.directory,
                "revocations": self.revocations,
                "livemode": False,
                **changes,
            }
        )


@pytest.fixture
async def bank(pool: Pool, register: Any, lasting_signer: Signer, now: datetime) -> Bank:
    async with transaction(pool) as connection:
        app, client = await register(connection, now)
    async with transaction(pool) as connection:
        issued = await request_token(
            connection,
            body=client.form(now),
            content_type="application/x-www-form-urlencoded",
            proofs=[client.proof("POST", f"{BASE_URL}/oauth2/token", now)],
            signer=lasting_signer,
            base_url=BASE_URL,
            livemode=False,
            now=now,
        )
    assert isinstance(issued, TokenIssued)
    return Bank(pool, lasting_signer, app, client, issued.access_token)


@pytest.fixture
def call(bank: Bank, now: datetime) -> Call:
    """GET /v1/me with a good token and a good proof, except for what the test says."""
    verifier = bank.verifier()

    def called(**changes: Any) -> Awaitable[Authenticated]:
        good = {
            "method": "GET",
            "path": "/v1/me",
            "authorization": [f"DPoP {bank.token}"],
            "proofs": [bank.client.proof("GET", URL, now, token=bank.token)],
            "now": now,
        }
        return verifier.authenticate(**{**good, **changes})

    return called


def claims_of(bank: Bank) -> dict[str, Any]:
    return dict(jwt.decode(bank.token, options={"verify_signature": False}))


def signed(key: Any, header: dict[str, Any], claims: dict[str, Any]) -> str:
    text = forge(header, claims).rpartition(".")[0]
    return f"{text}.{b64(jwt.get_algorithm_by_name('ES256').sign(text.encode(), key))}"


async def test_a_good_call_is_let_in(bank: Bank, call: Call, now: datetime) -> None:
    proof = bank.client.proof("GET", URL, now, token=bank.token, jti="proof-1")
    known = await call(proofs=[proof])
    assert known.caller.partner_id == bank.app.partner_id
    assert known.caller.app_id == bank.app.id
    assert known.caller.client_id == bank.app.client_id
    assert known.caller.scopes == {"members:read", "points:earn", "settlement:read"}
    assert known.caller.key_thumbprint == claims_of(bank)["cnf"]["jkt"]
    assert (known.rate_per_second, known.burst) == (bank.app.rate_per_second, bank.app.burst)
    assert known.proof_scope == f"proof:{known.caller.key_thumbprint}"
    assert known.proof_jti == "proof-1"
    assert known.proof_expires_at > now + timedelta(seconds=90)


@pytest.mark.parametrize(
    ("authorization", "refusal"),
    [
        ([], TokenMissing),
        (["{scheme} {token}", "{scheme} {token}"], InvalidToken),
        (["Bearer {token}"], InvalidToken),
        (["bearer {token}"], InvalidToken),
        (["Basic YTpi"], InvalidToken),
        (["{token}"], InvalidToken),
        (["DPoP"], InvalidToken),
        (["DPoP "], InvalidToken),
        (["DPoP é"], InvalidToken),
        (["DPoP {token}x"], InvalidToken),
        (["DPoP {token},DPoP {token}"], InvalidToken),
    ],
    ids=str,
)
async def test_one_bound_token_in_one_header(
    authorization: list[str], refusal: type[Refusal], bank: Bank, call: Call
) -> None:
    with pytest.raises(refusal):
        await call(authorization=[text.format(scheme="DPoP", token=bank.token) for text in authorization])


async def test_the_scheme_may_be_written_in_any_case(bank: Bank, call: Call) -> None:
    assert await call(authorization=[f"dpop {bank.token}"])


async def test_a_bearer_learns_what_to_send(bank: Bank, call: Call) -> None:
    with pytest.raises(InvalidToken) as refused:
        await call(authorization=[f"Bearer {bank.token}"])
    assert "DPoP" in str(refused.value.facts["reason"])
    assert refused.value.challenge() == 'DPoP error="invalid_token", algs="ES256 PS256 EdDSA"'
    assert TokenMissing().challenge() == 'DPoP algs="ES256 PS256 EdDSA"'
    assert InvalidDpopProof().challenge().startswith('DPoP error="invalid_dpop_proof"')


TOKENS: dict[str, dict[str, Any]] = {
    "another issuer": {"iss": "https://other.example"},
    "another audience": {"aud": f"{BASE_URL}/mobile/v1"},
    "a list for the audience": {"aud": [f"{BASE_URL}/v1"]},
    "no audience": {"aud": DROP},
    "expired": {"exp": 1_700_000_000},
    "no expiry": {"exp": DROP},
    "not yet valid": {"nbf": 4_000_000_000},
    "issued in the future": {"iat": 4_000_000_000},
    "live mode": {"livemode": True},
    "no mode": {"livemode": DROP},
    "not bound": {"cnf": DROP},
    "bound to nothing": {"cnf": {}},
    "an older epoch": {"pse": 0},
    "no epoch": {"pse": DROP},
    "a client nobody knows": {"client_id": "app_00000000000000000000000000"},
}


@pytest.mark.parametrize("changes", TOKENS.values(), ids=TOKENS)
async def test_even_a_token_of_ours_must_be_for_here_and_now(
    changes: dict[str, Any], bank: Bank, call: Call, now: datetime
) -> None:
    wrong = {name: v for name, v in {**claims_of(bank), **changes}.items() if v is not DROP}
    token = bank.signer.sign(wrong, typ="at+jwt")
    proof = bank.client.proof("GET", URL, now, token=token)
    with pytest.raises(InvalidToken):
        await call(authorization=[f"DPoP {token}"], proofs=[proof])


async def test_no_other_signature_passes_for_a_token(bank: Bank, call: Call, now: datetime) -> None:
    claims, kid, stranger = claims_of(bank), bank.signer.kid, generate("ES256")
    header = {"alg": "ES256", "typ": "at+jwt", "kid": kid}
    for token in (
        bank.signer.sign(claims, typ="JWT"),
        bank.signer.sign(claims, typ="quote+jwt"),
        bank.client.assertion(now),
        bank.client.proof("GET", URL, now),
        forge({**header, "alg": "none"}, claims),
        forge(header, claims, bytes(64)),
        signed(stranger, header, claims),
        signed(stranger, {**header, "kid": "x"}, claims),
        signed(bank.client.key, {**header, "jwk": bank.client.public_jwk}, claims),
        bank.token[:-4] + ("AAAA" if bank.token[-4:] != "AAAA" else "BBBB"),
    ):
        proof = bank.client.proof("GET", URL, now, token=token)
        with pytest.raises(InvalidToken):
            await call(authorization=[f"DPoP {token}"], proofs=[proof])


PROOFS: dict[str, dict[str, Any]] = {
    "for POST": {"htm": "POST"},
    "for another path": {"htu": f"{BASE_URL}/v1/keys"},
    "for a longer path": {"htu": f"{URL}/"},
    "for the path in capitals": {"htu": f"{BASE_URL}/V1/me"},
    "for another host": {"htu": "https://evil.example/v1/me"},
    "for another scheme": {"htu": "http://bank.example/v1/me"},
    "for another port": {"htu": "https://bank.example:444/v1/me"},
    "for no address": {"htu": "/v1/me"},
    "without ath": {"ath": DROP},
    "for another token": {"ath": b64(hashlib.sha256(b"another").digest())},
    "without jti": {"jti": DROP},
    "with a long jti": {"jti": "x" * 129},
    "without iat": {"iat": DROP},
    "61 seconds old": {"iat": -61},
    "31 seconds ahead": {"iat": 31},
}


@pytest.mark.parametrize("changes", PROOFS.values(), ids=PROOFS)
async def test_a_proof_is_for_one_call(
    changes: dict[str, Any], bank: Bank, call: Call, now: datetime
) -> None:
    if isinstance(changes.get("iat"), int):
        changes = {"iat": int(now.timestamp()) + changes["iat"]}
    with pytest.raises(InvalidDpopProof) as refused:
        await call(proofs=[bank.client.proof("GET", URL, now, token=bank.token, **changes)])
    assert refused.value.facts["reason"]


async def test_a_proof_is_made_with_the_key_of_the_token(bank: Bank, call: Call, now: datetime) -> None:
    good = bank.client.proof("GET", URL, now, token=bank.token)
    thief = PartnerClient(client_id=bank.client.client_id, issuer=BASE_URL)
    header = {"jwk": private_jwk("ES256", bank.client.proof_key)}
    for proofs in (
        [],
        [good, good],
        [good + "," + good],
        ["x"],
        [bank.token],
        [bank.client.assertion(now)],
        [bank.client.proof("GET", URL, now, token=bank.token, headers=header)],
        [bank.client.proof("GET", URL, now, token=bank.token, headers={"typ": "jwt"})],
        [bank.client.proof("GET", URL, now, token=bank.token, key=thief.key)],
        [thief.proof("GET", URL, now, token=bank.token)],
    ):
        with pytest.raises(InvalidDpopProof):
            await call(proofs=proofs)


async def test_the_address_counts_without_query_and_case_of_host(
    bank: Bank, call: Call, now: datetime
) -> None:
    for htu in ("HTTPS://Bank.Example:443/v1/me", f"{URL}?a=b", f"{URL}#c"):
        assert await call(proofs=[bank.client.proof("GET", htu, now, token=bank.token)])


async def test_an_address_on_a_plain_port_is_compared_with_its_port(bank: Bank, now: datetime) -> None:
    local = "http://127.0.0.1:8080"
    verifier = bank.verifier(base_url=local)
    proof = bank.client.proof("GET", f"{local}/v1/me", now, token=bank.token)
    assert await verifier.authenticate(
        method="GET", path="/v1/me", authorization=[f"DPoP {bank.token}"], proofs=[proof], now=now
    )


async def test_a_remembered_token_expires_all_the_same(bank: Bank, call: Call, now: datetime) -> None:
    assert await call()
    last = now + timedelta(seconds=299)
    assert await call(now=last, proofs=[bank.client.proof("GET", URL, last, token=bank.token)])
    end = now + timedelta(seconds=300)
    with pytest.raises(InvalidToken):
        await call(now=end, proofs=[bank.client.proof("GET", URL, end, token=bank.token)])


async def test_a_suspension_ends_remembered_tokens_and_reinstatement_does_not_revive_them(
    bank: Bank, call: Call, now: datetime
) -> None:
    assert await call()
    await move(bank, "suspended", now)
    bank.timer.seconds += 1
    with pytest.raises(PartnerNotActive):
        await call()
    await move(bank, "live", now)
    bank.timer.seconds += 1
    with pytest.raises(InvalidToken) as refused:
        await call()
    assert "revoked" in str(refused.value.facts["reason"])


async def move(bank: Bank, status: Any, now: datetime) -> None:
    async with transaction(bank.pool) as connection:
        await registry.set_partner_status(
            connection, partner_id=bank.app.partner_id, status=status, actor="admin:duty", now=now
        )


async def test_an_app_switched_off_is_refused(bank: Bank, call: Call, now: datetime) -> None:
    assert await call()
    async with transaction(bank.pool) as connection:
        await registry.set_app_status(
            connection, app_id=bank.app.id, status="inactive", actor="admin:duty", now=now
        )
    bank.timer.seconds += 1
    with pytest.raises(AppNotActive):
        await call()


async def test_a_revoked_key_takes_its_tokens_along(bank: Bank, call: Call, now: datetime) -> None:
    assert await call()
    async with transaction(bank.pool) as connection:
        await client_keys.revoke_key(
            connection, app_id=bank.app.id, kid="k1", last=True, actor="app:test", now=now
        )
    bank.timer.seconds += 1
    with pytest.raises(InvalidToken):
        await call()


async def test_a_scope_taken_from_the_app_is_gone_from_its_tokens(bank: Bank, call: Call) -> None:
    async with transaction(bank.pool) as connection:
        await connection.execute(
            "UPDATE registry_app SET scopes = ARRAY['points:earn'] WHERE id = $1", bank.app.id
        )
    assert (await call()).caller.scopes == {"points:earn"}


async def test_memory_is_bounded(bank: Bank, now: datetime) -> None:
    verifier = bank.verifier(tokens_max=3)
    for number in range(10):
        token = bank.signer.sign({**claims_of(bank), "jti": f"t{number}"}, typ="at+jwt")
        proof = bank.client.proof("GET", URL, now, token=token)
        await verifier.authenticate(
            method="GET", path="/v1/me", authorization=[f"DPoP {token}"], proofs=[proof], now=now
        )
    assert verifier.remembered == 3
