"""Pairwise subjects, consents, and binding a partner's customers."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import date, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from kernel.caller import Caller, ConsentMissing, MemberRef, MemberUnknown
from kernel.database import Connection, Pool, open_pool, transaction
from kernel.vault import Vault
from partners.oauth import service
from partners.oauth.service import PairwiseSubjects
from partners.registry.model import App
from partners.registry.service import CustomersBusy
from points.membership.service import enrol_members

SUBJECTS = PairwiseSubjects()
ENDS_ON = date(2026, 11, 20)


def caller_of(app: App) -> Caller:
    return Caller(
        partner_id=app.partner_id,
        app_id=app.id,
        client_id=app.client_id,
        scopes=frozenset(app.scopes),
        key_thumbprint="x",
    )


@pytest.fixture
async def member(connection: Connection, now: datetime) -> MemberRef:
    return (await enrol_members(connection, count=1, now=now))[0]


@pytest.fixture
async def sub(connection: Connection, app: App, member: MemberRef, vault: Vault, now: datetime) -> str:
    return await service.subject_for(
        connection, partner_id=app.partner_id, member=member, vault=vault, now=now
    )


async def grant(
    connection: Connection, app: App, member: MemberRef, now: datetime, *scopes: str, ends_on: date = ENDS_ON
) -> UUID:
    return await service.grant_consent(
        connection, partner_id=app.partner_id, member=member, scopes=scopes, ends_on=ends_on, now=now
    )


async def test_a_subject_is_stable_and_different_for_each_partner(
    connection: Connection, app: App, register: Any, member: MemberRef, sub: str, vault: Vault, now: datetime
) -> None:
    other, _ = await register(connection, now)
    assert len(sub) == 43
    for one, same in ((app, True), (other, False)):
        again = await service.subject_for(
            connection, partner_id=one.partner_id, member=member, vault=vault, now=now
        )
        assert (again == sub) is same
    assert await SUBJECTS.names(connection, partner_id=app.partner_id, member_ids=[member.member_id, -1]) == {
        member.member_id: sub
    }


async def test_a_subject_resolves_for_its_partner_and_the_consented_scope_only(
    connection: Connection, app: App, register: Any, member: MemberRef, sub: str, now: datetime
) -> None:
    other, _ = await register(connection, now)
    await grant(connection, app, member, now, "points:earn")

    async def resolve(one: App, scope: str) -> MemberRef:
        return await SUBJECTS.resolve_one(connection, caller_of(one), sub, scope=scope, now=now)

    assert await resolve(app, "points:earn") == member
    with pytest.raises(ConsentMissing):
        await resolve(app, "points:spend")
    with pytest.raises(MemberUnknown):
        await resolve(other, "points:earn")
    found = await SUBJECTS.resolve(
        connection, caller_of(app), [sub, "nobody", "\0" * 43, "é" * 43], scope="points:earn", now=now
    )
    assert found == {sub: member}
    assert await SUBJECTS.resolve(connection, caller_of(app), [sub], scope="points:spend", now=now) == {}


@pytest.mark.parametrize("sub", ["", "x", "\0" * 43, "\ud800" * 43, "a" * 43, "a" * 10_000])
async def test_no_text_is_more_than_an_unknown_member(
    sub: str, connection: Connection, app: App, now: datetime
) -> None:
    with pytest.raises(MemberUnknown):
        await SUBJECTS.resolve_one(connection, caller_of(app), sub, scope="points:earn", now=now)


async def test_a_consent_ends_with_its_last_day_in_shanghai(
    connection: Connection, app: App, member: MemberRef, sub: str, now: datetime
) -> None:
    await grant(connection, app, member, now, "points:earn")
    midnight = now.replace(hour=16)
    last = midnight - timedelta(seconds=1)
    caller = caller_of(app)
    assert await SUBJECTS.resolve_one(connection, caller, sub, scope="points:earn", now=last)
    with pytest.raises(ConsentMissing):
        await SUBJECTS.resolve_one(connection, caller, sub, scope="points:earn", now=midnight)


async def test_a_new_consent_replaces_the_old_and_a_withdrawal_ends_it(
    connection: Connection, app: App, member: MemberRef, sub: str, now: datetime
) -> None:
    first = await grant(connection, app, member, now, "points:earn", "points:spend")
    second = await grant(connection, app, member, now, "points:earn")
    consent = await service.find_consent(connection, partner_id=app.partner_id, member=member, now=now)
    assert consent is not None
    assert (consent.id, consent.scopes) == (second, ["points:earn"])
    assert first != second
    withdrawn = [
        await service.withdraw_consent(connection, partner_id=app.partner_id, member=member, now=now)
        for _ in range(2)
    ]
    assert withdrawn == [True, False]
    with pytest.raises(ConsentMissing):
        await SUBJECTS.resolve_one(connection, caller_of(app), sub, scope="points:earn", now=now)
    types = await connection.fetch(
        "SELECT type, payload FROM outbox_event WHERE partner_id = $1 ORDER BY id", app.partner_id
    )
    assert sorted(record["type"] for record in types) == [
        "consent.granted",
        "consent.granted",
        "consent.withdrawn",
    ]
    assert {record["payload"]["member"] for record in types} == {sub}


async def test_what_was_withdrawn_stays_withdrawn(
    connection: Connection, app: App, member: MemberRef, now: datetime
) -> None:
    consent_id = await grant(connection, app, member, now, "points:earn")
    await service.withdraw_consent(connection, partner_id=app.partner_id, member=member, now=now)

    with pytest.raises(asyncpg.RestrictViolationError):
        await connection.execute("UPDATE oauth_consent SET withdrawn_at = NULL WHERE id = $1", consent_id)


@pytest.mark.parametrize("scope", ["admin", "settlement:read"])
async def test_a_member_consents_only_to_what_is_the_members(
    scope: str, connection: Connection, app: App, member: MemberRef, now: datetime
) -> None:
    with pytest.raises(service.ConsentScopeUnknown):
        await grant(connection, app, member, now, "points:earn", scope)


async def bind(
    connection: Connection, app: App, refs: list[str], vault: Vault, now: datetime
) -> dict[str, str]:
    return await service.bind_customers(
        connection,
        partner_id=app.partner_id,
        customer_refs=refs,
        mode="sandbox",
        vault=vault,
        now=now,
    )


async def test_binding_twice_is_binding_once(
    connection: Connection, app: App, vault: Vault, now: datetime
) -> None:
    first = await bind(connection, app, ["c-1", "c-2", "c-1"], vault, now)
    again = await bind(connection, app, ["c-2", "c-3", "c-1"], vault, now)
    assert set(first) == {"c-1", "c-2"}
    assert {ref: again[ref] for ref in first} == first
    assert len(set(again.values())) == 3
    consented = await SUBJECTS.resolve(
        connection, caller_of(app), list(again.values()), scope="points:earn", now=now
    )
    assert len(consented) == 3
    for table in ("registry_customer", "oauth_subject", "oauth_consent"):
        count = f"SELECT count(*) FROM {table} WHERE partner_id = $1"
        assert await connection.fetchval(count, app.partner_id) == 3


async def test_two_partners_with_the_same_number_have_two_customers(
    connection: Connection, app: App, register: Any, vault: Vault, now: datetime
) -> None:
    other, _ = await register(connection, now)
    one = await bind(connection, app, ["c-1"], vault, now)
    two = await bind(connection, other, ["c-1"], vault, now)
    assert one["c-1"] != two["c-1"]
    hashes = await connection.fetch(
        "SELECT DISTINCT ref_hash FROM registry_customer WHERE partner_id = ANY($1::uuid[])",
        [app.partner_id, other.partner_id],
    )
    assert len(hashes) == 2


async def test_in_live_mode_strangers_stay_strangers(
    connection: Connection, app: App, vault: Vault, now: datetime
) -> None:
    known = await bind(connection, app, ["c-1"], vault, now)
    found = await service.bind_customers(
        connection,
        partner_id=app.partner_id,
        customer_refs=["c-1", "c-2"],
        mode="live",
        vault=vault,
        now=now,
    )
    assert found == known
    count = "SELECT count(*) FROM registry_customer WHERE partner_id = $1"
    assert await connection.fetchval(count, app.partner_id) == 1


@pytest.fixture
async def own_pool(database_url: str) -> AsyncGenerator[Pool, None]:
    async with await open_pool(database_url, size=4) as opened:
        yield opened


async def test_imports_side_by_side_enrol_a_customer_once(
    own_pool: Pool, register: Any, vault: Vault, now: datetime
) -> None:
    async with transaction(own_pool) as connection:
        app, _ = await register(connection, now)
        before = await connection.fetchval("SELECT count(*) FROM membership_member")
    refs = [f"c-{number}" for number in range(200)]

    async def one_import(part: list[str]) -> dict[str, str]:
        async with transaction(own_pool) as connection:
            return await bind(connection, app, part, vault, now)

    answers = await asyncio.gather(
        one_import(refs[:150]), one_import(refs[50:]), one_import(refs[::-1]), one_import(refs)
    )
    assert {frozenset(answer.items()) for answer in (answers[2], answers[3])} == {
        frozenset(answers[3].items())
    }
    for answer in answers:
        assert answer.items() <= answers[3].items()
    async with own_pool.acquire() as connection:
        after = await connection.fetchval("SELECT count(*) FROM membership_member")
        bound = await connection.fetchval(
            "SELECT count(*) FROM registry_customer WHERE partner_id = $1", app.partner_id
        )
    assert (after - before, bound) == (200, 200)


async def test_who_waits_too_long_for_another_import_is_told_so(
    own_pool: Pool, register: Any, vault: Vault, now: datetime
) -> None:
    async with transaction(own_pool) as connection:
        app, _ = await register(connection, now)
    async with transaction(own_pool) as first:
        await bind(first, app, ["c-1"], vault, now)
        with pytest.raises(CustomersBusy):
            async with transaction(own_pool) as second:
                await second.execute("SET LOCAL lock_timeout = '20ms'")
                await bind(second, app, ["c-2"], vault, now)
