"""Tokens, published metadata, and what a partner may know of the link between its customers and members."""

from datetime import date, datetime
from typing import Annotated, Any

from litestar import Request, Response, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody
from msgspec import UNSET, Meta, Struct, UnsetType

from kernel.calendar import business_date
from kernel.caller import Caller, Subjects
from kernel.database import Connection
from kernel.sender import Sender
from kernel.settings import Settings
from kernel.vault import Vault
from partners.oauth import discovery, service
from partners.oauth.grant_types import GRANTS
from partners.oauth.keys import Signer
from partners.oauth.model import Consent, TokenIssued, TokenRefused
from partners.oauth.sm2_keys import Sm2Signer
from partners.oauth.token import RESOURCE_PATH, TOKEN_PATH, request_token

# RFC 6749 §5.1
NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}
CACHEABLE = {"Cache-Control": "max-age=300"}


class TokenAnswer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An access token bound to the key of the proof; with a member's token, what else belongs to it."""

    access_token: str
    token_type: str
    expires_in: Annotated[int, Meta(description="Seconds.")]
    scope: str
    refresh_token: str | None = None
    grant_id: Annotated[str, Meta(description="The member's grant, `grt_…`.")] | None = None
    authorization_details: list[dict[str, Any]] | None = None


class TokenError(Struct, frozen=True, kw_only=True):
    """Why there is no token (RFC 6749 §5.2)."""

    error: str
    error_description: str


class Sm2KeyView(Struct, frozen=True, kw_only=True):
    """A public key on the SM2 curve; coordinates in base64url, as in a JWK."""

    serial_no: str
    kty: str
    crv: str
    x: str
    y: str


class Sm2Keys(Struct, frozen=True, kw_only=True):
    """The active key first, then those before it."""

    keys: list[Sm2KeyView]


class ConsentView(Struct, frozen=True, kw_only=True):
    """What the member allows under all its grants together."""

    scopes: list[str]
    ends_on: Annotated[date, Meta(description="The last day of the longest grant.")]


class MemberView(Struct, frozen=True, kw_only=True):
    """A member as this partner may know one."""

    member: str
    since: Annotated[
        date, Meta(description="The business date on which the partner was linked to the member.")
    ]
    consent: ConsentView | None


CustomerRef = Annotated[
    str, Meta(min_length=1, max_length=128, description="The partner's own number of a customer.")
]


class BindingsRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which customers to look up."""

    customer_refs: Annotated[list[CustomerRef], Meta(min_length=1, max_length=1_000)]


class Binding(Struct, frozen=True, kw_only=True):
    """A customer number with its subject, or with the reason why there is none."""

    customer_ref: str
    member: str | UnsetType = UNSET
    code: str | UnsetType = UNSET


class Bindings(Struct, frozen=True, kw_only=True):
    """One binding for each number asked, in the order asked."""

    bindings: list[Binding]


@post(TOKEN_PATH, public=True, status_code=200)
async def issue_token(
    request: Request[Any, Any, Any],
    connection: NamedDependency[Connection],
    signer: NamedDependency[Signer],
    settings: NamedDependency[Settings],
    sender: NamedDependency[Sender],
    vault: NamedDependency[Vault],
    base_url: NamedDependency[str],
    now: NamedDependency[datetime],
) -> Response[TokenAnswer | TokenError]:
    """Exchange a client assertion and a DPoP proof, with a code or a refresh token if you have one, for an access token."""
    outcome = await request_token(
        connection,
        body=await request.body(),
        content_type=request.headers.get("content-type", ""),
        proofs=request.headers.getall("dpop", []),
        signer=signer,
        base_url=base_url,
        livemode=settings.mode == "live",
        sender=sender,
        requests_per_minute=settings.token_requests_per_minute,
        vault=vault,
        grants=GRANTS,
        now=now,
    )
    if isinstance(outcome, TokenIssued):
        return Response(to_answer(outcome), status_code=200, headers=NO_STORE)
    error = TokenError(error=outcome.error, error_description=outcome.description)
    return Response(error, status_code=outcome.status, headers=refusal_headers(outcome))


def refusal_headers(outcome: TokenRefused) -> dict[str, str]:
    """The headers of a refusal."""
    wait = outcome.retry_after_seconds
    return NO_STORE if wait is None else {**NO_STORE, "Retry-After": str(wait)}


def to_answer(issued: TokenIssued) -> TokenAnswer:
    return TokenAnswer(
        access_token=issued.access_token,
        token_type=issued.token_type,
        expires_in=issued.expires_in,
        scope=issued.scope,
        refresh_token=issued.refresh_token,
        grant_id=issued.grant_id,
        authorization_details=issued.authorization_details,
    )


@get(["/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"], public=True)
async def read_server_metadata(
    signer: NamedDependency[Signer], base_url: NamedDependency[str], settings: NamedDependency[Settings]
) -> Response[dict[str, Any]]:
    """What the authorization server can do (RFC 8414)."""
    metadata = discovery.describe_server(
        signer.issuer, base_url=base_url, mtls_base_url=settings.mtls_base_url
    )
    return Response(metadata, headers=CACHEABLE)


@get(
    ["/.well-known/oauth-protected-resource", f"/.well-known/oauth-protected-resource{RESOURCE_PATH}"],
    public=True,
)
async def read_resource_metadata(
    signer: NamedDependency[Signer], base_url: NamedDependency[str]
) -> Response[dict[str, Any]]:
    """What the partner API asks of a caller (RFC 9728)."""
    return Response(discovery.describe_resource(signer.issuer, base_url=base_url), headers=CACHEABLE)


@get("/oauth2/jwks", public=True)
async def read_jwks(signer: NamedDependency[Signer]) -> Response[dict[str, Any]]:
    """The public keys the bank signs with (RFC 7517)."""
    return Response(signer.jwks(), headers=CACHEABLE)


@get("/oauth2/sm2_keys", public=True)
async def read_sm2_keys(sm2_signer: NamedDependency[Sm2Signer | None]) -> Response[Sm2Keys]:
    """The public keys the bank signs answers with under TESSERA-SM2-WITH-SM3; none where the scheme is off."""
    keys = [] if sm2_signer is None else sm2_signer.published
    return Response(Sm2Keys(keys=[Sm2KeyView(**key) for key in keys]), headers=CACHEABLE)


@get("/v1/members/{sub:str}", scope="members:read", level="A1", member_token=True)
async def read_member(
    sub: FromPath[str],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    subjects: NamedDependency[Subjects],
    now: NamedDependency[datetime],
) -> MemberView:
    """The link between the partner and a member, and what the member allows."""
    member = await subjects.resolve_one(connection, caller, sub, scope="members:read", now=now)
    bound_at = await service.find_bound_at(connection, partner_id=caller.partner_id, member=member)
    consents = await service.list_consents(connection, partner_id=caller.partner_id, member=member, now=now)
    return MemberView(
        member=sub,
        since=business_date(bound_at),
        consent=_sum_up(consents),
    )


def _sum_up(consents: list[Consent]) -> ConsentView | None:
    """What the member allows under all grants together."""
    if not consents:
        return None
    return ConsentView(
        scopes=sorted({scope for consent in consents for scope in consent.scopes}),
        ends_on=max(consent.ends_on for consent in consents),
    )


@post("/v1/members/bindings", scope="points:earn", batch=True, level="A1", status_code=200)
async def bind_customers(
    data: JSONBody[BindingsRequest],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    vault: NamedDependency[Vault],
    settings: NamedDependency[Settings],
    now: NamedDependency[datetime],
) -> Bindings:
    """The members behind up to 1,000 of the partner's own customer numbers; the same question has the same answer."""
    found = await service.bind_customers(
        connection,
        partner_id=caller.partner_id,
        customer_refs=data.customer_refs,
        mode=settings.mode,
        vault=vault,
        now=now,
    )
    return Bindings(
        bindings=[
            Binding(customer_ref=ref, member=found[ref])
            if ref in found
            else Binding(customer_ref=ref, code="customer_unknown")
            for ref in data.customer_refs
        ]
    )


routes = [
    issue_token,
    read_server_metadata,
    read_resource_metadata,
    read_jwks,
    read_sm2_keys,
    read_member,
    bind_customers,
]
