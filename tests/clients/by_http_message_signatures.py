"""The npm package `http-message-signatures`, under `openid-client`, signs requests and verifies answers; run by `make clients`."""

from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from clients.node import NodeClient
from clients.third_party import Refused
from served import Platform

from kernel.calendar import rfc3339


@pytest.fixture(scope="module")
async def strict(platform: Platform) -> AsyncGenerator[NodeClient, None]:
    """The app that must sign what it writes."""
    async with NodeClient.configured("openid_client", platform.strict_app()) as client:
        yield client


@pytest.fixture
def earning(platform: Platform) -> dict[str, Any]:
    """A write of level A2."""
    return {
        "member": platform.strict_app().members[1].sub,
        "source_ref": f"t-{uuid4().hex[:16]}",
        "kind": "purchase",
        "occurred_at": rfc3339(datetime.now(UTC)),
        "amount_fen": 10_000,
    }


async def test_a_signed_write_is_done_and_its_answer_is_signed(
    strict: NodeClient, platform: Platform, earning: dict[str, Any]
) -> None:
    token = await strict.token(scope="points:earn")
    url = f"{platform.base_url}/v1/points/earnings"
    answer = await strict.call(token, "POST", url, earning, signed="fapi")
    assert answer.status == 201, answer.body
    assert 'tag="fapi-2-response"' in answer.headers["signature-input"]
    assert msgspec.json.decode(answer.body)["points"] >= 100


async def test_a_refusal_is_signed_too(strict: NodeClient, platform: Platform) -> None:
    token = await strict.token(scope="points:earn")
    url = f"{platform.base_url}/v1/points/earnings"
    answer = await strict.call(token, "POST", url, {"amount_fen": 1}, signed="fapi")
    assert 400 <= answer.status < 500
    assert "signature" in answer.headers


async def test_an_unsigned_write_is_refused(
    strict: NodeClient, platform: Platform, earning: dict[str, Any]
) -> None:
    token = await strict.token(scope="points:earn")
    with pytest.raises(Refused) as refused:
        await strict.call(token, "POST", f"{platform.base_url}/v1/points/earnings", earning)
    assert refused.value.error == "signature_missing"
