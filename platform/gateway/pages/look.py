"""How pages are made: templates that escape everything, headers that forbid what a page does not need."""

import hashlib
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined
from litestar import Response
from litestar.datastructures import Cookie

from gateway.pages.language import preferred_locale
from gateway.pages.wording import Locale, say, value

STYLE, SCRIPT = "pages.css", "passkey.js"
STATIC = {STYLE: "text/css", SCRIPT: "text/javascript"}
STATIC_PATH = "/static/pages"


def _content(name: str) -> bytes:
    return (files("gateway.pages") / "static" / name).read_bytes()


CONTENT = {name: _content(name) for name in STATIC}
#: the address changes with the file, so that a browser may keep what it has
ADDRESS = {
    name: f"{STATIC_PATH}/{name}?v={hashlib.sha256(content).hexdigest()[:12]}"
    for name, content in CONTENT.items()
}

_TEMPLATES = Environment(
    loader=PackageLoader("gateway.pages", "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)


def page(
    name: str,
    *,
    locale: Locale,
    status: int = 200,
    script: bool = False,
    returns_to: str | None = None,
    sent_on_to: str | None = None,
    cookies: tuple[Cookie, ...] = (),
    **facts: Any,
) -> Response[str]:
    """A page; `returns_to` is where its forms may end up besides ourselves, `cookies` are set with it.

    `sent_on_to` is the one such place of a page on which something secret is typed: the bank's own app.
    """

    def t(key: str, **named: object) -> str:
        return say(key, locale, **named)

    def word(code: str) -> str:
        return value(code, locale)

    html = _TEMPLATES.get_template(f"{name}.html").render(
        t=t,
        word=word,
        locale=locale,
        other="en" if locale == "zh" else "zh",
        language="zh-Hans" if locale == "zh" else "en",
        style=ADDRESS[STYLE],
        script=ADDRESS[SCRIPT] if script else None,
        **facts,
    )
    return Response(
        html,
        status_code=status,
        media_type="text/html; charset=utf-8",
        headers=_headers("'none'" if name == "error" else _targets(returns_to, sent_on_to), script=script),
        cookies=cookies,
    )


def render_error_page(code: str, *, locale: Locale, status: int = 400, reference: str = "") -> Response[str]:
    """A page that ends the matter: `code` is one of the `error_…` texts without that word."""
    known = code if f"error_{code}" in _ERRORS else "request_refused"
    return page("error", locale=locale, status=status, code=known, reference=reference, switch=None)


def redirect(address: str, *, cookies: tuple[Cookie, ...] = ()) -> Response[str]:
    """303: whatever was posted is not posted again (RFC 9700 §4.12)."""
    headers = {"location": address, "cache-control": "no-store", "referrer-policy": "no-referrer"}
    return Response("", status_code=303, media_type="text/html", headers=headers, cookies=cookies)


def _headers(targets: str, *, script: bool) -> dict[str, str]:
    return {
        "content-security-policy": _policy(targets, script=script),
        "cache-control": "no-store",
        # the form's Origin would be `null` without a referrer; to others nothing is told
        "referrer-policy": "same-origin",
        "cross-origin-opener-policy": "same-origin",
        "permissions-policy": "publickey-credentials-get=(self), publickey-credentials-create=(self)",
    }


def _targets(returns_to: str | None, sent_on_to: str | None) -> str:
    """Where something secret is typed, forms go to us alone.

    Chromium holds every redirect that follows a form against `form-action`: the partner's address, and wherever the
    partner goes on to. So the pages that lead back, on which nothing is typed, name all of https. From the bank's own
    login the way leads to the bank's own app, so those pages name its one address.
    """
    targets = "'self'"
    if returns_to is not None:
        targets += " https:" if returns_to.startswith("https:") else f" https: {source_of(returns_to)}"
    elif sent_on_to is not None:
        targets += f" {source_of(sent_on_to)}"
    return targets


def _policy(targets: str, *, script: bool) -> str:
    """What a page may load and do; an error page has no form at all."""
    scripts = " script-src 'self';" if script else ""
    return (
        f"default-src 'none'; style-src 'self';{scripts} form-action {targets}; "
        "frame-ancestors 'none'; base-uri 'none'"
    )


def source_of(address: str) -> str:
    """An address as a policy names it: an app's own scheme has no host."""
    scheme = address.partition(":")[0]
    return origin_of(address) if scheme in ("http", "https") else f"{scheme}:"


def origin_of(address: str) -> str:
    """Scheme, host and port of an address."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc}"


_ERRORS = frozenset(
    (
        "error_request_unknown",
        "error_login_over",
        "error_request_refused",
        "error_form_refused",
        "error_busy",
        "error_failed",
    )
)


class MemberErrorPages:
    """partners.oauth.error_page.ErrorPages in the look of the other pages."""

    def show(self, reason: str, *, accept_language: str) -> Response[str]:
        return render_error_page(
            "request_unknown", locale=preferred_locale(accept_language), reference=reason
        )
