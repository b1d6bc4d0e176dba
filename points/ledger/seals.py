"""Seals: every day's Merkle roots above the wallets that moved, chained from day to day and signed."""

from datetime import date, datetime, timedelta
from functools import partial
from typing import Any, Protocol

from kernel.database import Connection
from kernel.errors import Conflict
from kernel.jobs import Job, Run, Step
from points.ledger import proof_queries as queries
from points.ledger.model import DayRoot, Seal
from points.ledger.statements import check_over

TYPE = "tessera-seal+jwt"


class EarlierDayOpen(Conflict):
    """An earlier day has not been sealed yet."""


class SealSigner(Protocol):
    """The platform's signing key as the gateway hands it in; partners.oauth.keys.Signer is one."""

    @property
    def kid(self) -> str: ...

    def sign(self, claims: dict[str, Any], *, typ: str) -> str: ...

    def jwks(self) -> dict[str, Any]: ...


async def find_first_day(connection: Connection) -> date | None:
    """The day of the ledger's first entry; None while it has none."""
    return await queries.find_first_day(connection)


def sealing(signer: SealSigner | None) -> Job:
    """Seals the business date. One lane: all lanes of the seals take one transaction, and days follow each other."""
    return Job(name="seal", lanes=1, step=partial(_seal_next, signer=signer))


async def _seal_next(connection: Connection, run: Run, now: datetime, *, signer: SealSigner | None) -> Step:
    sealed = await seal_day(connection, day=run.business_on, signer=signer, now=now)
    return Step(done=sum(seal.leaves for seal in sealed), cursor=None)


async def list_open_days(connection: Connection, *, until: date) -> list[date]:
    """The days up to `until` that are not sealed, oldest first."""
    last = await queries.find_last_sealed(connection)
    day = await queries.find_first_day(connection) if last is None else last + timedelta(days=1)
    if day is None:
        return []
    return [day + timedelta(days=n) for n in range((until - day).days + 1)]


async def seal_day(
    connection: Connection, *, day: date, signer: SealSigner | None = None, now: datetime
) -> list[Seal]:
    """Seal every lane of a day that is over; a day sealed before answers its seals and changes nothing.

    The leaves are the wallets that moved: a wallet that rested is sealed by its last leaf, so a day costs what happened
    on it and not what the bank has ever seen.
    """
    check_over(day, now)
    await queries.lock_sealing(connection)
    if sealed := await queries.list_seals(connection, day=day):
        return sealed
    days = await list_open_days(connection, until=day)
    if not days:
        return []  # nothing had happened by then
    if days[0] != day:
        raise EarlierDayOpen(day=day.isoformat())
    seals = [_sealed(root, signer, now) for root in await queries.list_day_roots(connection, day=day)]
    await queries.insert_seals(connection, seals)
    return seals


def claims_of(root: DayRoot | Seal) -> dict[str, Any]:
    """What the signature says."""
    return {
        "lane": root.lane,
        "business_on": root.business_on.isoformat(),
        "leaves": root.leaves,
        "root": root.root.hex(),
        "hash": root.hash.hex(),
    }


def _sealed(root: DayRoot, signer: SealSigner | None, now: datetime) -> Seal:
    signing_jwk = None
    if signer is not None:
        signing_jwk = next(key for key in signer.jwks()["keys"] if key["kid"] == signer.kid)
    return Seal(
        lane=root.lane,
        business_on=root.business_on,
        leaves=root.leaves,
        root=root.root,
        previous_hash=root.previous_hash,
        hash=root.hash,
        signature=None if signer is None else signer.sign(claims_of(root), typ=TYPE),
        signing_jwk=signing_jwk,
        sealed_at=now,
    )
