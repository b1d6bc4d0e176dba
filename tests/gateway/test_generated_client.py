"""A client generated from the OpenAPI document by somebody else's tool: complete, typed, and it works."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.app import describe
from gateway.runtime import Runtime
from kernel.settings import Secret, Settings
from kernel.vault import generate_ring

NOWHERE = Settings(
    base_url="http://127.0.0.1:8080",
    database_url=Secret("postgresql://nowhere"),
    redis_url=Secret("redis://nowhere"),
    master_keys=Secret(generate_ring()),
)


GENERATE = (
    "generate --path openapi.json --config config.yml --output-path generated --meta none --fail-on-warning"
)


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return describe(Runtime(NOWHERE))


def test_the_generator_understands_every_operation(document: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "openapi.json").write_bytes(msgspec.json.encode(document))
    (tmp_path / "config.yml").write_text("post_hooks: []\npackage_name_override: bank\n")

    done = subprocess.run(
        [sys.executable, "-m", "openapi_python_client", *GENERATE.split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    operations = [
        path for path in (tmp_path / "generated" / "api").rglob("*.py") if path.name != "__init__.py"
    ]
    assert len(operations) == sum(len(item) for item in document["paths"].values())


def test_every_operation_has_its_own_name_and_a_section(document: dict[str, Any]) -> None:
    operations = [operation for item in document["paths"].values() for operation in item.values()]
    names = [operation["operationId"] for operation in operations]

    assert len(names) == len(set(names))
    assert {tag for operation in operations for tag in operation["tags"]} == {
        tag["name"] for tag in document["tags"]
    }
    assert all(operation["summary"] for operation in operations)


def test_the_document_is_the_same_at_every_start(document: dict[str, Any]) -> None:
    assert list(describe(Runtime(NOWHERE))["paths"]) == list(document["paths"])
    sections = [next(iter(item.values()))["tags"][0] for item in document["paths"].values()]
    assert sections == sorted(sections, key=[tag["name"] for tag in document["tags"]].index)


def test_no_module_name_of_ours_shows(document: dict[str, Any]) -> None:
    assert all("." not in name and "_" not in name for name in document["components"]["schemas"])


def test_every_partner_operation_names_its_scope_and_level(document: dict[str, Any]) -> None:
    for path, item in document["paths"].items():
        for operation in item.values():
            if path.startswith("/v1/"):
                assert operation["security"] and operation["x-api-level"] in ("A1", "A2")
