"""Importing an order file as the partner would: bind the customers, send the orders, take the refunds back.

Lines go in chunks of a thousand, two on their way at a time, so that client and server work at once. Every request's
Idempotency-Key is made from what it says: the same file sent again, after a crash or by mistake, gets the same
answers and changes nothing. A chunk with refunds travels alone, so a refund always finds the orders before it and is
never overtaken by the orders after it.
"""

import asyncio
import csv
import os
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import msgspec
from msgspec import Struct

from gateway.client import ApiProblem, PartnerClient
from gateway.order_lines import BrokenLine, OrderLine
from kernel.vault import sha256

CHUNK_LINES = 1_000
CHUNKS_IN_FLIGHT = 2
REFUNDS_IN_FLIGHT = 8
BINDINGS_KEPT = 100_000

#: the line had its effect when it was sent before
_UNCHANGED = frozenset(("source_already_earned", "refund_already_posted"))
#: nothing to do with any line: the import cannot go on
_FATAL = frozenset(
    ("insufficient_scope", "token_missing", "invalid_token", "invalid_client", "invalid_scope")
)

Line = OrderLine | BrokenLine


class Result(Struct, frozen=True, kw_only=True):
    """What became of one line."""

    order_id: str
    status: Literal["earned", "reversed", "unchanged", "refused"]
    #: granted, or with a minus clawed back
    points: int = 0
    #: why it was refused, or what it was found to be
    code: str = ""


class Totals:
    """The sums of an import."""

    def __init__(self) -> None:
        self.statuses: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self.points = 0

    @property
    def lines(self) -> int:
        return self.statuses.total()

    def add(self, results: Iterable[Result]) -> None:
        for result in results:
            self.statuses[result.status] += 1
            self.points += result.points
            if result.status == "refused":
                self.refusals[result.code] += 1


class ResultsFile:
    """One line for each line of the order file, in its order; the file appears when it is complete."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._draft = path.with_name(f".{path.name}.{os.getpid()}.new")

    def __enter__(self) -> Self:
        self._file = self._draft.open("w", encoding="utf-8", newline="")
        self._writer = csv.writer(self._file, lineterminator="\n")
        self._writer.writerow(("order_id", "status", "points", "code"))
        return self

    def add(self, results: Iterable[Result]) -> None:
        self._writer.writerows((one.order_id, one.status, one.points, one.code) for one in results)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._file:
            if kind is not None:
                self._draft.unlink()
                return
            self._file.flush()
            os.fsync(self._file.fileno())
        self._draft.replace(self._path)
        directory = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


async def import_orders(
    client: PartnerClient, lines: Iterable[Line], *, take: Callable[[Sequence[Result]], None]
) -> None:
    """Send all lines; `take` gets the results of one chunk after another, in the order of the lines."""
    sender = _Sender(client)
    under_way: deque[asyncio.Task[list[Result]]] = deque()
    alone = False
    try:
        for chunk in chunks_of(lines):
            after_refunds, alone = alone, _has_refunds(chunk)
            room = 0 if alone or after_refunds else CHUNKS_IN_FLIGHT - 1
            while len(under_way) > room:
                take(await under_way[0])
                under_way.popleft()
            under_way.append(asyncio.create_task(sender.send(chunk)))
        while under_way:
            take(await under_way[0])
            under_way.popleft()
    finally:
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)


def chunks_of(lines: Iterable[Line], *, size: int = CHUNK_LINES) -> Iterator[list[Line]]:
    """The lines in chunks; an order that an earlier line of its chunk refunds begins the next one."""
    chunk: list[Line] = []
    refunded: set[str] = set()
    for line in lines:
        overtaken = isinstance(line, OrderLine) and line.refund_of is None and line.order_id in refunded
        if len(chunk) == size or overtaken:
            yield chunk
            chunk, refunded = [], set()
        chunk.append(line)
        if isinstance(line, OrderLine) and line.refund_of is not None:
            refunded.add(line.refund_of)
    if chunk:
        yield chunk


class _Sender:
    """Sends chunks for one partner and remembers, within bounds, whom the platform calls what."""

    def __init__(self, client: PartnerClient) -> None:
        self._client = client
        self._subs: OrderedDict[str, str] = OrderedDict()
        #: one chunk binds while another earns; two binding at once would only wait for each other
        self._binding = asyncio.Lock()

    async def send(self, chunk: Sequence[Line]) -> list[Result]:
        """Bind, earn, then refund."""
        lines = [(place, line) for place, line in enumerate(chunk) if isinstance(line, OrderLine)]
        subs, refusals = await self._bind({line.customer_ref for _, line in lines})
        results = {
            place: Result(order_id=line.order_id, status="refused", code=line.code)
            for place, line in enumerate(chunk)
            if isinstance(line, BrokenLine)
        }
        known = []
        for place, line in lines:
            if line.customer_ref in subs:
                known.append((place, line))
            else:
                results[place] = _refuse(line, refusals[line.customer_ref])
        orders = [(place, line) for place, line in known if line.refund_of is None]
        results.update(await self._earn(orders, subs))
        refunds = [(place, line) for place, line in known if line.refund_of is not None]
        results.update(await self._refund(refunds, subs))
        return [results[place] for place in range(len(chunk))]

    async def _bind(self, refs: set[str]) -> tuple[dict[str, str], dict[str, str]]:
        """The subjects of the customers, and the codes of those who have none."""
        async with self._binding:
            subs = {ref: self._subs[ref] for ref in refs if ref in self._subs}
            for ref in subs:
                self._subs.move_to_end(ref)
            strangers = sorted(refs - subs.keys())
            refusals: dict[str, str] = {}
            for ref, answer in zip(
                strangers,
                await self._send_all("/v1/members/bindings", "customer_refs", "bindings", strangers),
                strict=True,
            ):
                if "member" in answer:
                    subs[ref] = self._subs[ref] = answer["member"]
                else:
                    refusals[ref] = _code_in(answer)
            while len(self._subs) > BINDINGS_KEPT:
                self._subs.popitem(last=False)
        return subs, refusals

    async def _earn(
        self, orders: Sequence[tuple[int, OrderLine]], subs: dict[str, str]
    ) -> Iterator[tuple[int, Result]]:
        items = [
            {
                "member": subs[line.customer_ref],
                "source_ref": line.order_id,
                "kind": "purchase",
                "occurred_at": line.ordered_at,
                "amount_fen": line.amount_fen,
            }
            | ({"category": line.category} if line.category else {})
            for _, line in orders
        ]
        answers = await self._send_all("/v1/points/earnings/batch", "items", "results", items)
        return (
            (place, _read_earning(line, answer))
            for (place, line), answer in zip(orders, answers, strict=True)
        )

    async def _send_all(self, path: str, name: str, answer_name: str, items: Sequence[Any]) -> list[Any]:
        """An answer for each item. Where one item makes the whole list unacceptable, the halves are sent instead."""
        if not items:
            return []
        body = {name: items}
        try:
            answers = await self._client.post(path, body, idempotency_key=self._key(path, body))
            return list(answers[answer_name])
        except ApiProblem as problem:
            if problem.status not in (400, 413, 422):
                raise
            if len(items) == 1:
                return [{"status": problem.status, "problem": problem.document}]
        half = len(items) // 2
        first = await self._send_all(path, name, answer_name, items[:half])
        return first + await self._send_all(path, name, answer_name, items[half:])

    async def _refund(
        self, refunds: Sequence[tuple[int, OrderLine]], subs: dict[str, str]
    ) -> list[tuple[int, Result]]:
        """Several at a time, but those of one order one after the other: what each takes back depends on the last."""
        by_order: dict[tuple[str, str | None], list[tuple[int, OrderLine]]] = {}
        for place, line in refunds:
            by_order.setdefault((line.customer_ref, line.refund_of), []).append((place, line))
        turns = asyncio.Semaphore(REFUNDS_IN_FLIGHT)

        async def refund_one_by_one(lines: list[tuple[int, OrderLine]]) -> list[tuple[int, Result]]:
            async with turns:
                return [
                    (place, await self._refund_one(line, subs[line.customer_ref])) for place, line in lines
                ]

        done = await asyncio.gather(*map(refund_one_by_one, by_order.values()))
        return [pair for pairs in done for pair in pairs]

    async def _refund_one(self, line: OrderLine, sub: str) -> Result:
        path = "/v1/points/reversals"
        body = {
            "member": sub,
            "kind": "purchase",
            "source_ref": line.refund_of,
            "refund_ref": line.order_id,
            "refunded_fen": line.amount_fen,
        }
        try:
            reversal = await self._client.post(path, body, idempotency_key=self._key(path, body))
        except ApiProblem as problem:
            if problem.status in (401, 429) or problem.status >= 500 or problem.code in _FATAL:
                raise
            return _refuse(line, problem.code)
        return Result(order_id=line.order_id, status="reversed", points=-reversal["points_clawed_back"])

    def _key(self, path: str, body: dict[str, Any]) -> str:
        return sha256(self._client.credentials.client_id, path, msgspec.json.encode(body)).hex()


def _read_earning(line: OrderLine, answer: dict[str, Any]) -> Result:
    if answer["status"] < 400:
        return Result(order_id=line.order_id, status="earned", points=answer["earning"]["points"])
    return _refuse(line, _code_in(answer))


def _refuse(line: OrderLine, code: str) -> Result:
    return Result(order_id=line.order_id, status="unchanged" if code in _UNCHANGED else "refused", code=code)


def _code_in(answer: dict[str, Any]) -> str:
    """A binding carries its code, an item of a batch its problem document."""
    return str(answer.get("code") or answer.get("problem", {}).get("code") or "unknown")


def _has_refunds(chunk: Sequence[Line]) -> bool:
    return any(isinstance(line, OrderLine) and line.refund_of is not None for line in chunk)
