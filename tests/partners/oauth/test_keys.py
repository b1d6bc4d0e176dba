"""The bank's signing keys: sealed at rest, published before use, rotated without a gap."""

import asyncio
from datetime import datetime, timedelta

import jwt
import pytest

from kernel.database import Connection, Pool, transaction
from kernel.vault import Vault, VaultError, generate_ring
from partners.oauth import keys, queries
from partners.oauth.jws import JwsInvalid
from partners.oauth.keys import Signer, load_signer

ISSUER = "https://bank.example"


async def test_every_statement_is_valid_on_the_schema(connection: Connection) -> None:
    statements = [v for name, v in vars(queries).items() if name.isupper() and isinstance(v, str)]
    assert statements
    for statement in statements:
        await connection.prepare(statement)


async def test_the_key_survives_a_restart(
    connection: Connection, signer: Signer, vault: Vault, now: datetime
) -> None:
    again = await load_signer(connection, vault, ISSUER, now)
    assert again.kid == signer.kid
    assert again.verify(signer.sign({"a": 1}, typ="x+jwt"), "x+jwt") == {"a": 1}


async def test_the_private_half_is_sealed_and_never_published(
    connection: Connection, signer: Signer, now: datetime
) -> None:
    stored = await queries.list_signing_keys(connection)
    assert b'"d"' not in stored[0].private_jwk
    assert [set(key) for key in signer.jwks()["keys"]] == [{"kty", "crv", "x", "y", "kid", "alg", "use"}]
    with pytest.raises(VaultError):
        await load_signer(connection, Vault(generate_ring()), ISSUER, now)


async def test_processes_that_start_together_agree_on_the_first_key(
    pool: Pool, vault: Vault, now: datetime
) -> None:
    gate = asyncio.Barrier(4)

    async def start() -> str:
        async with transaction(pool) as connection:
            await gate.wait()
            return (await load_signer(connection, vault, ISSUER, now)).kid

    async with transaction(pool) as connection:
        others = [key.kid for key in await queries.list_signing_keys(connection) if key.status == "active"]
        await queries.move_signing_keys(connection, present="active", wanted="retired")
    try:
        assert len(set(await asyncio.gather(*(start() for _ in range(4))))) == 1
    finally:
        async with transaction(pool) as connection:
            await queries.move_signing_keys(connection, present="active", wanted="retired")
            for kid in others:
                await queries.move_signing_key(connection, kid, present="retired", wanted="active")


async def test_a_key_is_published_before_it_signs_and_as_long_as_its_tokens_live(
    connection: Connection, signer: Signer, vault: Vault, now: datetime
) -> None:
    token = signer.sign({"a": 1}, typ="x+jwt")
    kid = await keys.stage_signing_key(connection, vault, now=now + timedelta(days=1))
    staged = await load_signer(connection, vault, ISSUER, now)
    assert [key["kid"] for key in staged.jwks()["keys"]] == [kid, signer.kid]
    assert staged.kid == signer.kid
    await keys.promote_signing_key(connection, kid)
    promoted = await load_signer(connection, vault, ISSUER, now)
    assert promoted.kid == kid
    assert promoted.verify(token, "x+jwt") == {"a": 1}
    await queries.move_signing_keys(connection, present="retiring", wanted="retired")
    retired = await load_signer(connection, vault, ISSUER, now)
    assert [key["kid"] for key in retired.jwks()["keys"]] == [kid]
    with pytest.raises(JwsInvalid):
        retired.verify(token, "x+jwt")


async def test_promoting_a_key_nobody_staged_changes_nothing(
    connection: Connection, signer: Signer, vault: Vault, now: datetime
) -> None:
    with pytest.raises(keys.SigningKeyNotStaged):
        await keys.promote_signing_key(connection, "unknown")
    assert (await load_signer(connection, vault, ISSUER, now)).kid == signer.kid


async def test_another_library_verifies_what_the_bank_signs(signer: Signer) -> None:
    token = signer.sign({"a": 1}, typ="x+jwt")
    assert jwt.decode(token, jwt.PyJWKSet(signer.jwks()["keys"])[signer.kid], algorithms=["ES256"]) == {
        "a": 1
    }
    with pytest.raises(JwsInvalid):
        signer.verify(token, "y+jwt")
