"""The OpenAPI document is true: what it allows is answered as it says, what it forbids is refused, nothing answers 5xx.

Schemathesis writes the requests, good and bad: a few for each operation here, many with `make fuzz`.
"""

import asyncio
import os
from collections.abc import Callable, Generator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from gateway.app import describe
from gateway.client import PartnerClient
from gateway.runtime import Runtime
from kernel.settings import Secret, Settings
from kernel.vault import generate_ring

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "8"))
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
NOWHERE = Settings(
    base_url="http://127.0.0.1:8080",
    database_url=Secret("postgresql://nowhere"),
    redis_url=Secret("redis://nowhere"),
    master_keys=Secret(generate_ring()),
)
OPERATIONS = [
    found.ok()
    for found in schemathesis.openapi.from_dict(describe(Runtime(NOWHERE))).get_all_operations()
    if isinstance(found, Ok)
]


Sign = Callable[[str, str], dict[str, str]]


@pytest.fixture(scope="session")
def sign(platform: Any) -> Generator[Sign, None, None]:
    """Signs requests as the e-commerce partner, who may do everything."""
    with asyncio.Runner() as runner:
        partner = PartnerClient(platform.partner("ecommerce"), deadline_seconds=20.0)

        def sign(method: str, path: str) -> dict[str, str]:
            token, token_hash = runner.run(partner._current_token())
            proof = partner.make_proof(method, path, token_hash=token_hash)
            return {"authorization": f"DPoP {token}", "dpop": proof}

        yield sign
        runner.run(partner.__aexit__(None, None, None))


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.label)
def test_good_requests_are_answered_as_documented(operation: Any, platform: Any, sign: Sign) -> None:
    _attempt(operation, GenerationMode.POSITIVE, platform, sign)


@pytest.mark.parametrize(
    "operation", [one for one in OPERATIONS if one.body or one.query], ids=lambda operation: operation.label
)
def test_bad_requests_are_answered_as_documented(operation: Any, platform: Any, sign: Sign) -> None:
    _attempt(operation, GenerationMode.NEGATIVE, platform, sign)


def _attempt(operation: Any, mode: GenerationMode, platform: Any, sign: Sign) -> None:
    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    def attempt(case: Any) -> None:
        url = httpx.URL(case.as_transport_kwargs(base_url=platform.base_url)["url"])
        path = url.raw_path.decode().partition("?")[0]
        case.headers = {**(case.headers or {}), **sign(case.method, path)}
        case.call_and_validate(base_url=platform.base_url, checks=CHECKS, timeout=30)

    attempt()
