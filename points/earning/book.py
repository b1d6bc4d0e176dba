"""The rule book: every rule version and campaign in force, held in memory and never more than half a second old.

Deciding an earning asks nobody. Whether the book is current is asked with the first batch after half a second: one look
at one row, not one for each batch. Approvals take effect `LEAD` later than they are given, so a version that comes into
force is in every process's book before its moment. A campaign's pause is seen at once by every batch that would draw on
the campaign, because that batch looks at the campaign's state anyway (points.earning.allotment).
"""

import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from msgspec import Struct

from kernel.database import Connection
from points.earning import book_queries as queries
from points.earning.model import Campaign, EarningRule
from points.ledger.funder_codes import list_funder_codes

FRESH_SECONDS = 0.5
#: how long before its moment an approval is given at the latest
LEAD = timedelta(seconds=5)
#: how long a campaign that is over is still known by its code
KNOWN_FOR = timedelta(days=730)


class RuleBook(Struct, frozen=True, kw_only=True):
    """What is in force, as it was read."""

    epoch: UUID
    #: in the order in which they come into force
    rules: Sequence[EarningRule]
    #: by priority and code; those that may give points
    campaigns: Sequence[Campaign]
    #: every approved one by its code, whatever its state
    known: dict[str, Campaign]


class Shelf:
    """Where a process keeps its rule book."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._book: RuleBook | None = None
        self._checked_at = float("-inf")

    async def current(self, connection: Connection, *, now: datetime) -> RuleBook:
        """The book, read anew if it has changed; asks the database at most every half second."""
        asked_at = self._monotonic()
        if self._book is not None and asked_at - self._checked_at < FRESH_SECONDS:
            return self._book
        epoch = await queries.read_epoch(connection)
        if self._book is None or self._book.epoch != epoch:
            self._book = await read_book(connection, epoch=epoch, now=now)
        self._checked_at = asked_at
        return self._book

    def forget(self) -> None:
        """Ask again next time: who has changed a rule sees it at once."""
        self._checked_at = float("-inf")


SHELF = Shelf()


async def read_book(connection: Connection, *, epoch: UUID, now: datetime) -> RuleBook:
    """The book as the database has it; read after its epoch, so it is at least as new."""
    funders = await list_funder_codes(connection)
    campaigns = await queries.list_campaigns(connection, funders, ended_after=now - KNOWN_FOR)
    return RuleBook(
        epoch=epoch,
        rules=await queries.list_rules(connection, funders),
        campaigns=[campaign for campaign in campaigns if campaign.is_open],
        known={campaign.code: campaign for campaign in campaigns},
    )


async def read_campaigns(
    connection: Connection, codes: Sequence[str], *, now: datetime
) -> dict[str, Campaign]:
    """These campaigns as they are defined, by code, however long ago they ended."""
    if not codes:
        return {}
    funders = await list_funder_codes(connection)
    found = await queries.list_campaigns(connection, funders, codes=codes, ended_after=now)
    return {campaign.code: campaign for campaign in found}
