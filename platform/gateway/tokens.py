"""The token endpoint's short way: clients' own tokens that are asked for together use up their identifiers together.

One look at their clients and one statement for the assertions and proofs of all that wait, committed by itself before any of
the tokens leaves.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import asyncpg
import msgspec

from gateway.batching import Batcher
from gateway.requests import Passage
from gateway.runtime import Runtime
from kernel.attempts import use_each_once_counted
from kernel.database import Connection, acquire
from partners.oauth.client_authentication import too_many_requests
from partners.oauth.handlers import NO_STORE, TokenError, refusal_headers, to_answer
from partners.oauth.issuing import Examined, examine_request
from partners.oauth.model import TokenRefused
from partners.oauth.token import issue
from partners.registry.service import list_clients

Reply = tuple[int, list[tuple[bytes, bytes]], bytes]

JSON = (b"content-type", b"application/json")

_PROOF_USED = TokenRefused(
    status=400, error="invalid_dpop_proof", description="DPoP proof: its jti was used before"
)


class LongWay:
    """The endpoint itself is to answer: the client is not what it was, its assertion was used before, or somebody holds a lock."""


#: None for whom a token is signed
Outcome = TokenRefused | LongWay | None


class TokenDesk:
    """One per process."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._batcher: Batcher[Examined, Outcome] = Batcher(self._use_up_each)

    async def reply(self, scope: Any, passage: Passage) -> Reply | None:
        """The answer, or None if the endpoint itself is to give it."""
        runtime = self._runtime
        content_types = [value for name, value in scope["headers"] if name == b"content-type"]
        if len(content_types) != 1:
            return None
        examined = await examine_request(
            body=passage.body,
            content_type=content_types[0].decode("latin-1"),
            proofs=[value.decode("latin-1") for name, value in scope["headers"] if name == b"dpop"],
            directory=runtime.directory,
            sender=passage.sender,
            issuer=runtime.signer.issuer,
            base_url=runtime.base_url,
            now=passage.now,
        )
        if examined is None:
            return None
        refused = await self._batcher.submit(examined)
        if isinstance(refused, LongWay):
            return None
        if refused is not None:
            error = TokenError(error=refused.error, error_description=refused.description)
            return refused.status, _fields(refusal_headers(refused)), msgspec.json.encode(error)
        issued = issue(
            examined.request,
            examined.allowance,
            signer=runtime.signer,
            base_url=runtime.base_url,
            livemode=runtime.settings.mode == "live",
        )
        return 200, _fields(NO_STORE), msgspec.json.encode(to_answer(issued))

    async def _use_up_each(self, examined: Sequence[Examined], _alone: bool) -> list[Outcome]:
        """Of equal identifiers the first one counts; what comes second is refused, and the other stays used.

        What is remembered of a client may be a moment old: a key that was revoked in that moment must not get another token.
        """
        try:
            outcomes = await self._settle(examined)
        except asyncpg.LockNotAvailableError:
            # Somebody sits on one of them; apart, the others need not wait for that.
            return [LongWay() for _ in examined]
        return [outcomes.get(id(each), LongWay()) for each in examined]

    async def _settle(self, examined: Sequence[Examined]) -> dict[int, Outcome]:
        async with acquire(self._runtime.pool) as connection:
            names = sorted({each.request.client.client_id for each in examined})
            present = await list_clients(connection, names)
            same = [
                one for one in examined if present.get(one.request.client.client_id) == one.request.client
            ]
            return await self._use_up(connection, same)

    async def _use_up(self, connection: Connection, examined: Sequence[Examined]) -> dict[int, Outcome]:
        if not examined:
            return {}
        ids = {one.id_hash: one.expires_at for each in examined for one in (each.assertion, each.proof)}
        now = max(each.request.now for each in examined)
        subjects = {each.assertion.id_hash: _subject(each) for each in examined}
        fresh, counted = await use_each_once_counted(connection, ids, subjects, now=now)
        requests = Counter(subject for id_hash, subject in subjects.items() if id_hash in fresh)
        before = {subject: counted[subject] - number for subject, number in requests.items()}
        outcomes: dict[int, Outcome] = {}
        for each in examined:
            if each.assertion.id_hash not in fresh:
                outcomes[id(each)] = LongWay()
                continue
            before[_subject(each)] += 1
            outcomes[id(each)] = self._judge(each, fresh, before[_subject(each)], now)
            fresh -= {each.assertion.id_hash, each.proof.id_hash}
        return outcomes

    def _judge(
        self, examined: Examined, fresh: set[bytes], requests: int, now: datetime
    ) -> TokenRefused | None:
        """In the order of the long way."""
        if requests > self._runtime.settings.token_requests_per_minute:
            return too_many_requests(now).outcome()
        return None if examined.proof.id_hash in fresh else _PROOF_USED


def _subject(examined: Examined) -> str:
    return f"client:{examined.request.client.client_id}"


def _fields(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [JSON, *((name.lower().encode(), value.encode()) for name, value in headers.items())]
