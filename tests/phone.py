"""The bank's app on a member's phone: logs in through the bank's pages, keeps its key and tokens, calls the mobile API."""

import base64
import hashlib
import json
import secrets
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from waiting import Member, enrol

from gateway.runtime import Runtime
from kernel.database import transaction
from partners.login.delivery import list_messages
from partners.mobile import service as mobile
from partners.mobile.model import App

ORIGIN = "http://127.0.0.1:8080"
CALLBACK = "com.example.bank:/callback"
LOOPBACK = "http://127.0.0.1:8766/callback"


class Phone:
    """One phone: a key, a verifier for each login, and whatever tokens it has at the moment."""

    origin = ORIGIN
    #: the address it is returned to
    callback = CALLBACK

    def __init__(self, http: httpx.AsyncClient, runtime: Runtime, app: App, member: Member) -> None:
        self.http, self.runtime, self.app, self.member = http, runtime, app, member
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.verifier = secrets.token_urlsafe(48)
        self.tokens: dict[str, Any] = {}

    @property
    def now(self) -> datetime:
        return self.runtime.clock.now()

    def proof(self, method: str, path: str, *, token: str | None = None, **changes: Any) -> str:
        claims = {
            "jti": secrets.token_urlsafe(16),
            "htm": method,
            "htu": self.origin + path,
            "iat": int(self.now.timestamp()),
        }
        if token is not None:
            claims["ath"] = b64(hashlib.sha256(token.encode()).digest())
        jwk = json.loads(jwt.get_algorithm_by_name("ES256").to_jwk(self.key.public_key()))
        header = {"typ": "dpop+jwt", "jwk": jwk}
        return jwt.encode({**claims, **changes}, self.key, algorithm="ES256", headers=header)

    def query(self, **changes: Any) -> str:
        good = {
            "client_id": self.app.client_id,
            "redirect_uri": self.callback,
            "response_type": "code",
            "code_challenge": b64(hashlib.sha256(self.verifier.encode()).digest()),
            "code_challenge_method": "S256",
            "state": "s-1",
        }
        merged = {name: text for name, text in {**good, **changes}.items() if text is not None}
        return urlencode(merged)

    async def begin(self, **changes: Any) -> httpx.Response:
        return await self.http.get(f"/mobile/oauth2/authorize?{self.query(**changes)}")

    async def code(self, **changes: Any) -> str:
        """A code, by password and one-time code, as a browser without scripts would get it."""
        begun = await self.begin(**changes)
        assert begun.status_code == 303, begun.text
        page = begun.headers["location"]
        cookies: dict[str, str] = {}
        await self.visit("GET", page, cookies)
        form = {"login": self.member.login, "password": self.member.password}
        assert (await self.visit("POST", f"{page}/password", cookies, form)).status_code == 303
        shown = await self.visit("GET", page, cookies)
        assert shown.status_code == 200
        form = {"code": await self.read_message()}
        answered = await self.visit("POST", f"{page}/code", cookies, form)
        assert answered.status_code == 303, answered.text
        return read_answer(answered.headers["location"], self.origin)["code"]

    async def log_in(self, **changes: Any) -> None:
        answer = await self.exchange(await self.code(**changes))
        assert answer.status_code == 200, answer.text
        self.tokens = answer.json()

    async def exchange(self, code: str, /, **changes: Any) -> httpx.Response:
        return await self.token(
            **{
                "grant_type": "authorization_code",
                "code": code,
                "redirect_uri": self.callback,
                "code_verifier": self.verifier,
                **changes,
            }
        )

    async def refresh(self, refresh_token: str | None = None, **changes: Any) -> httpx.Response:
        token = refresh_token or self.tokens["refresh_token"]
        return await self.token(**{"grant_type": "refresh_token", "refresh_token": token, **changes})

    async def token(self, *, proof: str | None = "", **form: Any) -> httpx.Response:
        path = "/mobile/oauth2/token"
        proof = self.proof("POST", path) if proof == "" else proof
        fields = {"client_id": self.app.client_id, **form}
        body = {name: text for name, text in fields.items() if text is not None}
        return await self.http.post(path, data=body, headers={"dpop": proof} if proof else {})

    async def call(self, method: str, path: str, body: Any = None, *, token: str = "") -> httpx.Response:
        token = token or self.tokens["access_token"]
        headers = {
            "authorization": f"DPoP {token}",
            "dpop": self.proof(method, path.partition("?")[0], token=token),
        }
        if body is None:
            return await self.http.request(method, path, headers=headers)
        return await self.http.request(method, path, json=body, headers=headers)

    async def visit(
        self, method: str, path: str, cookies: dict[str, str], form: dict[str, str] | None = None
    ) -> httpx.Response:
        headers = {"cookie": "; ".join(f"{name}={text}" for name, text in cookies.items())} if cookies else {}
        if method == "POST":
            headers |= {"origin": self.origin, "content-type": "application/x-www-form-urlencoded"}
        answer = await self.http.request(method, path, content=urlencode(form or {}), headers=headers)
        for header in answer.headers.get_list("set-cookie"):
            name, _, text = header.partition(";")[0].partition("=")
            cookies[name] = text.strip('"')
        return answer

    async def read_message(self) -> str:
        async with transaction(self.runtime.pool) as connection:
            found = await list_messages(connection, login=self.member.login, vault=self.runtime.vault)
        assert found
        return found[0][1].removeprefix("验证码 ")[:6]


async def register_app(runtime: Runtime, **changes: Any) -> App:
    async with transaction(runtime.pool) as connection:
        return await mobile.register_app(
            connection,
            **{
                "name_zh": "测试手机银行",
                "name_en": f"Test app {secrets.token_hex(4)}",
                "redirect_uris": [CALLBACK, LOOPBACK],
                "actor": "test",
                "now": runtime.clock.now(),
                **changes,
            },
        )


async def enrol_member(runtime: Runtime) -> Member:
    async with transaction(runtime.pool) as connection:
        return await enrol(connection, vault=runtime.vault, now=runtime.clock.now())


def read_answer(url: str, origin: str = ORIGIN) -> dict[str, str]:
    """What the app finds in the address it is returned to."""
    parts = urlsplit(url)
    assert url.startswith((CALLBACK, LOOPBACK)), url
    found = {name: texts[0] for name, texts in parse_qs(parts.query, strict_parsing=True).items()}
    assert found["iss"] == f"{origin}/mobile"
    return found


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
