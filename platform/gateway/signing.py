"""Signed messages at the edge: a request's signatures are checked before anything happens, its answer is signed the same way.

Two schemes: `fapi` is RFC 9421 with the tags of FAPI 2.0 HTTP Signatures, `sm2` our own header with the national
algorithms. A signature that is sent is always checked; whether there must be one is the app's policy, and it is asked for
where the route is known: `check_signed`.
"""

import secrets
from collections.abc import Mapping, MutableMapping
from datetime import timedelta
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import structlog

from gateway.problems import render
from gateway.requests import OneTimeProof, Passage, SignatureInvalid, SignatureMissing, Signed
from gateway.runtime import Runtime
from kernel import sm2
from kernel.database import OutcomeUnknown
from kernel.errors import Unavailable
from partners.oauth import http_signature, sm2_scheme
from partners.oauth.http_signature import Request, SignatureUnfit
from partners.registry.jwk import read_jwk
from partners.registry.model import Client, RequestSignature

log = structlog.get_logger("signing")

READS = frozenset(("GET", "HEAD", "OPTIONS"))
SM2_HEADER = sm2_scheme.HEADER.encode()
SIGNING = frozenset((b"signature", b"signature-input", SM2_HEADER))
_OF_THE_ANSWER = frozenset((b"idempotency-replayed", b"signature", b"signature-input", b"content-digest"))
LABEL = "bank"
#: longer than any signature with this nonce could be of this minute
NONCE_MEMORY = timedelta(seconds=2 * (http_signature.AGE_SECONDS + http_signature.AHEAD_SECONDS))

Message = MutableMapping[str, Any]


def check_signed(passage: Passage, opt: Mapping[str, Any], method: str) -> None:
    """JR/T 0185: a write of level A2 is signed by the scheme its app has agreed to; `optional` apps need none."""
    if passage.client is None or opt.get("level") != "A2" or method in READS:
        return
    demanded = passage.client.request_signature
    if demanded == "optional":
        return
    if passage.signed is None or demanded not in passage.signed.schemes:
        raise SignatureMissing(request_signature=demanded)


class Signing:
    """One per process."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        base = urlsplit(runtime.base_url)
        self._origin, self._root = f"{base.scheme}://{base.netloc}", base.path.rstrip("/")

    async def check(self, scope: Any, passage: Passage) -> None:
        """Find every signature of the request good, or refuse it; the body has been read."""
        client = passage.client
        sent = {name.lower() for name, _ in scope["headers"]} & SIGNING
        if client is None or not sent:
            return
        request = self._request(scope, _fields(scope["headers"]))
        schemes: set[RequestSignature] = set()
        nonce = ""
        try:
            if sent & {b"signature", b"signature-input"}:
                check_fapi(request, client, body=passage.body, now=passage.now.timestamp())
                schemes.add("fapi")
            if SM2_HEADER in sent:
                nonce = await self._check_sm2(request, client, passage)
                schemes.add("sm2")
        except SignatureUnfit as unfit:
            raise SignatureInvalid(reason=str(unfit)) from None
        passage.signed = Signed(request=request, schemes=frozenset(schemes), nonce=nonce)

    async def _check_sm2(self, request: Request, client: Client, passage: Passage) -> str:
        """The nonce, which is still to be used up."""
        if self._runtime.sm2_signer is None:
            raise sm2.Sm2Off
        signature = sm2_scheme.read_header(request.fields[sm2_scheme.HEADER])
        sm2_scheme.check_header(signature, client_id=client.client_id, now=passage.now.timestamp())
        point = client.sm2_keys.get(signature.serial_no)
        if point is None:
            raise SignatureUnfit("its serial_no is not that of a usable SM2 key of your app")
        text = sm2_scheme.request_text(
            request,
            timestamp=signature.timestamp,
            nonce=signature.nonce,
            body=passage.body,
            token=request.fields.get("authorization", "").partition(" ")[2],
        )
        key = _sm2_key(point)
        if not await self._runtime.aside.run(lambda: key.verifies(signature.value, text)):
            raise SignatureUnfit("it was not made over this request by the registered key")
        passage.nonce = OneTimeProof(
            scope=f"sm2:{client.client_id}",
            jti=signature.nonce,
            expires_at=passage.now + NONCE_MEMORY,
            of="signature",
        )
        return signature.nonce

    def _request(self, scope: Any, fields: Mapping[str, str]) -> Request:
        raw = bytes(scope.get("raw_path") or scope["path"].encode()).partition(b"?")[0]
        return Request(
            method=scope["method"],
            origin=self._origin,
            path=self._root + raw.decode("latin-1"),
            query=scope.get("query_string", b"").decode("latin-1"),
            fields=fields,
        )

    async def answer(self, passage: Passage, start: Message, body: Message) -> tuple[Message, Message]:
        """The answer to a signed request with its own signature; a stream, whose end is not known, goes without."""
        signed = passage.signed
        assert signed is not None, "only answers to signed requests come here"
        if body.get("more_body", False):
            return start, body
        content, status = body.get("body", b""), start["status"]
        headers = list(start["headers"])
        if "fapi" in signed.schemes:
            headers += self._fapi_headers(signed.request, status, content)
        if "sm2" in signed.schemes:
            try:
                headers.append(await self._sm2_header(signed, status, content))
            except Unavailable as busy:
                # What was done cannot be told as the partner asked for it: it will ask again, under the same key.
                log.warning("answer_not_signed", request_id=passage.request_id, reason=busy.code)
                return _unknown(passage, headers)
        return {**start, "headers": headers}, body

    def _fapi_headers(self, request: Request, status: int, content: bytes) -> list[tuple[bytes, bytes]]:
        digest = http_signature.content_digest(content) if content else None
        lines = http_signature.response_lines(request, status=status, digest=digest)
        parameters: dict[str, str | int] = {
            "created": int(self._runtime.clock.now().timestamp()),
            "keyid": self._runtime.signer.kid,
            "alg": "ecdsa-p256-sha256",
            "tag": http_signature.RESPONSE_TAG,
        }
        value = self._runtime.signer.sign_bytes(http_signature.signature_base(lines, parameters))
        written = http_signature.signature_parameters([name for name, _ in lines], parameters)
        headers = [
            (b"signature-input", f"{LABEL}={written}".encode()),
            (b"signature", f"{LABEL}={http_signature.byte_sequence(value)}".encode()),
        ]
        return headers if digest is None else [(b"content-digest", digest.encode()), *headers]

    async def _sm2_header(self, signed: Signed, status: int, content: bytes) -> tuple[bytes, bytes]:
        signer = self._runtime.sm2_signer
        if signer is None:
            raise sm2.Sm2Off
        timestamp, nonce = int(self._runtime.clock.now().timestamp()), secrets.token_hex(16)
        text = sm2_scheme.response_text(
            signed.request, status=status, timestamp=timestamp, nonce=nonce, asked=signed.nonce, body=content
        )
        value = await self._runtime.aside.run(lambda: signer.sign(text))
        written = sm2_scheme.response_header(
            serial_no=signer.serial_no, timestamp=timestamp, nonce=nonce, value=value
        )
        return SM2_HEADER, written.encode()


def check_fapi(request: Request, client: Client, *, body: bytes, now: float) -> None:
    """Every signature tagged as ours, and the digest: one that does not hold spoils the request."""
    # FAPI issue 714: whatever carries the tag must satisfy the profile; signatures with another tag are none of ours.
    signatures = http_signature.read_signatures(
        request.fields.get("signature-input", ""), request.fields.get("signature", "")
    )
    for signature in signatures:
        http_signature.check_request(signature, request, body=body, now=now)
        jwk = client.keys.get(signature.keyid)
        if jwk is None:
            raise SignatureUnfit("its keyid is not that of a usable key of your app")
        http_signature.check_signed_by(signature, read_jwk(jwk), request)
    if "content-digest" in request.fields:
        http_signature.check_digest(request.fields["content-digest"], body)


def _fields(headers: list[tuple[bytes, bytes]]) -> dict[str, str]:
    """RFC 9421 §2.1: the lines of a field without the space around them, joined by a comma and a space."""
    fields: dict[str, str] = {}
    for name, value in headers:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1").strip(" \t")
        fields[key] = f"{fields[key]}, {text}" if key in fields else text
    return fields


@lru_cache(maxsize=1_024)
def _sm2_key(point: str) -> sm2.PublicKey:
    return sm2.PublicKey.at(bytes.fromhex(point[:64]), bytes.fromhex(point[64:]))


def _unknown(passage: Passage, headers: list[tuple[bytes, bytes]]) -> tuple[Message, Message]:
    """503 in place of an answer, which keeps what the edge says to every one."""
    answer = render(OutcomeUnknown(), base_url=passage.base_url, trace_id=passage.request_id)
    told = {name.encode(): value.encode() for name, value in answer.headers.items()}
    told[b"content-length"] = str(len(answer.body)).encode()
    kept = [header for header in headers if header[0] not in told and header[0] not in _OF_THE_ANSWER]
    start = {"type": "http.response.start", "status": answer.status, "headers": [*kept, *told.items()]}
    return start, {"type": "http.response.body", "body": answer.body, "more_body": False}
