"""A partner and a member on the way to a token, with every step open to mischief."""

import base64
import hashlib
import json
import secrets
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import jwt
from partner_client import ASSERTION_TYPE, PartnerClient, b64, merge

from kernel.caller import MemberRef
from kernel.database import Connection
from kernel.vault import Vault
from partners.oauth.grant_types import GRANTS
from partners.oauth.grants import Authentication
from partners.oauth.interaction import approve_interaction, deny_interaction
from partners.oauth.introspection import introspect_token, revoke_token
from partners.oauth.keys import Signer
from partners.oauth.model import TokenIssued, TokenRefused
from partners.oauth.pushing import RequestPushed, open_interaction, push_request
from partners.oauth.quote_terms import QuoteTerms
from partners.oauth.token import request_token

BASE_URL = "https://bank.example"
REDIRECT = "https://mall.example/back?shop=1"
FORM = "application/x-www-form-urlencoded"
VERIFIER = secrets.token_urlsafe(48)

Connect = Callable[[], AbstractAsyncContextManager[Connection]]


class OneQuote:
    """partners.oauth.quote_terms.Quotes with the quotes a test puts there."""

    def __init__(self) -> None:
        self.terms: dict[tuple[Any, Any], QuoteTerms] = {}

    async def find_terms(
        self, connection: Connection, *, partner_id: Any, quote_id: Any, now: datetime
    ) -> QuoteTerms | None:
        return self.terms.get((partner_id, quote_id))


class Flow:
    """One client; each step in a transaction of its own from `connect`."""

    def __init__(
        self,
        connect: Connect,
        *,
        client: PartnerClient,
        signer: Signer,
        vault: Vault,
        member: MemberRef,
        now: datetime,
    ) -> None:
        self.connect, self.client, self.signer, self.vault = connect, client, signer, vault
        self.member, self.now = member, now
        self.quotes = OneQuote()

    def later(self, seconds: float) -> "Flow":
        """The same, so much later."""
        later = Flow(
            self.connect,
            client=self.client,
            signer=self.signer,
            vault=self.vault,
            member=self.member,
            now=self.now + timedelta(seconds=seconds),
        )
        later.quotes = self.quotes
        return later

    def form(self, good: dict[str, Any], changes: dict[str, Any]) -> bytes:
        form = {
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": self.client.assertion(self.now),
            **good,
        }
        return urlencode(merge(form, changes), doseq=True).encode()

    def asked(self, **changes: Any) -> bytes:
        """A good authorization request, except for what the test says."""
        good = {
            "response_type": "code",
            "redirect_uri": REDIRECT,
            "scope": "members:read points:earn",
            "state": "s-1",
            "code_challenge": b64(hashlib.sha256(VERIFIER.encode()).digest()),
            "code_challenge_method": "S256",
        }
        return self.form(good, changes)

    async def push(
        self, *, body: bytes | None = None, proofs: list[str] | None = None, **changes: Any
    ) -> RequestPushed | TokenRefused:
        async with self.connect() as connection:
            return await push_request(
                connection,
                body=self.asked(**changes) if body is None else body,
                content_type=FORM,
                proofs=proofs or [],
                issuer=BASE_URL,
                base_url=BASE_URL,
                vault=self.vault,
                quotes=self.quotes,
                now=self.now,
            )

    async def open(self, request_uri: str, *, client_id: str | None = None) -> str | None:
        async with self.connect() as connection:
            return await open_interaction(
                connection,
                client_id=client_id or self.client.client_id,
                request_uri=request_uri,
                vault=self.vault,
                now=self.now,
            )

    async def ask(self, **changes: Any) -> str:
        """The handle of a page that waits for the member."""
        pushed = await self.push(**changes)
        assert isinstance(pushed, RequestPushed), pushed
        handle = await self.open(pushed.request_uri)
        assert handle is not None
        return handle

    async def approve(
        self, handle: str, *, member: MemberRef | None = None, sensitive_given: bool = False
    ) -> dict[str, str]:
        async with self.connect() as connection:
            url = await approve_interaction(
                connection,
                handle=handle,
                member=member or self.member,
                authentication=Authentication(at=self.now, methods=["pwd", "otp"]),
                sensitive_given=sensitive_given,
                now=self.now,
            )
        return read_answer(url)

    async def deny(self, handle: str) -> dict[str, str]:
        async with self.connect() as connection:
            return read_answer(await deny_interaction(connection, handle=handle, now=self.now))

    async def code(self, **changes: Any) -> str:
        """A code the member has agreed to."""
        return (await self.approve(await self.ask(**changes)))["code"]

    async def token(self, *, proofs: list[str] | None = None, **form: Any) -> TokenIssued | TokenRefused:
        url = f"{BASE_URL}/oauth2/token"
        async with self.connect() as connection:
            return await request_token(
                connection,
                body=self.form({}, form),
                content_type=FORM,
                proofs=[self.client.proof("POST", url, self.now)] if proofs is None else proofs,
                signer=self.signer,
                base_url=BASE_URL,
                livemode=False,
                vault=self.vault,
                grants=GRANTS,
                now=self.now,
            )

    async def exchange(self, code: str, /, **changes: Any) -> TokenIssued | TokenRefused:
        good = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": REDIRECT,
            "code_verifier": VERIFIER,
        }
        return await self.token(**{**good, **changes})

    async def issued(self, **changes: Any) -> TokenIssued:
        """A member's tokens."""
        return good(await self.exchange(await self.code(**changes)))

    async def refresh(self, refresh_token: str | None, **changes: Any) -> TokenIssued | TokenRefused:
        return await self.token(**{"grant_type": "refresh_token", "refresh_token": refresh_token, **changes})

    async def introspect(self, token: str | None, /, **changes: Any) -> Any:
        async with self.connect() as connection:
            return await introspect_token(
                connection,
                body=self.form({"token": token}, changes),
                content_type=FORM,
                signer=self.signer,
                now=self.now,
            )

    async def revoke(self, token: str | None, /, **changes: Any) -> TokenRefused | None:
        async with self.connect() as connection:
            return await revoke_token(
                connection,
                body=self.form({"token": token}, changes),
                content_type=FORM,
                signer=self.signer,
                now=self.now,
            )


def good(outcome: TokenIssued | TokenRefused) -> TokenIssued:
    assert isinstance(outcome, TokenIssued), outcome
    return outcome


def error_of(outcome: Any) -> str:
    assert isinstance(outcome, TokenRefused), outcome
    assert outcome.status == (401 if outcome.error == "invalid_client" else 400)
    return outcome.error


def read_answer(url: str) -> dict[str, str]:
    """What the partner finds in the address its member comes back to."""
    parts = urlsplit(url)
    assert f"{parts.scheme}://{parts.netloc}{parts.path}" == REDIRECT.partition("?")[0]
    answer = dict(parse_qsl(parts.query, strict_parsing=True))
    assert answer.pop("shop") == "1"
    assert answer["iss"] == BASE_URL
    return answer


def claims_of(token: str) -> dict[str, Any]:
    return dict(jwt.decode(token, options={"verify_signature": False}))


def details(*each: dict[str, Any]) -> str:
    return json.dumps(list(each))


def corrupt(token: str) -> str:
    """The same token with another last byte of its signature."""
    head, _, tail = token.rpartition(".")
    raw = base64.urlsafe_b64decode(tail + "==")
    return f"{head}.{b64(raw[:-1] + bytes([raw[-1] ^ 1]))}"
