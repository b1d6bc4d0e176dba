"""Limits on guessing: counted in PostgreSQL before anything is compared, so that what cannot be counted is not tried."""

from datetime import datetime
from uuid import UUID

from kernel.database import Connection
from kernel.vault import Vault, sha256
from partners.login import session_queries as queries
from partners.login.model import AttemptKind
from partners.login.rules import LIMITS, network, within

Counted = tuple[AttemptKind, bytes]


def of_name(name_index: bytes) -> Counted:
    """By the name's index, whether anybody has the name or not."""
    return "name", name_index


def of_device(device_id: UUID) -> Counted:
    return "device", sha256("device", device_id.bytes)


def of_account(kind: AttemptKind, account_id: UUID) -> Counted:
    return kind, sha256(kind, account_id.bytes)


def of_address(address: str, *, vault: Vault) -> Counted:
    """Addresses are personal data: only a keyed hash of one is kept."""
    return "address", vault.blind_index("login-address", network(address))


async def count(connection: Connection, *counted: Counted, now: datetime) -> bool:
    """Count this attempt against each; whether all of them still allow it.

    Always in the order given, and whole: a guesser who is over one limit uses up the others too.
    """
    allowed = True
    for kind, subject in counted:
        attempts = await queries.count_attempt(connection, kind, subject, window=LIMITS[kind].window, now=now)
        allowed = within(kind, attempts) and allowed
    return allowed


async def clear(connection: Connection, *counted: Counted) -> None:
    """Whoever has shown to be the member begins anew; an address, which many share, gets this one attempt back."""
    for kind, subject in counted:
        if kind == "address":
            await queries.return_attempt(connection, kind, subject)
        else:
            await queries.clear_attempts(connection, kind, subject)
