"""What makes the app's requests acceptable: pure decisions on parsed input."""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from kernel.errors import Unprocessable
from partners.mobile.model import App, CodedLogin, LoginDocument, Session
from partners.oauth import rules
from partners.oauth.model import ClientForm, TokenForm
from partners.oauth.rules import RequestRefused

ISSUER_PATH = "/mobile"
AUTHORIZE_PATH = "/mobile/oauth2/authorize"
TOKEN_PATH = "/mobile/oauth2/token"
REVOCATION_PATH = "/mobile/oauth2/revoke"
RESOURCE_PATH = "/mobile/v1"

PAGE_LIFE = timedelta(minutes=10)
CODE_LIFE = timedelta(seconds=60)
#: a phone that was not used for so long logs in anew
IDLE = timedelta(days=30)
#: RFC 9700 §4.14.2: an answer that was lost may be asked for again, and is the same
GRACE = timedelta(seconds=20)
SESSIONS_MAX = 10
REDIRECTS_MAX = 16

CLIENT_ID = re.compile(r"mob_[0-9A-HJKMNP-TV-Z]{26}", re.ASCII)
_THUMBPRINT = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
_VISIBLE = re.compile(r"[ -~]{1,512}", re.ASCII)
_LOCALES = re.compile(r"[A-Za-z0-9 -]{1,64}", re.ASCII)
# RFC 8252 §7.1: a scheme of one's own is a domain name of one's own, turned around
_OWN_SCHEME = re.compile(r"[a-z][a-z0-9]*(\.[a-z0-9-]+)+:/[!-~]*", re.ASCII)
_LOOPBACK = re.compile(r"http://(127\.0\.0\.1|\[::1\]):[0-9]{1,5}/[!-~]*", re.ASCII)


class AppRedirectInvalid(Unprocessable):
    """An app is returned to by https, by a scheme like com.example.app:/path, or by http to a loopback address and port."""


def check_redirect_uri(uri: str) -> None:
    """RFC 8252 §7, when an app is registered."""
    if len(uri) > 256 or "#" in uri:
        raise AppRedirectInvalid
    if _OWN_SCHEME.fullmatch(uri) or _LOOPBACK.fullmatch(uri):
        return
    parts = urlsplit(uri)
    if parts.scheme != "https" or not parts.hostname or "@" in parts.netloc or not uri.isprintable():
        raise AppRedirectInvalid


def read_login(query: Mapping[str, str], app: App, *, base_url: str) -> LoginDocument:
    """What is asked at the authorization endpoint, whose redirect_uri is known to be the app's own."""
    if query.get("response_type") != "code":
        raise RequestRefused("unsupported_response_type", "response_type must be code")
    if "request" in query or "request_uri" in query:
        raise RequestRefused("request_not_supported", "send the parameters themselves")
    # OAuth 2.1 §7.5.2: PKCE with S256; plain is no protection.
    challenge = query.get("code_challenge", "")
    if _THUMBPRINT.fullmatch(challenge) is None or query.get("code_challenge_method") != "S256":
        raise RequestRefused("invalid_request", "code_challenge must be the S256 of a code_verifier")
    jkt = query.get("dpop_jkt")
    if jkt is not None and _THUMBPRINT.fullmatch(jkt) is None:
        raise RequestRefused("invalid_request", "dpop_jkt must be a SHA-256 thumbprint")
    locales = query.get("ui_locales")
    if locales is not None and _LOCALES.fullmatch(locales) is None:
        raise RequestRefused("invalid_request", "ui_locales is not a list of language tags")
    if "none" in query.get("prompt", "").split(" "):
        raise RequestRefused("login_required", "the member must be asked")
    asked = [query["resource"]] if "resource" in query else []
    rules.check_resource(asked, resource=base_url + RESOURCE_PATH)
    return LoginDocument(
        issuer=base_url + ISSUER_PATH,
        redirect_uri=query["redirect_uri"],
        state=query.get("state"),
        code_challenge=challenge,
        dpop_jkt=jkt,
        scopes=rules.choose_scope(query.get("scope"), app.scopes),
        ui_locales=locales,
    )


def is_storable_state(state: str | None) -> bool:
    return state is None or _VISIBLE.fullmatch(state) is not None


def check_public(form: ClientForm) -> None:
    """RFC 6749 §2.3: who has a secret is another client; a partner has no business here."""
    if form.client_assertion is not None or form.client_assertion_type is not None or form.client_secret:
        raise RequestRefused(
            "invalid_client", "apps have no secret: send client_id and a DPoP proof", status=401
        )


def check_code(login: CodedLogin | None, form: TokenForm, *, jkt: str, now: datetime) -> None:
    """Whether this app may exchange this code here and now; whether it was used before is not asked here."""
    # RFC 6749 §4.1.3: it was issued to this client.
    if login is None or login.client_id != form.client_id:
        raise RequestRefused("invalid_grant", "there is no such code for this client")
    if login.state == "used":
        return  # decided by the caller, who leaves a mark
    if login.code_expires_at <= now:
        raise RequestRefused("invalid_grant", "the code has expired")
    # RFC 6749 §4.1.3: the same redirect_uri as in the authorization request.
    if form.redirect_uri != login.document.redirect_uri:
        raise RequestRefused("invalid_grant", "redirect_uri is not the one of the authorization request")
    rules.check_verifier(form.code_verifier, login.document.code_challenge)
    # RFC 9449 §10
    if login.document.dpop_jkt not in (None, jkt):
        raise RequestRefused("invalid_grant", "the code is bound to another key than that of the proof")


def check_session(session: Session | None, form: TokenForm, *, jkt: str, now: datetime) -> None:
    """Whether this app on this phone may go on with this session."""
    # Whoever has a token but not the key learns nothing, and ends nothing.
    if session is None or session.client_id != form.client_id or session.jkt != jkt:
        raise RequestRefused("invalid_grant", "there is no such refresh token for this app and this DPoP key")
    if session.ended_at is not None:
        raise RequestRefused("invalid_grant", "the session has ended; log in again")
    if session.refreshed_at <= now - IDLE:
        raise RequestRefused("invalid_grant", "the app was not used for too long; log in again")
