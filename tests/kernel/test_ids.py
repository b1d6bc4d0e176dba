"""Identifiers: ordered in time, readable back, and nothing else reads as one."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import Absent
from kernel.ids import from_wire, new_id, to_wire

NOON = datetime(2026, 11, 20, 4, 0, tzinfo=UTC)


def test_an_id_is_a_uuid_of_version_7() -> None:
    identifier = new_id(NOON)

    assert identifier.version == 7
    assert identifier.int >> 80 == int(NOON.timestamp() * 1000)


def test_later_ids_sort_later_on_the_wire() -> None:
    texts = [to_wire("hld", new_id(NOON + timedelta(milliseconds=step))) for step in range(50)]

    assert texts == sorted(texts)


@given(st.uuids())
def test_what_is_written_is_read_back(identifier: UUID) -> None:
    text = to_wire("ent", identifier)
    assert len(text) == 30
    assert from_wire("ent", text) == identifier


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hld",
        "hld_",
        "hld_" + "0" * 25,
        "hld_" + "0" * 27,
        "hld_" + "Z" * 26,
        "hld_" + "U" * 26,
        "hld_" + "l" * 26,
        "ent_" + "0" * 26,
        "HLD_" + "0" * 26,
        "hld_" + "٠" * 26,
        "hld_0000000000000000000000000\x00",
        "' OR 1=1 --",
    ],
)
def test_anything_else_is_absent(text: str) -> None:
    with pytest.raises(Absent):
        from_wire("hld", text)
