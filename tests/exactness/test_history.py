"""Many clients on few wallets, with copies, retries and dying sessions: one order of events explains what all have seen."""

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

import pytest

from exactness.history import Books, Call, Entered, check_history, told_balance
from exactness.house import NOW, Answer, Customer, House, Partner
from kernel.calendar import rfc3339
from kernel.ids import to_wire

CLIENTS = 12
CALLS = 30
WALLETS = 3
TRIES_MAX = 50
#: calls from one death of all sessions to the next
KILL_EVERY = 40
DEEDS = ("earn", "earn", "hold", "hold", "capture", "capture", "release", "reverse", "read", "read", "again")


@dataclass
class Crowd:
    """What the clients share: whose wallets, which holds and earnings there are."""

    house: House
    partner: Partner
    customers: list[Customer]
    #: whether the gateway's sessions die again and again
    killing: bool
    calls: list[Call] = field(default_factory=list)
    holds: list[tuple[int, str]] = field(default_factory=list)
    earned: list[tuple[int, str]] = field(default_factory=list)


class Client:
    """Asks one thing after the other, and again until it knows what became of it."""

    def __init__(self, crowd: Crowd, number: int) -> None:
        self._crowd = crowd
        self._number = number
        self._chance = random.Random(number)
        self._asked: list[tuple[str, str, int, str, Any]] = []

    async def run(self) -> None:
        for _ in range(CALLS):
            await self._next(self._chance.choice(DEEDS))

    async def _next(self, deed: str) -> None:
        crowd, chance = self._crowd, self._chance
        wallet = chance.randrange(WALLETS)
        sub = crowd.customers[wallet].sub
        if deed == "read":
            await self._read(wallet, sub)
        elif deed == "earn":
            body = {
                "member": sub,
                "source_ref": uuid4().hex,
                "kind": "purchase",
                "occurred_at": rfc3339(NOW),
                "amount_fen": chance.randrange(0, 5_000),
            }
            await self._ask("earn", wallet, "/v1/points/earnings", body)
        elif deed == "hold":
            body = {"member": sub, "points": chance.randrange(1, 60), "order_ref": uuid4().hex}
            await self._ask("hold", wallet, "/v1/points/holds", body)
        elif deed in ("capture", "release") and crowd.holds:
            wallet, hold_id = chance.choice(crowd.holds)
            await self._ask(deed, wallet, f"/v1/points/holds/{hold_id}/{deed}", {})
        elif deed == "reverse" and crowd.earned:
            wallet, operation_id = chance.choice(crowd.earned)
            refund = {"operation_id": operation_id, "refund_ref": uuid4().hex, "refunded_fen": 700}
            await self._ask("reverse", wallet, "/v1/points/reversals", refund)
        elif self._asked:
            again = chance.choice(self._asked)
            await self._until_known(*again)

    async def _ask(self, deed: str, wallet: int, path: str, body: Any) -> None:
        asked = (deed, uuid4().hex, wallet, path, body)
        self._asked.append(asked)
        answer = await self._until_known(*asked)
        if answer.status == 201 and deed == "hold":
            self._crowd.holds.append((wallet, answer.body["id"]))
        if answer.status == 201 and deed == "earn":
            self._crowd.earned.append((wallet, answer.body["id"]))

    async def _until_known(self, deed: str, key: str, wallet: int, path: str, body: Any) -> Answer:
        for _ in range(TRIES_MAX):
            asked_at = time.perf_counter()
            answer = await self._crowd.house.post(self._crowd.partner, path, body, key=key)
            self._write(deed, key, wallet, asked_at, answer)
            if self._crowd.killing and len(self._crowd.calls) % KILL_EVERY == 0:
                await self._crowd.house.kill_sessions()
            if not answer.is_open:
                return answer
        raise AssertionError(f"no outcome after {TRIES_MAX} tries")

    async def _read(self, wallet: int, sub: str) -> None:
        asked_at = time.perf_counter()
        answer = await self._crowd.house.get(self._crowd.partner, f"/v1/members/{sub}/points")
        self._write("read", uuid4().hex, wallet, asked_at, answer)

    def _write(self, deed: str, key: str, wallet: int, asked_at: float, answer: Answer) -> None:
        done = answer.status < 300
        self._crowd.calls.append(
            Call(
                client=self._number,
                deed=deed,
                key=key,
                wallet=wallet,
                asked_at=asked_at,
                answered_at=time.perf_counter(),
                unknown=answer.is_open,
                status=answer.status,
                content=answer.content,
                operation=_operation(deed, answer.body) if done and deed != "read" else None,
                balance=told_balance(answer.body) if done else None,
            )
        )


def _operation(deed: str, body: Any) -> str:
    """What the answer names; an ending is named after its hold."""
    return f"{deed}:{body['id']}" if deed in ("capture", "release") else str(body["id"])


ENTRIES = """
SELECT e.member_id, e.seq, e.operation_id, o.kind, o.hold_id,
       e.available_after, e.held_after, e.pending_after, e.arrears_after
  FROM ledger_entry AS e JOIN ledger_operation AS o ON o.id = e.operation_id
 WHERE e.member_id = ANY($1)
"""
OPERATIONS = "SELECT id, kind, hold_id FROM ledger_operation WHERE member_id = ANY($1)"
DEED_OF = {"reverse_earn": "reverse", "reverse_spend": "reverse"}


async def read_books(crowd: Crowd) -> Books:
    """What the database says of these wallets."""
    wallets = {customer.member.member_id: place for place, customer in enumerate(crowd.customers)}
    entries = [
        Entered(wallet=wallets[member], seq=seq, operation=_named(kind, operation, hold), after=tuple(after))
        for member, seq, operation, kind, hold, *after in await crowd.house.desk.fetch(ENTRIES, list(wallets))
    ]
    operations = {
        _named(kind, operation, hold): DEED_OF.get(kind, kind)
        for operation, kind, hold in await crowd.house.desk.fetch(OPERATIONS, list(wallets))
    }
    return Books(entries=entries, operations=operations)


def _named(kind: str, operation: Any, hold: Any) -> str:
    if kind in ("capture", "release"):
        return f"{kind}:{to_wire('hld', hold)}"
    return to_wire("hld" if kind == "hold" else "ent", operation)


async def gather_crowd(house: House, *, killing: bool) -> tuple[Crowd, Books]:
    partner = await house.register()
    crowd = Crowd(house, partner, await house.enrol(partner, count=WALLETS), killing=killing)
    await asyncio.gather(*(Client(crowd, number).run() for number in range(CLIENTS)))
    return crowd, await read_books(crowd)


@pytest.mark.parametrize("killing", [False, True], ids=["undisturbed", "sessions die"])
async def test_one_order_explains_what_a_crowd_has_seen(house: House, killing: bool) -> None:
    crowd, books = await gather_crowd(house, killing=killing)
    assert check_history(crowd.calls, books) == []
    seen = Counter(call.deed for call in crowd.calls if call.status < 300)
    assert min(seen[deed] for deed in ("earn", "hold", "capture", "release", "reverse", "read")) > 0, seen
    assert any(call.unknown for call in crowd.calls) is killing
    assert await house.broken_sentences() == {}
    # The same history, bent in one place, is not believed.
    for bend in (_lose_one, _double_one, _read_stale, _swap_two):
        calls, bent = bend(crowd.calls, books)
        assert check_history(calls, bent) != [], bend.__name__


Bent = tuple[list[Call], Books]


def _lose_one(calls: list[Call], books: Books) -> Bent:
    """An acknowledged earning is not in the books."""
    lost = next(call.operation for call in calls if call.deed == "earn" and call.operation)
    kept = {operation: deed for operation, deed in books.operations.items() if operation != lost}
    return calls, Books(entries=books.entries, operations=kept)


def _double_one(calls: list[Call], books: Books) -> Bent:
    return calls, Books(entries=books.entries, operations=books.operations | {"ent_twin": "earn"})


def _read_stale(calls: list[Call], books: Books) -> Bent:
    """The last reading of a wallet that was touched shows nothing in it."""
    last = max((c for c in calls if c.deed == "read" and any(c.balance or ())), key=lambda c: c.asked_at)
    stale = replace(last, balance=(0, 0, 0, 0))
    return [stale if call is last else call for call in calls], books


def _swap_two(calls: list[Call], books: Books) -> Bent:
    """The first and the last operation of a wallet change places in its chain."""
    chain = books.chain(0)
    first, last = chain[0], chain[-1]
    entries = [
        replace(entry, operation={0: last, 1: first}[entry is last].operation)
        if entry in (first, last)
        else entry
        for entry in books.entries
    ]
    return calls, Books(entries=entries, operations=books.operations)


# Histories made by hand: two clients, one wallet.


def call(deed: str, asked: float, answered: float, **told: Any) -> Call:
    good: dict[str, Any] = {
        "client": 1,
        "key": told.get("operation") or f"key-{deed}-{asked}",
        "wallet": 0,
        "unknown": False,
        "status": 200,
        "content": str(told.get("operation")).encode(),
    }
    return Call(deed=deed, asked_at=asked, answered_at=answered, **(good | told))


def entry(seq: int, operation: str, available: int, held: int = 0) -> Entered:
    return Entered(wallet=0, seq=seq, operation=operation, after=(available, held, 0, 0))


EARNED = call("earn", 1, 2, operation="a", balance=(100, 0, 0, 0))
HELD = call("hold", 3, 4, operation="h")
READ = call("read", 5, 6, balance=(60, 40, 0, 0))
GOOD = [EARNED, HELD, READ]
ENTERED = [entry(1, "a", 100), entry(2, "h", 60, 40)]
DONE = {"a": "earn", "h": "hold"}
LOST = call("earn", 7, 8, key="k", unknown=True, status=503)
REFUSED = call("hold", 7, 8, key="k", status=409, content=b"refused")
FOUND = call("earn", 9, 10, key="k", operation="b", balance=(65, 40, 0, 0))
WITH_B = [*ENTERED, entry(3, "b", 65, 40)]


@pytest.mark.parametrize(
    ("calls", "entries", "operations"),
    [
        (GOOD, ENTERED, DONE),
        ([*GOOD, LOST], ENTERED, DONE),
        ([*GOOD, LOST], WITH_B, DONE | {"b": "earn"}),
        ([*GOOD, LOST, FOUND], WITH_B, DONE | {"b": "earn"}),
        ([*GOOD, LOST, FOUND, replace(FOUND, asked_at=11, answered_at=12)], WITH_B, DONE | {"b": "earn"}),
        ([*GOOD, REFUSED], ENTERED, DONE),
        ([EARNED, HELD, call("read", 3, 4, balance=(100, 0, 0, 0))], ENTERED, DONE),
        ([EARNED, HELD, call("read", 3, 4, balance=(60, 40, 0, 0))], ENTERED, DONE),
        ([call("earn", 1, 9, operation="z"), *GOOD], ENTERED, DONE | {"z": "earn"}),
    ],
    ids=[
        *("plain", "unknown and not done", "unknown and done", "unknown and found", "found and replayed"),
        *("refused", "read before a hold under way", "read after it", "earned nothing"),
    ],
)  # fmt: skip
def test_what_may_have_been_is_believed(
    calls: list[Call], entries: list[Entered], operations: dict[str, str]
) -> None:
    assert check_history(calls, Books(entries=entries, operations=operations)) == []


FORGED: dict[str, tuple[list[Call], list[Entered], dict[str, str]]] = {
    "lost update": (GOOD, ENTERED[:1], {"a": "earn"}),
    "lost in the balance": ([EARNED, replace(READ, balance=(100, 0, 0, 0)), HELD], ENTERED, DONE),
    "doubled effect": (GOOD, [*ENTERED, entry(3, "h2", 20, 80)], DONE | {"h2": "hold"}),
    "retry done twice": (
        [*GOOD, LOST, FOUND],
        [*WITH_B, entry(4, "c", 70, 40)],
        DONE | {"b": "earn", "c": "earn"},
    ),
    "unknown done twice": (
        [*GOOD, LOST],
        [*WITH_B, entry(4, "c", 70, 40)],
        DONE | {"b": "earn", "c": "earn"},
    ),
    "refused and done": ([*GOOD, REFUSED], [*ENTERED, entry(3, "r", 50, 50)], DONE | {"r": "hold"}),
    "done and then refused": (
        [*GOOD, FOUND, call("earn", 11, 12, key="k", status=409, content=b"no")],
        WITH_B,
        DONE | {"b": "earn"},
    ),
    "two answers under one key": (
        [*GOOD, FOUND, replace(FOUND, content=b"other", asked_at=11, answered_at=12)],
        WITH_B,
        DONE | {"b": "earn"},
    ),
    "one operation told to two": ([*GOOD, replace(HELD, key="other")], ENTERED, DONE),
    "another deed than was told": (GOOD, ENTERED, DONE | {"h": "earn"}),
    "order against time": (
        [call("earn", 1, 2, operation="a"), call("hold", 3, 4, operation="h")],
        [entry(1, "h", 0), entry(2, "a", 100)],
        DONE,
    ),
    "stale read": ([EARNED, HELD, replace(READ, balance=(100, 0, 0, 0))], ENTERED, DONE),
    "read of nothing": ([EARNED, HELD, replace(READ, balance=(0, 0, 0, 0))], ENTERED, DONE),
    "read of the future": ([EARNED, call("read", 1.5, 2.5, balance=(60, 40, 0, 0)), HELD], ENTERED, DONE),
    "dirty read": (
        [EARNED, call("reverse", 3, 8, operation="r"), call("read", 4, 5, balance=(80, 0, 0, 0))],
        [entry(1, "a", 100), entry(2, "r", 80), entry(3, "r", 50)],
        {"a": "earn", "r": "reverse"},
    ),
    "balance that never was": ([EARNED, HELD, replace(READ, balance=(61, 39, 0, 0))], ENTERED, DONE),
    "answer with another's balance": ([replace(EARNED, balance=(60, 40, 0, 0)), HELD], ENTERED, DONE),
    "nobody asked": ([EARNED, READ], ENTERED, DONE),
}


@pytest.mark.parametrize("forged", FORGED.values(), ids=list(FORGED))
def test_what_cannot_have_been_is_not_believed(
    forged: tuple[list[Call], list[Entered], dict[str, str]],
) -> None:
    calls, entries, operations = forged
    assert check_history(calls, Books(entries=entries, operations=operations)) != []
