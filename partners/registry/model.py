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


class Key(Struct, frozen=True, kw_only=True):
    """A public key an app signs with."""

    kid: str
    jwk: dict[str, Any]
    status: KeyStatus
    added_at: datetime


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
    #: kid to public JWK, the usable ones only
    keys: dict[str, dict[str, Any]]
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
