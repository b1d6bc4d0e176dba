"""The example of a signed request works as printed, with libraries of other people, for the sandbox's strict app."""

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

from gateway.client import PartnerClient
from gateway.credentials import read_credentials

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "signed.py"


def test_the_example_signs_and_checks_the_banks_signature(platform: Any) -> None:
    file = platform.data_dir / "sandbox" / "strict" / "ecommerce.json"

    done = subprocess.run(
        [sys.executable, str(EXAMPLE), str(file)], capture_output=True, text=True, timeout=60, check=False
    )

    assert done.stdout.startswith("201 signed by the bank {"), done.stderr


def test_the_example_needs_nothing_of_ours() -> None:
    modules = {
        (node.module or "") if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in ast.walk(ast.parse(EXAMPLE.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert not {module.partition(".")[0] for module in modules} & {"gateway", "kernel", "partners", "points"}


async def test_the_strict_app_signs_or_is_refused(platform: Any, earning: Any) -> None:
    credentials = read_credentials(platform.data_dir / "sandbox" / "strict" / "ecommerce.json")
    body = earning(credentials.members[0].sub)
    async with PartnerClient(credentials, deadline_seconds=20.0, sign_requests=True) as signing:
        assert (await signing.post("/v1/points/earnings", body))["points"] > 0
    async with PartnerClient(credentials, deadline_seconds=20.0) as bare:
        answer = await bare.send("POST", "/v1/points/earnings", b"{}", idempotency_key="k-1")
        assert (answer.status, answer.json()["code"]) == (401, "signature_missing")
        assert (await bare.get("/v1/me"))["slug"] == "ecommerce", "reads need none"
