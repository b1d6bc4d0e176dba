"""Statements: each wallet's month, issued once it is over, a bounded number of wallets at a time."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from functools import partial

from msgspec import convert
from msgspec.structs import replace

from kernel import jobs
from kernel.calendar import add_months, business_date, start_of_day
from kernel.caller import MemberRef
from kernel.database import Connection
from kernel.errors import Conflict
from kernel.jobs import Job, Run, Step
from points.ledger import proof_queries as queries
from points.ledger.model import Statement, WalletCursor

#: how long after midnight a request of the day before may still be writing: far more than any request lives
SETTLING = timedelta(minutes=10)
JOB = "statements"
#: of wallets whose statements are issued in one transaction
STATEMENT_WALLETS = 2_000
#: before the first key
NO_WALLET: WalletCursor = (-1, 0, 0)


class PeriodNotOver(Conflict):
    """The period is not over yet, or ended less than ten minutes ago."""


class EarlierMonthOpen(Conflict):
    """An earlier month has no complete statements yet."""


def check_over(last_day: date, now: datetime) -> None:
    """Refuse a period that ends with `last_day` while one of its entries might still be under way.

    An entry's day is the day of the request that wrote it, by the database's clock, and a request lives for seconds.
    After ten minutes no entry of the period can appear; if one did, it would follow the statement's last entry in the
    chain and be counted by the next statement.
    """
    if now < start_of_day(last_day + timedelta(days=1)) + SETTLING:
        raise PeriodNotOver(last_day=last_day.isoformat())


async def list_open_months(connection: Connection, *, until: date) -> list[date]:
    """The months up to that of `until` that have no complete statements, oldest first."""
    last = await jobs.find_last_finished(connection, JOB)
    if last is not None:
        month = add_months(last, 1)
    elif (first_day := await queries.find_first_day(connection)) is not None:
        month = first_day.replace(day=1)
    else:
        return []
    months = []
    while month <= until:
        months.append(month)
        month = add_months(month, 1)
    return months


async def _issue_next(connection: Connection, run: Run, now: datetime, *, limit: int) -> Step:
    period = run.business_on
    assert period.day == 1, "statements are known by the first day of their month"
    check_over(add_months(period, 1) - timedelta(days=1), now)
    months = await list_open_months(connection, until=period) if run.cursor is None else []
    if months[:1] not in ([], [period]):
        raise EarlierMonthOpen(period=period.isoformat())
    after = NO_WALLET if run.cursor is None else convert(run.cursor, WalletCursor)
    issued = await queries.issue_statements(connection, period=period, after=after, limit=limit, now=now)
    return Step(done=0, cursor=None) if issued is None else Step(done=issued[1], cursor=issued[0])


def issuing(limit: int = STATEMENT_WALLETS) -> Job:
    """Issues the statements of the month that begins on the business date, for `limit` wallets at a time.

    One lane: the wallets are walked through in the order of their key.
    """
    return Job(name=JOB, lanes=1, step=partial(_issue_next, limit=limit))


#: the job as it is run every month
STATEMENTS = issuing()


async def find_statement(connection: Connection, member: MemberRef, *, period: date) -> Statement | None:
    """The month's statement; a month without entries is told from the one before.

    None before the wallet's first month, and None for a month whose statements are not complete yet.
    """
    found = await queries.list_statements(connection, member, until=period, limit=1)
    if not found or found[0].period == period:
        return found[0] if found else None
    complete = await jobs.find_last_finished(connection, JOB)
    if complete is None or complete < period:
        return None
    last = found[0]
    return replace(
        last,
        period=period,
        opening_points=last.closing_points,
        earned_points=0,
        restored_points=0,
        spent_points=0,
        expired_points=0,
        clawed_points=0,
        repaid_points=0,
        opening_arrears_points=last.closing_arrears_points,
        owed_points=0,
        adjusted_in_points=0,
        adjusted_out_points=0,
        transferred_in_points=0,
        transferred_out_points=0,
        exchanged_in_points=0,
        exchanged_out_points=0,
        first_seq=last.last_seq + 1,
    )


async def list_statements(
    connection: Connection, member: MemberRef, *, until: date | None = None, limit: int, now: datetime
) -> Sequence[Statement]:
    """The statements of months with entries, newest first."""
    until = until or business_date(now)
    return await queries.list_statements(connection, member, until=until, limit=limit)
