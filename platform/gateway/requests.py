"""What the edge learns about a request on its way in, carried in the ASGI scope to whoever needs it."""

from collections.abc import Mapping, MutableMapping
from datetime import datetime
from typing import Any, Literal, cast

from msgspec import Struct

from kernel.caller import Caller
from kernel.errors import Refusal
from kernel.sender import NOBODY, Sender
from partners.oauth.access import AccessRefused, InvalidDpopProof
from partners.oauth.http_signature import Request
from partners.registry.model import Client, RequestSignature

_KEY = "tessera"


class SignatureMissing(AccessRefused):
    """A write of this kind must be signed: your app's `request_signature` names the scheme."""

    error = "signature_missing"


class SignatureInvalid(AccessRefused):
    """The request's signature is not acceptable; `reason` says why. Sign each request anew."""

    error = "signature_invalid"


class OneTimeProof(Struct, frozen=True, kw_only=True):
    """The identifier of a DPoP proof (RFC 9449 §11.1) or of a signature's nonce, good once until it expires."""

    scope: str
    jti: str
    expires_at: datetime
    of: Literal["proof", "signature"] = "proof"

    def used_before(self) -> Refusal:
        """What is told to whoever comes second with it."""
        refused = InvalidDpopProof if self.of == "proof" else SignatureInvalid
        return refused(reason="it was used before")


class Signed(Struct, frozen=True, kw_only=True):
    """A request whose signatures are good: its answer is signed by the same schemes."""

    request: Request
    schemes: frozenset[RequestSignature]
    #: of the SM2 scheme
    nonce: str = ""


class Passage:
    """One request's passage through the gateway."""

    __slots__ = (
        "base_url",
        "body",
        "caller",
        "client",
        "nonce",
        "now",
        "proof",
        "refused",
        "request_id",
        "sender",
        "signed",
    )

    def __init__(self, *, request_id: str, base_url: str, now: datetime, sender: Sender = NOBODY) -> None:
        self.request_id = request_id
        self.base_url = base_url
        #: the moment of the request, read once
        self.now = now
        #: where it comes from, as far as somebody trusted says
        self.sender = sender
        #: the whole body, read and bounded by the edge
        self.body = b""
        #: who is asking, once proved
        self.caller: Caller | None = None
        #: what is registered of the caller's app
        self.client: Client | None = None
        #: a proof of possession still to be used up, in the transaction of the write it was made for
        self.proof: OneTimeProof | None = None
        #: the same of a signature that has a nonce
        self.nonce: OneTimeProof | None = None
        #: the request's signatures, once they are found good
        self.signed: Signed | None = None
        #: code of the refusal that was raised, if one was: the transaction rolls back
        self.refused: str | None = None

    def enter(self, scope: MutableMapping[str, Any]) -> None:
        scope[_KEY] = self

    @property
    def once(self) -> list[OneTimeProof]:
        """What is still to be used up."""
        return [one for one in (self.proof, self.nonce) if one is not None]

    @staticmethod
    def of(scope: Mapping[str, Any] | Any) -> "Passage":
        return cast("Passage", scope[_KEY])
