"""The log of books checks: from which day on the next one has to look."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta

from gateway.books import Finding
from kernel.calendar import business_date
from kernel.database import Connection

#: how long before its commit a transaction may have read its clock: far more than queue, statement and idle time-outs allow
UNDER_WAY = timedelta(hours=1)

# What is under way may have read the clock before it began. Other roles' sessions show no beginning; they post nothing.
READ_MOMENT = """
SELECT least(clock_timestamp(), min(xact_start)) AS moment
  FROM pg_stat_activity
 WHERE datname = current_database() AND pid <> pg_backend_pid()
"""

# The last one knows what all before it have found.
FIND_NEXT_SINCE = "SELECT next_since FROM books_check ORDER BY id DESC LIMIT 1"

INSERT_CHECK = """
INSERT INTO books_check (since, next_since, members, broken, started_at, finished_at)
VALUES ($1, $2, $3, $4, $5, greatest($5, clock_timestamp()))
"""


async def read_moment(connection: Connection) -> datetime:
    """Now, or when the oldest transaction under way began; to be asked before the check's snapshot is taken."""
    moment: datetime = await connection.fetchval(READ_MOMENT)
    return moment


async def find_next_since(connection: Connection) -> date | None:
    """The day from which on the books have not been found true yet; None when they never were."""
    found: date | None = await connection.fetchval(FIND_NEXT_SINCE)
    return found


async def remember(
    connection: Connection,
    findings: Sequence[Finding],
    *,
    since: date | None,
    members: int | None,
    moment: datetime,
) -> None:
    """Write down what a check looked at and found."""
    broken = [finding.view for finding in findings if finding.rows]
    before = await find_next_since(connection)
    after = next_since(since, before, good=bool(findings) and not broken, moment=moment)
    await connection.execute(INSERT_CHECK, since, after, members, broken, moment)


def next_since(since: date | None, before: date | None, *, good: bool, moment: datetime) -> date | None:
    """Where the next check begins: moved only by a good one that left no gap."""
    if not good or (since is not None and (before is None or since > before)):
        return before
    return business_date(moment - UNDER_WAY)
