"""The ledger writer: one per process. Requests of the hottest routes that arrive together share one transaction.

In it, each step is one statement for all: the proofs are used up, the keys looked up, the items posted by their
domain, the answers remembered. Each item is answered for itself; a refused one leaves nothing but its used proof.
Steps come in the same order everywhere (proofs, keys, wallets in key order, house slots), so transactions wait for
each other but never in a circle.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar, cast

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from gateway.batching import Batcher, GoAlone
from gateway.requests import OneTimeProof
from kernel.caller import Caller, Subjects
from kernel.database import AWAY, Connection, DatabaseBusy, OutcomeUnknown, Pool, transaction
from kernel.errors import Refusal
from kernel.idempotency import (
    AnsweredBefore,
    IdempotencyInProgress,
    IdempotencyKeyReused,
    KeyedRequest,
    StoredAnswer,
    begin,
    begin_each,
    remember_each,
)
from kernel.one_time import id_hash, use_each_once
from kernel.together import Asked, Kind
from kernel.vault import Vault
from partners.oauth.grants import GrantEnded, list_ended

I = TypeVar("I")  # what is asked
O = TypeVar("O")  # what is answered


class Errand(Struct, frozen=True, kw_only=True):
    """One request on its way through the writer: what the gateway knows of it, and its item."""

    caller: Caller
    proof: OneTimeProof | None
    #: of the request's signature, if it has one
    nonce: OneTimeProof | None = None
    request: KeyedRequest
    #: of the answer, if it is not refused
    status: int
    #: the moment of the request
    now: datetime
    item: Any

    @property
    def once(self) -> list[OneTimeProof]:
        """What is to be used up with it."""
        return [one for one in (self.proof, self.nonce) if one is not None]


class Answered(Struct, frozen=True, kw_only=True):
    """The domain's answer, and the same as it was stored."""

    value: Any
    stored: StoredAnswer


Outcome = Answered | Refusal | AnsweredBefore | GoAlone


class LedgerWriter:
    """A queue for each kind of posting, and the transaction that empties it."""

    def __init__(self, pool: Pool, *, vault: Vault, subjects: Subjects) -> None:
        self._pool = pool
        self._vault = vault
        self._subjects = subjects
        self._batchers: dict[str, Batcher[Errand, Outcome]] = {}

    async def post(self, kind: Kind[Any, Any], errand: Errand) -> Answered:
        """The errand's own answer, once it is committed; raises its refusal, or AnsweredBefore."""
        batcher = self._batchers.get(kind.name)
        if batcher is None:
            batcher = self._batchers[kind.name] = Batcher(_poster(self, kind))
        return cast(Answered, await batcher.submit(errand))

    async def close(self) -> None:
        """Return when nothing is in flight any more."""
        for batcher in self._batchers.values():
            await batcher.close()

    async def post_together(
        self, kind: Kind[Any, Any], errands: Sequence[Errand], *, alone: bool = False
    ) -> list[Outcome]:
        """Post them in one transaction; an outcome for each, in their order."""
        try:
            async with transaction(self._pool) as connection:
                return await _Batch(connection, errands, vault=self._vault, alone=alone).run(
                    kind, self._subjects
                )
        except (OutcomeUnknown, DatabaseBusy, *AWAY):
            raise
        except Exception:
            if alone:
                await self._use_up(errands)
            raise

    async def _use_up(self, errands: Sequence[Errand]) -> None:
        """The proof of a write that failed stays used, although its transaction is gone."""
        proofs = {_hash(proof): proof.expires_at for errand in errands for proof in errand.once}
        async with transaction(self._pool) as connection:
            await use_each_once(connection, proofs)


class _Batch:
    """One transaction's errands; an outcome once given is final."""

    def __init__(
        self, connection: Connection, errands: Sequence[Errand], *, vault: Vault, alone: bool
    ) -> None:
        self._connection = connection
        self._errands = errands
        self._vault = vault
        self._alone = alone
        self._outcomes: dict[int, Outcome] = {}
        #: later errands with the key of one that is posted, and that one
        self._copies: dict[int, int] = {}

    async def run(self, kind: Kind[Any, Any], subjects: Subjects) -> list[Outcome]:
        await self._use_up_proofs()
        await self._refuse_ended()
        await self._find_answers()
        await self._post(kind, subjects)
        self._answer_copies()
        return [self._outcomes[place] for place in range(len(self._errands))]

    def _open(self) -> list[int]:
        """Those without an outcome, copies aside."""
        return [
            place
            for place in range(len(self._errands))
            if place not in self._outcomes and place not in self._copies
        ]

    async def _use_up_proofs(self) -> None:
        """RFC 9449 §11.1: whoever comes second with a proof is refused, in this batch or in another."""
        first: dict[bytes, tuple[int, OneTimeProof]] = {}
        for place, errand in enumerate(self._errands):
            for proof in errand.once:
                if first.setdefault(_hash(proof), (place, proof))[0] != place:
                    self._outcomes[place] = proof.used_before()
        expiries = {hashed: proof.expires_at for hashed, (_, proof) in first.items()}
        fresh = await use_each_once(self._connection, expiries)
        for hashed, (place, proof) in first.items():
            if hashed not in fresh:
                self._outcomes[place] = proof.used_before()

    async def _refuse_ended(self) -> None:
        """On a grant that was withdrawn before this transaction began nothing is done any more, nor told again."""
        named = {place: self._errands[place].caller.grant_id for place in self._open()}
        grant_ids = {grant_id for grant_id in named.values() if grant_id is not None}
        if not grant_ids:
            return
        now = max(errand.now for errand in self._errands)
        ended = await list_ended(self._connection, grant_ids, now=now)
        for place, grant_id in named.items():
            if grant_id in ended:
                self._outcomes[place] = GrantEnded()

    async def _find_answers(self) -> None:
        """Whoever was answered before gets that answer; of several with one key the first is posted."""
        if self._alone:
            await self._find_answer_alone()
            return
        firsts: dict[tuple[Any, bytes], int] = {}
        for place in self._open():
            request = self._errands[place].request
            first = firsts.setdefault((request.app_id, request.key_hash), place)
            if first != place:
                self._copies[place] = first
        asked = list(firsts.values())
        found = await begin_each(
            self._connection, [self._errands[place].request for place in asked], vault=self._vault
        )
        for at, known in found.items():
            if isinstance(known, IdempotencyInProgress):
                self._outcomes[asked[at]] = self._aside(
                    asked[at]
                )  # where it may wait without holding up others
            else:
                self._outcomes[asked[at]] = (
                    AnsweredBefore(known) if isinstance(known, StoredAnswer) else known
                )

    async def _find_answer_alone(self) -> None:
        for place in self._open():
            try:
                stored = await begin(self._connection, self._errands[place].request, vault=self._vault)
            except IdempotencyKeyReused as refusal:
                self._outcomes[place] = refusal
            else:
                if stored is not None:
                    self._outcomes[place] = AnsweredBefore(stored)

    async def _post(self, kind: Kind[Any, Any], subjects: Subjects) -> None:
        posted = self._open()
        if not posted:
            return
        now = max(self._errands[place].now for place in posted)
        asked = [
            Asked(caller=self._errands[place].caller, item=self._errands[place].item) for place in posted
        ]
        answers = await kind.post(self._connection, asked, subjects, now)
        for place, answer in zip(posted, answers, strict=True):
            self._outcomes[place] = answer if isinstance(answer, Refusal) else self._encode(place, answer)
        answered = [
            (self._errands[place].request, outcome.stored)
            for place in posted
            if isinstance(outcome := self._outcomes[place], Answered)
        ]
        await remember_each(self._connection, answered, vault=self._vault, now=now)

    def _encode(self, place: int, answer: Any) -> Answered:
        body = msgspec.json.encode(answer)
        return Answered(value=answer, stored=StoredAnswer(status=self._errands[place].status, body=body))

    def _answer_copies(self) -> None:
        """A copy gets the first one's answer or refusal; another request under the same key is judged after it."""
        for place, first in self._copies.items():
            same = self._errands[place].request.fingerprint == self._errands[first].request.fingerprint
            outcome = self._outcomes[first]
            if isinstance(outcome, GoAlone):
                self._outcomes[place] = self._aside(place)
            elif isinstance(outcome, Answered):
                self._outcomes[place] = AnsweredBefore(outcome.stored) if same else IdempotencyKeyReused()
            elif same:
                self._outcomes[place] = _again(outcome)
            else:
                self._outcomes[place] = self._aside(place)

    def _aside(self, place: int) -> GoAlone:
        """The errand without its proofs, which this transaction has used up for it."""
        return GoAlone(replace(self._errands[place], proof=None, nonce=None))


def _poster(writer: LedgerWriter, kind: Kind[Any, Any]) -> Callable[[Sequence[Errand], bool], Any]:
    async def post(errands: Sequence[Errand], alone: bool) -> list[Outcome]:
        return await writer.post_together(kind, errands, alone=alone)

    return post


def _again(outcome: Refusal | AnsweredBefore) -> Refusal | AnsweredBefore:
    """The same once more: an exception that is raised in two places carries both their traces."""
    if isinstance(outcome, AnsweredBefore):
        return AnsweredBefore(outcome.answer)
    return type(outcome)(**outcome.facts)


def _hash(proof: OneTimeProof) -> bytes:
    return id_hash(proof.scope, proof.jti)
