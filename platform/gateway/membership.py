"""Membership as the bank's staff look after it: files of levels fed, versions proposed from files, who may do what."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from itertools import islice
from typing import Literal

import msgspec
from msgspec import Struct

from gateway.admins import require_admin
from gateway.level_lines import BrokenLevelLine, LevelLine
from kernel.database import Connection, Pool, transaction
from partners.registry import service as registry
from points.membership import service as membership
from points.membership.model import (
    BankLevel,
    Cell,
    FedLevel,
    Matrix,
    Privilege,
    Proposal,
    Scheme,
    ShopLevel,
    Threshold,
    Tier,
    VersionKind,
)

#: of one transaction
LINES = 500

#: (line number, status, code)
Told = Callable[[int, str, str], None]


class CellFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one pair of levels makes, as a file says it."""

    bank_level: BankLevel
    shop_level: ShopLevel
    tier: Tier
    multiplier_pct: int


class MatrixFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A matrix to be proposed."""

    cells: list[CellFile]


class SchemeFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A scheme to be proposed."""

    window_kind: Literal["rolling", "calendar"]
    window_months: int
    needs: Literal["all", "any"]
    rises: Literal["at_once", "at_evaluation"]
    validity_months: int
    grace_days: int
    levels: dict[ShopLevel, Threshold]


class PrivilegeFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a tier gives at the partner of that slug."""

    tier: Tier
    partner: str
    kind: str
    quantity: int
    period: Literal["month", "quarter", "year"]


class PrivilegesFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that tiers give, to be proposed."""

    privileges: list[PrivilegeFile]


async def feed_levels(
    pool: Pool,
    lines: Iterable[LevelLine | BrokenLevelLine],
    *,
    fed_ref: str,
    now_of: Callable[[], datetime],
    tell: Told,
) -> Counter[str]:
    """Feed line after line, some in each transaction; returns how many came to what.

    What is committed is nothing new when the file comes again.
    """
    counts: Counter[str] = Counter()
    remaining, first = iter(lines), 1
    while chunk := list(islice(remaining, LINES)):
        async with transaction(pool) as connection:
            answers = await _feed(connection, chunk, fed_ref=fed_ref, now=now_of())
        for number, (status, code) in enumerate(answers, start=first):
            counts[status] += 1
            tell(number, status, code)
        first += len(chunk)
    return counts


async def _feed(
    connection: Connection, lines: Sequence[LevelLine | BrokenLevelLine], *, fed_ref: str, now: datetime
) -> list[tuple[str, str]]:
    """(status, code) of each line."""
    sound = [line for line in lines if isinstance(line, LevelLine)]
    members = await membership.find_members(connection, [line.member_id for line in sound])
    known = [line for line in sound if line.member_id in members]
    new = iter(
        await membership.feed_bank_levels(
            connection,
            [
                FedLevel(
                    member=members[line.member_id], bank_level=line.bank_level, valid_from=line.valid_from
                )
                for line in known
            ],
            fed_ref=fed_ref,
            now=now,
        )
    )
    answers = []
    for line in lines:
        if isinstance(line, BrokenLevelLine):
            answers.append(("refused", line.code))
        elif line.member_id not in members:
            answers.append(("refused", "member_not_found"))
        else:
            answers.append(("recorded" if next(new) else "unchanged", ""))
    return answers


async def propose(
    connection: Connection, kind: VersionKind, data: bytes, *, by: str, now: datetime
) -> Proposal:
    """Propose what a file says, by one of the bank's makers."""
    by = await require_admin(connection, by, "maker")
    if kind == "matrix":
        cells = {
            (cell.bank_level, cell.shop_level): Cell(tier=cell.tier, multiplier_pct=cell.multiplier_pct)
            for cell in msgspec.json.decode(data, type=MatrixFile).cells
        }
        return await membership.propose_matrix(connection, Matrix(version=0, cells=cells), by=by, now=now)
    if kind == "scheme":
        given = msgspec.structs.asdict(msgspec.json.decode(data, type=SchemeFile))
        return await membership.propose_scheme(connection, Scheme(version=0, **given), by=by, now=now)
    privileges = [
        Privilege(
            tier=one.tier,
            partner_id=(await registry.find_partner_by_slug(connection, one.partner)).id,
            kind=one.kind,
            quantity=one.quantity,
            period=one.period,
        )
        for one in msgspec.json.decode(data, type=PrivilegesFile).privileges
    ]
    return await membership.propose_privileges(connection, privileges, by=by, now=now)
