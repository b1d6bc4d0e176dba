"""Sending: one signed POST per attempt, to a checked address, outside any transaction."""

import asyncio
import random
from collections.abc import Callable
from datetime import datetime

import httpx
import msgspec
import structlog

from kernel.database import Pool, transaction
from kernel.ids import to_wire
from kernel.outbound import (
    TOTAL_SECONDS,
    Address,
    AddressRefused,
    Resolver,
    find_addresses,
    open_client,
    resolve,
    send,
)
from kernel.vault import Vault
from partners.webhooks import service
from partners.webhooks.model import Answer, Claim
from partners.webhooks.rules import (
    JITTER_PERMILLE,
    Mode,
    WebhookUrlRefused,
    check_url,
    parse_retry_after,
    sign,
)

log = structlog.get_logger("webhooks")

__all__ = ["Address", "AddressRefused", "Resolver", "attempt", "deliver_due", "open_client", "resolve"]

ANSWER_BYTES = 4_096
IN_FLIGHT = 64
CLAIM_AGAIN_SECONDS = 0.25


async def deliver_due(
    pool: Pool,
    client: httpx.AsyncClient,
    vault: Vault,
    *,
    mode: Mode,
    now_of: Callable[[], datetime],
    limit: int = 1_000,
    in_flight: int = IN_FLIGHT,
    ending: Callable[[], bool] = lambda: False,
    resolver: Resolver = resolve,
    jitter_of: Callable[[], int] = lambda: random.randint(-JITTER_PERMILLE, JITTER_PERMILLE),
) -> int:
    """Send what is due, at most `limit` attempts; returns how many were made.

    While a slow receiver is waited for, further deliveries are claimed and sent, so one black hole holds up nobody.
    A failure of ours (the database is gone) lets those under way finish, then is raised. Once `ending` says so nothing
    more is claimed: who ends us waits for about as long as one attempt takes.
    """
    flying: set[asyncio.Task[None]] = set()
    made = 0
    failure: BaseException | None = None
    try:
        while True:
            room = 0 if failure or ending() else min(in_flight - len(flying), limit - made)
            claims = []
            if room:
                async with transaction(pool) as connection:
                    claims = await service.claim_due(connection, limit=room, now=now_of())
            made += len(claims)
            for claim in claims:
                sending = _deliver(pool, client, vault, claim, mode, now_of, resolver, jitter_of)
                flying.add(asyncio.create_task(sending))
            if not flying:
                break
            done, flying = await asyncio.wait(
                flying, timeout=CLAIM_AGAIN_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                failure = failure or task.exception()
    finally:
        for task in flying:
            task.cancel()
        await asyncio.gather(*flying, return_exceptions=True)
    if failure is not None:
        raise failure
    return made


async def _deliver(
    pool: Pool,
    client: httpx.AsyncClient,
    vault: Vault,
    claim: Claim,
    mode: Mode,
    now_of: Callable[[], datetime],
    resolver: Resolver,
    jitter_of: Callable[[], int],
) -> None:
    answer = await attempt(client, vault, claim, mode=mode, resolver=resolver, now=now_of())
    async with transaction(pool) as connection:
        if answer.status is not None and 200 <= answer.status < 300:
            kept = await service.mark_delivered(connection, claim, status=answer.status, now=now_of())
            outcome = "delivered" if kept else None
        else:
            outcome = await service.mark_failed(
                connection, claim, answer, jitter_permille=jitter_of(), now=now_of()
            )
    log.info(
        "webhook_attempt",
        endpoint=to_wire("whe", claim.endpoint_id),
        event_id=to_wire("evt", claim.event_id),
        attempt=claim.attempt,
        status=answer.status,
        error=answer.error,
        outcome=outcome or "lease_lost",
    )


async def attempt(
    client: httpx.AsyncClient,
    vault: Vault,
    claim: Claim,
    *,
    mode: Mode,
    resolver: Resolver,
    seconds: float = TOTAL_SECONDS,
    now: datetime,
) -> Answer:
    """One attempt: whatever the other side does becomes an Answer within `seconds`."""
    body = msgspec.json.encode(service.body_of(claim.event()))
    event_id, timestamp = to_wire("evt", claim.event_id), int(now.timestamp())
    secrets = live_secrets(vault, claim, now=now)
    headers = {
        "accept-encoding": "identity",
        "content-type": "application/json",
        "user-agent": "Tessera-Webhooks/1",
        # Standard Webhooks: the id stays the same on every retry, the timestamp is the attempt's.
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(secrets, event_id=event_id, timestamp=timestamp, body=body),
    }
    try:
        async with asyncio.timeout(seconds):
            parts = check_url(claim.url, mode)
            addresses = await find_addresses(parts, loopback=mode == "sandbox", resolver=resolver)
            return await _read(
                await send(client, "POST", parts, addresses, headers=headers, body=body), now=now
            )
    except WebhookUrlRefused:
        return Answer(error="url_refused")
    except AddressRefused:
        return Answer(error="address_refused")
    except TimeoutError:
        return Answer(error="timeout")
    except httpx.TimeoutException:
        return Answer(error="timeout")
    except httpx.HTTPError as failure:
        return Answer(error=_word(failure))
    except (OSError, UnicodeError):
        return Answer(error="name_not_resolved")


def live_secrets(vault: Vault, claim: Claim, *, now: datetime) -> list[str]:
    """The current secret, and after a rotation the one before it for a day."""
    secrets = [service.open_secret(vault, claim.endpoint_id, claim.secret_sealed)]
    if (
        claim.previous_secret_sealed is not None
        and claim.previous_valid_until is not None
        and now < claim.previous_valid_until
    ):
        secrets.append(
            service.open_secret(
                vault, claim.endpoint_id, claim.previous_secret_sealed, column="previous_secret_sealed"
            )
        )
    return secrets


async def _read(response: httpx.Response, *, now: datetime) -> Answer:
    try:
        await _read_a_little(response)
    finally:
        await response.aclose()
    return Answer(
        status=response.status_code,
        error=None if response.is_success else f"http_{response.status_code}",
        retry_after_seconds=parse_retry_after(response.headers.get("retry-after"), now=now),
    )


async def _read_a_little(response: httpx.Response) -> None:
    """Polite to small answers, deaf to endless ones: raw bytes, so nothing is decompressed."""
    taken = 0
    async for chunk in response.aiter_raw(ANSWER_BYTES):
        taken += len(chunk)
        if taken >= ANSWER_BYTES:
            return


def _word(failure: httpx.HTTPError) -> str:
    """`connect_error`, `remote_protocol_error`: the kind of failure, never the text, which may quote the other side."""
    name = type(failure).__name__
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")
