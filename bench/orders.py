"""How fast an order file goes in: `python -m bench.orders [--orders FILE]`, over HTTP against a `serve` of its own.

Without a file, one of the same shape is generated: 69,659 orders of 23,570 customers in 18 months, a few of them of
amount zero, always the same for the same day. Numbers go to var/bench/latest.json and to the screen.
"""

import argparse
import json
import os
import random
import select
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from signal import SIGTERM
from typing import Any

from kernel.calendar import SHANGHAI
from kernel.supervisor.process import spawn

LINES = 69_659
CUSTOMERS = 23_570
DAYS = 546
ZEROES = 80

READY_SECONDS = 180.0
IMPORT_SECONDS = 300.0
STOP_SECONDS = 60.0
SAMPLE_SECONDS = 0.05

#: name → what the design asks for, and whether more is better
TARGETS = {
    "import_lines_per_second": (3_000.0, True),
    "import_rss_mb": (200.0, False),
    "serve_ready_seconds": (5.0, False),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.orders")
    parser.add_argument("--orders", type=Path, default=None, metavar="FILE")
    parser.add_argument("--out", type=Path, default=Path("var/bench/latest.json"), metavar="FILE")
    options = parser.parse_args()
    entries = measure(options.orders)
    record(entries, options.out)
    for entry in entries:
        print(
            f"{entry['name']:<26} {entry['value']:>10,} {entry['unit']:<8} {entry['against']}, ×{entry['ratio']}"
        )
    return 0


def measure(orders: Path | None) -> list[dict[str, Any]]:
    """Import `orders`, or a generated file, on a fresh data directory; then start again on what is there."""
    root = Path(tempfile.mkdtemp(prefix="tessera-bench-", dir="/var/tmp"))
    root.chmod(0o711)
    try:
        file = orders or generate(root / "orders.csv", today=datetime.now(UTC))
        data_dir = root / "data"
        serve, _ = start(data_dir)
        try:
            seconds, rss_kb, summary = import_file(file, data_dir)
            check_books(data_dir)
        finally:
            stop(serve)
        serve, ready_seconds = start(data_dir)
        stop(serve)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    lines = int(summary.split(" ", 1)[0].replace(",", ""))
    source = "a generated file" if orders is None else f"a file of {lines:,} lines"
    return [
        entry(
            "import_lines_per_second",
            int(lines / seconds),
            "lines/s",
            f"{source}, start of the process included",
        ),
        entry("import_rss_mb", round(rss_kb / 1024), "MB", "highest resident size of the importing process"),
        entry(
            "serve_ready_seconds", round(ready_seconds, 1), "s", "until `ready`, on the data of the import"
        ),
    ]


def entry(name: str, value: float, unit: str, notes: str) -> dict[str, Any]:
    """One number; `ratio` says how many times better than the target it is."""
    target, more_is_better = TARGETS[name]
    ratio = value / target if more_is_better else target / value
    return {
        "name": name,
        "value": value,
        "unit": unit,
        "against": f"target {'≥' if more_is_better else '≤'} {target:,.0f}",
        "reference_value": target,
        "ratio": round(ratio, 2),
        "clients": 1,
        "notes": notes,
    }


def record(entries: list[dict[str, Any]], out: Path) -> None:
    """Put the entries among the others of the file, in place of their own last ones."""
    out.parent.mkdir(parents=True, exist_ok=True)
    known: list[dict[str, Any]] = []
    with suppress(FileNotFoundError):
        known = json.loads(out.read_text())
    names = {one["name"] for one in entries}
    kept = [one for one in known if one["name"] not in names]
    out.write_text(json.dumps([*kept, *entries], ensure_ascii=False, indent=2) + "\n")


def start(data_dir: Path) -> tuple[subprocess.Popen[bytes], float]:
    """A `serve` that is ready, and the seconds it took."""
    began_at = time.perf_counter()
    with (data_dir.parent / "serve.log").open("ab") as log:
        serve = spawn(
            [sys.executable, "-m", "gateway", "serve", "--port", "0", "--data-dir", str(data_dir)],
            identity=None,
            death_signal=SIGTERM,
            output=subprocess.PIPE,
            errors=log,
            environment=_environment(),
        )
    assert serve.stdout is not None
    readable, _, _ = select.select([serve.stdout], [], [], READY_SECONDS)
    if not readable or not serve.stdout.readline().startswith(b"ready "):
        stop(serve)
        raise SystemExit(f"serve did not become ready: {(data_dir.parent / 'serve.log').read_text()[-2000:]}")
    return serve, time.perf_counter() - began_at


def stop(serve: subprocess.Popen[bytes]) -> None:
    serve.terminate()
    try:
        serve.wait(STOP_SECONDS)
    finally:
        serve.kill()
        if serve.stdout is not None:
            serve.stdout.close()


def import_file(file: Path, data_dir: Path) -> tuple[float, int, str]:
    """Seconds, highest resident size in KiB, and what the command said in the end."""
    began_at = time.perf_counter()
    command = ["import", "orders", str(file), "--partner", "ecommerce", "--data-dir", str(data_dir)]
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", *command], stdout=subprocess.PIPE, text=True, env=_environment()
    )
    highest_kb = 0
    while process.poll() is None:
        if time.perf_counter() - began_at > IMPORT_SECONDS:
            process.kill()
            raise SystemExit(f"the import took longer than {IMPORT_SECONDS:.0f} s")
        highest_kb = max(highest_kb, _high_water_kb(process.pid))
        time.sleep(SAMPLE_SECONDS)
    seconds = time.perf_counter() - began_at
    said, _ = process.communicate()
    if process.returncode != 0:
        raise SystemExit(f"the import ended with {process.returncode}")
    return seconds, highest_kb, said.strip()


def check_books(data_dir: Path) -> None:
    command = [sys.executable, "-m", "gateway", "books", "check", "--data-dir", str(data_dir)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=IMPORT_SECONDS, env=_environment(), check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"the books do not balance after the import:\n{done.stdout}{done.stderr}")


def generate(file: Path, *, today: datetime) -> Path:
    """Orders in the order of their customers, as a shop's export has them: few buy often, most buy once."""
    chance = random.Random(LINES)
    customers = [
        *range(CUSTOMERS),
        *(int(CUSTOMERS * chance.random() ** 2) for _ in range(LINES - CUSTOMERS)),
    ]
    zeroes = set(chance.sample(range(LINES), ZEROES))
    last = today.astimezone(SHANGHAI).replace(hour=0, minute=0, second=0, microsecond=0)
    with file.open("w", encoding="utf-8") as out:
        out.write("order_id,customer_ref,ordered_at,quantity,amount_fen\n")
        for number, customer in enumerate(sorted(customers)):
            at = last - timedelta(days=chance.randint(1, DAYS), seconds=-chance.randint(0, 86_399))
            quantity = min(99, int(chance.expovariate(0.45)) + 1)
            amount_fen = 0 if number in zeroes else quantity * chance.randint(499, 2_999)
            out.write(f"g{number:06d},c{customer:05d},{at.isoformat()},{quantity},{amount_fen}\n")
    return file


def _high_water_kb(pid: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    return 0


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("TESSERA_")}


if __name__ == "__main__":
    sys.exit(main())
