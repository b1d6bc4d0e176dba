"""One authorization request from the push to the token, each step good except for what a test changes."""

import hashlib
import secrets
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx
from conformance.bank import AUTHORIZE, PAR, RelyingParty
from partner_client import DROP, b64, merge

from kernel.caller import MemberRef

CALLBACK = "https://rp.example/callback"
CALLBACK_WITH_QUERY = f"{CALLBACK}?dummy1=lorem&dummy2=ipsum"
SCOPE = "members:read points:earn"
PAGES = "/oauth2/interactions/"


class CodeFlow:
    """What a client keeps between its requests, and the member it sends to the bank."""

    def __init__(self, party: RelyingParty, member: MemberRef, *, redirect_uri: str = CALLBACK) -> None:
        self.party = party
        self.member = member
        self.redirect_uri = redirect_uri
        self.verifier = secrets.token_urlsafe(48)
        self.state = secrets.token_urlsafe(16)

    def request(self, **changes: Any) -> dict[str, Any]:
        """The parameters of the authorization request."""
        good = {
            "response_type": "code",
            "redirect_uri": self.redirect_uri,
            "scope": SCOPE,
            "state": self.state,
            "code_challenge": b64(hashlib.sha256(self.verifier.encode()).digest()),
            "code_challenge_method": "S256",
        }
        return merge(good, changes)

    async def push(self, *, proofs: list[str] | None = None, **changes: Any) -> httpx.Response:
        form = {"grant_type": DROP, **self.request(**changes)}
        return await self.party.send_form(PAR, proofs=proofs or [], **form)

    async def request_uri(self, **changes: Any) -> str:
        answer = await self.push(**changes)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["request_uri"])

    async def open(self, request_uri: str, **query: str) -> httpx.Response:
        """What a member's browser gets when the client sends it to the authorization endpoint."""
        return await self.visit({"client_id": self.party.client_id, "request_uri": request_uri, **query})

    async def visit(self, query: dict[str, str]) -> httpx.Response:
        return await self.party.bank.http.get(f"{AUTHORIZE}?{urlencode(query)}")

    async def handle(self, request_uri: str, **query: str) -> str:
        """The secret of the bank's own page."""
        answer = await self.open(request_uri, **query)
        assert answer.status_code == 303, answer.text
        path = urlsplit(answer.headers["location"]).path
        assert path.startswith(PAGES)
        return path.removeprefix(PAGES)

    async def answer(self, **changes: Any) -> dict[str, str]:
        """The parameters that come back when the member agrees."""
        return await self.approve(await self.handle(await self.request_uri(**changes)))

    async def approve(self, handle: str) -> dict[str, str]:
        return self.read(await self.party.bank.approve(handle, self.member))

    def read(self, location: str) -> dict[str, str]:
        """The answer at the redirect URI, whatever it says; nothing else of the address may have changed."""
        assert location.startswith(self.redirect_uri + ("&" if "?" in self.redirect_uri else "?"))
        pairs = parse_qsl(location.removeprefix(self.redirect_uri)[1:], strict_parsing=True)
        assert len(dict(pairs)) == len(pairs), "nothing is said twice"
        return dict(pairs)

    async def code(self, **changes: Any) -> str:
        return (await self.answer(**changes))["code"]

    async def redeem(self, code: str, *, proofs: list[str] | None = None, **changes: Any) -> httpx.Response:
        good = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.redirect_uri,
            "code_verifier": self.verifier,
        }
        return await self.party.ask_token(proofs=proofs, **{**good, **changes})

    async def tokens(self, **changes: Any) -> dict[str, Any]:
        """The answer of the token endpoint at the end of a good flow."""
        answer = await self.redeem(await self.code(**changes))
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def refresh(
        self, refresh_token: str, *, proofs: list[str] | None = None, **changes: Any
    ) -> httpx.Response:
        good = {"grant_type": "refresh_token", "refresh_token": refresh_token}
        return await self.party.ask_token(proofs=proofs, **{**good, **changes})
