"""Passwords: Argon2id in a few threads of its own, with a bound on who waits and a deadline.

RFC 9106 §4, second recommended option: 3 passes over 64 MiB in 4 lanes. A name that nobody has costs the same as one that
somebody has, and a hash of an earlier, lower cost the same as one of the present cost.
"""

import asyncio
import base64
import secrets
from concurrent.futures import Future, ThreadPoolExecutor
from threading import BoundedSemaphore

from argon2 import PasswordHasher as Argon2
from argon2 import Type, extract_parameters
from argon2.exceptions import InvalidHashError, VerificationError
from msgspec import Struct

from kernel.errors import Unavailable

HASH_BYTES = 32
SALT_BYTES = 16
THREADS = 2
WAITING_MAX = 16
SECONDS = 5.0


class LoginBusy(Unavailable):
    """Too many people are logging in at this moment; try again shortly."""


class Cost(Struct, frozen=True, kw_only=True):
    """What one hash takes."""

    passes: int
    memory_kib: int
    lanes: int


COST = Cost(passes=3, memory_kib=65_536, lanes=4)
#: enough for a password that a machine drew: it has 128 bits, nobody guesses it from its hash
DRAWN_COST = Cost(passes=1, memory_kib=1_024, lanes=1)


class Verdict(Struct, frozen=True, kw_only=True):
    """Whether the password was right, and its hash at the present cost when the stored one was cheaper."""

    right: bool
    renewed: str | None


def hash_password(password: str, cost: Cost = COST) -> str:
    """A PHC string, which carries its own parameters and salt."""
    return _argon2(cost).hash(password)


class PasswordDesk:
    """Looks at passwords, one process's share of them at a time."""

    def __init__(self, cost: Cost = COST, *, threads: int = THREADS, waiting_max: int = WAITING_MAX) -> None:
        self._cost = cost
        self._argon2 = _argon2(cost)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="argon2")
        self._places = BoundedSemaphore(threads + waiting_max)
        self._nobody = _hash_of_nobody(cost)

    async def look_at(self, stored: str | None, password: str) -> Verdict:
        """Whether `password` is the one behind `stored`; with None it takes as long and is wrong."""
        if not self._places.acquire(blocking=False):
            raise LoginBusy
        work: Future[Verdict] = self._threads.submit(self._compare, stored, password)
        work.add_done_callback(lambda _: self._places.release())
        try:
            return await asyncio.wait_for(asyncio.wrap_future(work), SECONDS)
        except TimeoutError:
            raise LoginBusy from None

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _compare(self, stored: str | None, password: str) -> Verdict:
        right = self._matches(stored or self._nobody, password) and stored is not None
        if stored is None or not self._cheaper(stored):
            return Verdict(right=right, renewed=None)
        renewed = self._argon2.hash(password)
        return Verdict(right=right, renewed=renewed if right else None)

    def _matches(self, stored: str, password: str) -> bool:
        try:
            return self._argon2.verify(stored, password)
        except (VerificationError, InvalidHashError):
            return False

    def _cheaper(self, stored: str) -> bool:
        parameters = extract_parameters(stored)
        return (
            parameters.time_cost < self._cost.passes
            or parameters.memory_cost < self._cost.memory_kib
            or parameters.type is not Type.ID
        )


def _argon2(cost: Cost) -> Argon2:
    return Argon2(
        time_cost=cost.passes,
        memory_cost=cost.memory_kib,
        parallelism=cost.lanes,
        hash_len=HASH_BYTES,
        salt_len=SALT_BYTES,
        type=Type.ID,
    )


def _hash_of_nobody(cost: Cost) -> str:
    """A hash no password has, as long to compare with as any."""
    salt, digest = (
        base64.b64encode(secrets.token_bytes(size)).decode().rstrip("=") for size in (SALT_BYTES, HASH_BYTES)
    )
    return f"$argon2id$v=19$m={cost.memory_kib},t={cost.passes},p={cost.lanes}${salt}${digest}"
