"""A member in front of the bank's pages: a browser without scripts that fills in the forms it is shown."""

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from html.parser import HTMLParser
from http.cookies import SimpleCookie
from itertools import cycle
from typing import Self

import httpx
import msgspec
from msgspec import Struct
from served import Platform

STEPS_MAX = 10


class Login(Struct, frozen=True, kw_only=True):
    """A line of the sandbox's members' file."""

    login: str
    password: str


class Form(Struct, kw_only=True):
    """A form of a page: where it goes, its fields, and the buttons that send it."""

    action: str
    fields: dict[str, str] = msgspec.field(default_factory=dict)
    buttons: list[tuple[str, str]] = msgspec.field(default_factory=list)


class Forms(HTMLParser):
    """The forms of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[Form] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.found.append(Form(action=given["action"]))
        elif tag == "input" and "name" in given:
            self.found[-1].fields[given["name"]] = given.get("value", "")
        elif tag == "button" and "name" in given:
            self.found[-1].buttons.append((given["name"], given["value"]))


class Member:
    """Somebody with a browser, a password and a phone; another one for each request, so that nobody is asked too often."""

    def __init__(self, platform: Platform, browser: httpx.AsyncClient) -> None:
        self._platform = platform
        self._browser = browser
        file = platform.data_dir / "sandbox" / "members.json"
        self._everybody = msgspec.json.decode(file.read_bytes(), type=list[Login])
        self._logins = cycle(self._everybody)
        self._cookies: dict[str, str] = {}

    @classmethod
    @asynccontextmanager
    async def at(cls, platform: Platform) -> AsyncGenerator[Self, None]:
        async with httpx.AsyncClient(base_url=platform.base_url, timeout=30.0) as browser:
            yield cls(platform, browser)

    async def agree(self, address: str, *, number: int | None = None) -> str:
        """Follow a link, log in and agree; where the browser is sent in the end. `number` is whose turn it is."""
        return await self._answer(address, "approve", number)

    async def decline(self, address: str) -> str:
        """Follow a partner's link, log in and do not agree."""
        return await self._answer(address, "deny")

    async def _answer(self, address: str, decision: str, number: int | None = None) -> str:
        someone = next(self._logins) if number is None else self._everybody[number]
        answer = await self._send("GET", address)
        for _ in range(STEPS_MAX):
            if answer.is_redirect:
                address = answer.headers["location"]
                if not address.startswith(("/", self._platform.base_url)):
                    return address
                answer = await self._send("GET", address)
            else:
                assert answer.status_code == 200, answer.text
                answer = await self._fill_in(answer.text, someone, decision)
        raise AssertionError("the pages lead nowhere")

    async def _fill_in(self, page: str, someone: Login, decision: str) -> httpx.Response:
        forms = Forms(page).found
        consent = next((form for form in forms if ("decision", "approve") in form.buttons), None)
        if consent is not None:
            return await self._send("POST", consent.action, {**consent.fields, "decision": decision})
        form = next(form for form in forms if "login" in form.fields or "code" in form.fields)
        if "login" in form.fields:
            filled = {"login": someone.login, "password": someone.password}
        else:
            filled = {"code": await self._read_phone(someone)}
        return await self._send("POST", form.action, {**form.fields, **filled})

    async def _read_phone(self, someone: Login) -> str:
        done = await asyncio.to_thread(self._platform.run, "sandbox", "messages", someone.login)
        assert done.returncode == 0, done.stderr
        codes: list[str] = re.findall(r"\b\d{6}\b", done.stdout)
        return codes[0]

    async def _send(self, method: str, address: str, form: dict[str, str] | None = None) -> httpx.Response:
        headers = {"cookie": "; ".join(f"{name}={value}" for name, value in self._cookies.items())}
        if form is not None:
            # what every browser adds to a form it posts
            headers |= {"origin": self._platform.base_url, "sec-fetch-site": "same-origin"}
        answer = await self._browser.request(method, address, data=form, headers=headers)
        for line in answer.headers.get_list("set-cookie"):
            # The cookies are for https alone, which the browser treats loopback as.
            self._cookies |= {name: cookie.value for name, cookie in SimpleCookie(line).items()}
        return answer
