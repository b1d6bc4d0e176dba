"""The token endpoint's short way: clients' own tokens that are asked for together use up their identifiers together.

One statement for the assertions and proofs of all that wait, committed by itself before any of the tokens leaves.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from gateway.batching import Batcher
from gateway.requests import Passage
from gateway.runtime import Runtime
from kernel.database import acquire
from kernel.one_time import use_each_once
from partners.oauth.handlers import NO_STORE, TokenError, to_answer
from partners.oauth.issuing import Examined, examine_request
from partners.oauth.token import issue

Reply = tuple[int, list[tuple[bytes, bytes]], bytes]

_HEADERS = [
    (b"content-type", b"application/json"),
    *((name.lower().encode(), value.encode()) for name, value in NO_STORE.items()),
]
_ASSERTION_USED = TokenError(
    error="invalid_client", error_description="client_assertion: its jti was used before"
)
_PROOF_USED = TokenError(error="invalid_dpop_proof", error_description="DPoP proof: its jti was used before")


class TokenDesk:
    """One per process."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._batcher: Batcher[Examined, TokenError | None] = Batcher(self._use_up_each)

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
            issuer=runtime.signer.issuer,
            base_url=runtime.base_url,
            now=passage.now,
        )
        if examined is None:
            return None
        refused = await self._batcher.submit(examined)
        if refused is not None:
            status = 401 if refused.error == "invalid_client" else 400
            return status, list(_HEADERS), msgspec.json.encode(refused)
        issued = issue(
            examined.request,
            examined.allowance,
            signer=runtime.signer,
            base_url=runtime.base_url,
            livemode=runtime.settings.mode == "live",
        )
        return 200, list(_HEADERS), msgspec.json.encode(to_answer(issued))

    async def _use_up_each(self, examined: Sequence[Examined], _alone: bool) -> list[TokenError | None]:
        """Of equal identifiers the first one counts; what comes second is refused, and the other stays used."""
        ids = {one.id_hash: one.expires_at for each in examined for one in (each.assertion, each.proof)}
        async with acquire(self._runtime.pool) as connection:
            fresh = await use_each_once(connection, ids)
        outcomes: list[TokenError | None] = []
        for each in examined:
            refused = None
            if each.assertion.id_hash not in fresh:
                refused = _ASSERTION_USED
            elif each.proof.id_hash not in fresh:
                refused = _PROOF_USED
            fresh -= {each.assertion.id_hash, each.proof.id_hash}
            outcomes.append(refused)
        return outcomes
