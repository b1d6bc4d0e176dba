"""The sandbox's rights, so that booking and using them can be tried before the first evaluation gives any."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from kernel.caller import MemberRef
from kernel.database import Connection
from points.membership.entitlements import grant_entitlement

USES = 5
VALID = timedelta(days=365)


async def give_consultations(
    connection: Connection, members: Sequence[MemberRef], *, partner_id: UUID, now: datetime
) -> None:
    """Each of the members has some health consultations at that partner."""
    for member in members:
        await grant_entitlement(
            connection,
            member=member,
            partner_id=partner_id,
            kind="health_consultation",
            source="sandbox",
            quantity=USES,
            expires_at=now + VALID,
            now=now,
        )
