"""Batches over HTTP: up to a thousand spends, holds, captures, releases or reversals, with an answer for each."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

from litestar import post
from litestar.di import NamedDependency
from litestar.params import JSONBody
from msgspec import Meta, Struct

from kernel.caller import Caller, Subjects
from kernel.database import Connection
from kernel.errors import Refusal
from kernel.items import BATCH_MAX, decode_items
from kernel.problem import status_of, to_problem
from kernel.together import Asked, I, Kind, O
from points.ledger.bodies import HoldCapture, HoldRequest, SpendRequest
from points.ledger.postings import CAPTURES, HOLDS, RELEASES, SPEND, SPENDS, Capture


class ItemBatch(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Requests to be posted together; every item is judged by itself."""

    items: Annotated[
        list[Any],
        Meta(min_length=1, max_length=BATCH_MAX, description="Each like the body of a single request."),
    ]


class ClosingItem(HoldCapture, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A hold to capture, and how much of it."""

    id: Annotated[str, Meta(max_length=64, description="The hold's `hld_…`.")]


class ReleaseItem(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A hold to release."""

    id: Annotated[str, Meta(max_length=64, description="The hold's `hld_…`.")]


class ItemResult(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer to one item: what a single request would have been answered, or a problem."""

    status: int
    result: Any | None = None
    problem: dict[str, Any] | None = None


class ItemResults(Struct, frozen=True, kw_only=True):
    """One answer per item, in the order of the items."""

    results: list[ItemResult]


@post("/v1/points/spends/batch", scope=SPEND, idempotent=True, batch=True, level="A2", status_code=200)
async def spend_each(
    data: JSONBody[ItemBatch],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    subjects: NamedDependency[Subjects],
    base_url: NamedDependency[str],
    now: NamedDependency[datetime],
) -> ItemResults:
    """Spend at once, up to 1,000 times in one transaction, with a result for each."""
    items = decode_items(data.items, SpendRequest)
    return tell_results(await _post(SPENDS, items, connection, caller, subjects, now), 201, base_url)


@post("/v1/points/holds/batch", scope=SPEND, idempotent=True, batch=True, level="A2", status_code=200)
async def place_each(
    data: JSONBody[ItemBatch],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    subjects: NamedDependency[Subjects],
    base_url: NamedDependency[str],
    now: NamedDependency[datetime],
) -> ItemResults:
    """Place up to 1,000 holds in one transaction, with a result for each."""
    items = decode_items(data.items, HoldRequest)
    return tell_results(await _post(HOLDS, items, connection, caller, subjects, now), 201, base_url)


@post("/v1/points/captures/batch", scope=SPEND, idempotent=True, batch=True, level="A2", status_code=200)
async def capture_each(
    data: JSONBody[ItemBatch],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    subjects: NamedDependency[Subjects],
    base_url: NamedDependency[str],
    now: NamedDependency[datetime],
) -> ItemResults:
    """Capture up to 1,000 holds in one transaction, with a result for each."""
    items = [
        item if isinstance(item, Refusal) else Capture(id=item.id, wish=_wish(item))
        for item in decode_items(data.items, ClosingItem)
    ]
    return tell_results(await _post(CAPTURES, items, connection, caller, subjects, now), 200, base_url)


@post("/v1/points/releases/batch", scope=SPEND, idempotent=True, batch=True, level="A2", status_code=200)
async def release_each(
    data: JSONBody[ItemBatch],
    connection: NamedDependency[Connection],
    caller: NamedDependency[Caller],
    subjects: NamedDependency[Subjects],
    base_url: NamedDependency[str],
    now: NamedDependency[datetime],
) -> ItemResults:
    """Release up to 1,000 holds in one transaction, with a result for each."""
    items = [item if isinstance(item, Refusal) else item.id for item in decode_items(data.items, ReleaseItem)]
    return tell_results(await _post(RELEASES, items, connection, caller, subjects, now), 200, base_url)


async def _post(
    kind: Kind[I, O],
    items: Sequence[I | Refusal],
    connection: Connection,
    caller: Caller,
    subjects: Subjects,
    now: datetime,
) -> list[O | Refusal]:
    """As the ledger writer posts what arrives together, in this request's own transaction."""
    asked = [Asked(caller=caller, item=item) for item in items if not isinstance(item, Refusal)]
    answers = iter(await kind.post(connection, asked, subjects, now))
    return [item if isinstance(item, Refusal) else next(answers) for item in items]


def _wish(item: ClosingItem) -> HoldCapture:
    return HoldCapture(points=item.points, order_fen=item.order_fen)


def tell_results(answers: Sequence[Any], status: int, base_url: str) -> ItemResults:
    return ItemResults(results=[_result(answer, status, base_url) for answer in answers])


def _result(answer: Any, status: int, base_url: str) -> ItemResult:
    if isinstance(answer, Refusal):
        return ItemResult(status=status_of(answer), problem=to_problem(answer, base_url=base_url))
    return ItemResult(status=status, result=answer)


routes = [spend_each, place_each, capture_each, release_each]
