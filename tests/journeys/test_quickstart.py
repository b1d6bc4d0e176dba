"""The README's quick start works as printed, with libraries of other people only."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "quickstart.py"


@pytest.fixture
def unsigned(platform: Any) -> Generator[None, None, None]:
    """The strict app asks for nonces only, meanwhile."""
    client_id = platform.strict_app().client_id
    for policy in ("optional", "fapi"):
        done = platform.run("signatures", "demand", client_id, policy, "--by", "maker")
        assert done.returncode == 0, done.stderr
        if policy == "optional":
            yield


@pytest.mark.parametrize("kind", ["partners", "strict"])
def test_the_quick_start_earns_points(platform: Any, unsigned: None, kind: str) -> None:
    file = platform.data_dir / "sandbox" / kind / "ecommerce.json"

    done = subprocess.run(
        [sys.executable, str(EXAMPLE), str(file)], capture_output=True, text=True, timeout=60, check=True
    )

    assert done.stdout.startswith("201 {")
    assert '"points": 1299' in done.stdout
    printed = json.loads(done.stdout.removeprefix("201 "))
    (shown,) = re.findall(
        r"```json\n201 (.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL
    )
    assert _shape(json.loads(shown)) == _shape(printed), "the README shows what it prints"


def test_the_quick_start_needs_nothing_of_ours() -> None:
    modules = {
        (node.module or "") if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in ast.walk(ast.parse(EXAMPLE.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert modules <= {"base64", "hashlib", "json", "sys", "time", "uuid", "httpx", "jwt"}


def test_the_readme_shows_code_that_parses() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    for block in blocks:
        ast.parse(block)


def _shape(value: Any) -> Any:
    """The names in a document, whatever stands under them."""
    if isinstance(value, dict):
        return {name: _shape(below) for name, below in value.items()}
    return [_shape(each) for each in value] if isinstance(value, list) else None
