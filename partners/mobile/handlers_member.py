"""The member's app over HTTP: who is logged in, and what partners ask on the phone."""

from datetime import date, datetime
from typing import Annotated, Any

from litestar import get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody
from msgspec import Meta, Struct

from kernel.caller import MemberCaller
from kernel.database import Connection
from kernel.ids import from_wire, to_wire
from kernel.pages import Page
from partners.oauth import authorizations
from partners.oauth.authorizations import Approval, Authorization
from partners.oauth.backchannel_rules import BINDING_MESSAGE_MAX
from partners.oauth.details import to_claims
from partners.oauth.grants import Authentication
from partners.oauth.scopes import DATA_KINDS, PURPOSES, SCOPES, Label, Scope

ANSWER = "authorizations:answer"
MOBILE = "mobile"


class Myself(Struct, frozen=True, kw_only=True):
    """Who is logged in, and how."""

    #: the member's name towards the bank's apps; no partner knows it
    sub: str
    client_id: str
    session: str
    scopes: list[str]
    authenticated_at: datetime
    #: RFC 8176
    methods: list[str]


class Words(Struct, frozen=True, kw_only=True):
    """A code with what it means, as the member reads it."""

    code: str
    zh: str
    en: str


class Asker(Struct, frozen=True, kw_only=True):
    """The partner, and whom to turn to about one's data there (PIPL §23)."""

    name_zh: str
    name_en: str
    contact: str


class AuthorizationView(Struct, frozen=True, kw_only=True):
    """What a partner asks: all of it is to be shown before it is approved."""

    id: str
    partner: Asker
    binding_message: str | None
    scopes: list[Words]
    purposes: list[Words]
    data_kinds: list[Words]
    authorization_details: list[dict[str, Any]]
    #: a separate consent has to be given (PIPL §29)
    sensitive: bool
    #: the last day of the grant
    ends_on: date
    asked_at: datetime
    expires_at: datetime
    #: approving takes a login of the last minutes
    needs_fresh_login: bool
    #: names all of this; sent back with the approval
    details_hash: str


class ApprovalRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was shown, said again, so that nothing else is approved."""

    details_hash: Annotated[str, Meta(min_length=43, max_length=43, pattern=r"^[A-Za-z0-9_-]+\Z")]
    binding_message: Annotated[str, Meta(max_length=BINDING_MESSAGE_MAX)] | None
    sensitive: Annotated[bool, Meta(description="The separate consent to sensitive data (PIPL §29).")] = False


class Decided(Struct, frozen=True, kw_only=True):
    """What became of a request."""

    id: str
    state: str


@get("/mobile/v1/me", scope="self", audience=MOBILE, level="A1")
async def read_myself(member_caller: NamedDependency[MemberCaller]) -> Myself:
    """Say who is logged in, since when and by what."""
    return Myself(
        sub=member_caller.subject,
        client_id=member_caller.client_id,
        session=to_wire("ses", member_caller.session_id),
        scopes=sorted(member_caller.scopes),
        authenticated_at=member_caller.authenticated_at,
        methods=member_caller.methods,
    )


@get("/mobile/v1/authorizations", scope=ANSWER, audience=MOBILE, level="A1")
async def list_authorizations(
    connection: NamedDependency[Connection],
    member_caller: NamedDependency[MemberCaller],
    now: NamedDependency[datetime],
) -> Page[AuthorizationView]:
    """List what partners ask of you and still waits, the oldest first; there are never more than a few."""
    found = await authorizations.list_authorizations(connection, member_caller.member, now=now)
    return Page(data=[_view(authorization) for authorization in found])


@post(
    "/mobile/v1/authorizations/{id:str}/approve", scope=ANSWER, audience=MOBILE, level="A2", status_code=200
)
async def approve_authorization(
    id: FromPath[str],
    data: JSONBody[ApprovalRequest],
    connection: NamedDependency[Connection],
    member_caller: NamedDependency[MemberCaller],
    now: NamedDependency[datetime],
) -> Decided:
    """Approve what was shown; the same approval again changes nothing."""
    await authorizations.approve_authorization(
        connection,
        member_caller.member,
        from_wire("aut", id),
        approval=Approval(
            binding_message=data.binding_message,
            details_hash=data.details_hash,
            sensitive_given=data.sensitive,
        ),
        authentication=Authentication(at=member_caller.authenticated_at, methods=member_caller.methods),
        now=now,
    )
    return Decided(id=id, state="approved")


@post("/mobile/v1/authorizations/{id:str}/deny", scope=ANSWER, audience=MOBILE, level="A2", status_code=200)
async def deny_authorization(
    id: FromPath[str],
    connection: NamedDependency[Connection],
    member_caller: NamedDependency[MemberCaller],
    now: NamedDependency[datetime],
) -> Decided:
    """Deny what a partner asks; the same denial again changes nothing."""
    await authorizations.deny_authorization(connection, member_caller.member, from_wire("aut", id), now=now)
    return Decided(id=id, state="denied")


def _view(found: Authorization) -> AuthorizationView:
    request, asked = found.request, found.request.document
    return AuthorizationView(
        id=to_wire("aut", request.id),
        partner=Asker(
            name_zh=found.partner.name_zh, name_en=found.partner.name_en, contact=found.partner.contact
        ),
        binding_message=asked.binding_message,
        scopes=[to_words(scope, SCOPES.get(scope)) for scope in asked.scopes],
        purposes=[to_words(purpose, PURPOSES.get(purpose)) for purpose in asked.purposes],
        data_kinds=[to_words(kind, DATA_KINDS.get(kind)) for kind in asked.data_kinds],
        authorization_details=to_claims(asked.authorization_details),
        sensitive=asked.sensitive,
        ends_on=asked.ends_on,
        asked_at=request.asked_at,
        expires_at=request.expires_at,
        needs_fresh_login=found.needs_fresh_login,
        details_hash=found.details_hash,
    )


def to_words(code: str, meaning: Label | Scope | None) -> Words:
    """The code itself where nobody wrote it down: nothing asked is left out."""
    return Words(code=code, zh=meaning.zh if meaning else code, en=meaning.en if meaning else code)


routes = [read_myself, list_authorizations, approve_authorization, deny_authorization]
