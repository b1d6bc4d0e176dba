"""Membership as other domains call it: enrolment, standings, activity, judgements, versions of the rules, rights."""

from collections.abc import Sequence
from datetime import date, datetime

from kernel.calendar import business_date
from kernel.caller import MemberRef
from kernel.database import Connection
from kernel.vault import Vault
from points.membership import queries
from points.membership.activity import (
    ActivityAlreadyCounted,
    record_activity,
    report_activity,
    undo_activity,
)
from points.membership.entitlements import (
    BookingRefTaken,
    EntitlementUseAlreadyCounted,
    book_entitlement,
    cancel_booking,
    find_entitlement,
    grant_entitlement,
    list_entitlements,
    revoke_entitlements,
    use_entitlement,
)
from points.membership.evaluation import EVALUATION
from points.membership.levels import feed_bank_levels, find_members
from points.membership.model import BankLevel, ShopLevel, Standing
from points.membership.periods import judge_fraud, judge_members, list_periods, read_outlook
from points.membership.privileges import grant_rights
from points.membership.rules import end_of_tier
from points.membership.version_queries import find_rules
from points.membership.versions import (
    propose_matrix,
    propose_privileges,
    propose_scheme,
    simulate,
    switch_on,
)

TABLE = "membership_member"


async def enrol_members(
    connection: Connection,
    *,
    count: int,
    bank_level: BankLevel = "express",
    shop_level: ShopLevel = "iron",
    now: datetime,
) -> list[MemberRef]:
    """`count` members about whom nothing else is known; the levels given are protected like a tier that was earned."""
    day = business_date(now)
    rules = await find_rules(connection, day=day)
    return await queries.insert_members(
        connection,
        count=count,
        bank_level=bank_level,
        shop_level=shop_level,
        rules=rules,
        valid_until=end_of_tier(rules.scheme, day),
        now=now,
    )


async def enrol_member(
    connection: Connection,
    *,
    bank_level: BankLevel = "express",
    shop_level: ShopLevel = "iron",
    name: str | None = None,
    phone: str | None = None,
    vault: Vault,
    now: datetime,
) -> MemberRef:
    """One member; name and phone are stored sealed, the phone can be found by its blind index."""
    (member,) = await enrol_members(
        connection, count=1, bank_level=bank_level, shop_level=shop_level, now=now
    )
    if name is None and phone is None:
        return member
    row = str(member.member_id)
    await queries.seal_member(
        connection,
        member,
        name_sealed=None if name is None else vault.encrypt(name, table=TABLE, column="name", row=row),
        phone_sealed=None if phone is None else vault.encrypt(phone, table=TABLE, column="phone", row=row),
        phone_index=None if phone is None else vault.blind_index("member.phone", phone),
    )
    return member


async def find_first_day(connection: Connection) -> date | None:
    """The day on which the first member was enrolled; None before that."""
    enrolled_at = await queries.find_first_enrolment(connection)
    return None if enrolled_at is None else business_date(enrolled_at)


async def list_standings(connection: Connection, members: Sequence[MemberRef]) -> dict[int, Standing]:
    """The tiers in force of these members, by member id."""
    return await queries.list_standings(connection, members)


__all__ = [
    "EVALUATION",
    "ActivityAlreadyCounted",
    "BookingRefTaken",
    "EntitlementUseAlreadyCounted",
    "book_entitlement",
    "cancel_booking",
    "enrol_member",
    "enrol_members",
    "feed_bank_levels",
    "find_entitlement",
    "find_first_day",
    "find_members",
    "find_rules",
    "grant_entitlement",
    "grant_rights",
    "judge_fraud",
    "judge_members",
    "list_entitlements",
    "list_periods",
    "list_standings",
    "propose_matrix",
    "propose_privileges",
    "propose_scheme",
    "read_outlook",
    "record_activity",
    "report_activity",
    "revoke_entitlements",
    "simulate",
    "switch_on",
    "undo_activity",
    "use_entitlement",
]
