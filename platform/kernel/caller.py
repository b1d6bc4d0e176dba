"""Who is asking: what the edge has proved about the sender of a request."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable
from uuid import UUID

from msgspec import Struct

from kernel.errors import Absent, Forbidden, Refusal

if TYPE_CHECKING:
    from kernel.database import Connection


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
    #: pairwise subject of the one member whose token this is; None for the app's own token
    subject: str | None = None
    #: the member's grant the token stands on, `grt_…`
    grant_id: str | None = None
    #: what the member agreed to in detail (RFC 9396)
    authorization_details: tuple[dict[str, Any], ...] = ()

    def name(self, sub: str) -> tuple[UUID, str]:
        """Partner and subject to look a member up by; to a member's token every other member is absent."""
        return self.partner_id, sub if self.subject in (None, sub) else ""

    def find_detail(self, kind: str) -> dict[str, Any] | None:
        """What the member agreed to of this type, if anything."""
        return next((detail for detail in self.authorization_details if detail["type"] == kind), None)

    def require(self, scope: str) -> None:
        """Refuse unless the token carries `scope`; for routes that several scopes may enter."""
        if scope not in self.scopes:
            raise InsufficientScope(scope=scope)


class MemberCaller(Struct, frozen=True, kw_only=True):
    """A member who uses the bank's own app, on a phone that has proved the possession of its key."""

    member: MemberRef
    #: the member, as the bank's apps know one
    subject: str
    #: the app, `mob_…`
    client_id: str
    scopes: frozenset[str]
    session_id: UUID
    #: when and by what the member logged in (RFC 8176)
    authenticated_at: datetime
    methods: list[str]


class MemberRef(Struct, frozen=True, kw_only=True):
    """A member as the ledger knows one; never shown to a partner."""

    member_id: int
    #: stable hash of the member, first part of every ledger key
    bucket: int


@runtime_checkable  # Litestar checks what it injects by isinstance
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

    async def resolve_each(
        self,
        connection: Connection,
        asked: Sequence[tuple[UUID, str]],
        *,
        scope: str,
        by_member: bool = False,
        now: datetime,
    ) -> list[MemberRef | Refusal]:
        """`resolve_one` for many (partner, sub), whosever they are; each is answered for itself, in their order.

        `by_member`: whether they are asked for with their own tokens, which keep to the limits of the consent.
        """
        ...

    async def names(
        self, connection: Connection, *, partner_id: UUID, member_ids: Sequence[int]
    ) -> dict[int, str]:
        """The pairwise subjects under which a partner knows these members."""
        ...


class InsufficientScope(Forbidden):
    """The access token does not carry the scope this route needs."""


class MemberUnknown(Absent):
    """No such member, or not one of this partner's."""

    code = "member_not_found"


class ConsentMissing(Forbidden):
    """The member has not consented to this use, or has withdrawn the consent."""
