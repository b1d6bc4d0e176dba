"""An app's keys from their registration to their end, also when a hundred assertions come at once."""

import asyncio
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from partner_client import generate, private_jwk, public_jwk

from kernel.database import Connection, Pool, transaction
from kernel.errors import Absent, Refusal
from partners.registry import client_keys, jwks_queries, rules, service
from partners.registry.jwk import KeyNotForSigning, KeyNotSupported, PrivateKeySent
from partners.registry.model import App, Key

WEEK = timedelta(days=7)
ACTOR = "app:test"
KEYS = [public_jwk("ES256", generate("ES256")) for _ in range(3)]
PENDING_TOO = "SELECT count(*) FROM outbox_event WHERE partner_id = $1 AND type = $2"


@pytest.fixture
async def instant(connection: Connection) -> datetime:
    """The database's own time: it decides when a retiring key ends."""
    moment: datetime = await connection.fetchval("SELECT clock_timestamp()")
    return moment


async def register(connection: Connection, now: datetime) -> App:
    partner_id = await service.register_partner(
        connection,
        slug=f"shop-{uuid4().hex[:12]}",
        name_zh="示例商城",
        name_en="Sample Mall",
        kind="service_provider",
        scene="ecommerce",
        status="live",
        now=now,
    )
    app = await service.register_app(connection, partner_id=partner_id, scopes=["points:earn"], now=now)
    await service.add_key(connection, app_id=app.id, jwk=fresh("old"), now=now)
    return app


def fresh(kid: str) -> dict[str, Any]:
    return public_jwk("ES256", generate("ES256")) | {"kid": kid}


async def rotate(connection: Connection, app: App, kid: str, now: datetime, overlap: timedelta = WEEK) -> Key:
    return await client_keys.register_key(
        connection, app_id=app.id, jwk=fresh(kid), overlap=overlap, actor=ACTOR, now=now
    )


async def statuses(connection: Connection, app: App) -> dict[str, str]:
    return {key.kid: key.status for key in await service.list_keys(connection, app.id)}


def known(kid: str, place: int, status: Any, *, not_after: datetime | None = None) -> Key:
    moment = datetime.fromisoformat("2026-11-20T00:00:00Z")
    return Key(kid=kid, jwk=KEYS[place], status=status, added_at=moment, not_after=not_after)


PAST = datetime.fromisoformat("2026-11-19T00:00:00Z")
NOW = datetime.fromisoformat("2026-11-20T12:00:00Z")


@pytest.mark.parametrize(
    ("jwk", "registered", "refusal"),
    [
        pytest.param(
            private_jwk("ES256", generate("ES256")) | {"kid": "a"}, [], PrivateKeySent, id="private"
        ),
        pytest.param({"kty": "oct", "k": "c2VjcmV0", "kid": "a"}, [], PrivateKeySent, id="shared secret"),
        pytest.param(KEYS[0] | {"kid": "a", "crv": "P-384"}, [], KeyNotSupported, id="EC not P-256"),
        pytest.param(KEYS[0] | {"kid": "a", "use": "enc"}, [], KeyNotForSigning, id="for encryption"),
        pytest.param(KEYS[0] | {"kid": "a", "alg": "HS256"}, [], KeyNotForSigning, id="other algorithm"),
        pytest.param(KEYS[0] | {"kid": "a", "x5u": "https://x.example"}, [], rules.KeyElsewhere, id="x5u"),
        pytest.param(KEYS[0] | {"kid": "a", "jku": "https://x.example"}, [], rules.KeyElsewhere, id="jku"),
        pytest.param(KEYS[0] | {"kid": "a", "x5c": ["MII"]}, [], rules.KeyElsewhere, id="x5c"),
        pytest.param(KEYS[0] | {"kid": "../a"}, [], rules.KidNotForPaths, id="kid with a path"),
        pytest.param(KEYS[0] | {"kid": ".."}, [], rules.KidNotForPaths, id="kid that is a path"),
        pytest.param(KEYS[0] | {"kid": "a'--"}, [], rules.KidNotForPaths, id="kid with a quote"),
        pytest.param(KEYS[0], [], rules.KidInvalid, id="no kid"),
        pytest.param(
            KEYS[0] | {"kid": "a"}, [known("a", 1, "revoked")], rules.KeyAlreadyRegistered, id="kid again"
        ),
        pytest.param(
            KEYS[0] | {"kid": "b"}, [known("a", 0, "revoked")], rules.KeyAlreadyRegistered, id="key again"
        ),
        pytest.param(
            KEYS[0] | {"kid": "b"}, [known("a", 1, "pending")], rules.KeyRotationPending, id="one pending"
        ),
        pytest.param(
            KEYS[0] | {"kid": "c"},
            [known("a", 1, "retiring"), known("b", 2, "active")],
            rules.KeyLimitReached,
            id="two usable",
        ),
    ],
)
def test_a_key_that_may_not_be_registered(
    jwk: dict[str, Any], registered: list[Key], refusal: type[Refusal]
) -> None:
    with pytest.raises(refusal):
        rules.check_rotation(jwk, registered, now=NOW)


def test_a_key_past_its_end_makes_room() -> None:
    registered = [known("a", 1, "retiring", not_after=PAST), known("b", 2, "active")]
    assert rules.check_rotation(KEYS[0] | {"kid": "c"}, registered, now=NOW)[0] == "c"


async def test_a_new_key_waits_and_its_first_use_retires_the_one_before(
    connection: Connection, instant: datetime
) -> None:
    app = await register(connection, instant)
    assert (await rotate(connection, app, "new", instant)).status == "pending"
    client = await service.find_client(connection, app.client_id)
    assert client is not None
    assert (set(client.keys), set(client.pending)) == ({"old"}, {"new"})

    assert await client_keys.use_pending_key(connection, app_id=app.id, kid="new", now=instant)

    keys = {key.kid: key for key in await service.list_keys(connection, app.id)}
    assert (keys["new"].status, keys["new"].activated_at) == ("active", instant)
    assert (keys["old"].status, keys["old"].not_after) == ("retiring", instant + WEEK)
    client = await service.find_client(connection, app.client_id)
    assert client is not None
    assert (set(client.keys), client.pending, client.epoch) == ({"old", "new"}, {}, 1)
    event = await connection.fetchrow(
        "SELECT * FROM outbox_event WHERE partner_id = $1 AND type = 'key.activated'", app.partner_id
    )
    assert event is not None
    assert event["payload"]["retiring"] == ["old"]


async def test_a_retiring_key_ends_when_its_overlap_is_over(
    connection: Connection, instant: datetime
) -> None:
    app = await register(connection, instant)
    past = instant - timedelta(days=8)
    await rotate(connection, app, "new", past)
    await client_keys.use_pending_key(connection, app_id=app.id, kid="new", now=past)
    client = await service.find_client(connection, app.client_id)
    assert client is not None
    assert set(client.keys) == {"new"}


async def test_a_revoked_key_ends_the_tokens_at_once(connection: Connection, instant: datetime) -> None:
    app = await register(connection, instant)
    await rotate(connection, app, "new", instant)
    await client_keys.use_pending_key(connection, app_id=app.id, kid="new", now=instant)
    revoked = await client_keys.revoke_key(connection, app_id=app.id, kid="old", actor=ACTOR, now=instant)
    assert (revoked.status, revoked.revoked_at) == ("revoked", instant)
    client = await service.find_client(connection, app.client_id)
    assert client is not None
    assert (set(client.keys), client.epoch) == ({"new"}, 2)


async def test_a_pending_key_may_be_taken_back_without_ending_tokens(
    connection: Connection, instant: datetime
) -> None:
    app = await register(connection, instant)
    await rotate(connection, app, "new", instant)
    await client_keys.revoke_key(connection, app_id=app.id, kid="new", actor=ACTOR, now=instant)
    assert not await client_keys.use_pending_key(connection, app_id=app.id, kid="new", now=instant)
    client = await service.find_client(connection, app.client_id)
    assert client is not None
    assert (set(client.keys), client.epoch) == ({"old"}, 1)
    assert (await rotate(connection, app, "third", instant)).status == "pending"


async def test_the_last_usable_key_is_revoked_only_by_name(connection: Connection, instant: datetime) -> None:
    app = await register(connection, instant)
    with pytest.raises(rules.LastUsableKey):
        await client_keys.revoke_key(connection, app_id=app.id, kid="old", actor=ACTOR, now=instant)
    assert await statuses(connection, app) == {"old": "active"}
    await client_keys.revoke_key(connection, app_id=app.id, kid="old", last=True, actor=ACTOR, now=instant)
    assert await statuses(connection, app) == {"old": "revoked"}
    with pytest.raises(rules.KeyMoveNotAllowed):
        await client_keys.revoke_key(
            connection, app_id=app.id, kid="old", last=True, actor=ACTOR, now=instant
        )


async def test_a_key_of_another_app_is_absent(connection: Connection, instant: datetime) -> None:
    app, other = await register(connection, instant), await register(connection, instant)
    await rotate(connection, other, "theirs", instant)
    with pytest.raises(Absent):
        await client_keys.revoke_key(connection, app_id=app.id, kid="theirs", actor=ACTOR, now=instant)
    with pytest.raises(Absent):
        await client_keys.revoke_key(connection, app_id=UUID(int=1), kid="x", actor=ACTOR, now=instant)


async def test_a_fetched_key_is_revoked_for_good(connection: Connection, instant: datetime) -> None:
    app = await register(connection, instant)
    uri = "https://shop.example.com/jwks"
    await connection.execute("UPDATE registry_app SET jwks_uri = $2 WHERE id = $1", app.id, uri)
    await jwks_queries.claim_fetch(connection, app.id, uri, attempted_before=instant, now=instant)
    stolen = fresh("stolen")
    await jwks_queries.store_keys(connection, app.id, uri, {"stolen": stolen}, now=instant)
    client = await service.find_client(connection, app.client_id)
    assert client is not None
    assert set(client.keys) == {"old", "stolen"}
    await client_keys.revoke_key(connection, app_id=app.id, kid="stolen", actor=ACTOR, now=instant)
    client = await service.find_client(connection, app.client_id)
    assert client is not None
    assert (set(client.keys), client.epoch) == ({"old"}, 2)
    with pytest.raises(client_keys.KeysPublishedElsewhere):
        await rotate(connection, app, "new", instant)


async def test_of_a_hundred_first_uses_one_activates(pool: Pool) -> None:
    async with transaction(pool) as connection:
        now = await connection.fetchval("SELECT clock_timestamp()")
        app = await register(connection, now)
        await rotate(connection, app, "new", now)

    async def use() -> bool:
        async with transaction(pool) as connection:
            return await client_keys.use_pending_key(connection, app_id=app.id, kid="new", now=now)

    assert all(await asyncio.gather(*(use() for _ in range(100))))
    async with transaction(pool) as connection:
        assert await statuses(connection, app) == {"old": "retiring", "new": "active"}
        assert await connection.fetchval(PENDING_TOO, app.partner_id, "key.activated") == 1


async def test_a_key_revoked_while_it_is_used_for_the_first_time_stays_revoked(pool: Pool) -> None:
    for _ in range(5):
        async with transaction(pool) as connection:
            now = await connection.fetchval("SELECT clock_timestamp()")
            app = await register(connection, now)
            await rotate(connection, app, "new", now)

        async def use(app: App = app, now: datetime = now) -> bool:
            async with transaction(pool) as connection:
                return await client_keys.use_pending_key(connection, app_id=app.id, kid="new", now=now)

        async def revoke(app: App = app, now: datetime = now) -> None:
            async with transaction(pool) as connection:
                await client_keys.revoke_key(connection, app_id=app.id, kid="new", actor=ACTOR, now=now)

        await asyncio.gather(*(use() for _ in range(10)), revoke(), *(use() for _ in range(10)))
        async with transaction(pool) as connection:
            assert (await statuses(connection, app))["new"] == "revoked"
            assert not await client_keys.use_pending_key(connection, app_id=app.id, kid="new", now=now)


async def test_of_parallel_rotations_one_is_pending(pool: Pool) -> None:
    async with transaction(pool) as connection:
        now = await connection.fetchval("SELECT clock_timestamp()")
        app = await register(connection, now)

    async def begin(place: int) -> bool:
        async with transaction(pool) as connection:
            try:
                await rotate(connection, app, f"new-{place}", now)
            except rules.KeyRotationPending:
                return False
        return True

    assert sum(await asyncio.gather(*(begin(place) for place in range(20)))) == 1
