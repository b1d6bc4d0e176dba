"""What makes a backchannel request acceptable, and what a member approves: pure decisions on parsed input."""

import re
from datetime import datetime, timedelta

from msgspec import Struct

from partners.oauth.details import AccountOpen, InstalmentPlan, PointsSpend
from partners.oauth.model import Asked, BackchannelForm
from partners.oauth.rules import RequestRefused
from partners.registry.model import Client

GRANT_TYPE = "urn:openid:params:grant-type:ciba"
BINDING_MESSAGE_MAX = 64
EXPIRY_SECONDS = 300
EXPIRY_SECONDS_MIN = 60
EXPIRY_SECONDS_MAX = 600
INTERVAL_SECONDS = 5
#: RFC 8628 §3.5, which CIBA §11 follows: a client that polls too fast waits so much longer from then on
SLOWER_SECONDS = 5
#: a poll on time may arrive a little early: the way there is not always the same length
EARLY = timedelta(milliseconds=500)
#: what is approved in the last second can still be fetched
FETCH = timedelta(seconds=60)
#: how old the login may be that approves what is sensitive or costs something
FRESH = timedelta(minutes=5)

#: without a limit in the details these reach the member's points or money
MONEY_SCOPES = frozenset(("points:spend", "offers:write", "plans:write"))
MONEY_DETAILS = (PointsSpend, InstalmentPlan, AccountOpen)

_SECONDS = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)
_SUBJECT = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)


class OpenRequests(Struct, frozen=True, kw_only=True):
    """How much is under way already, before one more is asked."""

    #: waiting for this member's answer, whoever asked
    waiting_for_member: int
    #: of those, asked by this partner
    waiting_of_pair: int
    #: waiting for any member's answer, asked by this partner
    waiting_of_partner: int
    #: asked of this member by this partner within the last hour, whatever became of it
    asked_in_hour: int


WAITING_FOR_MEMBER_MAX = 6
#: so that one partner cannot take the member's screen from the others
WAITING_OF_PAIR_MAX = 3
WAITING_OF_PARTNER_MAX = 1_000
ASKED_IN_HOUR_MAX = 10


def check_form(form: BackchannelForm, client: Client) -> None:
    """What can be judged without looking anything up."""
    if GRANT_TYPE not in client.grant_types:
        raise RequestRefused("unauthorized_client", "the app may not ask members on their phones")
    # CIBA §7.1.1: a signed request is for clients registered for one; none is here.
    if form.request is not None:
        raise RequestRefused("invalid_request", "send the parameters as a form, not as a request object")
    # CIBA §7.1: a user code is for those registered for it; the member's own app is what protects here.
    if form.user_code is not None:
        raise RequestRefused("invalid_request", "user_code is not used here: leave it out")
    check_hint(form)
    check_binding_message(form.binding_message)


def check_hint(form: BackchannelForm) -> None:
    """CIBA §7.1: exactly one hint; the only kind this server reads is the member's subject at this partner."""
    hints = [
        name
        for name in ("login_hint", "id_token_hint", "login_hint_token")
        if getattr(form, name) is not None
    ]
    if len(hints) != 1:
        raise RequestRefused("invalid_request", "name the member by exactly one hint: login_hint")
    if hints != ["login_hint"]:
        raise RequestRefused(
            "invalid_request", f"{hints[0]} is not read here: send the member's subject as login_hint"
        )
    if _SUBJECT.fullmatch(form.login_hint or "") is None:
        raise RequestRefused("unknown_user_id", "login_hint is no subject of a member at this partner")


def check_binding_message(message: str | None) -> None:
    """CIBA §7.1, §13: short, and such that what is shown is what was sent (nothing invisible, nothing that turns text)."""
    if message is None:
        return
    if len(message) > BINDING_MESSAGE_MAX:
        raise RequestRefused(
            "invalid_binding_message", f"binding_message has more than {BINDING_MESSAGE_MAX} characters"
        )
    if not message.isprintable() or not message.strip():
        raise RequestRefused("invalid_binding_message", "binding_message must be printable characters")


def choose_expiry(requested: str | None) -> int:
    """CIBA §7.1: how long the client would like it to last; `expires_in` says what it got."""
    if requested is None:
        return EXPIRY_SECONDS
    if _SECONDS.fullmatch(requested) is None:
        raise RequestRefused("invalid_request", "requested_expiry must be a positive number of seconds")
    return min(max(int(requested), EXPIRY_SECONDS_MIN), EXPIRY_SECONDS_MAX)


def strip_openid(scope: str | None) -> str | None:
    """CIBA §7.1 has clients send `openid`. No ID token is issued, so nothing is asked of the member by it."""
    if scope is None:
        return None
    return " ".join(name for name in scope.split(" ") if name != "openid") or None


def check_flood(found: OpenRequests) -> None:
    """CIBA §13: the server may deny what would only wear a member out with prompts."""
    if found.waiting_for_member >= WAITING_FOR_MEMBER_MAX or found.waiting_of_pair >= WAITING_OF_PAIR_MAX:
        raise _denied("too many requests wait for this member's answer")
    if found.asked_in_hour >= ASKED_IN_HOUR_MAX:
        raise _denied("this member was asked too often within the last hour")
    if found.waiting_of_partner >= WAITING_OF_PARTNER_MAX:
        raise _denied("too many requests of this partner wait for answers")


def needs_fresh_login(asked: Asked) -> bool:
    """Whether an old login is not enough to approve this: it is sensitive, or it reaches points or money."""
    return (
        asked.sensitive
        or not MONEY_SCOPES.isdisjoint(asked.scopes)
        or any(isinstance(detail, MONEY_DETAILS) for detail in asked.authorization_details)
    )


def is_fresh(authenticated_at: datetime, *, now: datetime) -> bool:
    return authenticated_at > now - FRESH


def _denied(reason: str) -> RequestRefused:
    return RequestRefused("access_denied", reason, status=403)
