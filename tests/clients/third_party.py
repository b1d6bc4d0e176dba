"""What a third-party client does for a flow, whoever wrote it and in whatever language."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from msgspec import Struct

from gateway.credentials import Credentials


class Reply(Struct, frozen=True, kw_only=True):
    """An answer of the partner API."""

    status: int
    headers: dict[str, str]
    body: str


class Refused(Exception):
    """The client stopped: the server refused, or the client did not accept the server's answer."""

    def __init__(self, name: str, text: str, *, error: str | None, description: str | None) -> None:
        super().__init__(f"{name}: {text} ({error}: {description})")
        self.name = name
        self.error = error
        self.description = description


class PublicApp(Struct, frozen=True, kw_only=True):
    """What a client without a secret knows; the sandbox's file for the bank's own app has more in it."""

    issuer: str
    client_id: str
    redirect_uri: str


class ThirdParty(Protocol):
    """One configured client: it has read the metadata and holds the partner's key and a key for its proofs."""

    metadata: dict[str, Any]

    async def token(self, **parameters: str) -> dict[str, Any]:
        """A token by client credentials."""
        ...

    async def call(self, token: dict[str, Any], method: str, url: str, body: Any = None) -> Reply:
        """A call of the partner API with a fresh proof, and an Idempotency-Key if it has a body."""
        ...

    async def push(self, **parameters: str) -> str:
        """Push an authorization request; the address to send the member to."""
        ...

    async def begin(self, **parameters: str) -> str:
        """The address to send the member to, with the request in it: how a public client asks."""
        ...

    async def redeem(self, address: str, answer: str) -> dict[str, Any]:
        """The tokens for the answer with which the member came back from `address`."""
        ...

    async def refresh(self, token: dict[str, Any], **parameters: str) -> dict[str, Any]:
        """A new access token."""
        ...

    async def ask(self, **parameters: str) -> dict[str, Any]:
        """Ask a member on the phone (CIBA)."""
        ...

    async def collect(self, asked: dict[str, Any]) -> dict[str, Any]:
        """The tokens, when the member has approved."""
        ...

    async def introspect(self, token: str) -> dict[str, Any]:
        """What the server says of a token."""
        ...

    async def revoke(self, token: str) -> None:
        """Have a token end."""
        ...


Configure = Callable[[Credentials | PublicApp], AbstractAsyncContextManager[ThirdParty]]
