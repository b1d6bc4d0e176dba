"""The order file, imported by the command as a partner runs it: every line answered, and nothing twice."""

import csv
import uuid
from pathlib import Path
from typing import Any

import pytest

from gateway.client import PartnerClient

HEADER = "order_id,customer_ref,ordered_at,quantity,amount_fen,category,refund_of"
AT = "2026-11-01T12:00:00+08:00"


@pytest.fixture
def run() -> str:
    """Part of every number of one test."""
    return uuid.uuid4().hex[:8]


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join((HEADER, *lines)) + "\n", encoding="utf-8")
    return path


def import_file(platform: Any, file: Path, results: Path) -> list[tuple[str, str, int, str]]:
    done = platform.run("import", "orders", str(file), "--partner", "ecommerce", "--results", str(results))
    assert done.returncode == 0, done.stderr
    with results.open(encoding="utf-8", newline="") as opened:
        header, *rows = csv.reader(opened)
    assert header == ["order_id", "status", "points", "code"]
    return [(order_id, status, int(points), code) for order_id, status, points, code in rows]


def test_every_line_is_answered_in_its_order(platform: Any, tmp_path: Path, run: str) -> None:
    file = write(
        tmp_path / "orders.csv",
        f"{run}-1,{run}-c1,{AT},1,12345,books,",
        f"{run}-2,{run}-c2,{AT},2,0,,",
        f"{run}-3,{run}-c1,{AT},1,12.50,,",
        f'"{run}-4",{run}-c1,{AT},1,20000,"food, drink",',
        f"{run}-5,{run}-c1,{AT},1",
        f"{run}-1,{run}-c1,{AT},1,12345,books,",
        f"{run}-r1,{run}-c1,{AT},1,6000,,{run}-1",
        f"{run}-r2,{run}-c1,{AT},1,7000,,{run}-1",
        f"{run}-r3,{run}-c1,{AT},1,1,,{run}-unknown",
        f"{run}-6,{run}-c3,2024-01-01T00:00:00+08:00,1,100,,",
        "",
    )
    assert import_file(platform, file, tmp_path / "results.csv") == [
        (f"{run}-1", "earned", 123, ""),
        (f"{run}-2", "earned", 0, ""),
        (f"{run}-3", "refused", 0, "amount_fen_invalid"),
        (f"{run}-4", "earned", 200, ""),
        (f"{run}-5", "refused", 0, "columns_missing"),
        (f"{run}-1", "unchanged", 0, "source_already_earned"),
        (f"{run}-r1", "reversed", -59, ""),
        (f"{run}-r2", "refused", 0, "refund_exceeds_order"),
        (f"{run}-r3", "refused", 0, "operation_not_found"),
        (f"{run}-6", "refused", 0, "occurred_too_long_ago"),
        ("", "refused", 0, "line_empty"),
    ]


async def test_a_file_sent_twice_changes_nothing(
    platform: Any, ecommerce: PartnerClient, tmp_path: Path, run: str
) -> None:
    lines = [f"{run}-{n},{run}-c{n % 3},{AT},1,{n}00,," for n in range(1, 20)]
    refund = f"{run}-r,{run}-c1,{AT},1,100,,{run}-1"
    first = import_file(platform, write(tmp_path / "a.csv", *lines, refund), tmp_path / "ra.csv")
    bound = await ecommerce.post("/v1/members/bindings", {"customer_refs": [f"{run}-c{n}" for n in range(3)]})
    members = [binding["member"] for binding in bound["bindings"]]
    before = [await ecommerce.get(f"/v1/members/{member}/points") for member in members]

    assert import_file(platform, tmp_path / "a.csv", tmp_path / "rb.csv") == first
    # Another order of the same lines is another file to the keys, yet the orders are the same.
    again = import_file(platform, write(tmp_path / "c.csv", *reversed(lines), refund), tmp_path / "rc.csv")
    assert {status for _, status, _, _ in again[:-1]} == {"unchanged"}
    assert again[-1][1] in ("reversed", "unchanged")
    after = [await ecommerce.get(f"/v1/members/{member}/points") for member in members]
    assert [p["available_points"] for p in after] == [p["available_points"] for p in before]


@pytest.mark.parametrize("header", ["order_id,customer_ref", "a,b,c,d,e", "", HEADER + ",more"])
def test_a_file_without_the_header_is_not_begun(platform: Any, tmp_path: Path, header: str) -> None:
    (tmp_path / "orders.csv").write_text(f"{header}\n1,2,{AT},1,1\n")
    results = tmp_path / "results.csv"
    done = platform.run(
        "import", "orders", str(tmp_path / "orders.csv"), "--partner", "ecommerce", "--results", str(results)
    )
    assert (done.returncode, results.exists()) == (2, False)
    assert "the first line must be order_id,customer_ref" in done.stderr


def test_a_platform_that_is_away_leaves_no_results(platform: Any, tmp_path: Path, run: str) -> None:
    file = write(tmp_path / "orders.csv", f"{run}-1,{run}-c1,{AT},1,100,,")
    results = tmp_path / "results.csv"
    done = platform.run(
        "import", "orders", str(file), "--partner", "ecommerce", "--results", str(results),
        "--base-url", "http://127.0.0.1:9", "--patience", "1",
    )  # fmt: skip
    assert (done.returncode, list(tmp_path.iterdir())) == (1, [file])
    assert "send the file again to go on" in done.stderr
