"""A plain bearer client gets nowhere, and is told why and how to do better."""

import httpx
import pytest
from clients.pypi import RequestsClient
from served import Platform

CASES = ["Bearer {}", "bearer {}", "Basic {}", "{}", "MAC {}"]


@pytest.fixture(scope="module")
async def token(platform: Platform) -> str:
    """A good token, in the hands of somebody who knows nothing of proofs."""
    async with RequestsClient.configured(platform.partner("ecommerce")) as client:
        return str((await client.token())["access_token"])


@pytest.mark.parametrize("header", CASES)
async def test_a_good_token_is_not_taken_as_a_bearers(
    header: str, token: str, http: httpx.AsyncClient
) -> None:
    answer = await http.get("/v1/me", headers={"Authorization": header.format(token)})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith('DPoP error="invalid_token"')
    assert answer.json()["code"] == "invalid_token"
    assert "DPoP" in answer.json()["reason"]


async def test_the_refusal_tells_a_bearer_what_is_needed(token: str, http: httpx.AsyncClient) -> None:
    answer = await http.get("/v1/me", headers={"Authorization": f"Bearer {token}"})
    assert "send Authorization: DPoP and a proof, not Bearer" in answer.text
    resource = (await http.get("/.well-known/oauth-protected-resource/v1")).json()
    assert resource["dpop_bound_access_tokens_required"] is True


@pytest.mark.parametrize(
    "where",
    [{"params": {"access_token": ""}}, {"data": {"access_token": ""}}],
    ids=["in the address", "in the form"],
)
async def test_a_token_outside_the_header_is_not_even_looked_at(
    where: dict[str, dict[str, str]], token: str, http: httpx.AsyncClient
) -> None:
    filled = {kind: dict.fromkeys(fields, token) for kind, fields in where.items()}
    answer = await http.request("POST" if "data" in filled else "GET", "/v1/me", **filled)  # type: ignore[arg-type]  # a table of two arguments
    assert answer.status_code in (401, 405)
    assert token not in answer.text


async def test_a_client_secret_is_no_way_in(platform: Platform, http: httpx.AsyncClient) -> None:
    form = {"grant_type": "client_credentials", "client_id": platform.partner("ecommerce").client_id}
    for given in ({"data": form | {"client_secret": "s"}}, {"data": form, "auth": ("x", "s")}):
        answer = await http.post("/oauth2/token", **given)
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
        assert "private_key_jwt" in answer.json()["error_description"]
