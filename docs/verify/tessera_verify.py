"""Verifies an export of the points books with nothing but Python 3.11: `python3 -I tessera_verify.py FILE [EARLIER]`.

One pass, one wallet in memory. An entry's hash is SHA-256 over the hash before it and its fields, big-endian; a leaf's
over 00, a wallet's key, number and hash; a node's over 01 and two hashes (RFC 6962 §2.1); a seal's over 02, lane, day,
leaves, root and the seal of the day before. No seal of EARLIER, an older export, may have changed. A line per check.
"""

import hashlib
import json
import os
import struct
import sys
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from typing import Any

CHECKS = "file accounts chain balances wallets house zero-sum statements seals inclusion"
GAINED = "earned restored adjusted_in transferred_in exchanged_in"
LOST = "expired clawed repaid adjusted_out transferred_out exchanged_out spent"
MOVED = [*f"{GAINED} {LOST}".split(), "owed"]
#: debit and credit of each of them in turn; what is spent comes from a hold or at once
PAIRS = "10:1 11:1 14:1 13:1 15:1 1:12 1:10 1:4 1:14 1:13 1:15 1:11 4:10 2:11"
MEANING = {tuple(map(int, p.split(":"))): m for p, m in zip(PAIRS.split(), [*MOVED, "spent"], strict=True)}
BALANCES = "available held pending arrears"
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
Record = dict[str, Any]
Tree = list[tuple[int, bytes]]  # perfect subtrees from left to right, each with its number of leaves


def sha(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def get(record: Record, names: str) -> list[Any]:
    return [record[name] for name in names.split()]


def days(day: str) -> int:
    return (date.fromisoformat(day) - EPOCH.date()).days


def entry_hash(link: bytes, w: Record, e: Record) -> bytes:
    moment = (datetime.fromisoformat(e["recorded_at"]) - EPOCH) // timedelta(microseconds=1)
    key = struct.pack(">hqhq", *get(w, "bucket member point_type"), e["seq"])
    moved = struct.pack(">hhqiq", *get(e, "debit credit points funder value_fen"))
    after = struct.pack(">qqqqqi", *get(e, BALANCES), moment, days(e["business_on"]))
    return sha(link, key, bytes.fromhex(e["operation"]), moved, after)


def meaning_of(e: Record) -> str:
    # points that wait are the member's like those available
    debit, credit = (1 if account == 3 else account for account in get(e, "debit credit"))
    return MEANING.get((debit, credit), "moved")


def leaf_hash(w: Record, seq: int, head: str) -> bytes:
    return sha(b"\0", struct.pack(">hqhq", *get(w, "bucket member point_type"), seq), bytes.fromhex(head))


def seal_hash(s: Record) -> bytes:
    figures = struct.pack(">hiq", s["lane"], days(s["business_on"]), s["leaves"])
    return sha(b"\2", figures, bytes.fromhex(s["root"] + s["previous_hash"]))


def grow(tree: Tree, leaf: bytes) -> None:
    tree.append((1, leaf))
    while len(tree) > 1 and tree[-1][0] == tree[-2][0]:
        size, right = tree.pop()
        tree.append((2 * size, sha(b"\1", tree.pop()[1], right)))


def root_of(tree: Tree) -> bytes:
    node = tree[-1][1] if tree else sha()
    for _, left in reversed(tree[:-1]):
        node = sha(b"\1", left, node)
    return node


class Verifier:
    def __init__(self, earlier: list[Record]) -> None:
        self.earlier = {(s["lane"], s["business_on"]): s["hash"] for s in earlier}
        self.broken: dict[str, list[str]] = {name: [] for name in CHECKS.split()}
        self.counted, self.slots = Counter[str](), Counter[tuple[Any, ...]]()
        self.header, self.wallet, self.statement, self.end = Record(), Record(), Record(), Record()
        self.key, self.net = (-1, 0, 0), 0
        self.trees, self.seals = dict[tuple[int, str], Tree](), dict[int, Record]()

    def check(self, name: str, good: bool, told: str) -> None:
        self.broken[name] += [] if good else [told]

    def read(self, line: str) -> None:
        kind = (record := json.loads(line))["type"]
        self.check("file", (kind == "header") == (not self.header) and not self.end, f"{kind} out of place")
        if self.wallet and kind not in ("entry", "statement"):
            self.leave_wallet(self.wallet)
        self.counted[kind] += 1
        if kind in ("header", "end"):
            setattr(self, kind, record)
        else:
            getattr(self, f"on_{kind}")(record)

    def on_wallet(self, w: Record) -> None:
        key = tuple(get(w, "bucket member point_type"))
        self.check("file", key > self.key and str(key[2]) in self.header["point_types"], f"wallet {key}")
        self.check("house", key[0] == self.key[0] or not self.slots, f"no slot for {list(self.slots)[:1]}")
        self.wallet, self.statement, self.key, self.link = w, {}, key, b""
        self.now, self.entries, self.heads = [0, 0, 0, 0, 0], list[Record](), dict[str, tuple[int, str]]()

    def on_entry(self, e: Record) -> None:
        told, (debit, credit, day) = f"wallet {self.key} no. {e['seq']}", get(e, "debit credit business_on")
        accounts, funders = get(self.header, "accounts funders")
        known = {str(debit), str(credit)} <= accounts.keys() and str(e["funder"]) in funders
        right = known and debit != credit and min(debit, credit) < 10 and e["points"] > 0 <= e["value_fen"]
        local = (datetime.fromisoformat(e["recorded_at"]) + timedelta(hours=8)).date().isoformat()
        self.check("accounts", right and local == day, told)
        sealed = entry_hash(self.link, self.wallet, e).hex() == e["hash"]
        self.check("chain", sealed and e["seq"] == len(self.entries) + 1, told)
        for account, points in ((debit, -e["points"]), (credit, e["points"])):
            if account < 10:
                self.now[account] += -points if account == 4 else points
                self.net += points if day > self.header["until"] else 0  # the house's days may end earlier
            elif day <= self.header["until"]:
                self.slots[(self.key[0], account, e["funder"], self.key[2], day, points > 0)] += abs(points)
        after = get(e, BALANCES)
        self.check("balances", after == self.now[1:] and min(after) >= 0, f"{told}: {after}, {self.now}")
        self.link, self.heads[day] = bytes.fromhex(e["hash"]), (len(self.entries) + 1, e["hash"])
        self.entries.append(e)

    def on_statement(self, s: Record) -> None:
        told, mine = f"wallet {self.key} {s['period']}", self.entries[s["first_seq"] - 1 : s["last_seq"]]
        before = self.statement or {"last_seq": 0, "closing": 0, "closing_arrears": 0, "period": ""}
        begins = [*get(s, "opening opening_arrears"), s["first_seq"] - 1]
        follows = begins == get(before, "closing closing_arrears last_seq") and before["period"] < s["period"]
        self.check("statements", follows, f"{told} does not follow {before}")
        sums = Counter[str]()
        for e in mine:
            sums[meaning_of(e)] += e["points"]
        self.check("statements", all(s[name] == sums[name] for name in MOVED), f"{told}: {dict(sums)}")
        owns = begins[0] + sum(get(s, GAINED)) - sum(get(s, LOST))
        closes = get(s, "closing closing_arrears") == [owns, begins[1] + s["owed"] - s["repaid"]]
        available, held, pending, *ends = get(mine[-1], BALANCES + " hash seq")
        ends = [available + held + pending, held, *ends]
        closes &= get(s, "closing closing_held closing_arrears head_hash last_seq") == ends
        timely = all(e["business_on"][:7] <= s["period"][:7] for e in mine)
        self.check("statements", closes and timely, f"{told} does not close with its last entry")
        self.statement = s

    def leave_wallet(self, w: Record) -> None:
        stands = get(w, BALANCES + " seq head_hash")
        last = [*self.now[1:], len(self.entries), self.link.hex()]
        self.check("wallets", stands == last, f"wallet {self.key}: {stands}, not {last}")
        self.net += stands[3] - sum(stands[:3])
        closed = (self.header["statements_until"] or "")[:7]
        rest = self.entries[self.statement.get("last_seq", 0) :]
        left = [e["seq"] for e in rest if e["business_on"][:7] <= closed]
        self.check("statements", not left, f"wallet {self.key}: no statement has {left[:3]}")
        for day, head in self.heads.items():
            grow(self.trees.setdefault((self.key[0] // 128, day), []), leaf_hash(w, *head))
        self.wallet = {}

    def on_slot(self, s: Record) -> None:
        key = get(s, "bucket account funder point_type business_on")
        made = (self.slots.pop((*key, False), 0), self.slots.pop((*key, True), 0))
        self.check("house", (s["debit"], s["credit"]) == made, f"slot {key}: entries make {made}")
        self.net += s["debit"] - s["credit"]

    def on_seal(self, s: Record) -> None:
        place, before = (s["lane"], s["business_on"]), self.seals.get(s["lane"])
        made = (sum(size for size, _ in self.trees.get(place, [])), root_of(self.trees.pop(place, [])).hex())
        self.check("seals", made == (s["leaves"], s["root"]), f"{place}: entries make {made}")
        follows = s["previous_hash"] == (before["hash"] if before else "") and seal_hash(s).hex() == s["hash"]
        gapless = not before or days(before["business_on"]) + 1 == days(s["business_on"])
        self.check("seals", follows and gapless, f"{place} does not seal the day before")
        self.check("seals", self.earlier.pop(place, s["hash"]) == s["hash"], f"{place} was another before")
        self.seals[s["lane"]] = s

    def finish(self) -> int:
        counted, told = dict(self.counted - Counter(["end"])), self.end.get("lines")
        self.check("file", told == counted, f"lines {counted}, not {told}")
        self.check("house", not self.slots, f"no slot for {list(self.slots)[:1]}")
        self.check("zero-sum", self.net == 0, f"the house has issued {self.net} points that nobody has")
        until = self.header.get("sealed_until") or ""
        ends = {s["business_on"] for s in self.seals.values()} or {""}
        gone = [place for place in self.earlier if place[1] <= self.header.get("until", "")]
        self.check(
            "seals", ends == {until} and not gone, f"missing {gone[:3]}; the lanes end at {sorted(ends)}"
        )
        outside = [place for place in self.trees if place[1] <= until]
        self.check("inclusion", not outside, f"wallets moved outside every root: {outside[:3]}")
        for name, found in self.broken.items():
            print("\n    ".join([f"{'BROKEN' if found else 'ok':<7}{name}", *found[:5]]))
        print(f"{counted}; sealed until {until or 'never: only an earlier copy could tell a forgery'}")
        print("NOT VERIFIED" if any(self.broken.values()) else "verified")
        return int(any(self.broken.values()))


def main(file: str, earlier: str | None = None) -> int:
    with open(earlier or os.devnull, encoding="utf-8") as lines:
        verifier = Verifier([json.loads(line) for line in lines if line.startswith('{"type":"seal"')])
    with open(file, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                verifier.read(line)
            except (ValueError, LookupError, TypeError, AttributeError, struct.error) as fault:
                verifier.check("file", False, f"line {number} cannot be read: {fault!r}")
    return verifier.finish()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
