"""What every partner does besides its business: be told of events, compare them with the list, read what is owed."""

import asyncio
import time
from typing import Any

import httpx

from gateway.demo.telling import Teller, yuan

COMPARE_SECONDS = 60.0
POLL_SECONDS = 0.25
PAGE = 100


async def subscribe(teller: Teller) -> None:
    """Register the receiver; its secret is the one in the partner file."""
    body = {"url": f"{teller.receiver}/{teller.slug}", "event_types": ["*"]}
    endpoint = await teller.client.post("/v1/webhook_endpoints", body)
    assert endpoint["secret"] == teller.client.credentials.webhook_secret
    async with httpx.AsyncClient() as http:
        newest = await _list_events(teller, after=None)
        await http.put(f"{teller.receiver}/{teller.slug}/since", content=newest[-1]["id"] if newest else "")
    teller.say(f"registered the webhook endpoint …{endpoint['id'][-4:]} for all events")


async def compare(teller: Teller) -> None:
    """Every event on the list since the beginning must have come by webhook, with a good signature, within bounds."""
    until = time.monotonic() + COMPARE_SECONDS
    async with httpx.AsyncClient() as http:
        since = (await http.get(f"{teller.receiver}/{teller.slug}/since")).text or None
        while True:
            listed = {event["id"] for event in await _list_events(teller, after=since)}
            verified = set((await http.get(f"{teller.receiver}/{teller.slug}/verified")).json())
            missing = listed - verified
            if not missing:
                break
            if time.monotonic() > until:
                raise AssertionError(
                    f"{len(missing)} of {len(listed)} events did not come by webhook in time"
                )
            await asyncio.sleep(POLL_SECONDS)
    teller.say(f"{len(listed):,} events on the list, all of them received by webhook and verified")


async def unsubscribe(teller: Teller) -> None:
    """The receiver answers 410 from now on, which switches the endpoint off."""
    async with httpx.AsyncClient() as http:
        await http.put(f"{teller.receiver}/{teller.slug}/gone")
    url = f"{teller.receiver}/{teller.slug}"
    endpoint = next(
        one for one in await _list_endpoints(teller) if one["url"] == url and one["status"] == "active"
    )
    await teller.client.post(f"/v1/webhook_endpoints/{endpoint['id']}/test")
    until = time.monotonic() + COMPARE_SECONDS
    while endpoint["status"] == "active" and time.monotonic() < until:
        await asyncio.sleep(POLL_SECONDS)
        endpoint = next(one for one in await _list_endpoints(teller) if one["id"] == endpoint["id"])
    teller.say(
        f"left: endpoint …{endpoint['id'][-4:]} is {endpoint['status']} ({endpoint['disabled_reason']})"
    )


async def read_settlement(teller: Teller) -> None:
    """The newest batch and its sums."""
    batches = (await teller.client.get("/v1/settlement_batches?limit=1"))["data"]
    if not batches:
        teller.say("has nothing to settle")
        return
    batch = await teller.client.get(f"/v1/settlement_batches/{batches[0]['id']}")
    teller.say(
        f"settlement of {batch['business_on']}, no. {batch['sequence']}, {batch['state']}: {batch['lines']:,} lines, "
        f"bank owes {yuan(batch['bank_owes_fen'])}, partner owes {yuan(batch['partner_owes_fen'])}, "
        f"net {yuan(batch['net_fen'])}"
    )
    for total in batch["totals"]:
        words = f"{total['kind']} ({total['direction'].replace('_', ' ')})"
        teller.say(
            f"    {words:<48} {total['lines']:>6,} lines {total['points']:>10,} points {yuan(total['amount_fen']):>14}"
        )


async def _list_events(teller: Teller, *, after: str | None) -> list[dict[str, Any]]:
    """All events behind `after`, in their order."""
    events: list[dict[str, Any]] = []
    cursor = after
    while True:
        query = f"?limit={PAGE}" + (f"&after={cursor}" if cursor else "")
        page = await teller.client.get(f"/v1/events{query}")
        events += page["data"]
        cursor = page["next_cursor"]
        if cursor is None:
            return events


async def _list_endpoints(teller: Teller) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = await teller.client.get(f"/v1/webhook_endpoints?limit={PAGE}{cursor}")
        found += page["data"]
        if page["next_cursor"] is None:
            return found
        cursor = f"&cursor={page['next_cursor']}"
