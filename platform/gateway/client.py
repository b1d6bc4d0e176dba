"""What a partner integrates with: signed requests, tokens that renew themselves, and retries that never do a thing twice.

Only the credentials file is needed. A call that could not be answered is sent again with the same Idempotency-Key and
a fresh proof, so it may be repeated as often as it takes; when the attempts or the time run out, the last fault is
raised.
"""

import asyncio
import hashlib
import os
import random
import time
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import httpx
import msgspec
from msgspec import Struct

from gateway.credentials import Credentials, SigningKey, base64url
from partners.oauth.http_signature import (
    REQUEST_TAG,
    byte_sequence,
    content_digest,
    signature_base,
    signature_parameters,
)

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ASSERTION_SECONDS = 60
RENEW_BEFORE_SECONDS = 30.0
PAUSE_SECONDS = 0.1
PAUSE_SECONDS_MAX = 5.0
FAILURES_MAX = 3
SIGNED_FIELDS = ("authorization", "dpop", "content-digest", "idempotency-key")

#: nothing happened, or what happened is found again under the same key
_RETRIED = frozenset((429, 502, 503, 504))
_RETRIED_CODES = frozenset(("idempotency_in_progress", "customers_busy"))


class ApiProblem(Exception):
    """The server refused. `code` is the stable word to decide by, `document` the whole answer."""

    def __init__(self, status: int, code: str, document: dict[str, Any]) -> None:
        detail = document.get("detail") or document.get("error_description") or document.get("title") or ""
        super().__init__(f"{status} {code}: {detail}")
        self.status = status
        self.code = code
        self.document = document


class Unreachable(Exception):
    """No answer within the time given. Whether anything happened is unknown: repeat with the same key."""


class Answer(Struct, frozen=True, kw_only=True):
    """One answer as it came."""

    status: int
    #: names in lower case
    headers: dict[str, str]
    content: bytes

    def json(self) -> Any:
        return msgspec.json.decode(self.content)


class PartnerClient:
    """One partner's connection to the platform; use it as a context manager, and from as many tasks as you like."""

    def __init__(
        self,
        credentials: Credentials,
        *,
        base_url: str | None = None,
        http: httpx.AsyncClient | None = None,
        deadline_seconds: float = 90.0,
        sign_requests: bool = False,
    ) -> None:
        """`base_url` is where to connect, when that is not the address the platform is known by."""
        self.credentials = credentials
        self._address = (base_url or credentials.base_url).rstrip("/")
        self._http = http or httpx.AsyncClient(timeout=httpx.Timeout(30.0, connect=5.0))
        self._deadline_seconds = deadline_seconds
        self._sign_requests = sign_requests
        self._key = SigningKey.read(credentials.private_jwk)
        # RFC 9449 §4.1: the key that binds the tokens is the client's own and need not be registered.
        self._proof_key = SigningKey.generate()
        self._proof_header = {"typ": "dpop+jwt", "alg": "ES256", "jwk": self._proof_key.public_jwk}
        self._nonce: str | None = None
        self._token = ""
        self._token_hash = ""
        self._renew_at = 0.0
        self._renewing = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def get(self, path: str) -> Any:
        """What is at `path`; the query string is part of it."""
        return _accept(await self.send("GET", path)).json()

    async def post(self, path: str, json: Any = None, *, idempotency_key: str | None = None) -> Any:
        """Do it once: a key is made for the call when none is given."""
        key = idempotency_key or os.urandom(16).hex()
        body = msgspec.json.encode({} if json is None else json)
        return _accept(await self.send("POST", path, body, idempotency_key=key)).json()

    async def delete(self, path: str) -> None:
        _accept(await self.send("DELETE", path))

    async def send(
        self, method: str, path: str, body: bytes = b"", *, idempotency_key: str | None = None
    ) -> Answer:
        """The answer, whatever its status, after all retries that made sense."""
        headers = {"idempotency-key": idempotency_key} if idempotency_key else {}
        if body:
            headers["content-type"] = "application/json"
        until = time.monotonic() + self._deadline_seconds
        renewed = False
        attempt = 0
        while True:
            attempt += 1
            answer: Answer | None = None
            fault = "no answer"
            try:
                token, token_hash = await self._current_token()
                headers["authorization"] = f"DPoP {token}"
                headers["dpop"] = self.make_proof(method, path, token_hash=token_hash)
                if self._sign_requests:
                    headers |= self.sign_request(method, path, headers, body)
                answer = await self._exchange(method, path, headers, body)
            except httpx.TransportError as gone:
                fault = f"{type(gone).__name__}: {gone}"
            if answer is not None:
                if answer.status == 401 and not renewed and self._may_renew(answer, token):
                    renewed = True
                    continue
                if not _is_retried(answer, attempt):
                    return answer
                fault = f"status {answer.status}"
            pause = _pause(attempt, answer)
            if time.monotonic() + pause > until:
                if answer is not None:
                    return answer
                raise Unreachable(
                    f"{self._address} gave no answer in {self._deadline_seconds:.0f} s: {fault}"
                )
            await asyncio.sleep(pause)

    def make_proof(self, method: str, path: str, *, token_hash: str | None = None) -> str:
        """RFC 9449 §4.2: a fresh proof of possession for one request."""
        claims: dict[str, Any] = {
            "jti": os.urandom(16).hex(),
            "htm": method,
            "htu": self.credentials.base_url + path.partition("?")[0],
            "iat": int(time.time()),
        }
        if token_hash is not None:
            claims["ath"] = token_hash
        if self._nonce is not None:
            claims["nonce"] = self._nonce
        return self._proof_key.sign(self._proof_header, claims)

    def make_assertion(self) -> str:
        """RFC 7523 §3, with the audience as FAPI 2.0 SP §5.3.2.1 wants it: the issuer, as a string."""
        now = int(time.time())
        claims = {
            "iss": self.credentials.client_id,
            "sub": self.credentials.client_id,
            "aud": self.credentials.issuer,
            "jti": os.urandom(16).hex(),
            "iat": now,
            "exp": now + ASSERTION_SECONDS,
        }
        return self._key.sign({"typ": "JWT", "alg": "ES256", "kid": self.credentials.kid}, claims)

    def sign_request(self, method: str, path: str, headers: dict[str, str], body: bytes) -> dict[str, str]:
        """The headers that sign a request with the registered key (RFC 9421, FAPI 2.0 HTTP Signatures)."""
        digest = {"content-digest": content_digest(body)} if body else {}
        fields = headers | digest
        covered = [name for name in SIGNED_FIELDS if name in fields]
        lines = [('"@method"', method), ('"@target-uri"', self.credentials.base_url + path)]
        lines += [(f'"{name}"', fields[name]) for name in covered]
        parameters: dict[str, str | int] = {
            "created": int(time.time()),
            "keyid": self.credentials.kid,
            "tag": REQUEST_TAG,
        }
        signature = byte_sequence(self._key.sign_bytes(signature_base(lines, parameters)))
        written = signature_parameters([name for name, _ in lines], parameters)
        return digest | {"signature-input": f"app={written}", "signature": f"app={signature}"}

    async def token(self) -> str:
        """The access token in use, renewed if need be."""
        return (await self._current_token())[0]

    async def _current_token(self) -> tuple[str, str]:
        async with self._renewing:
            if time.monotonic() >= self._renew_at:
                await self._renew()
            return self._token, self._token_hash

    async def _renew(self) -> None:
        """Fetch a token; raises ApiProblem when the platform does not know us."""
        path = urlsplit(self.credentials.issuer).path + "/oauth2/token"
        for attempt in (1, 2):
            form = {
                "grant_type": "client_credentials",
                "client_assertion_type": ASSERTION_TYPE,
                "client_assertion": self.make_assertion(),
                "scope": " ".join(self.credentials.scopes),
            }
            body = str(httpx.QueryParams(form)).encode()
            headers = {
                "content-type": "application/x-www-form-urlencoded",
                "dpop": self.make_proof("POST", path),
            }
            answer = await self._exchange("POST", path, headers, body)
            if answer.status == 200:
                grant = answer.json()
                self._token = grant["access_token"]
                # RFC 9449 §4.2: `ath` is the hash of the token's ASCII.
                self._token_hash = base64url(hashlib.sha256(self._token.encode()).digest())
                self._renew_at = time.monotonic() + max(1.0, grant["expires_in"] - RENEW_BEFORE_SECONDS)
                return
            if _code_of(answer) != "use_dpop_nonce" or attempt == 2:
                break
        if answer.status in _RETRIED or answer.status >= 500:
            raise httpx.RemoteProtocolError(f"the token endpoint answered {answer.status}")
        _accept(answer)

    def _may_renew(self, answer: Answer, token: str) -> bool:
        """Whether a 401 is worth one more try: with the nonce it brought, or with a new token."""
        if _code_of(answer) == "use_dpop_nonce":
            return True
        if token == self._token:
            self._renew_at = 0.0
        return True

    async def _exchange(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        response = await self._http.request(method, self._address + path, headers=headers, content=body)
        # RFC 9449 §8.2: whatever answer brings a nonce, the next proof carries it.
        self._nonce = response.headers.get("dpop-nonce", self._nonce)
        return Answer(status=response.status_code, headers=dict(response.headers), content=response.content)


def _accept(answer: Answer) -> Answer:
    """The answer if it is a success."""
    if answer.status < 400:
        return answer
    try:
        document = msgspec.json.decode(answer.content, type=dict[str, Any])
    except msgspec.DecodeError:
        document = {"title": "an answer that is no problem document"}
    raise ApiProblem(answer.status, str(document.get("code") or document.get("error") or "unknown"), document)


def _code_of(answer: Answer) -> str:
    try:
        _accept(answer)
    except ApiProblem as problem:
        return problem.code
    return ""


def _is_retried(answer: Answer, attempt: int) -> bool:
    if answer.status in _RETRIED:
        return True
    if answer.status == 500:
        # A bug may come from the moment, such as a server going down; from the request it would come for ever.
        return attempt < FAILURES_MAX
    return answer.status == 409 and _code_of(answer) in _RETRIED_CODES


def _pause(attempt: int, answer: Answer | None) -> float:
    """Seconds to wait: what the server asked for, or twice as long each time; with jitter, so that crowds disperse."""
    asked = (answer.headers.get("retry-after", "") if answer is not None else "").strip()
    least = float(asked) if asked.isdecimal() and len(asked) < 6 else 0.0
    growing = min(PAUSE_SECONDS_MAX, PAUSE_SECONDS * (1 << min(attempt - 1, 10)))
    return least + growing * random.uniform(0.5, 1.0)
