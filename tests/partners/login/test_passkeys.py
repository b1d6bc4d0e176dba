"""Passkeys: made after a complete login on that device, good there alone, verified as WebAuthn says."""

import asyncio
import json
from datetime import datetime

import pytest
from authenticator import BACKED_UP, BACKUP_ELIGIBLE, PRESENT, VERIFIED, Authenticator
from waiting import Member, enrol

from kernel.database import Connection, Pool
from kernel.vault import Vault
from partners.login import passkeys, service
from partners.login.model import Device, Session, Step
from partners.login.passkeys import RelyingParty
from partners.login.rules import LIMITS, PASSKEYS_MAX
from partners.login.service import LoginOver

from .conftest import Started, Tab, past_password

ORIGIN = "https://bank.example"
PARTY = RelyingParty(host="bank.example", origin=ORIGIN, name="Tessera Bank")


async def complete(connection: Connection, tab: Tab, now: datetime) -> Session:
    return await service.pass_second_factor(
        connection, tab.session, methods=["otp"], browser=service.new_secret(), now=now
    )


async def bind(connection: Connection, member: Member, now: datetime) -> Device:
    return await service.bind_device(
        connection, account_id=member.account_id, secret=service.new_secret(), now=now
    )


async def register(
    connection: Connection, session: Session, device: Device, authenticator: Authenticator, now: datetime
) -> Step:
    options = await passkeys.offer_passkey(connection, session, device, party=PARTY, now=now)
    return await passkeys.add_passkey(
        connection, session, response=authenticator.create(options), device=device, party=PARTY, now=now
    )


async def challenge(connection: Connection, tab: Tab, device: Device, now: datetime) -> str:
    own = await passkeys.list_passkeys(connection, tab.session, device, now=now)
    return await passkeys.ask_for_passkey(connection, tab.session, own, party=PARTY)


async def answer(
    connection: Connection, tab: Tab, device: Device | None, response: str, now: datetime
) -> Session | Step:
    return await passkeys.try_passkey(
        connection,
        tab.session,
        response=response,
        device=device,
        party=PARTY,
        browser=service.new_secret(),
        now=now,
    )


@pytest.fixture
def authenticator() -> Authenticator:
    return Authenticator(origin=ORIGIN)


@pytest.fixture
async def device(
    connection: Connection, member: Member, started: Started, authenticator: Authenticator, now: datetime
) -> Device:
    """A device of the member with a passkey."""
    device = await bind(connection, member, now)
    done = await complete(connection, await started(), now)
    assert await register(connection, done, device, authenticator, now) is Step.PASSED
    return device


async def test_a_passkey_takes_the_place_of_the_code(
    connection: Connection, started: Started, device: Device, authenticator: Authenticator, now: datetime
) -> None:
    tab = await started()
    options = await challenge(connection, tab, device, now)
    assert json.loads(options)["userVerification"] == "required"
    done = await answer(connection, tab, device, authenticator.get(options), now)
    assert isinstance(done, Session)
    assert (done.stage, done.methods) == ("done", ["pwd", "hwk", "user"])


async def test_a_passkey_that_is_synchronised_is_told_from_one_that_stays(
    connection: Connection, member: Member, started: Started, now: datetime
) -> None:
    synced = Authenticator(
        origin=ORIGIN, flags=PRESENT | VERIFIED | BACKUP_ELIGIBLE | BACKED_UP, counts=False
    )
    device = await bind(connection, member, now)
    await register(connection, await complete(connection, await started(), now), device, synced, now)
    for _ in range(2):  # it keeps no counter, so it may say 0 again and again
        tab = await started()
        done = await answer(
            connection, tab, device, synced.get(await challenge(connection, tab, device, now)), now
        )
        assert isinstance(done, Session) and done.methods == ["pwd", "swk", "user"]


@pytest.mark.parametrize("stage", ["password", "other account"])
async def test_a_passkey_is_made_after_a_complete_login_for_that_member_only(
    connection: Connection,
    member: Member,
    started: Started,
    authenticator: Authenticator,
    vault: Vault,
    now: datetime,
    stage: str,
) -> None:
    tab = await started()
    if stage == "password":
        session, device = tab.session, await bind(connection, member, now)
    else:
        session = await complete(connection, tab, now)
        device = await bind(connection, await enrol(connection, vault=vault, now=now), now)
    with pytest.raises(LoginOver):
        await register(connection, session, device, authenticator, now)


async def test_a_device_has_so_many_passkeys_and_no_credential_twice(
    connection: Connection, member: Member, started: Started, now: datetime
) -> None:
    device = await bind(connection, member, now)
    done = await complete(connection, await started(), now)
    first = Authenticator(origin=ORIGIN)
    made = [await register(connection, done, device, first, now) for _ in range(2)]
    assert made == [Step.PASSED, Step.UNAVAILABLE]
    more = [
        await register(connection, done, device, Authenticator(origin=ORIGIN), now)
        for _ in range(PASSKEYS_MAX)
    ]
    assert more == [Step.PASSED] * (PASSKEYS_MAX - 1) + [Step.UNAVAILABLE]


WRONG_MADE = {
    "another origin": Authenticator(origin="https://bank.example.evil.example"),
    "nobody verified": Authenticator(origin=ORIGIN, flags=PRESENT),
    "nobody there": Authenticator(origin=ORIGIN, flags=VERIFIED),
}


@pytest.mark.parametrize("wrong", WRONG_MADE)
async def test_webauthn_7_1_a_registration_that_is_not_in_order_is_refused(
    connection: Connection, member: Member, started: Started, now: datetime, wrong: str
) -> None:
    device = await bind(connection, member, now)
    done = await complete(connection, await started(), now)
    assert await register(connection, done, device, WRONG_MADE[wrong], now) is Step.WRONG


@pytest.mark.parametrize(
    "wrong",
    [
        "another origin",
        "another party",
        "another challenge",
        "a registration's answer",
        "nobody verified",
        "another key",
        "not json",
        "no credential",
        "too long",
    ],
)
async def test_webauthn_7_2_an_assertion_that_is_not_in_order_is_refused(
    connection: Connection,
    started: Started,
    device: Device,
    authenticator: Authenticator,
    now: datetime,
    wrong: str,
) -> None:
    tab = await started()
    options = await challenge(connection, tab, device, now)
    altered = json.loads(options)
    match wrong:
        case "another origin":
            authenticator.origin = "https://evil.example"
        case "another party":
            altered["rpId"] = "evil.example"
        case "another challenge":
            altered["challenge"] = "A" * 43
        case "nobody verified":
            authenticator.flags = PRESENT
        case "another key":
            impostor = Authenticator(origin=ORIGIN)
            impostor.credential_id = authenticator.credential_id
            authenticator = impostor
    response = authenticator.get(json.dumps(altered))
    match wrong:
        case "a registration's answer":
            altered["rp"] = {"id": altered["rpId"]}
            response = authenticator.create(json.dumps(altered))
        case "not json":
            response = "{" + response
        case "no credential":
            response = "{}"
        case "too long":
            response += " " * 20_000
    assert await answer(connection, tab, device, response, now) is Step.WRONG
    # the challenge is used up: the right answer comes too late
    authenticator.origin, authenticator.flags = ORIGIN, PRESENT | VERIFIED
    assert await answer(connection, tab, device, authenticator.get(options), now) is Step.WRONG


async def test_webauthn_7_2_22_a_counter_that_does_not_grow_is_a_copy(
    connection: Connection, started: Started, device: Device, authenticator: Authenticator, now: datetime
) -> None:
    for count, good in ((5, True), (5, False), (3, False), (6, True)):
        authenticator.sign_count = count - 1
        tab = await started()
        response = authenticator.get(await challenge(connection, tab, device, now))
        assert isinstance(await answer(connection, tab, device, response, now), Session) is good


async def test_a_passkey_of_another_device_or_member_is_no_passkey_here(
    connection: Connection,
    member: Member,
    started: Started,
    device: Device,
    authenticator: Authenticator,
    vault: Vault,
    now: datetime,
) -> None:
    other = await bind(connection, member, now)
    stranger = await enrol(connection, vault=vault, now=now)
    for tab, where in (
        (await started(), other),
        (await started(), None),
        (await past_password(connection, stranger, now), device),
    ):
        options = await passkeys.ask_for_passkey(connection, tab.session, [], party=PARTY)
        assert await answer(connection, tab, where, authenticator.get(options), now) is Step.WRONG


async def test_passkeys_shown_are_counted(
    connection: Connection, started: Started, device: Device, now: datetime
) -> None:
    tab = await started()
    outcomes = [
        await answer(connection, tab, device, "{}", now) for _ in range(LIMITS["passkey"].attempts + 1)
    ]
    assert outcomes[-1] is Step.LOCKED and set(outcomes[:-1]) == {Step.WRONG}


async def test_of_a_hundred_copies_of_an_assertion_one_wins(pool: Pool, vault: Vault, now: datetime) -> None:
    authenticator = Authenticator(origin=ORIGIN)
    async with pool.acquire() as connection, connection.transaction():
        member = await enrol(connection, vault=vault, now=now)
        device = await bind(connection, member, now)
        done = await complete(connection, await past_password(connection, member, now), now)
        await register(connection, done, device, authenticator, now)
        tab = await past_password(connection, member, now)
        response = authenticator.get(await challenge(connection, tab, device, now))

    async def one() -> Session | Step:
        async with pool.acquire() as connection, connection.transaction():
            return await answer(connection, tab, device, response, now)

    outcomes = await asyncio.gather(*(one() for _ in range(100)))
    assert sum(isinstance(outcome, Session) for outcome in outcomes) == 1
