"""What many clients saw at once, held against what the books say: is there one order of events that explains it all?

A client writes down what it asked, when it asked and when it was answered, and what the answer was. The wallet's own
numbering is the witness: whoever was answered before another asked must stand before that other in every wallet they
share, every balance told is the balance after some entry, and no reading is older than what had been told already.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

#: available, held, pending, arrears
Balance = tuple[int, int, int, int]


@dataclass(frozen=True)
class Call:
    """One request as its client saw it; `key` is the same for all tries of the same."""

    client: int
    #: `earn`, `hold`, `capture`, `release`, `reverse` or `read`
    deed: str
    key: str
    #: whose wallet
    wallet: int
    asked_at: float
    answered_at: float
    #: 503 and lost connections: nobody knows yet
    unknown: bool
    status: int
    content: bytes
    #: of the operation, when it was done
    operation: str | None = None
    #: what the answer told of the wallet
    balance: Balance | None = None


@dataclass(frozen=True)
class Entered:
    """One entry of a wallet's chain, as the database has it."""

    wallet: int
    seq: int
    operation: str
    after: Balance


@dataclass
class Books:
    """What the database says after everything."""

    entries: list[Entered]
    #: every operation of these wallets, and the deed that makes such
    operations: dict[str, str]
    _chains: dict[int, list[Entered]] = field(default_factory=dict)

    def chain(self, wallet: int) -> list[Entered]:
        if not self._chains:
            for entry in sorted(self.entries, key=lambda e: (e.wallet, e.seq)):
                self._chains.setdefault(entry.wallet, []).append(entry)
        return self._chains.get(wallet, [])


NOTHING: Balance = (0, 0, 0, 0)


def check_history(calls: Sequence[Call], books: Books) -> list[str]:
    """What no order of events explains; nothing when all is well."""
    return [
        *_answers_of_a_key_agree(calls),
        *_what_was_done_is_there_once(calls, books),
        *_nobody_did_what_is_there(calls, books),
        *_order_respects_time(calls, books),
        *_balances_were_so(calls, books),
    ]


def _answers_of_a_key_agree(calls: Sequence[Call]) -> Iterable[str]:
    """Tries under one key: one success at most, told in the same bytes to everybody."""
    for key, tries in _by_key(calls).items():
        told = {(call.status, call.content) for call in tries if call.operation is not None}
        if len(told) > 1:
            yield f"{key} was answered in {len(told)} ways"
        done = [call for call in tries if call.operation is not None]
        refused = [call for call in tries if not call.unknown and call.operation is None]
        if done and any(late.asked_at > first.answered_at for first in done for late in refused):
            yield f"{key} was refused after it had been done"


def _what_was_done_is_there_once(calls: Sequence[Call], books: Books) -> Iterable[str]:
    owners: dict[str, str] = {}
    for call in calls:
        if call.operation is None or call.deed == "read":
            continue
        if books.operations.get(call.operation) != call.deed:
            yield f"{call.deed} {call.operation} was acknowledged and is not there"
        if owners.setdefault(call.operation, call.key) != call.key:
            yield f"{call.operation} was told to two requests"


def _nobody_did_what_is_there(calls: Sequence[Call], books: Books) -> Iterable[str]:
    """Every operation is somebody's success, or the one effect of a request that never learnt its outcome."""
    claimed = {call.operation for call in calls if call.operation is not None}
    orphans = [deed for operation, deed in books.operations.items() if operation not in claimed]
    open_keys = [
        tries[0].deed
        for tries in _by_key(calls).values()
        if any(call.unknown for call in tries) and not any(call.operation for call in tries)
    ]
    for deed in orphans:
        if deed in open_keys:
            open_keys.remove(deed)
        else:
            yield f"a {deed} is there that nobody was told of"


def _order_respects_time(calls: Sequence[Call], books: Books) -> Iterable[str]:
    """Real time: what was acknowledged before another was asked stands before it in their wallet."""
    places = _places(books)
    by_wallet: dict[int, list[Call]] = {}
    for call in _first_successes(calls):
        if call.deed != "read" and call.operation in places:
            by_wallet.setdefault(call.wallet, []).append(call)
    for wallet, done in by_wallet.items():
        latest, whose = 0, ""
        acknowledged = sorted(done, key=lambda call: call.answered_at)
        at = 0
        for call in sorted(done, key=lambda call: call.asked_at):
            while at < len(acknowledged) and acknowledged[at].answered_at < call.asked_at:
                first, last = places[acknowledged[at].operation or ""]
                if last > latest:
                    latest, whose = last, acknowledged[at].operation or ""
                at += 1
            first, _ = places[call.operation or ""]
            if first < latest:
                yield f"wallet {wallet}: {call.operation} stands before {whose}, which was over when it was asked"


def _balances_were_so(calls: Sequence[Call], books: Books) -> Iterable[str]:
    """A balance told is one the wallet had: not older than what was known when it was asked, nor of what came later."""
    places = _places(books)
    done = [call for call in _first_successes(calls) if call.operation in places]
    for call in calls:
        if call.balance is None or call.unknown:
            continue
        chain = books.chain(call.wallet)
        after = {0: NOTHING} | {entry.seq: entry.after for entry in chain}
        if call.deed != "read":
            if call.operation in places and after[places[call.operation][1]] != call.balance:
                yield f"{call.operation} told {call.balance}, the books {after[places[call.operation][1]]}"
            continue
        mine = [other for other in done if other.wallet == call.wallet]
        known = [places[other.operation][1] for other in mine if other.answered_at < call.asked_at]
        later = [places[other.operation][0] for other in mine if other.asked_at > call.answered_at]
        least, most = max(known, default=0), min(later, default=len(chain) + 1) - 1
        if all(after[seq] != call.balance for seq in _operation_ends(chain) if least <= seq <= most):
            yield f"wallet {call.wallet}: {call.balance} was read, and was not so between {least} and {most}"


def _operation_ends(chain: Sequence[Entered]) -> list[int]:
    """After which entries an operation was complete: between the entries of one, nobody may look."""
    ends = [0]
    for place, entry in enumerate(chain):
        if place + 1 == len(chain) or chain[place + 1].operation != entry.operation:
            ends.append(entry.seq)
    return ends


def _places(books: Books) -> dict[str | None, tuple[int, int]]:
    """Of every operation, its first and last entry in its wallet."""
    found: dict[str | None, tuple[int, int]] = {}
    for entry in books.entries:
        first, last = found.get(entry.operation, (entry.seq, entry.seq))
        found[entry.operation] = min(first, entry.seq), max(last, entry.seq)
    return found


def _first_successes(calls: Sequence[Call]) -> list[Call]:
    """Of each key, one call from the first question to the first success: so long the deed may have taken."""
    found = []
    for tries in _by_key(calls).values():
        done = [call for call in tries if call.operation is not None]
        if done:
            first = min(done, key=lambda call: call.answered_at)
            found.append(replace(first, asked_at=min(call.asked_at for call in tries)))
    return found


def _by_key(calls: Sequence[Call]) -> dict[str, list[Call]]:
    tries: dict[str, list[Call]] = {}
    for call in calls:
        if call.deed != "read":
            tries.setdefault(call.key, []).append(call)
    return tries


def told_balance(body: Any) -> Balance | None:
    """The balance an answer carries, wherever it is."""
    if not isinstance(body, dict):
        return None
    found = body.get("balance", body)
    names = ("available_points", "held_points", "pending_points", "arrears_points")
    if not all(name in found for name in names):
        return None
    return (found[names[0]], found[names[1]], found[names[2]], found[names[3]])
