"""The books check: asks every view that looks for contradictions, all in one snapshot of the database."""

from typing import Any

from msgspec import Struct

from kernel.database import Connection

ROWS_MAX = 20
#: a whole check may take this long
SECONDS = 120.0


class Finding(Struct, frozen=True, kw_only=True):
    """What one view found about the sentence it guards."""

    #: `books_i04_wallet_is_its_entries`
    view: str
    #: what should be true
    sentence: str
    #: the first twenty rows that contradict it; none when it is true
    rows: list[dict[str, Any]]

    @property
    def contradictions(self) -> int:
        """How many rows contradict the sentence; twenty stands for twenty or more."""
        return len(self.rows)


# By name: the numbers follow the order in which one would check by hand.
LIST_VIEWS = r"""
SELECT c.relname AS name, obj_description(c.oid, 'pg_class') AS sentence
  FROM pg_class AS c
 WHERE c.relkind = 'v' AND c.relname LIKE 'books\_i%' AND c.relnamespace = 'public'::regnamespace
 ORDER BY c.relname
"""

# A check reads everything once, whatever the statistics of a table filled a minute ago say: hash and merge joins only.
# The sums of a big day need more room than a request's.
PREPARE = """
SELECT set_config('statement_timeout', $1, true),
       set_config('enable_nestloop', 'off', true),
       set_config('work_mem', '64MB', true)
"""


async def check(connection: Connection) -> list[Finding]:
    """One finding for each sentence, in order. Needs a connection that is not in a transaction."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        await connection.execute(PREPARE, f"{SECONDS:.0f}s")
        return await look(connection)


async def look(connection: Connection) -> list[Finding]:
    """The same, in the transaction there is."""
    findings = []
    for name, sentence in await connection.fetch(LIST_VIEWS):
        # Materialized, so that the plan is made for all rows: nearly always there are none, and no early end.
        statement = f"WITH found AS MATERIALIZED (SELECT * FROM {name}) SELECT * FROM found LIMIT {ROWS_MAX}"  # noqa: S608  # a name from the catalogue
        records = await connection.fetch(statement, timeout=SECONDS)
        findings.append(Finding(view=name, sentence=sentence, rows=[dict(record) for record in records]))
    return findings
