"""A member with a login, a session in a browser, and a sender whose messages the tests read."""

import secrets
from collections.abc import Awaitable, Callable
from datetime import datetime

import pytest
from msgspec import Struct
from waiting import Member, enrol

from kernel.database import Connection
from kernel.vault import Vault, generate_ring
from partners.login import service
from partners.login.delivery import CodeMessage
from partners.login.model import Session, Trial
from partners.login.passwords import Verdict

TOTP = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"


class Phone:
    """A sender that delivers at once."""

    def __init__(self) -> None:
        self.codes: list[str] = []

    async def accept(self, connection: Connection, message: CodeMessage, *, now: datetime) -> None:
        self.codes.append(message.code)


class Tab(Struct, frozen=True, kw_only=True):
    """A browser's tab: what it is about and the cookie it has."""

    context: str
    browser: str
    session: Session


@pytest.fixture(scope="session")
def vault() -> Vault:
    return Vault(generate_ring())


@pytest.fixture
def phone() -> Phone:
    return Phone()


@pytest.fixture
async def member(connection: Connection, vault: Vault, now: datetime) -> Member:
    """Somebody with a password and an authenticator app."""
    return await enrol(connection, vault=vault, totp_secret=TOTP, now=now)


async def open_tab(connection: Connection, now: datetime) -> Tab:
    """The first visit."""
    context, browser = secrets.token_urlsafe(32), service.new_secret()
    session = await service.begin(connection, context=context, browser=browser, now=now)
    return Tab(context=context, browser=browser, session=session)


async def past_password(connection: Connection, member: Member, now: datetime) -> Tab:
    """A session in which the password was right."""
    tab = await open_tab(connection, now)
    browser = service.new_secret()
    trial = Trial(account_id=member.account_id, stored="$argon2id$", counted=())
    session = await service.pass_password(
        connection, tab.session, trial, Verdict(right=True, renewed=None), browser=browser, now=now
    )
    assert isinstance(session, Session)
    return Tab(context=tab.context, browser=browser, session=session)


Started = Callable[[], Awaitable[Tab]]


@pytest.fixture
def started(connection: Connection, member: Member, now: datetime) -> Started:
    """Sessions past the password, as many as a test wants."""
    return lambda: past_password(connection, member, now)
