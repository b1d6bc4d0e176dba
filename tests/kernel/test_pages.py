"""Cursors: opaque, authenticated, bound to caller and list."""

import os

import pytest

from kernel.pages import CursorSeal, InvalidCursor


def test_a_cursor_leads_back_to_its_position() -> None:
    seal = CursorSeal(os.urandom(32))

    assert seal.open("app:events", seal.seal("app:events", [7, "x"])) == [7, "x"]


def test_a_cursor_of_somebody_else_or_another_list_is_refused() -> None:
    seal = CursorSeal(os.urandom(32))
    cursor = seal.seal("app-1:events", 7)

    for binding in ("app-2:events", "app-1:lines"):
        with pytest.raises(InvalidCursor):
            seal.open(binding, cursor)


@pytest.mark.parametrize("cursor", ["", "x", "AAAA", "é", "A" * 10_000, "=" * 5, "a b"])
def test_garbage_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidCursor):
        CursorSeal(os.urandom(32)).open("app:events", cursor)
