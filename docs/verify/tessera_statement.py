"""Verifies one member's month with nothing but Python 3.11: `python3 -I tessera_statement.py FILE [JWKS]`.

The entries chain to the statement's last hash and sum up to its figures; the hash is a leaf under the root that the bank
sealed on the day of the last entry (RFC 6962 §2.1.1); the seal is signed. With JWKS, the bank's key set got elsewhere, by a
key of the set. The two other scripts must lie beside this one.
"""

import json
import runpy
import sys
from collections import Counter
from pathlib import Path
from typing import Any

BOOKS, SIGNATURES = (
    runpy.run_path(str(Path(__file__).with_name(name)))
    for name in ("tessera_verify.py", "tessera_signatures.py")
)
OWNED = (1, 2, 3)
Record = dict[str, Any]


def faults_of(lines: list[Record], trusted: set[str] | None) -> list[str]:
    """What does not hold; nothing when all does."""
    kinds = Counter(line["type"] for line in lines)
    entries = [line for line in lines if line["type"] == "entry"]
    one = {line["type"]: line for line in lines}
    if not entries or any(kinds[kind] != 1 for kind in ("wallet", "statement", "path", "seal")):
        return ["the file is not one whole statement"]
    wallet, statement, seal = one["wallet"], one["statement"], one["seal"]
    faults, link = [], bytes.fromhex(wallet["link"])
    sums, owned, owed = Counter[str](), 0, 0
    for seq, entry in enumerate(entries, statement["first_seq"]):
        link = BOOKS["entry_hash"](link, wallet, entry)
        if entry["seq"] != seq or link.hex() != entry["hash"]:
            faults.append(f"entry no. {entry['seq']} does not follow the one before")
        sums[BOOKS["meaning_of"](entry)] += entry["points"]
        for account, points in ((entry["debit"], -entry["points"]), (entry["credit"], entry["points"])):
            owned += points if account in OWNED else 0
            owed -= points if account == 4 else 0
    last = entries[-1]
    if any(statement[name] != sums[name] for name in BOOKS["MOVED"]):
        faults.append(f"the entries sum up to {dict(sums)}")
    told = [
        statement[name] for name in ("closing", "closing_held", "closing_arrears", "last_seq", "head_hash")
    ]
    left = last["available"] + last["held"] + last["pending"]
    if told != [left, last["held"], last["arrears"], last["seq"], link.hex()]:
        faults.append("the statement does not close with its last entry")
    if (statement["opening"] + owned, statement["opening_arrears"] + owed) != (told[0], told[2]):
        faults.append("the statement does not open where its entries begin")
    node = BOOKS["leaf_hash"](wallet, last["seq"], statement["head_hash"])
    for side, other in one["path"]["steps"]:
        pair = (bytes.fromhex(other), node) if side == "left" else (node, bytes.fromhex(other))
        node = BOOKS["sha"](b"\1", *pair)
    if (node.hex(), seal["lane"], seal["business_on"]) != (
        seal["root"],
        wallet["bucket"] // 128,
        last["business_on"],
    ):
        faults.append("the statement is not under the root that was sealed that day")
    if BOOKS["seal_hash"](seal).hex() != seal["hash"]:
        faults.append("the seal is not of its figures")
    if (fault := SIGNATURES["fault_of"](seal, trusted)) is not None:
        faults.append(f"the seal: {fault}")
    return faults


def main(file: str, keys: str | None = None) -> int:
    trusted = None
    if keys is not None:
        with open(keys, encoding="utf-8") as jwks:
            trusted = {SIGNATURES["thumbprint"](key) for key in json.load(jwks)["keys"]}
    try:
        with open(file, encoding="utf-8") as lines:
            faults = faults_of([json.loads(line) for line in lines], trusted)
    except (ValueError, LookupError, TypeError, AttributeError) as mistake:
        faults = [f"the file cannot be read: {mistake!r}"]
    for fault in faults:
        print(f"BROKEN {fault}")
    print("NOT VERIFIED" if faults else "verified")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
