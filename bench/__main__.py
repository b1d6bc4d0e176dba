"""`make bench`: runs each part, prints one table, keeps var/bench/latest.json."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import growth, http, ledger, orders, tokens

#: part → what measures it; each takes the order file, if one was given
PARTS: dict[str, Callable[[Path | None], list[dict[str, Any]]]] = {
    "growth": growth.measure,
    "http": http.measure,
    "ledger": ledger.measure,
    "orders": orders.measure,
    "tokens": tokens.measure,
}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="bench", description="Measure on servers of its own; nothing is left behind."
    )
    parser.add_argument("--orders", type=Path, default=None, metavar="FILE", help="import this file")
    parser.add_argument("--only", choices=sorted(PARTS), default=None)
    parser.add_argument("--out", type=Path, default=Path("var/bench/latest.json"), metavar="FILE")
    options = parser.parse_args()
    for part in [options.only] if options.only else PARTS:
        entries = PARTS[part](options.orders)
        orders.record(entries, options.out)
        for entry in entries:
            print(
                f"{entry['name']:<26} {entry['value']:>10,} {entry['unit']:<8} "
                f"{entry['against']:<16} ×{entry['ratio']:<6} {entry['notes']}"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
