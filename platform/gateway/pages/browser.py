"""What a member's browser sends: who it is by its cookies, whether a form came from our own page, what it says."""

import hashlib
import re
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import parse_qsl

from litestar import Request
from litestar.datastructures import Cookie
from msgspec import Struct

from gateway.pages.language import locale_of, preferred_locale
from gateway.pages.look import origin_of
from gateway.pages.wording import Locale
from gateway.requests import Passage
from kernel.errors import Forbidden, Malformed
from partners.login.rules import DEVICE_LIFE, SESSION_LIFE

DEVICE_COOKIE = "__Host-tessera-device"
FIELDS_MAX = 8
FORM = "application/x-www-form-urlencoded"

_HANDLE = re.compile(r"[A-Za-z0-9_-]{16,256}")
_SECRET = re.compile(r"[A-Za-z0-9_-]{43}")


class FormForeign(Forbidden):
    """The form was not sent from the bank's own page."""


class FormMalformed(Malformed):
    """The form cannot be read."""


class Visit(Struct, frozen=True, kw_only=True):
    """One request of a member's browser."""

    #: the secret in the page's address, which names the matter
    handle: str
    #: the cookie that binds the matter to this browser
    browser: str | None
    #: the cookie of a browser that is known for longer
    device: str | None
    address: str
    #: chosen by the link on the page
    chosen: Locale | None
    #: what the browser prefers
    preferred: Locale

    def locale(self, ui_locales: str | None = None) -> Locale:
        """The member's choice, then what the partner asked for, then the browser's wish."""
        wished = next((found for tag in (ui_locales or "").split() if (found := locale_of(tag))), None)
        return self.chosen or wished or self.preferred

    @property
    def known_handle(self) -> bool:
        return _HANDLE.fullmatch(self.handle) is not None


def read_visit(request: Request[Any, Any, Any], handle: str) -> Visit:
    """Who is asking, as far as a browser tells."""
    cookies = _cookies(request)
    return Visit(
        handle=handle,
        browser=_secret(cookies.get(browser_cookie(handle))),
        device=_secret(cookies.get(DEVICE_COOKIE)),
        address=Passage.of(request.scope).sender.network(),
        chosen=locale_of(request.query_params.get("lang", "")),
        preferred=preferred_locale(request.headers.get("accept-language", "")),
    )


def check_own_form(request: Request[Any, Any, Any], base_url: str) -> None:
    """A browser names the page a POST comes from: in Origin, and in Sec-Fetch-Site, which a page cannot forge."""
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    if site not in (None, "same-origin"):
        raise FormForeign
    if origin is None and site is None:
        raise FormForeign
    if origin is not None and origin != origin_of(base_url):
        raise FormForeign


def read_form(request: Request[Any, Any, Any]) -> Mapping[str, str]:
    """The fields of a form, each once."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        raise FormMalformed
    try:
        text = Passage.of(request.scope).body.decode("ascii")
        pairs = parse_qsl(
            text,
            keep_blank_values=True,
            strict_parsing=bool(text),
            errors="strict",
            max_num_fields=FIELDS_MAX,
        )
    except ValueError:
        raise FormMalformed from None
    if len({name for name, _ in pairs}) != len(pairs):
        raise FormMalformed
    return dict(pairs)


def browser_cookie(handle: str) -> str:
    """One for each matter, so that two tabs do not log each other out; the name does not tell the handle."""
    return f"__Host-tessera-login-{hashlib.sha256(handle.encode()).hexdigest()[:16]}"


def keep_browser(handle: str, secret: str) -> Cookie:
    """For the time of one login; Lax, because the member comes from the partner's page."""
    return _cookie(browser_cookie(handle), secret, int(SESSION_LIFE.total_seconds()), "lax")


def drop_browser(handle: str) -> Cookie:
    return _cookie(browser_cookie(handle), "", 0, "lax")


def keep_device(secret: str) -> Cookie:
    """For a year; only our own pages ever need it."""
    return _cookie(DEVICE_COOKIE, secret, int(DEVICE_LIFE.total_seconds()), "strict")


def _cookie(name: str, content: str, seconds: int, site: Literal["lax", "strict"]) -> Cookie:
    """`__Host-` asks for Secure, Path=/ and no Domain: nobody on a neighbouring host can plant one."""
    return Cookie(
        key=name, value=content, path="/", max_age=seconds, secure=True, httponly=True, samesite=site
    )


def _cookies(request: Request[Any, Any, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for header in request.headers.getall("cookie", []):
        for item in header.split(";"):
            name, _, content = item.strip().partition("=")
            found.setdefault(name, content)
    return found


def _secret(text: str | None) -> str | None:
    return text if text is not None and _SECRET.fullmatch(text) else None
