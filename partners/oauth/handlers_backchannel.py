"""Asking a member on the phone, over HTTP (OpenID CIBA)."""

from datetime import datetime
from typing import Any

from litestar import Request, Response, post
from litestar.di import NamedDependency
from msgspec import Struct

from kernel.database import Connection
from kernel.sender import Sender
from kernel.settings import Settings
from partners.oauth.backchannel import BACKCHANNEL_PATH, RequestAccepted, request_backchannel
from partners.oauth.handlers import NO_STORE, TokenError
from partners.oauth.handlers_flow import refuse
from partners.oauth.keys import Signer
from partners.oauth.quote_terms import Quotes


class AcceptedAnswer(Struct, frozen=True, kw_only=True):
    """What to poll the token endpoint with, for how many seconds, and how many seconds apart."""

    auth_req_id: str
    expires_in: int
    interval: int
    #: the event `authorization.decided` names it so
    authorization: str


@post(BACKCHANNEL_PATH, public=True, status_code=200)
async def ask_on_the_phone(
    request: Request[Any, Any, Any],
    connection: NamedDependency[Connection],
    signer: NamedDependency[Signer],
    quotes: NamedDependency[Quotes],
    base_url: NamedDependency[str],
    sender: NamedDependency[Sender],
    settings: NamedDependency[Settings],
    now: NamedDependency[datetime],
) -> Response[AcceptedAnswer | TokenError]:
    """Ask one of your members on the phone, and get what to poll the token endpoint with (OpenID CIBA)."""
    outcome = await request_backchannel(
        connection,
        body=await request.body(),
        content_type=request.headers.get("content-type", ""),
        issuer=signer.issuer,
        base_url=base_url,
        quotes=quotes,
        sender=sender,
        requests_per_minute=settings.token_requests_per_minute,
        now=now,
    )
    if isinstance(outcome, RequestAccepted):
        answer = AcceptedAnswer(
            auth_req_id=outcome.auth_req_id,
            expires_in=outcome.expires_in,
            interval=outcome.interval,
            authorization=outcome.authorization,
        )
        return Response(answer, status_code=200, headers=NO_STORE)
    return refuse(outcome)


routes = [ask_on_the_phone]
