"""Who is asking: what the edge has proved about the sender of a request."""

from uuid import UUID

from msgspec import Struct


class Caller(Struct, frozen=True, kw_only=True):
    """A partner's app that has proved its identity and the possession of its token's key."""

    partner_id: UUID
    #: the app's internal id
    app_id: UUID
    #: the app's public name, `app_…`
    client_id: str
    scopes: frozenset[str]
    #: RFC 7638 thumbprint of the key the token is bound to
    key_thumbprint: str
