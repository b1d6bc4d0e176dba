"""What a process keeps up to date by itself, also when it cannot read all it finds."""

import pytest
from jwt.utils import base64url_encode

from gateway.runtime import Runtime
from kernel.database import Connection, acquire
from kernel.settings import Settings
from kernel.vault import Vault, generate_ring
from partners.oauth.jws import JwsInvalid
from partners.oauth.rotation import replace_now


async def test_a_key_that_is_taken_back_is_gone_even_where_the_new_one_cannot_be_opened(
    settings: Settings, owner_connection: Connection
) -> None:
    runtime = Runtime(settings)
    async with runtime.open():
        token = runtime.signer.sign({"jti": base64url_encode(b"x").decode()}, typ="at+jwt")
        assert runtime.signer.verify(token, "at+jwt")
        async with acquire(runtime.pool) as connection:
            begun = connection.transaction()
            await begun.start()
            # By a process whose ring has a master key more than ours.
            stranger = Vault(generate_ring())
            await replace_now(connection, stranger, reason="stolen", by="test", now=runtime.clock.now())
            await runtime.reload_keys(connection)
            await begun.rollback()
        with pytest.raises(JwsInvalid):
            runtime.signer.verify(token, "at+jwt")
