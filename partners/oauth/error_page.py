"""What a member sees when a request cannot be followed and there is nowhere to be sent back to."""

from typing import Protocol, runtime_checkable

from litestar import Response


@runtime_checkable  # Litestar checks what it injects by isinstance
class ErrorPages(Protocol):
    """The bank's own pages; the gateway joins them."""

    def show(self, reason: str, *, accept_language: str) -> Response[str]:
        """A page in the reader's language, with a word for the partner's developers."""
        ...
