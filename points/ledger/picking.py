"""Picking: which lots pay for what is asked of wallets, in spend order, under the wallets' locks."""

from collections.abc import Sequence
from datetime import datetime
from itertools import groupby

from kernel.database import Connection
from points.ledger import queries
from points.ledger.journal import Journal
from points.ledger.model import Lot, Take, WalletRef
from points.ledger.rules import InsufficientPoints, pin, take


async def pick_lots(
    connection: Connection,
    asked: Sequence[tuple[WalletRef, int]],
    *,
    also: Sequence[WalletRef] = (),
    now: datetime,
) -> tuple[Journal, list[list[Take] | InsufficientPoints]]:
    """For each wish in turn the lots that pay, or what is there instead; and the journal of the locked wallets.

    What time has done to the wallets is in the journal already. `also` are wallets to lock without taking of them.
    """
    wallets = await queries.lock_wallets(connection, [*(key for key, _ in asked), *also])
    journal = Journal(wallets, now=now)
    return journal, await _pick(connection, journal, asked, now)


async def preview_lots(
    connection: Connection, asked: Sequence[tuple[WalletRef, int]], *, now: datetime
) -> tuple[Journal, list[list[Take] | InsufficientPoints]]:
    """As `pick_lots`, of wallets as they are at this moment: nothing is locked, and the journal is not to be written."""
    journal = Journal(await queries.list_wallets(connection, [key for key, _ in asked]), now=now)
    return journal, await _pick(connection, journal, asked, now)


async def _pick(
    connection: Connection, journal: Journal, asked: Sequence[tuple[WalletRef, int]], now: datetime
) -> list[list[Take] | InsufficientPoints]:
    wanted: dict[WalletRef, int] = {}
    for key, points in asked:
        if not journal.has(key):
            continue  # whoever earns for the first time at this moment has nothing yet: the wallet was not there to lock
        # who owes repays with what has ripened before anything is free: with all of it, in its order
        wanted[key] = wanted.get(key, journal.owing_pending_points(key)) + points
    free: dict[WalletRef, list[Lot]] = {}
    for key, owned in groupby(
        await queries.list_spendable_lots(connection, wanted, now=now), key=lambda lot: lot.wallet
    ):
        free[key] = journal.settle(list(owned))
    answers: list[list[Take] | InsufficientPoints] = []
    for key, points in asked:
        live = free.get(key, [])
        takes = take(live, points)
        if (together := sum(taken.points for taken in takes)) < points:
            answers.append(InsufficientPoints(available_points=together))
            continue
        free[key] = pin(live, takes)
        answers.append(takes)
    return answers
