"""The register of attacks names tests that exist, all rows, and every case of the large tables."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from attacks.forgeries import FORGERIES
from attacks.test_bypass_dpop import CLAIMS, HEADERS, MAKES

ROOT = Path(__file__).parents[2]
REGISTER = (ROOT / "docs" / "attacks.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", REGISTER)))


@cache
def names_of(file: str) -> frozenset[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(node.name for node in functions if node.name.startswith("test_"))


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_a_test_that_is_named_exists(file: str, name: str) -> None:
    assert name in names_of(file)


def test_every_row_names_a_test() -> None:
    rows = dict(re.findall(r"^\| (\d+) \| [^|]+ \| (.+) \|$", REGISTER, re.MULTILINE))
    assert sorted(map(int, rows)) == list(range(1, 35))
    assert all("`tests/" in tests for tests in rows.values())


@pytest.mark.parametrize(
    ("heading", "cases"),
    [("Signed tokens", [*FORGERIES]), ("Proofs of possession", [*CLAIMS, *HEADERS, *MAKES])],
)
def test_every_case_of_a_table_stands_in_the_register(heading: str, cases: list[str]) -> None:
    section = REGISTER.partition(f"### {heading}\n")[2].partition("\n### ")[0]
    assert re.findall(r"^\d+\. (.+)$", section, re.MULTILINE) == cases


def test_there_are_as_many_ways_around_as_were_asked_for() -> None:
    ways = REGISTER.partition("## Ways around authentication")[2]
    assert len(re.findall(r"^(?:\d+\. |\| (?!case|---)[^|]+ \| `tests/)", ways, re.MULTILINE)) >= 180


def test_every_test_of_this_folder_is_of_a_row() -> None:
    for file in sorted((ROOT / "tests" / "attacks").glob("test_*.py")):
        for name in names_of(f"tests/attacks/{file.name}"):
            if name.startswith("test_attack_"):
                assert 1 <= int(name.split("_")[2]) <= 34, name
