"""The keys an app publishes at its jwks_uri: fetched outside any transaction, by one process at a time, kept for a day.

A copy is fresh for twenty minutes; a kid that nobody knows asks for a new one, at most once a minute. A fetch that fails
leaves the last good copy, which counts until it is a day old.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import msgspec
import structlog
from msgspec import Struct

from kernel import outbound
from kernel.database import Pool, transaction
from kernel.errors import Refusal
from kernel.outbound import Resolver
from partners.registry import jwks_queries, queries
from partners.registry.jwk import read_jwk
from partners.registry.model import Client, Key
from partners.registry.rules import KID_LENGTH_MAX, public_jwk

log = structlog.get_logger("jwks")

FRESH = timedelta(minutes=20)
PAUSE = timedelta(minutes=1)
ANSWER_BYTES = 65_536
FETCH_SECONDS = 5.0
KEYS_MAX = 20


class JwksRefused(Exception):
    """What came back is no set of keys that can be used; the text says why."""


class _Jwks(Struct, frozen=True):
    keys: list[dict[str, Any]]


class KeyFetcher:
    """One per process: sees to it that a client's published keys are as fresh as they must be."""

    def __init__(
        self,
        pool: Pool,
        client: httpx.AsyncClient,
        *,
        loopback: bool,
        resolver: Resolver = outbound.resolve,
    ) -> None:
        self._pool = pool
        self._client = client
        self._loopback = loopback
        self._resolver = resolver
        self._fetching: dict[UUID, asyncio.Task[bool]] = {}

    async def refresh(self, client: Client, kid: str | None, *, now: datetime) -> bool:
        """Fetch the client's keys if they are stale or lack `kid`; whether there is a new copy."""
        if client.jwks_uri is None or not needs_fetch(client, kid, now=now):
            return False
        fetching = self._fetching.get(client.app_id)
        if fetching is None:
            fetching = asyncio.create_task(self._refresh(client.app_id, client.jwks_uri, now))
            self._fetching[client.app_id] = fetching
            fetching.add_done_callback(lambda task: self._fetched(client.app_id, task))
        # One who hangs up does not take the answer away from the others.
        return await asyncio.shield(fetching)

    def _fetched(self, app_id: UUID, task: asyncio.Task[bool]) -> None:
        del self._fetching[app_id]
        if not task.cancelled():
            task.exception()  # seen here even if everybody who waited has hung up

    async def _refresh(self, app_id: UUID, jwks_uri: str, now: datetime) -> bool:
        async with transaction(self._pool) as connection:
            turn = await jwks_queries.claim_fetch(
                connection, app_id, jwks_uri, attempted_before=now - PAUSE, now=now
            )
        if not turn:
            return False
        try:
            published = await self._fetch(jwks_uri)
        except (
            JwksRefused,
            outbound.UrlRefused,
            outbound.AddressRefused,
            OSError,
            httpx.HTTPError,
        ) as failure:
            failed = str(failure) if isinstance(failure, JwksRefused) else type(failure).__name__
            log.warning("jwks_not_fetched", app=str(app_id), error=failed)
            async with transaction(self._pool) as connection:
                await jwks_queries.store_failure(connection, app_id, jwks_uri, failed)
            return False
        async with transaction(self._pool) as connection:
            # Under the lock of revocations: a key that was revoked meanwhile does not come back.
            await queries.lock_app(connection, app_id)
            kept = without_revoked(published, await queries.list_keys(connection, app_id))
            await jwks_queries.store_keys(connection, app_id, jwks_uri, kept, now=now)
        return True

    async def _fetch(self, jwks_uri: str) -> dict[str, dict[str, str]]:
        async with asyncio.timeout(FETCH_SECONDS):
            parts = outbound.check_url(jwks_uri, loopback=self._loopback)
            addresses = await outbound.find_addresses(parts, loopback=self._loopback, resolver=self._resolver)
            headers = {
                "accept": "application/json",
                "accept-encoding": "identity",
                "user-agent": "Tessera-Keys/1",
            }
            response = await outbound.send(self._client, "GET", parts, addresses, headers=headers)
            try:
                if response.status_code != 200:
                    raise JwksRefused(f"status {response.status_code}")
                body = await outbound.read_bounded(response, ANSWER_BYTES)
            except outbound.AnswerTooLarge:
                raise JwksRefused("too large") from None
            finally:
                await response.aclose()
        return read_jwks(body)


def needs_fetch(client: Client, kid: str | None, *, now: datetime) -> bool:
    """Whether the copy is missing, twenty minutes old, or lacks the key that is asked for."""
    fetched_at = client.jwks_fetched_at
    return fetched_at is None or now - fetched_at >= FRESH or (kid is not None and kid not in client.keys)


def read_jwks(body: bytes) -> dict[str, dict[str, str]]:
    """Kid to public JWK of the keys that can be used; JwksRefused for what is no set (RFC 7517 §5)."""
    try:
        published = msgspec.json.decode(body, type=_Jwks).keys
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise JwksRefused("not a JWK set") from None
    found: dict[str, dict[str, str]] = {}
    for jwk in published:
        kid = jwk.get("kid")
        if (
            not isinstance(kid, str)
            or not 0 < len(kid) <= KID_LENGTH_MAX
            or not kid.isascii()
            or not kid.isprintable()
        ):
            continue
        try:
            key = read_jwk(jwk)
        except Refusal:
            continue  # RFC 7517 §5: of a set, what is not understood is ignored
        if kid in found:
            raise JwksRefused("a kid twice")
        found[kid] = public_jwk(kid, key)
    if len(found) > KEYS_MAX:
        raise JwksRefused("too many keys")
    return found


def without_revoked(
    published: dict[str, dict[str, str]], registered: Sequence[Key]
) -> dict[str, dict[str, str]]:
    """Those published that were not revoked here, under this kid or another."""
    revoked = [key for key in registered if key.status == "revoked"]
    kids = {key.kid for key in revoked}
    thumbprints = {read_jwk(key.jwk).thumbprint for key in revoked}
    return {
        kid: jwk
        for kid, jwk in published.items()
        if kid not in kids and read_jwk(jwk).thumbprint not in thumbprints
    }
