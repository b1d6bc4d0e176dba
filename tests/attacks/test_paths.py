"""Ways to a route that are not its way: other methods, other spellings of the path, headers that claim another one."""

import gzip
from collections.abc import AsyncGenerator
from uuid import uuid4

import pytest
from attacks.house import House
from attacks.routes import ASKS, declared, shape
from attacks.things import Things, prepare_things
from msgspec import structs
from points_routes import deliver

from gateway.client import PartnerClient

METHODS = (
    "GET",
    "HEAD",
    "OPTIONS",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "TRACE",
    "CONNECT",
    "PROPFIND",
    "DEBUG",
)
PATHS = sorted({path for _, path in ASKS if path.startswith(("/v1/", "/oauth2/grants/"))})


@pytest.fixture(scope="module")
async def owned(house: House) -> AsyncGenerator[tuple[PartnerClient, Things], None]:
    owner, stranger = await house.partner(), await house.partner()
    yield stranger, await prepare_things(house, owner)
    await deliver(house.runtime)


@pytest.mark.parametrize("path", PATHS)
async def test_attack_16_no_other_method_opens_a_route(
    house: House, owned: tuple[PartnerClient, Things], path: str
) -> None:
    stranger, things = owned
    where = path.format(**structs.asdict(things))
    served = {method for method, found in declared() if found == shape(path)}
    for method in METHODS:
        if method in served:
            continue
        anonymous = await house.http.request(method, where)
        assert anonymous.status_code == 401, method
        answer = await stranger.send(method, where, idempotency_key=str(uuid4()))
        assert answer.status in (404, 405) or (method == "OPTIONS" and answer.status in (200, 204)), method
        named = things.private() - {name for name in things.private() if name in where}
        assert not [name for name in named if name in answer.content.decode()]


SPELLINGS = (
    "/v1/me/",
    "//v1/me",
    "/v1//me",
    "/V1/me",
    "/v1/ME",
    "/v1/./me",
    "/x/../v1/me",
    "/v1/x/../me",
    "/v1%2Fme",
    "/%76%31/me",
    "/v1/%6de",
    "/v1/me%00",
    "/v1/me;a=b",
    "/v1/me.json",
    "/v1/me%20",
    "/v1/me%3Fx",
    "/v1/me#x",
    "/oauth2/../v1/me",
    "/oauth2/grants/../../v1/me",
    "/livez/../v1/me",
    "/static/../v1/me",
    "/.well-known/../v1/me",
    "/v1\\me",
    "/oauth2//grants/grt_" + "0" * 26,
    "/OAUTH2/grants/grt_" + "0" * 26,
    "/oauth2/%67rants/grt_" + "0" * 26,
    "/admin/v1/partners",
    "/console",
    "/metrics",
    "/debug",
    "/.git/config",
    "/.env",
)


@pytest.mark.parametrize("path", SPELLINGS)
async def test_attack_16_no_spelling_of_a_path_gets_past_the_door(house: House, path: str) -> None:
    answer = await house.http.get(path)
    assert answer.status_code in (400, 401, 404), answer.text
    assert set(answer.json()) <= {"type", "title", "status", "detail", "code", "trace_id", "instance"}


@pytest.mark.parametrize(
    "name",
    [
        "..%2f..%2fpyproject.toml",
        "..%2fapp.py",
        "%2e%2e%2fapp.py",
        "..%5capp.py",
        "MANIFEST.json%00.css",
        "%2fetc%2fpasswd",
        "pages%2f..%2f..%2fapp.py",
    ],
)
@pytest.mark.parametrize("folder", ["/static/", "/static/pages/", "/problems/"])
async def test_attack_16_no_file_but_the_public_ones_is_read(house: House, folder: str, name: str) -> None:
    answer = await house.http.get(folder + name)
    assert answer.status_code in (400, 404)
    assert "import " not in answer.text and "root:" not in answer.text


@pytest.mark.parametrize(
    "header",
    [
        "X-HTTP-Method-Override",
        "X-HTTP-Method",
        "X-Method-Override",
        "X-Original-URL",
        "X-Rewrite-URL",
        "X-User",
    ],
)
async def test_attack_16_no_header_stands_in_for_the_request_or_the_caller(house: House, header: str) -> None:
    for value in ("DELETE", "/livez", "admin"):
        answer = await house.http.get("/v1/me", headers={header: value})
        assert (answer.status_code, answer.json()["code"]) == (401, "token_missing")


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
async def test_attack_19_a_compressed_body_is_not_unpacked(house: House, coding: str) -> None:
    bomb = gzip.compress(b"0" * 10_000_000)
    headers = {"content-encoding": coding, "content-type": "application/x-www-form-urlencoded"}
    answer = await house.http.post("/oauth2/token", content=bomb, headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")
