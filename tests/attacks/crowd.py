"""A hundred copies of one request, at a platform of two worker processes, and whoever sends them."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
from attacks.house import VERIFIER, digest
from clients.member import Form, Forms, Member
from faults import Serve

from gateway.client import PartnerClient

COPIES = 100
REDIRECT = "http://127.0.0.1:8765/callback"


class Hesitant(Member):
    """A member who comes to the consent page and stops there."""

    async def come_to_consent(self, address: str, *, number: int) -> Form:
        answer = await self._send("GET", address)
        while True:
            if answer.is_redirect:
                answer = await self._send("GET", answer.headers["location"])
                continue
            form = next((f for f in Forms(answer.text).found if ("decision", "approve") in f.buttons), None)
            if form is not None:
                return form
            answer = await self._fill_in(answer.text, self._everybody[number], "approve")

    async def answer_once(self, form: Form) -> httpx.Response:
        return await self._send("POST", form.action, {**form.fields, "decision": "approve"})


class Sender:
    """One partner, with everything its requests carry made by hand."""

    def __init__(self, serve: Serve, http: httpx.AsyncClient, slug: str = "ecommerce") -> None:
        self.serve, self.http = serve, http
        self.partner = PartnerClient(serve.partner(slug), http=http)
        self.members = [member.sub for member in self.partner.credentials.members]

    async def headers(self, method: str, path: str, **more: str) -> dict[str, str]:
        token, token_hash = await self.partner._current_token()
        proof = self.partner.make_proof(method, path, token_hash=token_hash)
        return {"authorization": f"DPoP {token}", "dpop": proof, **more}

    async def form(self, path: str, *, assertion: str | None = None, **fields: str) -> httpx.Response:
        form = {
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            "client_assertion": assertion or self.partner.make_assertion(),
            **fields,
        }
        headers = {"dpop": self.partner.make_proof("POST", path)} if path == "/oauth2/token" else {}
        return await self.http.post(self.serve.base_url + path, data=form, headers=headers)

    async def authorization_address(self, scope: str = "members:read points:earn") -> str:
        """Where to send a member."""
        pushed = await self.form(
            "/oauth2/par",
            response_type="code",
            redirect_uri=REDIRECT,
            scope=scope,
            code_challenge=digest(VERIFIER),
            code_challenge_method="S256",
        )
        assert pushed.status_code == 201, pushed.text
        query = {"client_id": self.partner.credentials.client_id, "request_uri": pushed.json()["request_uri"]}
        return str(httpx.URL(f"{self.serve.base_url}/oauth2/authorize", params=query))

    async def exchange(self, code: str) -> httpx.Response:
        return await self.form(
            "/oauth2/token",
            grant_type="authorization_code",
            code=code,
            redirect_uri=REDIRECT,
            code_verifier=VERIFIER,
        )

    async def balance(self, member: str) -> int:
        return int((await self.partner.get(f"/v1/members/{member}/points"))["available_points"])


async def copies(send: Callable[[], Awaitable[httpx.Response]]) -> list[httpx.Response]:
    """The answers to a hundred at once."""
    return await asyncio.gather(*(send() for _ in range(COPIES)))


def told(answers: list[httpx.Response]) -> dict[tuple[int, str], int]:
    """How often each status and code was answered."""
    found: dict[tuple[int, str], int] = {}
    for answer in answers:
        document: dict[str, Any] = answer.json()
        code = "" if answer.status_code < 400 else str(document.get("code") or document.get("error"))
        found[answer.status_code, code] = found.get((answer.status_code, code), 0) + 1
    return found


def connections_of(pid: int) -> int:
    """How many sockets a process has open."""
    found = 0
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found += os.readlink(entry).startswith("socket:")
        except OSError:
            continue
    return found
