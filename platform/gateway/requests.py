"""What the edge learns about a request on its way in, carried in the ASGI scope to whoever needs it."""

from collections.abc import Mapping, MutableMapping
from datetime import datetime
from typing import Any, cast

from msgspec import Struct

from kernel.caller import Caller, MemberCaller

_KEY = "tessera"


class OneTimeProof(Struct, frozen=True, kw_only=True):
    """The identifier of a DPoP proof, good once until it expires (RFC 9449 §11.1)."""

    scope: str
    jti: str
    expires_at: datetime


class Passage:
    """One request's passage through the gateway."""

    __slots__ = (
        "base_url",
        "body",
        "caller",
        "member",
        "now",
        "proof",
        "refused",
        "request_id",
    )

    def __init__(self, *, request_id: str, base_url: str, now: datetime) -> None:
        self.request_id = request_id
        self.base_url = base_url
        #: the moment of the request, read once
        self.now = now
        #: the whole body, read and bounded by the edge
        self.body = b""
        #: who is asking, once proved
        self.caller: Caller | None = None
        #: the member who is asking with the bank's own app, once proved
        self.member: MemberCaller | None = None
        #: a proof of possession still to be used up, in the transaction of the write it was made for
        self.proof: OneTimeProof | None = None
        #: code of the refusal that was raised, if one was: the transaction rolls back
        self.refused: str | None = None

    def enter(self, scope: MutableMapping[str, Any]) -> None:
        scope[_KEY] = self

    @staticmethod
    def of(scope: Mapping[str, Any] | Any) -> "Passage":
        return cast("Passage", scope[_KEY])
