"""A member asked by way of the phone (OpenID CIBA Core 1.0, poll, with FAPI-CIBA): the partner's side.

Asking is POST /oauth2/bc-authorize; the token is fetched by polling. The member's side is authorizations.py.
"""

import secrets
from datetime import datetime, timedelta

from msgspec import Struct

from kernel.calendar import business_date
from kernel.caller import MemberRef
from kernel.database import Connection
from kernel.ids import new_id, to_wire
from kernel.sender import NOBODY, Sender
from kernel.vault import Vault, sha256
from partners.oauth import backchannel_queries, backchannel_rules, queries, refresh_queries, rules
from partners.oauth.backchannel_queries import Backchannel
from partners.oauth.backchannel_rules import INTERVAL_SECONDS
from partners.oauth.client_authentication import REQUESTS_PER_MINUTE, authenticate_client, check_may_ask
from partners.oauth.exchange import find_standing, hash_of, make_allowance
from partners.oauth.model import BackchannelDocument, BackchannelForm, TokenRefused
from partners.oauth.pushing import choose_scopes, find_asked_grant, find_details, is_sensitive, last_day
from partners.oauth.quote_terms import Quotes
from partners.oauth.rules import RequestRefused
from partners.oauth.scopes import uses_of
from partners.oauth.service import subject_for
from partners.oauth.token import RESOURCE_PATH, Allowance, TokenRequest
from partners.registry.model import Client

BACKCHANNEL_PATH = "/oauth2/bc-authorize"


class RequestAccepted(Struct, frozen=True, kw_only=True):
    """The answer to a good request (CIBA §7.3)."""

    auth_req_id: str
    expires_in: int
    interval: int
    #: ours: by this name the event `authorization.decided` speaks of it
    authorization: str


async def request_backchannel(
    connection: Connection,
    *,
    body: bytes,
    content_type: str,
    issuer: str,
    base_url: str,
    quotes: Quotes,
    sender: Sender = NOBODY,
    requests_per_minute: int = REQUESTS_PER_MINUTE,
    now: datetime,
) -> RequestAccepted | TokenRefused:
    """Keep a request for a member's phone, or say why not; an assertion that was used stays used."""
    try:
        form = rules.read_parameters(body, content_type, BackchannelForm)
        # CIBA §7.1: the client authenticates as it does at the token endpoint.
        client = await authenticate_client(
            connection,
            form,
            issuer=issuer,
            sender=sender,
            requests_per_minute=requests_per_minute,
            now=now,
        )
        check_may_ask(client)
        backchannel_rules.check_form(form, client)
        rules.check_resource(form.resource, resource=base_url + RESOURCE_PATH)
        seconds = backchannel_rules.choose_expiry(form.requested_expiry)
        member = await _find_member(connection, form, client)
        document = await _complete(connection, form, client, member, quotes, now=now)
        return await _keep(connection, client, member, document, seconds=seconds, now=now)
    except RequestRefused as refused:
        return refused.outcome()


async def _find_member(connection: Connection, form: BackchannelForm, client: Client) -> MemberRef:
    """CIBA §13: a hint that leads to nobody; another partner's subject does so too."""
    assert form.login_hint is not None, "checked before"
    member = await queries.find_member(connection, client.partner_id, form.login_hint)
    if member is None:
        raise RequestRefused("unknown_user_id", "login_hint is no subject of a member at this partner")
    return member


async def _complete(
    connection: Connection,
    form: BackchannelForm,
    client: Client,
    member: MemberRef,
    quotes: Quotes,
    *,
    now: datetime,
) -> BackchannelDocument:
    """The request with everything the member will be shown."""
    scopes = choose_scopes(form, client, asked=backchannel_rules.strip_openid(form.scope))
    details, about = await find_details(connection, form, client, quotes, now=now)
    if about not in (None, member.member_id):
        raise RequestRefused("invalid_authorization_details", "the quote is another member's")
    action, grant = await find_asked_grant(connection, form, client, now=now)
    # A grant that is to be widened is this member's; the member would only be asked in vain.
    if grant is not None and grant.member != member:
        raise RequestRefused("invalid_grant_id", "there is no such grant of this member")
    purposes, data_kinds = uses_of([*scopes, *(str(d.__struct_config__.tag) for d in details)])
    return BackchannelDocument(
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
        member_id=member.member_id,
        ui_locales=form.ui_locales,
        binding_message=form.binding_message,
    )


async def _keep(
    connection: Connection,
    client: Client,
    member: MemberRef,
    document: BackchannelDocument,
    *,
    seconds: int,
    now: datetime,
) -> RequestAccepted:
    """Unless the member would be flooded; parallel requests are counted one after the other."""
    await backchannel_queries.lock_asking(connection, client.partner_id, member)
    found = await backchannel_queries.count_open(connection, client.partner_id, member, now=now)
    backchannel_rules.check_flood(found)
    # CIBA §7.3: at least 128 bits, 160 recommended; the database knows the hash.
    secret, request_id = secrets.token_urlsafe(32), new_id(now)
    await backchannel_queries.insert_backchannel(
        connection,
        request_id=request_id,
        auth_req_hash=sha256(secret),
        partner_id=client.partner_id,
        client_id=client.client_id,
        member=member,
        document=document,
        expires_at=now + timedelta(seconds=seconds),
        interval_seconds=INTERVAL_SECONDS,
        now=now,
    )
    return RequestAccepted(
        auth_req_id=secret,
        expires_in=seconds,
        interval=INTERVAL_SECONDS,
        authorization=to_wire("aut", request_id),
    )


async def grant_backchannel(connection: Connection, request: TokenRequest, vault: Vault | None) -> Allowance:
    """The token of a request the member approved (CIBA §10.1, §11): to one poll, once, bound to its proof's key."""
    assert vault is not None, "subjects are made from the vault's key"
    form, client, now = request.form, request.client, request.now
    found = await backchannel_queries.find_by_secret(connection, hash_of(form.auth_req_id, "auth_req_id"))
    # CIBA §11: the auth_req_id was issued to this client.
    if found is None or found.client_id != client.client_id:
        raise RequestRefused("invalid_grant", "there is no such auth_req_id for this client")
    consent_id = await backchannel_queries.redeem_backchannel(connection, found.id, now=now)
    if consent_id is None:
        raise await _not_yet(connection, request, found)
    grant = await find_standing(connection, client, consent_id, now=now)
    sub = await subject_for(
        connection, partner_id=client.partner_id, member=found.member, vault=vault, now=now
    )
    refresh_token = None
    if "refresh_token" in client.grant_types:
        refresh_token = secrets.token_urlsafe(32)
        await refresh_queries.insert_refresh(
            connection,
            sha256(refresh_token),
            origin=found.id,
            client_id=client.client_id,
            consent_id=grant.id,
            sub=sub,
            jkt=request.proof.jkt,
            scopes=found.document.scopes,
            now=now,
        )
    return make_allowance(
        grant, client, found.document.scopes, sub=sub, origin=found.id, refresh_token=refresh_token
    )


async def _not_yet(connection: Connection, request: TokenRequest, found: Backchannel) -> RequestRefused:
    """Why this poll gets no token (CIBA §11); a poll of a request that still waits moves the next one."""
    now = request.now
    # It was read before it was tried: somebody else may have been first in between.
    found = (
        await backchannel_queries.find_by_secret(connection, sha256(request.form.auth_req_id or "")) or found
    )
    if found.state == "redeemed":
        return RequestRefused("invalid_grant", "the auth_req_id was used before")
    if found.state == "denied":
        return RequestRefused("access_denied", "the member did not agree")
    if found.expires_at <= now:
        return RequestRefused("expired_token", "the member did not answer in time; ask again")
    if await backchannel_queries.poll_in_time(connection, found.id, early=backchannel_rules.EARLY, now=now):
        return RequestRefused("authorization_pending", "the member has not answered yet")
    await backchannel_queries.poll_too_fast(
        connection, found.id, slower=backchannel_rules.SLOWER_SECONDS, now=now
    )
    return RequestRefused(
        "slow_down",
        f"polled too early: wait {backchannel_rules.SLOWER_SECONDS} seconds more than before from now on",
    )
