"""Second factors that are typed: good once, for a while, for so many guesses, also when a hundred come at once."""

import asyncio
from collections import Counter
from datetime import datetime, timedelta

import pyotp
import pytest
from waiting import Member, enrol

from kernel.database import Connection, Pool
from kernel.vault import Vault
from partners.login import codes, service
from partners.login.delivery import SandboxSender, list_messages
from partners.login.model import Session, Step
from partners.login.rules import CODE_ATTEMPTS_MAX, CODE_LIFE, CODE_SENDS_MAX, LIMITS
from partners.login.service import LoginOver

from .conftest import TOTP, Phone, Started, Tab, open_tab, past_password


async def send(connection: Connection, tab: Tab, phone: Phone, vault: Vault, now: datetime) -> Step:
    return await codes.send_code(connection, tab.session, sender=phone, vault=vault, now=now)


async def attempt(
    connection: Connection, tab: Tab, code: str, vault: Vault, now: datetime, *, app: bool = False
) -> Session | Step:
    trial = codes.try_app_code if app else codes.try_code
    browser = service.new_secret()
    return await trial(connection, tab.session, code=code, browser=browser, vault=vault, now=now)


def other_than(code: str) -> str:
    return f"{(int(code) + 1) % 1_000_000:06}"


async def test_the_code_that_was_sent_completes_the_login_once(
    connection: Connection, started: Started, phone: Phone, vault: Vault, now: datetime
) -> None:
    tab = await started()
    assert await send(connection, tab, phone, vault, now) is Step.PASSED
    done = await attempt(connection, tab, phone.codes[0], vault, now)
    assert isinstance(done, Session)
    assert (done.stage, done.methods, done.authenticated_at) == ("done", ["pwd", "otp"], now)
    assert await attempt(connection, tab, phone.codes[0], vault, now) is Step.SPENT


async def test_a_code_is_stored_as_a_keyed_hash_only(
    connection: Connection, started: Started, phone: Phone, vault: Vault, now: datetime
) -> None:
    tab = await started()
    await send(connection, tab, phone, vault, now)
    row = await connection.fetchrow("SELECT * FROM login_code WHERE session_id = $1", tab.session.id)
    assert row is not None and phone.codes[0].encode() not in row["code_hash"] and len(row["code_hash"]) == 32


async def test_a_code_is_good_for_its_own_session_only(
    connection: Connection, started: Started, phone: Phone, vault: Vault, now: datetime
) -> None:
    first, second = await started(), await started()
    await send(connection, first, phone, vault, now)
    await send(connection, second, phone, vault, now)
    assert await attempt(connection, first, phone.codes[1], vault, now) is Step.WRONG
    assert isinstance(await attempt(connection, first, phone.codes[0], vault, now), Session)


@pytest.mark.parametrize(
    ("seconds", "good"),
    [(0, True), (CODE_LIFE.total_seconds() - 1, True), (CODE_LIFE.total_seconds(), False)],
)
async def test_a_code_is_good_for_five_minutes(
    connection: Connection,
    started: Started,
    phone: Phone,
    vault: Vault,
    now: datetime,
    seconds: float,
    good: bool,
) -> None:
    tab = await started()
    await send(connection, tab, phone, vault, now)
    outcome = await attempt(connection, tab, phone.codes[0], vault, now + timedelta(seconds=seconds))
    assert isinstance(outcome, Session) is good
    assert good or outcome is Step.SPENT


async def test_after_five_wrong_guesses_the_right_code_is_worth_nothing(
    connection: Connection, started: Started, phone: Phone, vault: Vault, now: datetime
) -> None:
    tab = await started()
    await send(connection, tab, phone, vault, now)
    wrong = other_than(phone.codes[0])
    outcomes = [await attempt(connection, tab, wrong, vault, now) for _ in range(CODE_ATTEMPTS_MAX)]
    assert outcomes == [Step.WRONG] * CODE_ATTEMPTS_MAX
    assert await attempt(connection, tab, phone.codes[0], vault, now) is Step.SPENT


async def test_a_new_code_makes_the_one_before_worthless_and_there_are_three(
    connection: Connection, started: Started, phone: Phone, vault: Vault, now: datetime
) -> None:
    tab = await started()
    sent = [await send(connection, tab, phone, vault, now) for _ in range(CODE_SENDS_MAX + 1)]
    assert sent == [Step.PASSED] * CODE_SENDS_MAX + [Step.LOCKED]
    assert len(phone.codes) == CODE_SENDS_MAX
    assert await attempt(connection, tab, phone.codes[0], vault, now) is Step.WRONG
    assert isinstance(await attempt(connection, tab, phone.codes[-1], vault, now), Session)


async def test_messages_and_guesses_are_counted_for_the_account_over_all_its_sessions(
    connection: Connection, member: Member, started: Started, phone: Phone, vault: Vault, now: datetime
) -> None:
    sent = [
        await send(connection, await started(), phone, vault, now) for _ in range(LIMITS["send"].attempts + 1)
    ]
    assert sent.count(Step.PASSED) == LIMITS["send"].attempts and sent[-1] is Step.LOCKED
    outcomes = []
    for _ in range(LIMITS["code"].attempts + 1):
        outcomes.append(await attempt(connection, await started(), "000000", vault, now))
    assert outcomes[-1] is Step.LOCKED
    assert outcomes[:-1] == [Step.SPENT] * LIMITS["code"].attempts
    later = now + LIMITS["send"].window
    tab = await past_password(connection, member, later)
    assert await send(connection, tab, phone, vault, later) is Step.PASSED


async def test_without_a_sender_no_code_login_begins(
    connection: Connection, started: Started, vault: Vault, now: datetime
) -> None:
    tab = await started()
    outcome = await codes.send_code(connection, tab.session, sender=None, vault=vault, now=now)
    assert outcome is Step.UNAVAILABLE
    factors = await codes.list_factors(connection, tab.session, sender=None, passkey=False)
    assert (factors.code, factors.code_sent, factors.app) == (False, False, True)
    assert not await connection.fetchval(
        "SELECT count(*) FROM login_code WHERE session_id = $1", tab.session.id
    )


async def test_no_second_factor_comes_before_the_first(
    connection: Connection, phone: Phone, vault: Vault, now: datetime
) -> None:
    tab = await open_tab(connection, now)
    with pytest.raises(LoginOver):
        await send(connection, tab, phone, vault, now)
    for app in (False, True):
        with pytest.raises(LoginOver):
            await attempt(connection, tab, "000000", vault, now, app=app)


async def test_rfc6238_5_2_a_code_of_the_app_is_good_once(
    connection: Connection, started: Started, vault: Vault, now: datetime
) -> None:
    code = pyotp.TOTP(TOTP).at(now)
    first, second = await started(), await started()
    done = await attempt(connection, first, code, vault, now, app=True)
    assert isinstance(done, Session) and done.methods == ["pwd", "otp"]
    assert await attempt(connection, second, code, vault, now, app=True) is Step.WRONG
    before = pyotp.TOTP(TOTP).at(now - timedelta(seconds=30))
    assert await attempt(connection, second, before, vault, now, app=True) is Step.WRONG
    after = pyotp.TOTP(TOTP).at(now + timedelta(seconds=30))
    assert isinstance(await attempt(connection, second, after, vault, now, app=True), Session)


async def test_the_app_is_no_way_in_for_a_member_without_one(
    connection: Connection, vault: Vault, now: datetime
) -> None:
    plain = await enrol(connection, vault=vault, now=now)
    tab = await past_password(connection, plain, now)
    assert await attempt(connection, tab, "000000", vault, now, app=True) is Step.UNAVAILABLE


async def test_guesses_at_the_app_are_limited(
    connection: Connection, started: Started, vault: Vault, now: datetime
) -> None:
    tab = await started()
    wrong = other_than(pyotp.TOTP(TOTP).at(now))
    outcomes = [
        await attempt(connection, tab, wrong, vault, now, app=True) for _ in range(LIMITS["app"].attempts + 1)
    ]
    assert outcomes.count(Step.WRONG) == LIMITS["app"].attempts and outcomes[-1] is Step.LOCKED
    assert await attempt(connection, tab, pyotp.TOTP(TOTP).at(now), vault, now, app=True) is Step.LOCKED


async def test_the_sandbox_keeps_the_last_messages_sealed(
    connection: Connection, started: Started, member: Member, vault: Vault, now: datetime
) -> None:
    sender = SandboxSender(vault)
    tab = await started()
    await codes.send_code(connection, tab.session, sender=sender, vault=vault, now=now)
    found = await list_messages(connection, login=member.login, vault=vault)
    assert found is not None
    ((sent_at, text),) = found
    code = text.removeprefix("验证码 ")[:6]
    assert sent_at == now and isinstance(await attempt(connection, tab, code, vault, now), Session)
    (sealed,) = await connection.fetch("SELECT text_sealed FROM login_message")
    assert code.encode() not in sealed["text_sealed"]
    assert await list_messages(connection, login="nobody-at-all", vault=vault) is None


@pytest.fixture
async def committed(pool: Pool, vault: Vault, phone: Phone, now: datetime) -> Tab:
    """A session past the password with a code sent, for many connections at once."""
    async with pool.acquire() as connection, connection.transaction():
        member = await enrol(connection, vault=vault, totp_secret=TOTP, now=now)
        tab = await past_password(connection, member, now)
        await send(connection, tab, phone, vault, now)
    return tab


async def crowd(
    pool: Pool, tab: Tab, code: str, vault: Vault, now: datetime, *, app: bool = False
) -> list[object]:
    """What a hundred copies come to."""

    async def one() -> Session | Step | str:
        async with pool.acquire() as connection, connection.transaction():
            try:
                return await attempt(connection, tab, code, vault, now, app=app)
            except LoginOver:
                return "over"

    return list(await asyncio.gather(*(one() for _ in range(100))))


async def test_a_hundred_parallel_wrong_codes_count_exactly(
    pool: Pool, committed: Tab, phone: Phone, vault: Vault, now: datetime
) -> None:
    outcomes = await crowd(pool, committed, other_than(phone.codes[0]), vault, now)
    limit = LIMITS["code"].attempts
    assert Counter(outcomes) == {
        Step.WRONG: CODE_ATTEMPTS_MAX,
        Step.SPENT: limit - CODE_ATTEMPTS_MAX,
        Step.LOCKED: 100 - limit,
    }
    async with pool.acquire() as connection:
        assert 100 in [
            row["attempts"] for row in await connection.fetch("SELECT attempts FROM login_attempt")
        ]
        assert (
            await connection.fetchval(
                "SELECT attempts FROM login_code WHERE session_id = $1", committed.session.id
            )
            == CODE_ATTEMPTS_MAX
        )


@pytest.mark.parametrize("app", [False, True])
async def test_of_a_hundred_copies_of_the_right_code_one_wins(
    pool: Pool, committed: Tab, phone: Phone, vault: Vault, now: datetime, app: bool
) -> None:
    code = pyotp.TOTP(TOTP).at(now) if app else phone.codes[0]
    outcomes = await crowd(pool, committed, code, vault, now, app=app)
    assert sum(isinstance(outcome, Session) for outcome in outcomes) == 1


async def test_of_two_codes_sent_at_once_one_is_good(
    pool: Pool, committed: Tab, phone: Phone, vault: Vault, now: datetime
) -> None:
    async def one() -> Step:
        async with pool.acquire() as connection, connection.transaction():
            return await send(connection, committed, phone, vault, now)

    outcomes = await asyncio.gather(*(one() for _ in range(20)))
    assert outcomes.count(Step.PASSED) == CODE_SENDS_MAX - 1
    async with pool.acquire() as connection:
        good = 0
        for code in phone.codes:
            begun = connection.transaction()
            await begun.start()
            good += isinstance(await attempt(connection, committed, code, vault, now), Session)
            await begun.rollback()
    assert good == 1
