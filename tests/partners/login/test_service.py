"""Sessions, passwords and their limits: bound to a browser, renewed at each stage, counted before anything is compared."""

import asyncio
from datetime import datetime, timedelta
from uuid import uuid4

import pytest
from waiting import Member, enrol

from kernel.database import Connection, Pool
from kernel.vault import Vault, sha256
from partners.login import service
from partners.login.model import Session, Step, Trial
from partners.login.passwords import PasswordDesk, Verdict, hash_password
from partners.login.rules import DEVICES_MAX, LIMITS, SESSION_LIFE
from partners.login.service import LoginNameTaken, LoginOver

from .conftest import Started, open_tab, past_password

RIGHT, WRONG = Verdict(right=True, renewed=None), Verdict(right=False, renewed=None)
NAME_LIMIT = LIMITS["name"].attempts


async def guess(
    connection: Connection,
    login: str,
    *,
    vault: Vault,
    device: str | None = None,
    address: str | None = None,
    now: datetime,
) -> Trial | Step:
    return await service.try_password(
        connection,
        login=login,
        device_secret=device,
        address=address or f"192.0.2.{uuid4().int % 250}",
        vault=vault,
        now=now,
    )


async def test_names_cookies_and_contexts_are_not_stored_in_the_clear(
    connection: Connection, member: Member, vault: Vault, now: datetime
) -> None:
    tab = await open_tab(connection, now)
    row = await connection.fetchrow("SELECT * FROM login_account WHERE id = $1", member.account_id)
    kept = await connection.fetchrow("SELECT * FROM login_session WHERE id = $1", tab.session.id)
    assert row is not None and kept is not None
    assert member.login.encode() not in row["name_sealed"] + row["name_index"]
    assert (
        vault.decrypt(
            row["name_sealed"], table="login_account", column="name_sealed", row=str(member.account_id)
        )
        == member.login
    )
    assert (kept["context_hash"], kept["browser_hash"]) == (sha256(tab.context), sha256(tab.browser))


async def test_a_login_name_is_one_members(
    connection: Connection, member: Member, vault: Vault, now: datetime
) -> None:
    other = await enrol(connection, vault=vault, now=now)
    for ref, login in ((other.ref, "fresh"), (member.ref, "fresh")):
        with pytest.raises(LoginNameTaken):
            async with connection.transaction():
                await service.open_account(
                    connection, member=ref, login=login, password_hash="$argon2id$", vault=vault, now=now
                )


@pytest.mark.parametrize("typed", ["{}", " {} ", "{:upper}"])
async def test_the_name_is_found_however_it_is_typed(
    connection: Connection, member: Member, vault: Vault, now: datetime, typed: str
) -> None:
    login = member.login.upper() if "upper" in typed else typed.format(member.login)
    trial = await guess(connection, login, vault=vault, now=now)
    assert isinstance(trial, Trial) and trial.account_id == member.account_id


async def test_a_session_belongs_to_the_browser_it_began_in(connection: Connection, now: datetime) -> None:
    tab = await open_tab(connection, now)
    assert await service.find(connection, context=tab.context, browser=tab.browser, now=now) == tab.session
    for context, browser in ((tab.context, service.new_secret()), ("another", tab.browser)):
        with pytest.raises(LoginOver):
            await service.find(connection, context=context, browser=browser, now=now)
    with pytest.raises(LoginOver):
        await service.begin(connection, context=tab.context, browser=service.new_secret(), now=now)


async def test_a_session_ends_by_itself(connection: Connection, started: Started, now: datetime) -> None:
    tab = await started()
    late = now + SESSION_LIFE
    with pytest.raises(LoginOver):
        await service.find(connection, context=tab.context, browser=tab.browser, now=late)
    with pytest.raises(LoginOver):
        await service.pass_second_factor(
            connection, tab.session, methods=["otp"], browser=service.new_secret(), now=late
        )


async def test_a_cookie_planted_before_the_login_is_worth_nothing_after_it(
    connection: Connection, member: Member, now: datetime
) -> None:
    tab = await open_tab(connection, now)
    trial = Trial(account_id=member.account_id, stored="$argon2id$", counted=())
    second, third = service.new_secret(), service.new_secret()
    passed = await service.pass_password(connection, tab.session, trial, RIGHT, browser=second, now=now)
    assert isinstance(passed, Session)
    with pytest.raises(LoginOver):
        await service.find(connection, context=tab.context, browser=tab.browser, now=now)
    await service.pass_second_factor(connection, passed, methods=["otp"], browser=third, now=now)
    with pytest.raises(LoginOver):
        await service.find(connection, context=tab.context, browser=second, now=now)
    found = await service.find(connection, context=tab.context, browser=third, now=now)
    assert (found.stage, found.methods) == ("done", ["pwd", "otp"])


async def test_a_password_that_was_right_twice_is_one_step_and_another_members_is_none(
    connection: Connection, member: Member, vault: Vault, now: datetime
) -> None:
    other = await enrol(connection, vault=vault, now=now)
    tab = await open_tab(connection, now)
    own = Trial(account_id=member.account_id, stored="$argon2id$", counted=())
    foreign = Trial(account_id=other.account_id, stored="$argon2id$", counted=())
    for _ in range(2):
        browser = service.new_secret()
        passed = await service.pass_password(connection, tab.session, own, RIGHT, browser=browser, now=now)
        assert isinstance(passed, Session) and passed.stage == "password"
    with pytest.raises(LoginOver):
        await service.pass_password(
            connection, tab.session, foreign, RIGHT, browser=service.new_secret(), now=now
        )
    await service.pass_second_factor(
        connection, tab.session, methods=["otp"], browser=service.new_secret(), now=now
    )
    with pytest.raises(LoginOver):
        await service.pass_password(
            connection, tab.session, own, RIGHT, browser=service.new_secret(), now=now
        )


@pytest.mark.parametrize("verdict", [WRONG, RIGHT])
async def test_a_wrong_password_and_a_name_nobody_has_come_to_the_same(
    connection: Connection, member: Member, now: datetime, verdict: Verdict
) -> None:
    tab = await open_tab(connection, now)
    nobody = Trial(account_id=None, stored=None, counted=())
    known = Trial(account_id=member.account_id, stored="$argon2id$", counted=())
    trial = nobody if verdict is RIGHT else known
    outcome = await service.pass_password(
        connection, tab.session, trial, verdict, browser=service.new_secret(), now=now
    )
    assert outcome is Step.WRONG
    assert (await service.find(connection, context=tab.context, browser=tab.browser, now=now)).stage == "new"


@pytest.mark.parametrize("known", [True, False])
async def test_a_name_is_locked_after_so_many_guesses_whether_anybody_has_it_or_not(
    connection: Connection, member: Member, vault: Vault, now: datetime, known: bool
) -> None:
    login = member.login if known else f"nobody-{uuid4().hex}"
    outcomes = [await guess(connection, login, vault=vault, now=now) for _ in range(NAME_LIMIT + 1)]
    assert [isinstance(outcome, Trial) for outcome in outcomes] == [True] * NAME_LIMIT + [False]
    assert outcomes[-1] is Step.LOCKED
    later = now + LIMITS["name"].window
    assert isinstance(await guess(connection, login, vault=vault, now=later), Trial)


async def test_the_members_own_device_is_not_locked_by_strangers_and_not_unlimited(
    connection: Connection, member: Member, vault: Vault, now: datetime
) -> None:
    secret = service.new_secret()
    await service.bind_device(connection, account_id=member.account_id, secret=secret, now=now)
    for _ in range(NAME_LIMIT + 1):
        await guess(connection, member.login, vault=vault, now=now)
    outcomes = [
        await guess(connection, member.login, vault=vault, device=secret, now=now)
        for _ in range(LIMITS["device"].attempts + 1)
    ]
    assert [isinstance(outcome, Trial) for outcome in outcomes] == [True] * LIMITS["device"].attempts + [
        False
    ]
    # the device of one member opens nothing for another
    other = await enrol(connection, vault=vault, now=now)
    for _ in range(NAME_LIMIT):
        await guess(connection, other.login, vault=vault, now=now)
    assert await guess(connection, other.login, vault=vault, device=secret, now=now) is Step.LOCKED


async def test_the_members_own_device_is_not_locked_by_strangers_in_the_same_network(
    connection: Connection, member: Member, vault: Vault, now: datetime
) -> None:
    secret, address = service.new_secret(), "198.51.100.7"
    await service.bind_device(connection, account_id=member.account_id, secret=secret, now=now)
    for number in range(LIMITS["address"].attempts + 1):
        await guess(connection, f"name-{number}", vault=vault, address=address, now=now)
    assert await guess(connection, member.login, vault=vault, address=address, now=now) is Step.LOCKED
    known = await guess(connection, member.login, vault=vault, device=secret, address=address, now=now)
    assert isinstance(known, Trial)


async def test_an_address_that_tries_many_names_is_locked(
    connection: Connection, vault: Vault, now: datetime
) -> None:
    address = "2001:db8:5::1"
    for number in range(LIMITS["address"].attempts):
        assert isinstance(
            await guess(connection, f"name-{number}", vault=vault, address=address, now=now), Trial
        )
    neighbour = "2001:db8:5::2"
    assert await guess(connection, "another", vault=vault, address=neighbour, now=now) is Step.LOCKED
    stored = await connection.fetch("SELECT subject FROM login_attempt WHERE kind = 'address'")
    assert all(len(row["subject"]) == 32 for row in stored)


async def test_a_right_password_clears_the_name_and_gives_the_address_one_attempt_back(
    connection: Connection, member: Member, vault: Vault, now: datetime
) -> None:
    for _ in range(NAME_LIMIT):
        trial = await guess(connection, member.login, vault=vault, address="192.0.2.251", now=now)
    assert isinstance(trial, Trial)
    tab = await open_tab(connection, now)
    await service.pass_password(connection, tab.session, trial, RIGHT, browser=service.new_secret(), now=now)
    assert isinstance(await guess(connection, member.login, vault=vault, now=now), Trial)
    count = await connection.fetchval(
        "SELECT attempts FROM login_attempt WHERE kind = 'address' AND subject = $1",
        vault.blind_index("login-address", "192.0.2.251"),
    )
    assert count == NAME_LIMIT - 1


async def test_a_hundred_parallel_guesses_count_exactly(pool: Pool, vault: Vault, now: datetime) -> None:
    login = f"nobody-{uuid4().hex}"

    async def one() -> Trial | Step:
        async with pool.acquire() as connection, connection.transaction():
            return await guess(connection, login, vault=vault, address="192.0.2.252", now=now)

    outcomes = await asyncio.gather(*(one() for _ in range(100)))
    assert sum(isinstance(outcome, Trial) for outcome in outcomes) == NAME_LIMIT
    async with pool.acquire() as connection:
        count = await connection.fetchval(
            "SELECT attempts FROM login_attempt WHERE kind = 'name' AND subject = $1",
            vault.blind_index("login-name", login),
        )
    assert count == 100


async def test_a_cheap_hash_is_renewed_by_the_first_login_and_one_changed_meanwhile_is_not(
    connection: Connection, member: Member, vault: Vault, now: datetime
) -> None:
    trial = await guess(connection, member.login, vault=vault, now=now)
    assert isinstance(trial, Trial)
    verdict = await PasswordDesk().look_at(trial.stored, member.password)
    changed = hash_password("changed meanwhile")
    for stored, expected in ((changed, changed), (trial.stored, verdict.renewed)):
        await connection.execute(
            "UPDATE login_password SET hash = $2 WHERE account_id = $1", member.account_id, stored
        )
        tab = await open_tab(connection, now)
        await service.pass_password(
            connection, tab.session, trial, verdict, browser=service.new_secret(), now=now
        )
        kept = await connection.fetchval(
            "SELECT hash FROM login_password WHERE account_id = $1", member.account_id
        )
        assert kept == expected


async def test_a_login_is_made_use_of_once_and_only_when_complete(
    connection: Connection, member: Member, now: datetime
) -> None:
    tab = await past_password(connection, member, now)
    with pytest.raises(LoginOver):
        await service.finish(connection, tab.session, now=now)
    done = await service.pass_second_factor(
        connection, tab.session, methods=["otp"], browser=service.new_secret(), now=now
    )
    proved = await service.finish(connection, done, now=now)
    assert (proved.member, proved.at, proved.methods) == (member.ref, now, ["pwd", "otp"])
    with pytest.raises(LoginOver):
        await service.finish(connection, done, now=now)


async def test_a_closed_account_logs_nobody_in(
    connection: Connection, member: Member, vault: Vault, now: datetime
) -> None:
    tab = await past_password(connection, member, now)
    done = await service.pass_second_factor(
        connection, tab.session, methods=["otp"], browser=service.new_secret(), now=now
    )
    await connection.execute(
        "UPDATE login_account SET disabled_at = $2 WHERE id = $1", member.account_id, now
    )
    trial = await guess(connection, member.login, vault=vault, now=now)
    assert isinstance(trial, Trial) and trial.account_id is None
    with pytest.raises(LoginOver):
        await service.finish(connection, done, now=now)


async def test_a_member_has_so_many_devices_the_oldest_goes(
    connection: Connection, member: Member, now: datetime
) -> None:
    secrets = [service.new_secret() for _ in range(DEVICES_MAX + 1)]
    for number, secret in enumerate(secrets):
        at = now + timedelta(seconds=number)
        await service.bind_device(connection, account_id=member.account_id, secret=secret, now=at)
    found = [await service.find_device(connection, secret, now=now) for secret in secrets]
    assert [device is not None for device in found] == [False] + [True] * DEVICES_MAX


async def test_what_decides_nothing_any_more_is_forgotten(
    connection: Connection, started: Started, now: datetime
) -> None:
    tab = await started()
    await service.forget_old(connection, now=now)
    assert await service.find(connection, context=tab.context, browser=tab.browser, now=now)
    await service.forget_old(connection, now=now + timedelta(days=1))
    assert not await connection.fetchval("SELECT count(*) FROM login_session")
    assert not await connection.fetchval("SELECT count(*) FROM login_attempt")
