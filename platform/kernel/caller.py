"""Who is asking: what the edge has proved about the sender of a request."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol
from uuid import UUID

from msgspec import Struct

from kernel.database import Connection
from kernel.errors import Absent, Forbidden


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


class MemberRef(Struct, frozen=True, kw_only=True):
    """A member as the ledger knows one; never shown to a partner."""

    member_id: int
    #: stable hash of the member, first part of every ledger key
    bucket: int


class Subjects(Protocol):
    """Turns the pairwise subjects a partner names into members; the gateway joins it to partners.oauth."""

    async def resolve(
        self, connection: Connection, caller: Caller, subs: Sequence[str], *, scope: str, now: datetime
    ) -> dict[str, MemberRef]:
        """The members behind those `subs` that belong to the caller's partner and consent to `scope`; others are left out."""
        ...

    async def resolve_one(
        self, connection: Connection, caller: Caller, sub: str, *, scope: str, now: datetime
    ) -> MemberRef:
        """The member behind `sub`; refuses with MemberUnknown (404) or ConsentMissing (403)."""
        ...

    async def names(
        self, connection: Connection, *, partner_id: UUID, member_ids: Sequence[int]
    ) -> dict[int, str]:
        """The pairwise subjects under which a partner knows these members."""
        ...


class MemberUnknown(Absent):
    """No such member, or not one of this partner's."""

    code = "member_not_found"


class ConsentMissing(Forbidden):
    """The member has not consented to this use, or has withdrawn the consent."""
