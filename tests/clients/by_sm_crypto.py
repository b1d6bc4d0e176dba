"""The npm package `sm-crypto`, under `openid-client`, signs with SM2 and verifies the bank's SM2; run by `make clients`."""

from collections.abc import AsyncGenerator
from pathlib import Path

import msgspec
import pytest
from clients.node import NodeClient
from served import Platform

SERIAL_NO = "npm-1"


@pytest.fixture(scope="module")
async def hospital(
    platform: Platform, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[NodeClient, None]:
    """A client whose SM2 key the bank has registered."""
    partner = platform.partner("hospital")
    async with NodeClient.configured("openid_client", partner) as client:
        keys_uri = f"{platform.base_url}/oauth2/sm2_keys"
        jwk = await client.make_sm2_key(serial_no=SERIAL_NO, keys_uri=keys_uri)
        register(platform, partner.client_id, jwk, tmp_path_factory.mktemp("sm2"))
        yield client


def register(platform: Platform, client_id: str, jwk: dict[str, str], directory: Path) -> None:
    """What the bank does with the public half."""
    file = directory / "key.json"
    file.write_bytes(msgspec.json.encode(jwk))
    done = platform.run("signatures", "add-sm2-key", client_id, SERIAL_NO, str(file), "--by", "maker")
    assert done.returncode == 0, done.stderr


async def test_a_request_signed_with_sm2_gets_an_answer_signed_with_sm2(
    hospital: NodeClient, platform: Platform
) -> None:
    token = await hospital.token(scope="points:earn")
    url = f"{platform.base_url}/v1/members/bindings"
    answer = await hospital.call(token, "POST", url, {"customer_refs": ["c-1"]}, signed="sm2")
    assert answer.status == 200, answer.body
    assert answer.headers["tessera-signature"].startswith("TESSERA-SM2-WITH-SM3 ")


async def test_a_read_may_be_signed_too(hospital: NodeClient, platform: Platform) -> None:
    token = await hospital.token()
    answer = await hospital.call(token, "GET", f"{platform.base_url}/v1/me", signed="sm2")
    assert answer.status == 200, answer.body
