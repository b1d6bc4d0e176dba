"""A suspension while two gateway processes answer two hundred calls at once, and what is left to a suspended partner."""

import asyncio
import shutil
import tempfile
import time
from collections.abc import Generator
from pathlib import Path

import httpx
import pytest
from certificates import client_cert, make_certificate
from faults import Serve

from gateway.client import PartnerClient
from kernel.supervisor.process import free_port, wait_until

CALLS = 200
PRIVATE_PORT = free_port()
#: from commit to the last call that may begin and still succeed
PROMISE_SECONDS = 1.0
#: who has not been refused by then never will be
PATIENCE_SECONDS = 60.0


@pytest.fixture(scope="module")
def serve() -> Generator[Serve, None, None]:
    """A running platform of two HTTP workers with its own servers."""
    root = Path(tempfile.mkdtemp(prefix="tessera-suspension-", dir="/var/tmp"))
    root.chmod(0o711)
    running = Serve(root, environment={"TESSERA_PRIVATE_PORT": str(PRIVATE_PORT)})
    try:
        running.start()
        yield running
    finally:
        running.reap()
        shutil.rmtree(root)


class Caller:
    """One partner with one token, calling over and over."""

    def __init__(self, serve: Serve, slug: str, http: httpx.AsyncClient) -> None:
        self.partner = PartnerClient(serve.partner(slug), http=http)
        self._http = http
        self._base = serve.base_url
        self.token = ""
        self._hash = ""

    async def begin(self) -> None:
        self.token, self._hash = await self.partner._current_token()

    async def call(self) -> tuple[int, str]:
        """One read with a fresh proof and the same old token."""
        headers = {
            "authorization": f"DPoP {self.token}",
            "dpop": self.partner.make_proof("GET", "/v1/me", token_hash=self._hash),
        }
        answer = await self._http.get(f"{self._base}/v1/me", headers=headers)
        return answer.status_code, answer.json().get("code", "")

    async def form(self, path: str, **fields: str) -> httpx.Response:
        form = {
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            "client_assertion": self.partner.make_assertion(),
        } | fields
        headers = {"dpop": self.partner.make_proof("POST", path)} if path.endswith("/token") else {}
        return await self._http.post(self._base + path, data=form, headers=headers)

    async def until_refused(self) -> list[float]:
        """When the calls that succeeded began; ends with the first that did not."""
        begun: list[float] = []
        while True:
            started = time.monotonic()
            status, code = await self.call()
            if status != 200:
                assert (status, code) == (403, "partner_not_active")
                return begun
            begun.append(started)


async def tell(serve: Serve, *words: str) -> tuple[int, str]:
    done = await asyncio.to_thread(serve.run, *words)
    return done.returncode, done.stdout + done.stderr


async def test_row_27_no_call_begun_a_second_after_the_suspension_succeeds(serve: Serve) -> None:
    limits = httpx.Limits(max_connections=CALLS)
    async with httpx.AsyncClient(timeout=30.0, limits=limits) as http:
        caller = Caller(serve, "ecommerce", http)
        await caller.begin()
        async with asyncio.timeout(PATIENCE_SECONDS):
            running = [asyncio.create_task(caller.until_refused()) for _ in range(CALLS)]
            code, told = await tell(
                serve, "partner", "suspend", "ecommerce", "--by", "checker", "--reason", "an exercise"
            )
            # The command has printed what it committed, so the commit was before.
            committed_by = time.monotonic()
            begun = [moment for moments in await asyncio.gather(*running) for moment in moments]
        assert (code, "suspended" in told) == (0, True), told
        assert begun, "calls were running when the partner was suspended"
        assert [moment for moment in begun if moment > committed_by + PROMISE_SECONDS] == []

        # While suspended: no new token, but tokens may still be revoked.
        refused = await caller.form("/oauth2/token", grant_type="client_credentials")
        assert (refused.status_code, refused.json()["error"]) == (400, "unauthorized_client")
        revoked = await caller.form("/oauth2/revoke", token=caller.token)
        assert revoked.status_code == 200, revoked.text


async def test_row_27_reinstatement_takes_two_and_revives_no_token(serve: Serve) -> None:
    async with httpx.AsyncClient(timeout=30.0) as http:
        caller = Caller(serve, "hospital", http)
        await caller.begin()
        assert await caller.call() == (200, "")
        because = ("--reason", "an exercise")
        assert (await tell(serve, "partner", "suspend", "hospital", "--by", "maker", *because))[0] == 2
        assert (await tell(serve, "partner", "suspend", "hospital", "--by", "checker", *because))[0] == 0
        code, told = await tell(serve, "partner", "reinstate", "hospital", "--by", "maker", *because)
        assert code == 0, told
        change = told.split()[0]
        code, told = await tell(serve, "partner", "approve", change, "--by", "maker")
        assert (code, "admin_not_allowed" in told) == (2, True)
        code, told = await tell(serve, "partner", "approve", change, "--by", "checker")
        assert (code, "approved" in told) == (0, True), told
        assert "hospital" in (await tell(serve, "partner", "list"))[1]

        # Both processes ask again within a second; until then they answer for the time of the suspension.
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (found := await caller.call()) == (403, "partner_not_active"):
                pass
        assert found == (401, "invalid_token")
        fresh = await caller.form("/oauth2/token", grant_type="client_credentials")
        assert fresh.status_code == 200, fresh.text


async def test_an_app_is_switched_off_by_one_and_its_key_revoked_by_one(serve: Serve) -> None:
    credentials = serve.partner("education")
    because = ("--by", "checker", "--reason", "an exercise")
    async with httpx.AsyncClient(timeout=30.0) as http:
        caller = Caller(serve, "education", http)
        assert (await tell(serve, "app", "deactivate", credentials.client_id, *because))[0] == 0
        refused = await caller.form("/oauth2/token", grant_type="client_credentials")
        assert (refused.status_code, refused.json()["error"]) == (400, "unauthorized_client")
        assert (await tell(serve, "app", "activate", credentials.client_id, *because))[0] == 0
        assert (await caller.form("/oauth2/token", grant_type="client_credentials")).status_code == 200
        code, told = await tell(serve, "app", "revoke-key", credentials.client_id, credentials.kid, *because)
        assert (code, "last_usable_key" in told) == (2, True)
        words = ("app", "revoke-key", credentials.client_id, credentials.kid, "--last", *because)
        assert (await tell(serve, *words))[0] == 0
        refused = await caller.form("/oauth2/token", grant_type="client_credentials")
        assert (refused.status_code, refused.json()["error"]) == (401, "invalid_client")
        assert "revoked" in (await tell(serve, "app", "list", "education"))[1]


async def test_an_access_is_proposed_by_one_approved_by_another_and_used_through_the_private_port(
    serve: Serve,
) -> None:
    client_id = serve.partner("tax").client_id
    words = ["--ip-allow", "192.0.2.0/24", "--certificate-subject", "dns:tax.example.com"]
    words += ["--token-binding", "certificate"]
    code, told = await tell(
        serve, "app", "access", client_id, *words, "--by", "maker", "--reason", "an exercise"
    )
    assert code == 0, told
    assert (await tell(serve, "partner", "approve", told.split()[0], "--by", "checker"))[0] == 0
    listed = (await tell(serve, "app", "list", "tax"))[1]
    assert "192.0.2.0/24" in listed
    assert "dns:tax.example.com" in listed
    async with httpx.AsyncClient(timeout=30.0) as http:
        refused = await Caller(serve, "tax", http).form("/oauth2/token", grant_type="client_credentials")
        assert (refused.status_code, refused.json()["error"]) == (403, "unauthorized_client")

        form = {"grant_type": "client_credentials", "client_id": client_id}
        vouched = {
            "client-cert": client_cert(make_certificate("tax.example.com")),
            "x-forwarded-for": "192.0.2.7",
        }
        private = f"http://127.0.0.1:{PRIVATE_PORT}"
        spoofed = await http.post(f"{serve.base_url}/oauth2/token", data=form, headers=vouched)
        assert (spoofed.status_code, spoofed.json()["error"]) == (401, "invalid_client")
        answer = await http.post(f"{private}/oauth2/token", data=form, headers=vouched)
        assert answer.status_code == 200, answer.text
        bearer = vouched | {"authorization": f"Bearer {answer.json()['access_token']}"}
        assert (await http.get(f"{private}/v1/me", headers=bearer)).status_code == 200
        assert (await http.get(f"{serve.base_url}/v1/me", headers=bearer)).status_code == 401


async def test_a_replaced_signing_key_is_taken_over_by_running_processes(serve: Serve) -> None:
    async with httpx.AsyncClient(timeout=30.0) as http:
        address = f"{serve.base_url}/oauth2/jwks"
        before = {key["kid"] for key in (await http.get(address)).json()["keys"]}
        code, told = await tell(serve, "keys", "rotate", "--by", "checker", "--reason", "an exercise")
        assert code == 0, told
        kid = told.split()[0]
        assert kid not in before

    def alone() -> bool:
        return [key["kid"] for key in httpx.get(address).json()["keys"]] == [kid]

    assert await asyncio.to_thread(wait_until, alone, PATIENCE_SECONDS)
