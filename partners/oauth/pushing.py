"""Pushed authorization requests (RFC 9126): every check on what a partner asks of a member stands here, in order."""

import hmac
import re
import secrets
from datetime import date, datetime, timedelta
from typing import Literal, cast

from msgspec import Struct

from kernel.calendar import business_date
from kernel.database import Connection
from kernel.errors import Absent
from kernel.ids import from_wire, new_id
from kernel.sender import NOBODY, Sender
from kernel.vault import Vault, sha256
from partners.oauth import flow_queries, grants, rules
from partners.oauth.client_authentication import REQUESTS_PER_MINUTE, authenticate_client, check_may_ask
from partners.oauth.details import (
    SENSITIVE,
    AccountOpen,
    AskedDetail,
    AuthorizationDetail,
    DetailInvalid,
    HealthRegistration,
    InstalmentPlanAsked,
    PointsSpend,
    TaxData,
    read_details,
)
from partners.oauth.model import AskForm, AuthorizationRequest, Consent, PushForm, TokenRefused
from partners.oauth.quote_terms import Quotes, complete_details
from partners.oauth.rules import RequestRefused
from partners.oauth.scopes import SENSITIVE_SCOPES, member_scopes, uses_of
from partners.oauth.token import RESOURCE_PATH, prove
from partners.registry.jwk import encode
from partners.registry.model import Client

PAR_PATH = "/oauth2/par"
REQUEST_URI = "urn:ietf:params:oauth:request_uri:"
# FAPI 2.0 §5.3.2.2: less than 600 s. It opens the page; the page itself may then wait for the member a while longer.
REQUEST_URI_SECONDS = 90
PAGE_LIFE = timedelta(minutes=10)
GRANT_DAYS = 365
GRANT_DAYS_MAX = 5 * 366
TEXT_LENGTH_MAX = 512

_THUMBPRINT = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
_VISIBLE = re.compile(r"[ -~]+", re.ASCII)
_LOCALES = re.compile(r"[A-Za-z0-9 -]{1,64}", re.ASCII)
#: the scope without which a detail of this type leads nowhere
_SCOPE_OF: dict[type[AskedDetail], str] = {
    PointsSpend: "points:spend",
    InstalmentPlanAsked: "offers:write",
    TaxData: "data:write",
    HealthRegistration: "data:write",
    AccountOpen: "offers:write",
}


class RequestPushed(Struct, frozen=True, kw_only=True):
    """The answer to a good request (RFC 9126 §2.2)."""

    request_uri: str
    expires_in: int = REQUEST_URI_SECONDS


async def push_request(
    connection: Connection,
    *,
    body: bytes,
    content_type: str,
    proofs: list[str],
    issuer: str,
    base_url: str,
    vault: Vault,
    quotes: Quotes,
    sender: Sender = NOBODY,
    requests_per_minute: int = REQUESTS_PER_MINUTE,
    now: datetime,
) -> RequestPushed | TokenRefused:
    """Keep a request for a member's answer, or say why not; an assertion or proof that was used stays used."""
    try:
        form = rules.read_parameters(body, content_type, PushForm)
        # FAPI 2.0 §5.3.2.2: only authenticated clients may push.
        client = await authenticate_client(
            connection,
            form,
            issuer=issuer,
            sender=sender,
            requests_per_minute=requests_per_minute,
            now=now,
        )
        jkt = await _find_key(connection, form, proofs, base_url=base_url, now=now)
        check_may_ask(client)
        check_request(form, client, resource=base_url + RESOURCE_PATH)
        document = await _complete(connection, form, client, jkt, issuer=issuer, quotes=quotes, now=now)
    except RequestRefused as refused:
        return refused.outcome()
    request_uri = REQUEST_URI + secrets.token_urlsafe(32)
    await flow_queries.insert_request(
        connection,
        request_id=new_id(now),
        partner_id=client.partner_id,
        client_id=client.client_id,
        request_uri_hash=sha256(request_uri),
        handle_hash=sha256(handle_of(request_uri, vault)),
        document=document,
        request_uri_expires_at=now + timedelta(seconds=REQUEST_URI_SECONDS),
        now=now,
    )
    return RequestPushed(request_uri=request_uri)


async def open_interaction(
    connection: Connection, *, client_id: str, request_uri: str, vault: Vault, now: datetime
) -> str | None:
    """The handle of the page for a pushed request, the same each time it is loaded; None if there is nothing to open.

    FAPI 2.0 §5.3.2.2: a request_uri is used up by the member's answer, not by loading the page.
    """
    if not request_uri.startswith(REQUEST_URI) or not request_uri.isascii() or len(request_uri) > 128:
        return None
    if rules.CLIENT_ID.fullmatch(client_id) is None:
        return None
    opened = await flow_queries.open_request(
        connection, sha256(request_uri), client_id=client_id, page_expires_at=now + PAGE_LIFE, now=now
    )
    return None if opened is None else handle_of(request_uri, vault)


def handle_of(request_uri: str, vault: Vault) -> str:
    """The page's secret: the partner, who knows the request_uri, cannot compute it."""
    return encode(hmac.digest(vault.key("interaction"), request_uri.encode(), "sha256"))


def check_request(form: PushForm, client: Client, *, resource: str) -> None:
    """What can be judged without looking anything up."""
    # RFC 9126 §2.1: a request_uri is what comes out, never what goes in. RFC 9101 is not part of this profile.
    if form.request_uri is not None:
        raise RequestRefused("invalid_request", "request_uri must not be pushed")
    if form.request is not None:
        raise RequestRefused(
            "request_not_supported", "send the parameters as a form, not as a request object"
        )
    if "authorization_code" not in client.grant_types:
        raise RequestRefused("unauthorized_client", "the app may not use the authorization code grant")
    check_redirect(form.redirect_uri, client)
    # FAPI 2.0 §5.3.2.2: response_type is code and nothing else.
    if form.response_type is None:
        raise RequestRefused("invalid_request", "response_type is missing")
    if form.response_type != "code":
        raise RequestRefused("unsupported_response_type", "response_type must be code")
    if form.response_mode not in (None, "query"):
        raise RequestRefused("invalid_request", "response_mode must be query")
    # FAPI 2.0 §5.3.2.2 and RFC 7636 §4.4: PKCE with S256; plain is no protection.
    if form.code_challenge is None or _THUMBPRINT.fullmatch(form.code_challenge) is None:
        raise RequestRefused("invalid_request", "code_challenge must be the S256 of a code_verifier")
    if form.code_challenge_method != "S256":
        raise RequestRefused("invalid_request", "code_challenge_method must be S256")
    for name, value in (("state", form.state), ("nonce", form.nonce)):
        if value is not None and (len(value) > TEXT_LENGTH_MAX or _VISIBLE.fullmatch(value) is None):
            raise RequestRefused(
                "invalid_request", f"{name} must be up to {TEXT_LENGTH_MAX} visible characters"
            )
    if form.prompt is not None and "none" in form.prompt.split(" "):
        raise RequestRefused("login_required", "the member must be asked")
    if form.ui_locales is not None and _LOCALES.fullmatch(form.ui_locales) is None:
        raise RequestRefused("invalid_request", "ui_locales is not a list of language tags")
    rules.check_resource(form.resource, resource=resource)


def check_redirect(redirect_uri: str | None, client: Client) -> None:
    # FAPI 2.0 §5.3.2.2 and RFC 6749 §3.1.2.3: required, and compared character by character.
    if redirect_uri is None:
        raise RequestRefused("invalid_request", "redirect_uri is missing")
    if redirect_uri not in client.redirect_uris:
        raise RequestRefused("invalid_request", "redirect_uri is not registered for this app")


async def _find_key(
    connection: Connection, form: PushForm, proofs: list[str], *, base_url: str, now: datetime
) -> str | None:
    """The key the code will be bound to (RFC 9449 §10), named by parameter or shown by a proof; both must agree."""
    jkt = form.dpop_jkt
    if jkt is not None and _THUMBPRINT.fullmatch(jkt) is None:
        raise RequestRefused("invalid_request", "dpop_jkt must be a SHA-256 thumbprint")
    if not proofs:
        return jkt
    proof = await prove(connection, proofs, url=base_url + PAR_PATH, now=now)
    if jkt is not None and jkt != proof.jkt:
        raise RequestRefused("invalid_dpop_proof", "DPoP proof: its key is not the one of dpop_jkt")
    return proof.jkt


async def _complete(
    connection: Connection,
    form: PushForm,
    client: Client,
    jkt: str | None,
    *,
    issuer: str,
    quotes: Quotes,
    now: datetime,
) -> AuthorizationRequest:
    """The request with everything a member will be shown."""
    assert form.redirect_uri is not None and form.code_challenge is not None, "checked before"
    scopes = choose_scopes(form, client, asked=form.scope)
    details, member_id = await find_details(connection, form, client, quotes, now=now)
    action, grant = await find_asked_grant(connection, form, client, now=now)
    types = [str(detail.__struct_config__.tag) for detail in details]
    purposes, data_kinds = uses_of([*scopes, *types])
    return AuthorizationRequest(
        issuer=issuer,
        redirect_uri=form.redirect_uri,
        state=form.state,
        nonce=form.nonce,
        code_challenge=form.code_challenge,
        dpop_jkt=jkt,
        scopes=scopes,
        purposes=purposes,
        data_kinds=data_kinds,
        authorization_details=details,
        sensitive=is_sensitive(scopes, details),
        ends_on=last_day(
            form.grant_ends_on, today=business_date(now), merged=grant if action == "merge" else None
        ),
        grant_action=action,
        grant_id=None if grant is None else grant.id,
        member_id=member_id,
        ui_locales=form.ui_locales,
    )


def is_sensitive(scopes: list[str], details: list[AuthorizationDetail]) -> bool:
    """Whether a separate consent is needed (PIPL §29)."""
    return not SENSITIVE_SCOPES.isdisjoint(scopes) or any(isinstance(d, SENSITIVE) for d in details)


def choose_scopes(form: AskForm, client: Client, *, asked: str | None) -> list[str]:
    """What the member is asked for: some of what the app has, and the member's to give."""
    if asked is None:
        if form.authorization_details is None:
            raise RequestRefused("invalid_scope", "ask for a scope or for authorization_details")
        return []
    scopes = rules.choose_scope(asked, client.scopes)
    if member_scopes(scopes) != scopes:
        raise RequestRefused("invalid_scope", "a member can grant only what is the member's to give")
    return scopes


async def find_details(
    connection: Connection, form: AskForm, client: Client, quotes: Quotes, *, now: datetime
) -> tuple[list[AuthorizationDetail], int | None]:
    if form.authorization_details is None:
        return [], None
    try:
        asked = read_details(form.authorization_details)
        if not {_SCOPE_OF[type(detail)] for detail in asked} <= set(client.scopes):
            raise DetailInvalid("the app has not been granted the scope that goes with a type")
        return await complete_details(connection, asked, quotes, partner_id=client.partner_id, now=now)
    except DetailInvalid as invalid:
        # RFC 9396 §5
        raise RequestRefused("invalid_authorization_details", f"authorization_details: {invalid}") from None


async def find_asked_grant(
    connection: Connection, form: AskForm, client: Client, *, now: datetime
) -> tuple[Literal["create", "merge", "replace"], Consent | None]:
    """Grant Management: what to do with which grant; another partner's is as absent as an unknown one."""
    action = form.grant_management_action or "create"
    if action not in ("create", "merge", "replace"):
        raise RequestRefused("invalid_request", "grant_management_action must be create, merge or replace")
    if (form.grant_id is None) != (action == "create"):
        raise RequestRefused("invalid_request", "merge and replace name a grant_id, create does not")
    if form.grant_id is None:
        return "create", None
    try:
        grant_id = from_wire("grt", form.grant_id)
    except Absent:
        raise RequestRefused("invalid_grant_id", "there is no such grant") from None
    grant = await grants.find_grant(connection, partner_id=client.partner_id, grant_id=grant_id, now=now)
    if grant is None:
        raise RequestRefused("invalid_grant_id", "there is no such grant")
    return cast(Literal["merge", "replace"], action), grant


def last_day(asked: str | None, *, today: date, merged: Consent | None) -> date:
    """As long as the partner asks, but what is merged into a grant ends with it at the latest."""
    if asked is None:
        return today + timedelta(days=GRANT_DAYS) if merged is None else merged.ends_on
    try:
        last: date | None = date.fromisoformat(asked)
    except ValueError:
        last = None
    if last is None or last.isoformat() != asked:
        raise RequestRefused("invalid_request", "grant_ends_on must be a date, YYYY-MM-DD")
    if not today <= last <= today + timedelta(days=GRANT_DAYS_MAX):
        raise RequestRefused("invalid_request", "grant_ends_on must be from today to five years ahead")
    return last if merged is None else min(last, merged.ends_on)
