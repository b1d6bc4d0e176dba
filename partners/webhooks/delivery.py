"""Sending: one signed POST per attempt, to a checked address, outside any transaction."""

import asyncio
import random
import socket
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import SplitResult

import httpx
import msgspec
import structlog

from kernel.database import Pool, transaction
from kernel.ids import to_wire
from kernel.vault import Vault
from partners.webhooks import service
from partners.webhooks.model import Answer, Claim
from partners.webhooks.rules import (
    JITTER_PERMILLE,
    LOOPBACK_HOSTS,
    Mode,
    WebhookUrlRefused,
    check_url,
    is_public,
    parse_retry_after,
    sign,
)

log = structlog.get_logger("webhooks")

Address = IPv4Address | IPv6Address
Resolver = Callable[[str, int], Awaitable[Sequence[Address]]]

TOTAL_SECONDS = 10.0
ANSWER_BYTES = 4_096
IN_FLIGHT = 64
CLAIM_AGAIN_SECONDS = 0.25


class AddressRefused(Exception):
    """The name leads to an address that may not be called."""


async def resolve(host: str, port: int) -> list[Address]:
    """Every address the system's resolver knows for `host`."""
    answers = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(ip_address(answer[4][0]) for answer in answers))


def open_client(verify: bool | str = True) -> httpx.AsyncClient:
    """A client that keeps no connection: the address is checked for each attempt, and none is shared between names."""
    return httpx.AsyncClient(
        verify=verify,
        timeout=TOTAL_SECONDS,
        limits=httpx.Limits(max_connections=IN_FLIGHT, max_keepalive_connections=0),
        follow_redirects=False,
        trust_env=False,
    )


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
            port = parts.port or {"http": 80, "https": 443}[parts.scheme]
            addresses = await _find_addresses(parts, port, mode, resolver)
            return await _read(await _post(client, parts, port, addresses, headers, body), now=now)
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


async def _find_addresses(parts: SplitResult, port: int, mode: Mode, resolver: Resolver) -> Sequence[Address]:
    """All addresses of the name, if every one of them may be called: one bad apple and the name is not trusted."""
    host = parts.hostname or ""
    addresses = await resolver(host, port)
    if mode == "sandbox" and parts.scheme == "http" and host in LOOPBACK_HOSTS:
        allowed = all(address.is_loopback for address in addresses)
    else:
        allowed = all(is_public(address) for address in addresses)
    if not addresses or not allowed:
        raise AddressRefused
    return addresses


async def _post(
    client: httpx.AsyncClient,
    parts: SplitResult,
    port: int,
    addresses: Sequence[Address],
    headers: dict[str, str],
    body: bytes,
) -> httpx.Response:
    """Connect to a checked address, under the name's own Host and SNI; a dead address is followed by the next."""
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    unreachable: httpx.ConnectError | None = None
    for address in addresses:
        literal = f"[{address}]" if isinstance(address, IPv6Address) else str(address)
        request = client.build_request(
            "POST",
            f"{parts.scheme}://{literal}:{port}{path}",
            headers={**headers, "host": parts.netloc},
            content=body,
            extensions={"sni_hostname": parts.hostname, "timeout": client.timeout.as_dict()},
        )
        try:
            return await client.send(request, stream=True)
        except httpx.ConnectError as failure:
            unreachable = failure
    assert unreachable is not None
    raise unreachable


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
