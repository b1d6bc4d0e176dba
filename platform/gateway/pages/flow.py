"""Which page a member sees: the matter asked about, the login it takes, and the page of the step that comes next."""

from datetime import datetime
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from litestar import Response
from litestar.datastructures import Cookie
from msgspec import Struct, structs

from gateway.pages.browser import Visit
from gateway.pages.consent import asked_of, partner_name
from gateway.pages.look import origin_of, page, redirect
from gateway.pages.wording import Locale, say
from gateway.runtime import Runtime
from kernel.database import Connection
from kernel.errors import Absent
from partners.login import codes, passkeys, service
from partners.login.delivery import CodeSender
from partners.login.model import Device, Factors, Passkey, Session, Step
from partners.login.passkeys import RelyingParty
from partners.mobile.logins import find_login
from partners.oauth.handlers_flow import INTERACTIONS_PATH
from partners.oauth.interaction import Interaction, find_interaction

PAGE = INTERACTIONS_PATH + "/{handle:str}"

#: nothing is typed on these, and their forms end at the partner
LEADING_BACK = ("consent", "decline")

#: a step that failed: what the page says, and the status it says it with
CODE_PROBLEMS: dict[Step, tuple[str, int]] = {
    Step.WRONG: ("wrong_code", 422),
    Step.SPENT: ("spent_code", 422),
    Step.LOCKED: ("locked", 429),
    Step.UNAVAILABLE: ("no_factor", 422),
}
PASSKEY_PROBLEMS: dict[Step, tuple[str, int]] = {
    Step.WRONG: ("passkey_failed", 422),
    Step.LOCKED: ("locked", 429),
}


class RequestUnknown(Absent):
    """This authorisation request is unknown, has expired or was answered already."""


class Matter(Struct, frozen=True, kw_only=True):
    """What is asked, how far the login has come, and how to say it."""

    visit: Visit
    interaction: Interaction
    session: Session
    locale: Locale
    sender: CodeSender | None
    #: None where no passkey can be: an address is no name
    party: RelyingParty | None

    @property
    def here(self) -> str:
        """The page's own address, with the language it is shown in."""
        return f"{INTERACTIONS_PATH}/{self.visit.handle}?lang={self.locale}"

    def at(self, step: str) -> str:
        """Where the form of a step goes."""
        return f"{INTERACTIONS_PATH}/{self.visit.handle}/{step}?lang={self.locale}"

    def of(self, session: Session) -> "Matter":
        """The same matter, further on."""
        return structs.replace(self, session=session)


async def enter(
    connection: Connection, runtime: Runtime, visit: Visit, *, now: datetime
) -> tuple[Matter, str | None]:
    """The matter, and the cookie to set when this is the first visit."""
    interaction = await _interaction(connection, visit, now=now)
    if visit.browser is not None:
        session = await service.find(connection, context=visit.handle, browser=visit.browser, now=now)
        return _matter(runtime, visit, interaction, session), None
    fresh = service.new_secret()
    session = await service.begin(connection, context=visit.handle, browser=fresh, now=now)
    return _matter(runtime, visit, interaction, session), fresh


async def continue_(connection: Connection, runtime: Runtime, visit: Visit, *, now: datetime) -> Matter:
    """The matter, in the browser in which it began."""
    interaction = await _interaction(connection, visit, now=now)
    if visit.browser is None:
        raise service.LoginOver
    session = await service.find(connection, context=visit.handle, browser=visit.browser, now=now)
    return _matter(runtime, visit, interaction, session)


async def show(
    connection: Connection, matter: Matter, *, wish: str | None, cookies: tuple[Cookie, ...], now: datetime
) -> Response[str]:
    """The page of the step that comes next."""
    match matter.session.stage:
        case "new":
            return password_page(matter, cookies=cookies)
        case "password":
            return await factor_page(connection, matter, wish, now=now)
        case _:
            return await consent_page(connection, matter, now=now)


def password_page(
    matter: Matter, *, problem: str | None = None, status: int = 200, cookies: tuple[Cookie, ...] = ()
) -> Response[str]:
    return _page("password", matter, problem=problem, status=status, cookies=cookies)


async def factor_page(
    connection: Connection,
    matter: Matter,
    wish: str | None,
    *,
    problem: str | None = None,
    status: int = 200,
    now: datetime,
) -> Response[str]:
    """The second factor the member wishes to show, or the easiest there is."""
    own = await list_passkeys(connection, matter, now=now)
    factors = await codes.list_factors(connection, matter.session, sender=matter.sender, passkey=bool(own))
    factor = choose_factor(factors, wish)
    if factor == "passkey":
        assert matter.party is not None, "without a name there are no passkeys"
        options = await passkeys.ask_for_passkey(connection, matter.session, own, party=matter.party)
        return _page(
            "passkey", matter, problem=problem, status=status, script=True, factors=factors, options=options
        )
    return _page("code", matter, problem=problem, status=status, factors=factors, factor=factor)


def choose_factor(factors: Factors, wish: str | None) -> str:
    """What was wished for, if it is there; else a passkey before a code before an app."""
    present = [name for name in ("passkey", "code", "app") if getattr(factors, name)]
    if wish in present:
        return wish
    if factors.code_sent and factors.code:
        return "code"
    return present[0] if present else "code"


async def consent_page(
    connection: Connection,
    matter: Matter,
    *,
    problem: str | None = None,
    status: int = 200,
    now: datetime,
) -> Response[str]:
    account = await codes.account_of(connection, matter.session)
    if matter.interaction.member_id not in (None, account.member_id):
        return decline_page(matter, problem="another_member", status=403)
    device = await own_device(connection, matter, now=now)
    new_passkey = (
        matter.party is not None
        and device is not None
        and not await list_passkeys(connection, matter, now=now)
    )
    return _page(
        "consent",
        matter,
        problem=problem,
        status=status,
        asked=asked_of(matter.interaction, matter.locale),
        new_passkey=new_passkey,
    )


def decline_page(matter: Matter, *, problem: str | None = None, status: int = 200) -> Response[str]:
    """To leave before the login is complete, or when it led nowhere; nothing is typed here, so this page may lead away."""
    return _page("decline", matter, problem=problem, status=status)


async def new_passkey_page(
    connection: Connection,
    matter: Matter,
    *,
    problem: str | None = None,
    status: int = 200,
    now: datetime,
) -> Response[str]:
    """Only after a complete login, on a device that is known by then."""
    device = await own_device(connection, matter, now=now)
    if matter.session.stage != "done" or device is None or matter.party is None:
        return redirect(matter.here)
    options = await passkeys.offer_passkey(connection, matter.session, device, party=matter.party, now=now)
    return _page("new_passkey", matter, problem=problem, status=status, script=True, options=options)


async def own_device(connection: Connection, matter: Matter, *, now: datetime) -> Device | None:
    """This browser, if it is known as one of the member's."""
    device = await service.find_device(connection, matter.visit.device, now=now)
    return device if device is not None and device.account_id == matter.session.account_id else None


async def needs_code(connection: Connection, matter: Matter, *, now: datetime) -> bool:
    """Whether a code is to be sent unasked: this device has no passkey, and none was sent yet."""
    if await list_passkeys(connection, matter, now=now):
        return False
    factors = await codes.list_factors(connection, matter.session, sender=matter.sender, passkey=False)
    return not factors.code_sent


async def list_passkeys(connection: Connection, matter: Matter, *, now: datetime) -> list[Passkey]:
    """The member's passkeys on this device; none where no passkey can be."""
    if matter.party is None:
        return []
    device = await own_device(connection, matter, now=now)
    return await passkeys.list_passkeys(connection, matter.session, device, now=now)


async def find_matter(connection: Connection, handle: str, *, now: datetime) -> Interaction | None:
    """What a partner asks, or a login with the bank's own app."""
    asked = await find_interaction(connection, handle=handle, now=now)
    return asked or await find_login(connection, handle=handle, now=now)


async def _interaction(connection: Connection, visit: Visit, *, now: datetime) -> Interaction:
    found = await find_matter(connection, visit.handle, now=now) if visit.known_handle else None
    if found is None:
        raise RequestUnknown
    return found


def _matter(runtime: Runtime, visit: Visit, interaction: Interaction, session: Session) -> Matter:
    locale = visit.locale(interaction.ui_locales)
    return Matter(
        visit=visit,
        interaction=interaction,
        session=session,
        locale=locale,
        sender=runtime.code_sender,
        party=_party(runtime.base_url),
    )


def _party(base_url: str) -> RelyingParty | None:
    """WebAuthn §5.1.2: a relying party's id is a domain."""
    host = urlsplit(base_url).hostname or ""
    try:
        ip_address(host)
    except ValueError:
        return RelyingParty(host=host, origin=origin_of(base_url), name=say("bank", "en"))
    return None


def _page(name: str, matter: Matter, **facts: Any) -> Response[str]:
    other = "en" if matter.locale == "zh" else "zh"
    return page(
        name,
        locale=matter.locale,
        returns_to=matter.interaction.redirect_uri if name in LEADING_BACK else None,
        sent_on_to=matter.interaction.redirect_uri if matter.interaction.first_party else None,
        partner=partner_name(matter.interaction, matter.locale),
        here=matter.here,
        at=matter.at,
        switch=f"{INTERACTIONS_PATH}/{matter.visit.handle}?lang={other}",
        **facts,
    )
