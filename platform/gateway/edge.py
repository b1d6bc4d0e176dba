"""The edge: what happens to every request before a route is looked up, and to every answer on its way out.

In this order: request id, proof of who is asking, quota, one-time proof, body within bounds and in time (of a stranger
not a byte is kept), signatures over all of it. It stands
outside Litestar's router so that requests to unknown routes are identified and counted too. The scope guard, which
denies by default, is inside: gateway/scopes.py.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import structlog

from gateway.limits import Limit, Verdict
from gateway.metrics import observe_request
from gateway.problems import BodyTooLarge, InternalError, RequestMalformed, RouteUnknown, render
from gateway.replays import ReadProofs
from gateway.requests import Fields, OneTimeProof, Passage, read_fields
from gateway.runtime import Runtime
from gateway.signing import Signing
from kernel.database import AWAY, BUSY, DatabaseBusy, transaction
from kernel.errors import Exhausted, Refusal, Unavailable
from kernel.ids import new_id, to_wire
from kernel.one_time import use_once
from partners.oauth.access import UseDpopNonce
from partners.oauth.handlers_flow import INTERACTIONS_PATH
from partners.oauth.model import Authenticated, AuthenticatedMember, Proved

log = structlog.get_logger("edge")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

BODY_SECONDS = 10.0
PARTNER_PREFIXES = ("/v1/", "/oauth2/grants/")
MOBILE_PREFIX = "/mobile/v1/"
OAUTH_PREFIX = "/oauth2/"
OAUTH_PREFIXES = (OAUTH_PREFIX, "/mobile/oauth2/")
ALIVE_PATH = "/livez"
ANONYMOUS_LIMIT = Limit(name="anonymous", per_second=50, burst=200)
TOKEN_LIMIT = Limit(name="token", per_second=200, burst=1_000)
READS = frozenset(("GET", "HEAD", "OPTIONS"))

SECURITY_HEADERS: list[tuple[bytes, bytes]] = [
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"strict-transport-security", b"max-age=63072000; includeSubDomains"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
SECURITY_NAMES = frozenset(name for name, _ in SECURITY_HEADERS)


class RateLimited(Exhausted):
    """Too many requests for this app's limit; Retry-After says when the next one fits."""


class BodyTooSlow(Unavailable):
    """The body did not arrive in time."""


class _ClientGone(Exception):
    """The client hung up before its request was complete."""


class Edge:
    """The outermost ASGI application. `batch_paths` are the routes with the larger body limit."""

    def __init__(self, app: App, runtime: Runtime, *, batch_paths: frozenset[str]) -> None:
        self._app = app
        self.runtime = runtime
        self._batch_paths = batch_paths
        self._signing = Signing(runtime)
        self._read_proofs = ReadProofs(runtime)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        now = self.runtime.clock.now()
        passage = Passage(request_id=to_wire("req", new_id(now)), base_url=self.runtime.base_url, now=now)
        passage.enter(scope)
        fields = read_fields(scope["headers"])
        exit_ = _Exit(send, passage, _interaction_id(fields), self._spend, self._signing)
        try:
            if fields.transfer_coding:
                check_coding(fields.transfer_coding)
            passage.sender = self.runtime.proxies.sender_of(scope, now)
            await self._identify(scope, fields, passage, exit_)
            if scope["method"] not in READS or fields.announces_body:
                passage.body = await self._body_in_time(scope, fields, receive)
            await self._check_signature(scope, passage)
            if scope["path"].startswith(OAUTH_PREFIX) and scope["method"] == "POST":
                # Outside any transaction, before one begins: the client's keys may have to be fetched.
                await self.runtime.client_keys.prepare(passage.body, now=now)
            await self._app(scope, _replay(passage.body, receive), exit_)
        except _ClientGone:
            return
        except Refusal as refusal:
            await exit_.refuse(refusal)
        except BUSY as failure:
            if exit_.status:
                raise
            # before the route: whoever asks was looked up, or the proof of a read used up
            log.warning("database_busy", error=type(failure).__name__)
            await exit_.refuse(DatabaseBusy())
        except Exception as failure:
            if exit_.status:
                raise
            log.error("edge_failed", request_id=passage.request_id, exc_info=failure)
            await exit_.refuse(InternalError())
        finally:
            route = str(scope.get("path_template") or "unmatched")
            observe_request(scope["method"], route, exit_.status, time.perf_counter() - started)

    async def _body_in_time(self, scope: Scope, fields: Fields, receive: Receive) -> bytes:
        try:
            async with asyncio.timeout(BODY_SECONDS):
                return await self._read_body(scope, fields, receive)
        except TimeoutError:
            raise BodyTooSlow from None

    async def _read_body(self, scope: Scope, fields: Fields, receive: Receive) -> bytes:
        settings = self.runtime.settings
        limit = (
            settings.batch_body_limit_bytes
            if scope["path"] in self._batch_paths
            else settings.body_limit_bytes
        )
        if len(fields.content_length) > 1:
            raise RequestMalformed
        announced = fields.content_length[0] if fields.content_length else b""
        if announced and (not announced.isdigit() or int(announced) > limit):
            raise BodyTooLarge(limit_bytes=limit)
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _ClientGone
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > limit:
                raise BodyTooLarge(limit_bytes=limit)
            chunks.append(chunk)
            if not message.get("more_body", False):
                return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def _identify(self, scope: Scope, fields: Fields, passage: Passage, exit_: "_Exit") -> None:
        """Partner routes need a proved caller, everything else is counted by address."""
        path: str = scope["path"]
        if "//" in path:
            # The router would find its way; but what a path begins with decides how it is proved and counted.
            await self._count(passage.sender.network(), ANONYMOUS_LIMIT, exit_)
            raise RouteUnknown
        mobile = path.startswith(MOBILE_PREFIX)
        if not mobile and not path.startswith(PARTNER_PREFIXES):
            if path == ALIVE_PATH:
                return  # asks nobody, not even Redis
            limit = TOKEN_LIMIT if path.startswith(OAUTH_PREFIXES) else ANONYMOUS_LIMIT
            await self._count(passage.sender.network(), limit, exit_)
            # Members' logins count their own attempts; a client that fails must not lock out its whole network.
            of_client = limit is TOKEN_LIMIT and not path.startswith(INTERACTIONS_PATH)
            if of_client and scope["method"] == "POST":
                await self.runtime.attempts.enter(passage.sender, now=passage.now)
            return
        now = passage.now
        asked: dict[str, Any] = {
            "method": scope["method"],
            "path": _raw_path(scope),
            "authorization": [value.decode("latin-1") for value in fields.authorization],
            "proofs": [value.decode("latin-1") for value in fields.proofs],
            "now": now,
        }
        # Two issuers, two verifiers: each takes its own tokens only.
        proved: Authenticated | AuthenticatedMember
        if mobile:
            proved = await self.runtime.member_verifier.authenticate(**asked)
            passage.member = proved.member
        else:
            proved = await self.runtime.verifier.authenticate(**asked, sender=passage.sender)
            passage.caller, passage.client = proved.caller, proved.client
        read = scope["method"] in READS
        limit = Limit(name="read" if read else "write", per_second=proved.rate_per_second, burst=proved.burst)
        await self._count(proved.counted_as, limit, exit_)
        if proved.proof_jti is None:
            return  # the certificate of the connection is the proof
        # RFC 9449 §8.2: whoever uses nonces is told the next one before the last is too old.
        if not read or proved.nonce is not None:
            exit_.nonce = self.runtime.nonces.offered(now)
        self._check_nonce(proved, now, read=read)
        proof = OneTimeProof(
            scope=proved.proof_scope, jti=proved.proof_jti, expires_at=proved.proof_expires_at
        )
        if read:
            await self._read_proofs.use_up(proof, now)
        else:
            # The proof of a write is used up in the write's own transaction: gateway/unit_of_work.py.
            passage.proof = proof

    async def _check_signature(self, scope: Scope, passage: Passage) -> None:
        await self._signing.check(scope, passage)
        if passage.nonce is not None and scope["method"] in READS:
            nonce, passage.nonce = passage.nonce, None
            await self._read_proofs.use_up(nonce, passage.now)

    def _check_nonce(self, proved: Proved, now: datetime, *, read: bool) -> None:
        """RFC 9449 §9: the writes of an app that must have one; §4.3 step 10: whatever was sent must be right.

        The proof is not used up: it was no good.
        """
        if proved.nonce is None:
            if proved.nonce_required and not read:
                raise UseDpopNonce
        elif not self.runtime.nonces.accepts(proved.nonce, now):
            raise UseDpopNonce

    async def _count(self, key: str, limit: Limit, exit_: "_Exit") -> None:
        verdict = await self.runtime.limiter.take(key, limit)
        exit_.verdict = verdict
        if not verdict.allowed:
            raise RateLimited(limit=limit.name, retry_after_seconds=verdict.retry_after_seconds)

    async def _spend(self, proof: OneTimeProof) -> None:
        """Use up the proof of a write that was refused before it had a transaction."""
        try:
            async with transaction(self.runtime.pool) as connection:
                await use_once(
                    connection, scope=proof.scope, identifier=proof.jti, expires_at=proof.expires_at
                )
        except (Refusal, asyncpg.PostgresError, *AWAY) as failure:
            log.warning("proof_not_kept", error=type(failure).__name__)


class _Exit:
    """The way out: adds the headers every answer carries, remembers the status, leaves no proof unused."""

    def __init__(
        self,
        send: Send,
        passage: Passage,
        interaction_id: bytes | None,
        spend: Callable[[OneTimeProof], Awaitable[None]],
        signing: Signing,
    ) -> None:
        self._send = send
        self._passage = passage
        self._interaction_id = interaction_id
        self._spend = spend
        self._signing = signing
        self._unsigned: Message | None = None
        self.verdict: Verdict | None = None
        #: the nonce to be used from now on
        self.nonce: str | None = None
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            if self.status < 500:
                for proof in self._passage.once:
                    await self._spend(proof)
            headers: list[tuple[bytes, bytes]] = list(message.get("headers", []))
            present = {name.lower() for name, _ in headers}
            if present.isdisjoint(SECURITY_NAMES):
                headers += SECURITY_HEADERS
            else:
                headers += [(name, value) for name, value in SECURITY_HEADERS if name not in present]
            headers.append((b"x-request-id", self._passage.request_id.encode()))
            if self._interaction_id is not None:
                headers.append((b"x-fapi-interaction-id", self._interaction_id))
            if self.verdict is not None:
                headers += [item for item in self.verdict.headers() if item[0] not in present]
            if self.nonce is not None:
                headers.append((b"dpop-nonce", self.nonce.encode()))
            message = {**message, "headers": headers}
            if self._passage.signed is not None:
                self._unsigned = message  # until its body is known
                return
        elif self._unsigned is not None:
            start, self._unsigned = self._unsigned, None
            start, message = await self._signing.answer(self._passage, start, message)
            await self._send(start)
        await self._send(message)

    async def refuse(self, refusal: Refusal) -> None:
        answer = render(refusal, base_url=self._passage.base_url, trace_id=self._passage.request_id)
        headers = [(name.encode(), value.encode()) for name, value in answer.headers.items()]
        headers.append((b"content-length", str(len(answer.body)).encode()))
        if isinstance(refusal, RequestMalformed):
            headers.append((b"connection", b"close"))  # where the next request begins is doubtful
        await self({"type": "http.response.start", "status": answer.status, "headers": headers})
        await self({"type": "http.response.body", "body": answer.body, "more_body": False})


def check_coding(codings: list[bytes]) -> None:
    """RFC 9112 §6.1: a coding we do not know may mean another end of the body to whoever stands before us."""
    if [coding.strip().lower() for coding in codings] != [b"chunked"]:
        raise RequestMalformed


def _replay(body: bytes, receive: Receive) -> Receive:
    """The body again, for the application, then whatever the server has to say (a disconnect)."""
    told = False

    async def replayed() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


def _raw_path(scope: Scope) -> str:
    """The path as the client wrote it: `htu` is compared with what was asked, not with what we made of it."""
    raw = scope.get("raw_path") or scope["path"].encode()
    return bytes(raw).partition(b"?")[0].decode("latin-1")


def _interaction_id(fields: Fields) -> bytes | None:
    """FAPI 2.0 SP §5.3.4: the client's correlation id is given back, when it is a UUID."""
    if len(fields.interaction_ids) != 1:
        return None
    try:
        return str(UUID(fields.interaction_ids[0].decode("latin-1"))).encode()
    except ValueError:
        return None
