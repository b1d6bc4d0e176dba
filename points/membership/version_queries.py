"""The statements about versions of the rules: what is in force when, what is proposed, who switched it on."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

import msgspec

from kernel.database import Connection, read_if_any
from points.membership.model import (
    Cell,
    Matrix,
    Privilege,
    Proposal,
    Rules,
    Scheme,
    ShopLevel,
    Threshold,
    VersionKind,
)

# The versions in force on a day, or the ones asked for instead. The aggregates need no order: they become mappings.
FIND_RULES = """
SELECT asked.matrix_version, to_jsonb(scheme) AS scheme,
       (SELECT jsonb_agg(to_jsonb(m)) FROM membership_matrix AS m WHERE m.version = asked.matrix_version) AS cells,
       (SELECT jsonb_agg(to_jsonb(l)) FROM membership_scheme_level AS l WHERE l.version = asked.scheme_version) AS levels
  FROM (SELECT coalesce($2::int, membership_version_on('matrix', $1)) AS matrix_version,
               coalesce($3::int, membership_version_on('scheme', $1)) AS scheme_version) AS asked
  JOIN membership_scheme AS scheme ON scheme.version = asked.scheme_version
"""

# One proposal at a time for each kind, so that version numbers have no gap.
LOCK_PROPOSALS = "SELECT pg_advisory_xact_lock(hashtextextended('membership_version:' || $1::text, 0))"

INSERT_VERSION = """
INSERT INTO membership_version (kind, version, parts, proposed_by, proposed_at)
SELECT $1, coalesce(max(version), 0) + 1, $2, $3, $4 FROM membership_version WHERE kind = $1
RETURNING kind, version, proposed_by
"""

INSERT_CELLS = """
INSERT INTO membership_matrix (version, bank_level, shop_level, tier, multiplier_pct)
SELECT $1, c.* FROM unnest($2::text[], $3::text[], $4::text[], $5::int[]) AS c
"""

INSERT_SCHEME = """
INSERT INTO membership_scheme (version, window_kind, window_months, needs, rises, validity_months, grace_days)
VALUES ($1, $2, $3, $4, $5, $6, $7)
"""

INSERT_SCHEME_LEVELS = """
INSERT INTO membership_scheme_level (version, shop_level, rank, min_fen, min_count)
SELECT $1, l.* FROM unnest($2::text[], $3::smallint[], $4::bigint[], $5::int[]) AS l
"""

INSERT_PRIVILEGES = """
INSERT INTO membership_privilege (version, tier, partner_id, kind, quantity, period)
SELECT $1, p.* FROM unnest($2::text[], $3::uuid[], $4::text[], $5::int[], $6::text[]) AS p
"""

FIND_PROPOSAL = "SELECT kind, version, proposed_by FROM membership_version WHERE kind = $1 AND version = $2"

INSERT_SWITCH = """
INSERT INTO membership_switch (kind, effective_on, version, proposed_by, switched_by, switched_at)
VALUES ($1, $2, $3, $4, $5, $6)
"""


async def find_rules(
    connection: Connection,
    *,
    day: date,
    matrix_version: int | None = None,
    scheme_version: int | None = None,
) -> Rules:
    """The rules in force on `day`, or those of other versions, which must exist."""
    record = await connection.fetchrow(FIND_RULES, day, matrix_version, scheme_version)
    assert record is not None and record["cells"] is not None, (
        "versions are checked before they are asked for"
    )
    levels: dict[ShopLevel, Threshold] = {
        level["shop_level"]: msgspec.convert(level, Threshold) for level in record["levels"] or ()
    }
    return Rules(
        matrix=Matrix(
            version=record["matrix_version"],
            cells={
                (cell["bank_level"], cell["shop_level"]): msgspec.convert(cell, Cell)
                for cell in record["cells"]
            },
        ),
        scheme=msgspec.convert(record["scheme"] | {"levels": levels}, Scheme),
    )


async def lock_proposals(connection: Connection, kind: VersionKind) -> None:
    await connection.execute(LOCK_PROPOSALS, kind)


async def insert_version(
    connection: Connection, *, kind: VersionKind, parts: int, by: str, now: datetime
) -> Proposal:
    found = read_if_any(await connection.fetchrow(INSERT_VERSION, kind, parts, by, now), Proposal)
    assert found is not None
    return found


async def insert_cells(connection: Connection, matrix: Matrix) -> None:
    pairs, cells = list(matrix.cells), list(matrix.cells.values())
    await connection.execute(
        INSERT_CELLS,
        matrix.version,
        [bank_level for bank_level, _ in pairs],
        [shop_level for _, shop_level in pairs],
        [cell.tier for cell in cells],
        [cell.multiplier_pct for cell in cells],
    )


async def insert_scheme(connection: Connection, scheme: Scheme, *, ranks: Sequence[ShopLevel]) -> None:
    s = scheme
    await connection.execute(
        INSERT_SCHEME,
        s.version,
        s.window_kind,
        s.window_months,
        s.needs,
        s.rises,
        s.validity_months,
        s.grace_days,
    )
    await connection.execute(
        INSERT_SCHEME_LEVELS,
        s.version,
        list(s.levels),
        [ranks.index(level) for level in s.levels],
        [threshold.min_fen for threshold in s.levels.values()],
        [threshold.min_count for threshold in s.levels.values()],
    )


async def insert_privileges(connection: Connection, version: int, privileges: Sequence[Privilege]) -> None:
    columns: list[list[Any]] = [
        [p.tier for p in privileges],
        [p.partner_id for p in privileges],
        [p.kind for p in privileges],
        [p.quantity for p in privileges],
        [p.period for p in privileges],
    ]
    await connection.execute(INSERT_PRIVILEGES, version, *columns)


async def find_proposal(connection: Connection, kind: VersionKind, version: int) -> Proposal | None:
    return read_if_any(await connection.fetchrow(FIND_PROPOSAL, kind, version), Proposal)


async def insert_switch(
    connection: Connection, proposal: Proposal, *, effective_on: date, by: str, now: datetime
) -> None:
    await connection.execute(
        INSERT_SWITCH, proposal.kind, effective_on, proposal.version, proposal.proposed_by, by, now
    )
