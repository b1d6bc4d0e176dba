"""The bank's signing keys over the months: published before they sign, kept after, replaced at once in an emergency."""

from datetime import datetime, timedelta

import pytest

from kernel.database import Connection
from kernel.vault import Vault
from partners.oauth import queries, rotation
from partners.oauth.jws import JwsInvalid
from partners.oauth.keys import Signer, load_signer

ISSUER = "https://bank.example"
DAY, HOUR = timedelta(days=1), timedelta(hours=1)


async def rotate(connection: Connection, vault: Vault, at: datetime) -> list[str]:
    return [done.split()[0] for done in await rotation.rotate_due(connection, vault, now=at)]


async def states(connection: Connection) -> list[str]:
    return [status for _, status in await queries.list_signing_key_states(connection)]


async def test_the_next_key_is_published_a_day_before_it_signs_and_the_old_one_kept_a_day(
    connection: Connection, signer: Signer, vault: Vault, now: datetime
) -> None:
    old = signer.kid
    token = signer.sign({"a": 1}, typ="x+jwt")
    assert await rotate(connection, vault, now + 89 * DAY) == []

    staged_at = now + 90 * DAY
    assert await rotate(connection, vault, staged_at) == ["staged"]
    assert await signer.reload(connection, vault)
    assert (signer.kid, len(signer.jwks()["keys"])) == (old, 2)
    assert await rotate(connection, vault, staged_at + 23 * HOUR) == []

    promoted_at = staged_at + 24 * HOUR
    assert await rotate(connection, vault, promoted_at) == ["promoted"]
    assert await signer.reload(connection, vault)
    assert signer.kid != old
    assert signer.verify(token, "x+jwt") == {"a": 1}
    assert await rotate(connection, vault, promoted_at + 23 * HOUR) == []

    assert await rotate(connection, vault, promoted_at + 24 * HOUR) == ["retired"]
    assert await signer.reload(connection, vault)
    assert [key["kid"] for key in signer.jwks()["keys"]] == [signer.kid]
    with pytest.raises(JwsInvalid):
        signer.verify(token, "x+jwt")


async def test_what_was_missed_is_done_one_step_at_a_time(
    connection: Connection, signer: Signer, vault: Vault, now: datetime
) -> None:
    year = now + 365 * DAY
    done = [await rotate(connection, vault, year + n * DAY) for n in range(4)]
    assert done == [["staged"], ["promoted"], ["retired"], []]
    assert await states(connection) == ["active"]


async def test_without_the_vault_nothing_is_staged(
    connection: Connection, signer: Signer, now: datetime
) -> None:
    assert await rotation.rotate_due(connection, None, now=now + 365 * DAY) == []


async def test_in_an_emergency_nothing_the_old_keys_signed_is_accepted(
    connection: Connection, signer: Signer, vault: Vault, now: datetime
) -> None:
    token = signer.sign({"a": 1}, typ="x+jwt")
    await rotate(connection, vault, now + 90 * DAY)
    kid = await rotation.replace_now(connection, vault, reason="seen elsewhere", by="admin:duty", now=now)
    assert await signer.reload(connection, vault)
    assert signer.kid == kid
    assert [key["kid"] for key in signer.jwks()["keys"]] == [kid]
    with pytest.raises(JwsInvalid):
        signer.verify(token, "x+jwt")
    again = await load_signer(connection, vault, ISSUER, now)
    assert again.kid == kid
    record = await connection.fetchrow(
        "SELECT * FROM audit_record WHERE action = 'signing_key.replaced' AND subject = $1", kid
    )
    assert record is not None
    assert (record["actor"], record["detail"]) == ("admin:duty", {"reason": "seen elsewhere"})


async def test_a_process_that_has_seen_everything_loads_nothing(
    connection: Connection, signer: Signer, vault: Vault
) -> None:
    assert not await signer.reload(connection, vault)
