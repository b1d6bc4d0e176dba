"""Who was a member before tiers were judged keeps the tier, is protected, and has done what earned points."""

import shutil
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import asyncpg

from kernel import migrate
from kernel.caller import MemberRef
from kernel.database import open_pool
from points.membership import service

AT = datetime(2026, 10, 31, 16, 30, tzinfo=UTC)
PARTNER = UUID(int=7)

#: (member's number in the table, reference, amount, undone)
EARNED = [(1, "a", 500, 0), (1, "b", 300, 300), (1, "c", 200, 50), (2, "a", 0, 0)]


async def test_members_of_before_are_protected_and_what_they_earned_counts(
    empty_owner_url: str, empty_app_url: str, tmp_path: Path
) -> None:
    whole, before = migrate.find_directory(), tmp_path / "migrations"
    before.mkdir()
    for file in sorted(whole.glob("*.sql"))[:14]:
        shutil.copy(file, before)
    await migrate.apply(empty_owner_url, before)
    owner = await asyncpg.connect(empty_owner_url)
    members = [
        MemberRef(member_id=row["member_id"], bucket=row["bucket"])
        for row in await owner.fetch(
            "INSERT INTO membership_member (bank_level, shop_level, created_at)"
            " VALUES ('wode', 'gold', $1), ('express', 'bronze', $1) RETURNING member_id, bucket",
            AT,
        )
    ]
    for number, (who, ref, fen, undone) in enumerate(EARNED):
        member, operation_id = members[who - 1], UUID(int=number)
        await owner.execute(
            "INSERT INTO ledger_operation (bucket, member_id, id, kind, partner_id, source_kind, source_ref, amount_fen,"
            " points, occurred_at, recorded_at, business_on, point_type)"
            " VALUES ($1, $2, $3, 'earn', $4, 'purchase', $5, $6, 0, $7, $7, '2026-11-01', 1)",
            *(member.bucket, member.member_id, operation_id, PARTNER, ref, fen, AT),
        )
        await owner.execute(
            "INSERT INTO ledger_source_claim VALUES ($1, $2, $3, 'purchase', $4, $5)",
            *(member.bucket, member.member_id, PARTNER, ref, operation_id),
        )
        if undone:
            await owner.execute(
                "INSERT INTO ledger_reversible (bucket, member_id, operation_id, base_fen, base_points, reversed_fen,"
                " reversed_points) VALUES ($1, $2, $3, $4, 0, $5, 0)",
                *(member.bucket, member.member_id, operation_id, fen, undone),
            )
    await owner.close()

    await migrate.apply(empty_owner_url, whole)

    async with await open_pool(empty_app_url, size=1) as pool, pool.acquire() as connection:
        standings = await service.list_standings(connection, members)
        outlook = await service.read_outlook(connection, members[0], now=AT)
        months = await connection.fetch(
            "SELECT member_id, month::text, qualifying_fen, qualifying_count FROM membership_activity_month"
            " ORDER BY member_id"
        )
        views = await connection.fetch(
            "SELECT relname FROM pg_class WHERE relname ~ '^books_i4[4-9]_' ORDER BY relname"
        )
        contradictions = [
            row["relname"] for row in views if await connection.fetch(f"SELECT FROM {row['relname']} LIMIT 1")
        ]
    assert [(s.tier, s.multiplier_pct) for s in (standings[m.member_id] for m in members)] == [
        *(("platinum", 160), ("bronze", 105))
    ]
    assert (outlook.period.reason, outlook.kept) == ("enrolled", "protected")
    assert [tuple(row)[1:] for row in months] == [("2026-11-01", 650, 2), ("2026-11-01", 0, 1)]
    assert len(views) == 6 and contradictions == []
