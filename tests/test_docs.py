"""The documents are up to date: those that the code decides, and what people write about its calls."""

import re
from itertools import pairwise
from pathlib import Path

import pytest

from docs.generate import configuration, errors
from gateway.app import ROUTES

ROOT = Path(__file__).parents[1]
HERE = ROOT / "docs"
WRITTEN = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *HERE.rglob("*.md")])


def partner_paths(package: str) -> list[str]:
    """What partners may call, of the routes that a package serves."""
    return sorted(
        path
        for route in ROUTES
        if route.fn.__module__.startswith(package)
        for path in route.paths
        if path.startswith("/v1/")
    )


def words(path: str) -> set[str]:
    """The words of a path, without its parameters."""
    return {part for part in path.split("/")[2:] if not part.startswith("{")}


def test_every_error_code_is_documented() -> None:
    assert (HERE / "errors.md").read_text(encoding="utf-8") == errors(), "run `make docs`"


def test_every_setting_and_scope_is_documented() -> None:
    assert (HERE / "configuration.md").read_text(encoding="utf-8") == configuration(), "run `make docs`"


@pytest.mark.parametrize("path", partner_paths(""))
def test_every_call_stands_in_the_table_of_calls(path: str) -> None:
    text = (HERE / "api.md").read_text(encoding="utf-8")
    table = text.partition("## What there is")[2].partition("\n## ")[0]
    resources: list[str] = []
    for row in table.splitlines():
        if row.startswith("| |"):
            resources[-1] += row
        else:
            resources.append(row)
    assert any(words(path) <= set(re.findall(r"\w+", resource)) for resource in resources)


@pytest.mark.parametrize("path", partner_paths("points."))
def test_the_chinese_guide_names_every_call_of_points(path: str) -> None:
    text = (HERE / "zh" / "partner-guide.md").read_text(encoding="utf-8")
    assert words(path) <= set(re.findall(r"[a-z_]+", text))


def test_decisions_are_numbered_one_after_the_other() -> None:
    files = sorted((HERE / "decisions").glob("*.md"))
    numbers = [int(file.name[:4]) for file in files]
    titles = [file.read_text(encoding="utf-8").partition(". ")[0] for file in files]
    assert titles == [f"# {number}" for number in numbers]
    assert numbers == list(range(1, len(numbers) + 1))


def test_a_change_is_told_once() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    for version in text.split("\n## ")[1:]:
        named = re.findall(r"^- \*\*(.+?)\*\*", version, re.MULTILINE)
        assert len(set(named)) == len(named)


@pytest.mark.parametrize("file", WRITTEN, ids=lambda file: str(file.relative_to(ROOT)))
def test_headings_stand_alone_and_sentences_are_not_said_twice(file: Path) -> None:
    text = re.sub(r"```.*?```", "", file.read_text(encoding="utf-8"), flags=re.DOTALL)
    lines = text.splitlines()
    crowded = [line for above, line in pairwise(lines) if line.startswith("#") and above]
    assert crowded == []
    prose = [line for line in lines if len(line) > 60 and not line.startswith("|--")]
    assert len(set(prose)) == len(prose)
    headings = [line for line in lines if line.startswith("#")]
    assert len(set(headings)) == len(headings)


def test_links_between_documents_lead_somewhere() -> None:
    broken = [
        f"{file.name}: {target}"
        for file in WRITTEN
        for target in re.findall(r"\]\(([^)#:]+)\)", file.read_text(encoding="utf-8"))
        if not (file.parent / target).exists()
    ]
    assert broken == []
