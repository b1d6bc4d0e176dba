"""A member of the sandbox agrees on the bank's pages, with what the files and the command line give, and nothing else."""

import base64
import hashlib
import re
import secrets
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import msgspec
from served import Platform

from gateway.client import PartnerClient

CALLBACK = "http://127.0.0.1:8765/callback"
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
LANGUAGE = {"accept-language": "en"}


async def push(http: httpx.AsyncClient, partner: PartnerClient, verifier: str) -> str:
    """A pushed request; returns its request_uri."""
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    form = {
        "client_assertion_type": ASSERTION,
        "client_assertion": partner.make_assertion(),
        "response_type": "code",
        "client_id": partner.credentials.client_id,
        "redirect_uri": CALLBACK,
        "scope": "members:read",
        "state": "s1",
        "code_challenge": challenge,
        "code_challenge_method": "S256",
    }
    pushed = await http.post("/oauth2/par", data=form)
    assert pushed.status_code == 201, pushed.text
    return str(pushed.json()["request_uri"])


class Phone:
    """A browser's cookies, kept by hand: over plain HTTP the client would not send them back."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http
        self._cookies: dict[str, str] = {}

    async def get(self, path: str) -> httpx.Response:
        return self._keep(await self._http.get(path, headers=LANGUAGE | self._cookie()))

    async def post(self, path: str, form: dict[str, str]) -> httpx.Response:
        headers = LANGUAGE | self._cookie() | {"origin": str(self._http.base_url).rstrip("/")}
        return self._keep(await self._http.post(path, data=form, headers=headers))

    def _cookie(self) -> dict[str, str]:
        joined = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
        return {"cookie": joined} if joined else {}

    def _keep(self, answer: httpx.Response) -> httpx.Response:
        for header in answer.headers.get_list("set-cookie"):
            name, _, value = header.partition(";")[0].partition("=")
            self._cookies[name] = value.strip('"')
        return answer


async def test_a_member_logs_in_with_the_sandboxs_file_and_the_partner_gets_a_token(
    platform: Platform, http: httpx.AsyncClient, ecommerce: PartnerClient
) -> None:
    members: list[dict[str, Any]] = msgspec.json.decode(
        (platform.data_dir / "sandbox" / "members.json").read_bytes()
    )
    login, password = members[0]["login"], members[0]["password"]
    assert "no messages yet" in platform.run("sandbox", "messages", login).stdout
    assert platform.run("sandbox", "messages", "nobody").returncode == 1

    verifier, phone = secrets.token_urlsafe(48), Phone(http)
    asked = {
        "client_id": ecommerce.credentials.client_id,
        "request_uri": await push(http, ecommerce, verifier),
    }
    page = (await phone.get(f"/oauth2/authorize?{urlencode(asked)}")).headers["location"]
    assert "Sign in" in (await phone.get(page)).text
    assert (await phone.post(f"{page}/password", {"login": login, "password": password})).status_code == 303
    found = re.search(r"验证码 (\d{6})", platform.run("sandbox", "messages", login).stdout)
    assert found is not None
    assert (await phone.post(f"{page}/code", {"code": found[1]})).status_code == 303
    assert "Authorise Morning Light Mall?" in (await phone.get(page)).text
    back = await phone.post(f"{page}/consent", {"decision": "approve"})
    answer = parse_qs(urlsplit(back.headers["location"]).query)
    assert back.status_code == 303 and answer["state"] == ["s1"]

    form = {
        "grant_type": "authorization_code",
        "client_assertion_type": ASSERTION,
        "client_assertion": ecommerce.make_assertion(),
        "code": answer["code"][0],
        "redirect_uri": CALLBACK,
        "code_verifier": verifier,
    }
    proof = {"dpop": ecommerce.make_proof("POST", "/oauth2/token")}
    token = await http.post("/oauth2/token", data=form, headers=proof)
    assert token.status_code == 200, token.text
    assert token.json()["token_type"] == "DPoP"
