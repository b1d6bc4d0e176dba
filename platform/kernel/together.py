"""Requests that are posted together: what a hot route tells the writer, and what the writer asks of its domain."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar, runtime_checkable

from msgspec import Struct

from kernel.caller import Caller, Subjects
from kernel.errors import Refusal

if TYPE_CHECKING:
    from kernel.database import Connection

I = TypeVar("I")  # what is asked
O = TypeVar("O")  # what is answered


class Asked(Struct, Generic[I], frozen=True, kw_only=True):
    """One caller's request among those posted together."""

    caller: Caller
    item: I


#: posts all of them in the connection's transaction, each answered for itself, in their order
Post = Callable[["Connection", Sequence[Asked[I]], Subjects, datetime], Awaitable[Sequence[O | Refusal]]]


class Kind(Generic[I, O]):
    """One kind of posting: requests of one kind share a transaction."""

    def __init__(self, name: str, post: Post[I, O]) -> None:
        self.name = name
        self.post = post


@runtime_checkable  # Litestar checks what it injects by isinstance
class Writer(Protocol):
    """Where a request of a `together` route has its item posted; the gateway lends one to each request."""

    async def post(self, kind: Kind[I, O], item: I) -> O:
        """The answer, once it is committed with everything that came with it; raises the item's own refusal."""
        ...
