"""One request, one transaction: begun when the handler asks for a connection, ended before the answer leaves.

Of a write the answer is held back until the commit has succeeded; a failing commit answers 503 `outcome_unknown`,
never 201. A raised Refusal rolls back to the savepoint after the one-time proof, so a used proof stays used. With an
Idempotency-Key the answer itself is part of the transaction. Routes that declare `together` have no transaction here:
the ledger writer shares one between those that wait (gateway/writer.py).
"""

import asyncio
from typing import Any, cast

import asyncpg
import structlog
from asyncpg.transaction import Transaction
from litestar.handlers import HTTPRouteHandler
from litestar.middleware import ASGIMiddleware
from litestar.types import ASGIApp, Receive, Scope, Send

from gateway.problems import render
from gateway.requests import OneTimeProof, Passage
from gateway.runtime import Runtime
from gateway.writer import Errand
from kernel import idempotency
from kernel.database import (
    AWAY,
    ROLL_BACK_SECONDS,
    Connection,
    DatabaseBusy,
    acquire,
    commit,
    drop,
    roll_back,
)
from kernel.errors import Refusal
from kernel.one_time import use_once
from kernel.together import I, Kind, O, Writer
from partners.oauth.grants import check_stands

log = structlog.get_logger("unit_of_work")

_KEY = "tessera.work"
_DESK = "tessera.desk"
READS = frozenset(("GET", "HEAD", "OPTIONS"))
#: how long the client of a stream may leave a piece of it untaken
TAKE_SECONDS = 5.0


class Work:
    """The transaction of one request, begun on first use."""

    def __init__(self, runtime: Runtime, passage: Passage) -> None:
        self._runtime = runtime
        self._passage = passage
        self._acquired = acquire(runtime.pool)
        self._connection: Connection | None = None
        self._begun: Transaction | None = None
        self._saved = False

    async def connection(self) -> Connection:
        """The transaction's connection; the first call begins it and uses up the proof of a write.

        It also asks for the grant of a member's token: from its withdrawal on nothing is done on it, nor told again.
        """
        if self._connection is None:
            self._connection = await self._acquired.__aenter__()
            # asyncpg's own transaction, so that services may nest savepoints in it
            self._begun = self._connection.transaction()
            await self._begun.start()
            once = self._passage.once
            self._passage.proof = self._passage.nonce = None
            if once:
                await self._use_up(self._connection, once)
            caller = self._passage.caller
            if caller is not None and caller.grant_id is not None:
                await check_stands(self._connection, caller.grant_id, now=self._passage.now)
        return self._connection

    async def _use_up(self, connection: Connection, once: list[OneTimeProof]) -> None:
        # In the write's own transaction, so that a forgotten proof means a forgotten write.
        for proof in once:
            if not await use_once(
                connection, scope=proof.scope, identifier=proof.jti, expires_at=proof.expires_at
            ):
                raise proof.used_before()
        await connection.execute("SAVEPOINT request")
        self._saved = True

    async def end(self) -> None:
        """Commit, or after a refusal everything but the used-up proof."""
        connection, begun = self._connection, self._begun
        if connection is None or begun is None:
            return
        self._connection = None
        try:
            if self._passage.refused is None:
                await commit(connection, begun)
            elif self._saved:
                await self._keep_proof(connection, begun)
            else:
                await roll_back(connection, begun)
        finally:
            await self._acquired.__aexit__(None, None, None)

    async def _keep_proof(self, connection: Connection, begun: Transaction) -> None:
        """Undo everything after the savepoint; if even that fails, the server undoes all with the session."""
        try:
            async with asyncio.timeout(ROLL_BACK_SECONDS):
                await connection.execute("ROLLBACK TO SAVEPOINT request")
                await begun.commit()
        except (asyncpg.PostgresError, *AWAY):
            drop(connection)

    async def abandon(self) -> None:
        """The request died (cancelled, or its client left): nothing of it may stay."""
        if self._connection is not None:
            drop(self._connection)
            self._connection = None
            await self._acquired.__aexit__(None, None, None)


class UnitOfWork(ASGIMiddleware):
    """Gives every request its Work, and ends it."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        passage = Passage.of(scope)
        work = Work(self._runtime, passage)
        cast("dict[str, Any]", scope)[_KEY] = work
        answer = _HeldAnswer(send, hold=scope["method"] not in READS)  # type: ignore[typeddict-item]  # http only
        try:
            opt = scope["route_handler"].opt
            if opt.get("together") is True:
                await self._answer_together(scope, receive, answer, next_app)
            elif opt.get("idempotent") is True:
                await self._answer_once(scope, receive, answer, next_app, work)
            else:
                await next_app(scope, receive, answer)
            await work.end()
        except Refusal as refusal:
            await self._refuse(refusal, passage, work, answer)
        except AWAY as failure:
            log.warning("database_busy", error=type(failure).__name__)
            await self._refuse(DatabaseBusy(), passage, work, answer)
        except BaseException:
            await work.abandon()
            raise
        await answer.flush()

    async def _refuse(self, refusal: Refusal, passage: Passage, work: Work, answer: "_HeldAnswer") -> None:
        """Undo, and say why; unless it is a read whose answer has left, for then there was nothing to commit."""
        passage.refused = refusal.code
        await work.end()
        if not answer.left:
            rendered = render(refusal, base_url=passage.base_url, trace_id=passage.request_id)
            answer.replace(rendered.status, rendered.headers, rendered.body)

    async def _answer_once(
        self, scope: Scope, receive: Receive, answer: "_HeldAnswer", next_app: ASGIApp, work: Work
    ) -> None:
        """draft-ietf-httpapi-idempotency-key-header §2: missing 400, other request 422, in flight 409, else replay."""
        passage = Passage.of(scope)
        request = keyed_request(scope, passage)
        connection = await work.connection()
        vault = self._runtime.vault
        stored = await idempotency.begin(connection, request, vault=vault)
        if stored is not None:
            answer.replace(
                stored.status,
                {"content-type": "application/json", "idempotency-replayed": "true"},
                stored.body,
            )
            return
        await next_app(scope, receive, answer)
        if passage.refused is None:
            stored = idempotency.StoredAnswer(status=answer.status, body=answer.body)
            await idempotency.remember_each(
                connection,
                [(request, stored)],
                vault=vault,
                now=passage.now,
            )

    async def _answer_together(
        self, scope: Scope, receive: Receive, answer: "_HeldAnswer", next_app: ASGIApp
    ) -> None:
        """No transaction of its own: proof, key and effect are the ledger writer's, and so is the answer's body."""
        passage = Passage.of(scope)
        status = cast("HTTPRouteHandler", scope["route_handler"]).status_code
        desk = Desk(self._runtime, passage, keyed_request(scope, passage), status)
        cast("dict[str, Any]", scope)[_DESK] = desk
        await next_app(scope, receive, answer)
        if desk.stored is not None:
            answer.replace(desk.stored.status, {"content-type": "application/json"}, desk.stored.body)


class Desk:
    """kernel.together.Writer for one request: adds what the gateway knows of it."""

    def __init__(
        self, runtime: Runtime, passage: Passage, request: idempotency.KeyedRequest, status: int
    ) -> None:
        self._runtime = runtime
        self._passage = passage
        self._request = request
        self._status = status
        #: the committed answer
        self.stored: idempotency.StoredAnswer | None = None

    async def post(self, kind: Kind[I, O], item: I) -> O:
        """Have `item` posted with whatever else is waiting."""
        assert self._passage.caller is not None, "the scope guard lets nobody else in"
        # From here on it is the writer's to use up, whatever becomes of the item.
        proof, nonce = self._passage.proof, self._passage.nonce
        self._passage.proof = self._passage.nonce = None
        errand = Errand(
            caller=self._passage.caller,
            proof=proof,
            nonce=nonce,
            request=self._request,
            status=self._status,
            now=self._passage.now,
            item=item,
        )
        answered = await self._runtime.writer.post(kind, errand)
        self.stored = answered.stored
        return cast(O, answered.value)


def keyed_request(scope: Any, passage: Passage) -> idempotency.KeyedRequest:
    """The request under its Idempotency-Key; one that has none is refused."""
    assert passage.caller is not None, "the scope guard lets nobody else in"
    headers = [value for name, value in scope["headers"] if name.lower() == b"idempotency-key"]
    key = idempotency.check_key(headers[0].decode("latin-1") if len(headers) == 1 else None)
    if passage.caller.subject is not None:
        # A member's token never gets the answer that was given about another member.
        key = f"{passage.caller.subject}:{key}"
    mark = idempotency.fingerprint(scope["method"], scope["path"], passage.body)
    return idempotency.keyed(app_id=passage.caller.app_id, key=key, fingerprint=mark)


class _HeldAnswer:
    """An ASGI send that keeps the answer until the transaction has ended; only the stream of a read passes through.

    A stream reads on while it is sent, so its client gets a connection for as long as it takes what it is given.
    """

    def __init__(self, send: Send, *, hold: bool) -> None:
        self._send = send
        self._hold = hold
        self._messages: list[Any] = []
        #: whether something of it is on its way to the client
        self.left = False

    async def __call__(self, message: Any) -> None:
        self._messages.append(message)
        if message["type"] == "http.response.start" and 300 <= message["status"] < 400:
            self._hold = True  # no stream, and where it leads may depend on what commits
        # An empty body may be the end of an empty stream, whose response waits until it has been sent.
        whole = message.get("body") and not message.get("more_body", False)
        if not self._hold and (self.left or not (whole or message["type"] == "http.response.start")):
            self.left = True
            async with asyncio.timeout(TAKE_SECONDS):
                await self.flush()

    @property
    def status(self) -> int:
        return int(self._messages[0]["status"])

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self._messages[1:])

    def replace(self, status: int, headers: dict[str, str], body: bytes) -> None:
        fields = [(name.encode(), value.encode()) for name, value in headers.items()]
        fields.append((b"content-length", str(len(body)).encode()))
        self._hold = True
        self._messages = [
            {"type": "http.response.start", "status": status, "headers": fields},
            {"type": "http.response.body", "body": body, "more_body": False},
        ]

    async def flush(self) -> None:
        messages, self._messages = self._messages, []
        for message in messages:
            await self._send(message)


async def provide_connection(scope: Scope) -> Connection:
    """Litestar dependency `connection`."""
    work: Work = cast("dict[str, Any]", scope)[_KEY]
    return await work.connection()


async def provide_writer(scope: Scope) -> Writer:
    """Litestar dependency `writer`, for routes that declare `together=True`."""
    desk: Desk = cast("dict[str, Any]", scope)[_DESK]
    return desk
