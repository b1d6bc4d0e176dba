"""Several grants of a pair cost what one did: standings are found by key, also by plans made on empty tables."""

from uuid import uuid4

import pytest

from kernel.database import Connection
from partners.oauth import queries

ASKED = {
    "LIST_STANDINGS": f"'{uuid4()}'::uuid, ARRAY['a', 'b'], 'points:spend', '2026-01-01', false",
    "LIST_STANDINGS_OF_EACH": f"ARRAY['{uuid4()}']::uuid[], ARRAY['a'], 'points:spend', '2026-01-01', false",
}


@pytest.mark.parametrize("name", ASKED)
async def test_standings_are_found_by_key(name: str, connection: Connection) -> None:
    await connection.execute("SET LOCAL plan_cache_mode = force_generic_plan")
    await connection.execute(f"PREPARE standings AS {getattr(queries, name)}")
    lines = await connection.fetch(f"EXPLAIN EXECUTE standings({ASKED[name]})")
    await connection.execute("DEALLOCATE standings")
    plan = "\n".join(line[0] for line in lines)
    assert "oauth_subject_sub" in plan
    assert "Index Scan using oauth_consent_standing" in plan
    assert "Seq Scan" not in plan
