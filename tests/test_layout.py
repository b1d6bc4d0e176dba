"""The tree guards itself: what no tool would notice if it went wrong."""

import hashlib
import json
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    path
    for folder in ("platform", "partners", "points", "tests", "bench", "docs")
    for path in (ROOT / folder).rglob("*.py")
    if "node_modules" not in path.parts
)


def test_platform_is_a_folder_and_never_a_package() -> None:
    # With an __init__.py it would shadow the standard library's `platform`: `import uuid` fails, and no tool says so.
    assert not (ROOT / "platform" / "__init__.py").exists()


def test_tests_are_no_packages() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_opens_with_one_sentence(path: Path) -> None:
    assert path.read_text(encoding="utf-8").startswith('"""'), "say what the file owns"


def test_the_lock_file_names_no_local_path_and_no_private_index() -> None:
    packages = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))["package"]
    sources = {json.dumps(package["source"]) for package in packages}
    assert sources == {'{"registry": "https://pypi.org/simple"}', '{"editable": "."}'}


def test_every_exported_requirement_is_pinned_by_hash() -> None:
    for name in ("requirements.lock", "requirements-dev.lock"):
        text = (ROOT / name).read_text(encoding="utf-8")
        requirements = [block for block in re.split(r"\n(?=\S)", text) if "==" in block.split("\n")[0]]
        assert requirements and all("--hash=sha256:" in block for block in requirements)


def test_packages_from_npm_are_pinned_by_hash_and_no_registry_is_named() -> None:
    lock = json.loads((ROOT / "tests" / "clients" / "package-lock.json").read_text(encoding="utf-8"))
    packages = [package for name, package in lock["packages"].items() if name]
    assert packages and all(package["integrity"].startswith("sha512-") for package in packages)
    assert not any("resolved" in package for package in packages)


def test_every_suppression_gives_its_reason() -> None:
    bare = re.compile(r"#\s*(type:\s*ignore(\[[\w\-, ]+\])?|noqa(:\s*[\w, ]+)?)\s*$", re.MULTILINE)
    offenders = [str(path) for path in SOURCES if bare.search(path.read_text(encoding="utf-8"))]
    assert offenders == []


def test_no_file_knows_the_machine_it_was_written_on() -> None:
    telling = re.compile("/" + "work/|" + r"\.\./" + "shared")
    installed = {".venv", "node_modules"}
    texts = [path for path in ROOT.rglob("*.md") if installed.isdisjoint(path.parts)] + SOURCES
    assert [str(path) for path in texts if telling.search(path.read_text(encoding="utf-8"))] == []


def test_vendored_files_are_what_the_manifest_says() -> None:
    folder = ROOT / "platform" / "gateway" / "static"
    manifest = json.loads((folder / "MANIFEST.json").read_text(encoding="utf-8"))
    for entry in manifest:
        assert hashlib.sha256((folder / entry["file"]).read_bytes()).hexdigest() == entry["sha256"]
        assert (folder / entry["licence_file"]).exists()


def test_migrations_are_numbered_without_a_gap() -> None:
    numbers = [int(path.name[:4]) for path in sorted((ROOT / "migrations").glob("*.sql"))]
    assert numbers == list(range(1, len(numbers) + 1))
