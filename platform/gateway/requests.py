"""What the edge learns about a request on its way in, carried in the ASGI scope to whoever needs it."""

from collections.abc import Iterable, Mapping, MutableMapping
from datetime import datetime
from typing import Any, Literal, cast

from msgspec import Struct

from kernel.caller import Caller, MemberCaller
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


class Fields:
    """The header fields the edge reads, each as often as it was sent: none of them is good twice."""

    __slots__ = ("authorization", "content_length", "interaction_ids", "proofs", "transfer_coding")

    def __init__(self) -> None:
        self.authorization: list[bytes] = []
        self.proofs: list[bytes] = []
        self.content_length: list[bytes] = []
        self.transfer_coding: list[bytes] = []
        self.interaction_ids: list[bytes] = []

    @property
    def announces_body(self) -> bool:
        """RFC 9112 §6.3: a request that announces no body has none."""
        return bool(self.transfer_coding or self.content_length not in _NO_CONTENT)


_NO_CONTENT: tuple[list[bytes], ...] = ([], [b"0"])
_FIELDS = {
    b"authorization": "authorization",
    b"dpop": "proofs",
    b"content-length": "content_length",
    b"transfer-encoding": "transfer_coding",
    b"x-fapi-interaction-id": "interaction_ids",
}


def read_fields(headers: Iterable[tuple[bytes, bytes]]) -> Fields:
    """What the edge needs of the header, in one pass; ASGI has the names in lower case."""
    fields = Fields()
    for name, value in headers:
        if name in _FIELDS:
            getattr(fields, _FIELDS[name]).append(value)
    return fields


class Passage:
    """One request's passage through the gateway."""

    __slots__ = (
        "base_url",
        "body",
        "caller",
        "client",
        "member",
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
        #: the member who is asking with the bank's own app, once proved
        self.member: MemberCaller | None = None
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
