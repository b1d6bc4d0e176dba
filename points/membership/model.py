"""Membership's nouns: levels, tiers and the rights that come with them."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from msgspec import Struct

from kernel.caller import MemberRef

BankLevel = Literal["express", "comm", "wode", "private"]
ShopLevel = Literal["iron", "bronze", "silver", "gold"]
Tier = Literal["start", "bronze", "silver", "gold", "platinum"]

#: the matrix in force; a new one is a migration with a new version
MATRIX_VERSION = 1


class Standing(Struct, frozen=True, kw_only=True):
    """Where a member stands: two levels, the tier they make, and what it multiplies."""

    tier: Tier
    bank_level: BankLevel
    shop_level: ShopLevel
    #: 200 doubles what is earned
    multiplier_pct: int
    matrix_version: int


class Entitlement(Struct, frozen=True, kw_only=True):
    """A right of a member: a number of uses until an end."""

    id: UUID
    member: MemberRef
    partner_id: UUID
    kind: str
    #: what it was given for; undoing that revokes it
    source: str
    quantity: int
    used: int
    expires_at: datetime | None
    revoked_at: datetime | None
    granted_at: datetime

    @property
    def left(self) -> int:
        return self.quantity - self.used
