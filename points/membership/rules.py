"""Membership's decisions: whether a right may be used."""

from datetime import datetime

from kernel.calendar import rfc3339
from kernel.errors import Absent, Conflict
from points.membership.model import Entitlement


class EntitlementUnknown(Absent):
    """No such entitlement, or not one of this partner's."""

    code = "entitlement_not_found"


class EntitlementRevoked(Conflict):
    """The entitlement was taken back because what it was given for was undone."""


class EntitlementExpired(Conflict):
    """The entitlement has expired."""


class EntitlementUsedUp(Conflict):
    """Fewer uses are left than asked for."""


def check_use(entitlement: Entitlement, quantity: int, now: datetime) -> None:
    """Refuse unless `quantity` uses are left of a right that is still one."""
    if entitlement.revoked_at is not None:
        raise EntitlementRevoked
    if entitlement.expires_at is not None and entitlement.expires_at <= now:
        raise EntitlementExpired(expires_at=rfc3339(entitlement.expires_at))
    if entitlement.left < quantity:
        raise EntitlementUsedUp(left=entitlement.left)


def state_of(entitlement: Entitlement, now: datetime) -> str:
    """The word for it: revoked before expired before used, because that is what explains most."""
    if entitlement.revoked_at is not None:
        return "revoked"
    if entitlement.expires_at is not None and entitlement.expires_at <= now:
        return "expired"
    return "usable" if entitlement.left else "used"
