"""Partners, apps, keys and agreements as values."""

from datetime import date, datetime
from typing import Any, Literal
from uuid import UUID

from msgspec import Struct, field

PartnerKind = Literal["product_supplier", "service_provider"]
Scene = Literal["ecommerce", "hospital", "education", "tax"]
PartnerStatus = Literal[
    "draft",
    "submitted",
    "in_review",
    "approved",
    "live",
    "suspended",
    "terminating",
    "terminated",
    "rejected",
]
AppStatus = Literal["active", "inactive", "removed"]
KeyStatus = Literal["pending", "active", "retiring", "revoked"]
#: which signature the writes of level A2 must carry
RequestSignature = Literal["optional", "fapi", "sm2"]
TokenBinding = Literal["dpop", "certificate"]


class Partner(Struct, frozen=True, kw_only=True):
    """An organisation under agreement with the bank."""

    id: UUID
    #: short stable name: `ecommerce`, file names and command line
    slug: str
    name_zh: str
    name_en: str
    kind: PartnerKind
    scene: Scene
    status: PartnerStatus
    #: raised when earlier tokens must stop working for good
    epoch: int
    #: whom members may turn to: the consent page shows it
    contact: str = ""


class App(Struct, frozen=True, kw_only=True):
    """One client of a partner, with its own keys, scopes and limits."""

    id: UUID
    partner_id: UUID
    #: the public name, `app_…`, generated here so that it can never equal a subject
    client_id: str
    status: AppStatus
    scopes: list[str]
    #: sustained requests a second
    rate_per_second: int
    #: requests that may come at once
    burst: int
    #: whether the proofs of its writes must carry the server's nonce
    dpop_nonce_required: bool
    #: where the app publishes its keys, if that is where they come from
    jwks_uri: str | None = None
    token_binding: TokenBinding = "dpop"
    certificate_subject: str | None = None
    certificate_thumbprints: tuple[str, ...] = ()
    ip_allow: tuple[str, ...] = ()


class Access(Struct, frozen=True, kw_only=True):
    """How an app may come in, beside the keys it registers itself."""

    jwks_uri: str | None = None
    token_binding: TokenBinding = "dpop"
    #: `dns:…` or `dn:…`
    certificate_subject: str | None = None
    #: SHA-256 of whole certificates, base64url
    certificate_thumbprints: tuple[str, ...] = ()
    #: networks
    ip_allow: tuple[str, ...] = ()


ChangeKind = Literal["reinstate", "access"]
ChangeState = Literal["proposed", "approved", "rejected", "expired"]


class Change(Struct, frozen=True, kw_only=True):
    """What one of the bank's people proposes about a partner and another decides."""

    id: UUID
    partner_id: UUID
    #: None where it is about the whole partner
    app_id: UUID | None
    kind: ChangeKind
    #: what will be done, fixed when it was proposed
    payload: dict[str, Any]
    reason: str
    state: ChangeState
    proposed_by: str
    proposed_at: datetime
    #: from this instant on it can only be proposed anew
    expires_at: datetime
    decided_by: str | None = None
    decided_at: datetime | None = None


class Key(Struct, frozen=True, kw_only=True):
    """A public key an app signs with."""

    kid: str
    jwk: dict[str, Any]
    status: KeyStatus
    added_at: datetime
    #: of a pending key: how long the keys before it stay good once it is used
    overlap_seconds: int | None = None
    #: of a retiring key: from this instant on it is refused
    not_after: datetime | None = None
    activated_at: datetime | None = None
    revoked_at: datetime | None = None


class Client(Struct, frozen=True, kw_only=True):
    """What must be known of an app, its partner and its keys to authenticate it."""

    app_id: UUID
    partner_id: UUID
    client_id: str
    app_status: AppStatus
    partner_status: PartnerStatus
    #: the partner's
    epoch: int
    scopes: list[str]
    rate_per_second: int
    burst: int
    dpop_nonce_required: bool
    #: kid to public JWK, the usable ones only
    keys: dict[str, dict[str, Any]]
    request_signature: RequestSignature = "fapi"
    #: serial number to the point (x and y in hex) of the usable SM2 keys
    sm2_keys: dict[str, str] = {}
    #: kid to public JWK of the key that waits for its first use, if one does
    pending: dict[str, dict[str, Any]] = {}
    #: where the app publishes its keys, if that is where they come from
    jwks_uri: str | None = None
    #: when they were last fetched
    jwks_fetched_at: datetime | None = None
    #: what the app's tokens are bound to
    token_binding: TokenBinding = "dpop"
    #: `dns:…` or `dn:…` of the certificate by which the app may authenticate
    certificate_subject: str | None = None
    #: SHA-256 of the certificates that are taken, base64url; none: any of the subject
    certificate_thumbprints: tuple[str, ...] = ()
    #: networks the app may call from; none: from everywhere
    ip_allow: tuple[str, ...] = ()
    #: where members may be sent back to, compared as text
    redirect_uris: list[str] = []
    grant_types: list[str] = field(default_factory=lambda: ["client_credentials"])


class Agreement(Struct, frozen=True, kw_only=True):
    """What a partner may sell, who pays for what, and how long."""

    id: UUID
    partner_id: UUID
    scenarios: list[str]
    #: who pays for what, as offers and settlement read it
    funding: dict[str, Any]
    starts_on: date
    #: the last day
    ends_on: date
