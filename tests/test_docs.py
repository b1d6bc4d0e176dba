"""The documents that the code decides are up to date."""

from pathlib import Path

from docs.generate import configuration, errors

HERE = Path(__file__).parents[1] / "docs"


def test_every_error_code_is_documented() -> None:
    assert (HERE / "errors.md").read_text(encoding="utf-8") == errors(), "run `make docs`"


def test_every_setting_and_scope_is_documented() -> None:
    assert (HERE / "configuration.md").read_text(encoding="utf-8") == configuration(), "run `make docs`"
