"""What a partner reads afterwards: its events, its settlement; and the bank's books, which must balance."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from gateway.client import PartnerClient

Make = Callable[..., dict[str, Any]]


async def test_events_are_listed_in_order_and_by_partner(
    education: PartnerClient, tax: PartnerClient, earning: Make
) -> None:
    member = education.credentials.members[2].sub
    earned = [await education.post("/v1/points/earnings", earning(member)) for _ in range(3)]
    wanted = [one["id"] for one in earned]
    # Events follow their transaction by a moment.
    until = time.monotonic() + 20
    while not set(wanted) <= {event["object"] for event in await events_of(education)}:
        assert time.monotonic() < until, "the events did not appear"
        await asyncio.sleep(0.05)
    listed = await events_of(education)
    assert [event["object"] for event in listed if event["object"] in wanted] == wanted
    assert [event["sequence"] for event in listed] == sorted(event["sequence"] for event in listed)
    assert not {event["id"] for event in listed} & {event["id"] for event in await events_of(tax)}


async def events_of(client: PartnerClient) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = await client.get(f"/v1/events?limit=100{cursor}")
        found += page["data"]
        if page["next_cursor"] is None:
            return found
        cursor = f"&after={page['next_cursor']}"


async def test_a_closed_batch_is_the_sum_of_its_lines(
    platform: Any, tax: PartnerClient, education: PartnerClient, earning: Make
) -> None:
    await tax.post("/v1/points/earnings", earning(tax.credentials.members[4].sub))
    done = platform.run("job", "settlement", "--partner", "tax")
    assert done.returncode == 0, done.stderr
    batch = (await tax.get("/v1/settlement_batches?limit=1"))["data"][0]
    whole = await tax.get(f"/v1/settlement_batches/{batch['id']}")
    lines: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = await tax.get(f"/v1/settlement_batches/{batch['id']}/lines?limit=100{cursor}")
        lines += page["data"]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert len(lines) == whole["lines"] == sum(total["lines"] for total in whole["totals"])
    assert sum(line["points"] for line in lines) == sum(total["points"] for total in whole["totals"])
    assert whole["net_fen"] == whole["bank_owes_fen"] - whole["partner_owes_fen"]
    foreign = await education.send("GET", f"/v1/settlement_batches/{batch['id']}")
    assert foreign.status == 404


def test_the_books_balance(platform: Any) -> None:
    done = platform.run("books", "check")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "books balanced"), done.stdout


def test_the_books_of_recent_days_balance_after_a_good_check(platform: Any) -> None:
    """Every check is written down; the next one may begin where it left off."""
    first = platform.run("books", "check")
    assert first.stdout.splitlines()[0] == "everything"
    recent = platform.run("books", "check", "--since", "last")
    lines = recent.stdout.splitlines()
    assert (recent.returncode, lines[-1]) == (0, "books balanced"), recent.stdout
    assert " members touched since " in lines[0]
    assert len(lines) < len(first.stdout.splitlines())
    assert platform.run("books", "check", "--since", "2026-13-01").returncode == 2
