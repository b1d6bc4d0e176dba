"""`tessera funders`: what is typed becomes a funder, its terms and its blocks, or is refused in a sentence."""

import argparse
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from gateway.cli import funders
from kernel.database import Connection
from kernel.errors import Refusal
from kernel.ids import to_wire
from partners.registry import service as registry

NOW = datetime(2026, 11, 20, 4, 0, tzinfo=UTC)


async def type_in(connection: Connection, line: str) -> list[str]:
    """What the command prints."""
    parser = argparse.ArgumentParser()
    funders.register(parser.add_subparsers(required=True))
    options = parser.parse_args(["funders", *line.split()])
    printed: list[str] = await options.deed(connection, options, NOW)
    return printed


async def test_a_funder_is_registered_sold_a_block_and_shown(connection: Connection) -> None:
    slug = f"mall-{uuid4().hex[:8]}"
    partner_id = await registry.register_partner(
        connection,
        slug=slug,
        name_zh="商城",
        name_en="Mall",
        kind="service_provider",
        scene="ecommerce",
        status="live",
        now=NOW,
    )
    code = f"partner:{slug}"
    added = await type_in(connection, f"add {code} --partner {slug} --billing prepaid --breakage-ppm 500000")
    assert added[0] == f"{code}  {to_wire('ptn', partner_id)}"
    assert "from 2026-11-20  prepaid" in added[1]
    [bought] = await type_in(connection, f"block {code} --points 1000 --paid-fen 700 --ref po-1")
    assert "1000 of 1000 points left  paid 700 fen  po-1" in bought
    changed = await type_in(
        connection,
        f"terms {code} --effective-on 2026-12-01 --billing postpaid --price-fen-e6 900000 --billed monthly",
    )
    assert "from 2026-12-01  postpaid  price 900000 fen/1000000" in changed[2]
    assert await type_in(connection, f"list {code}") == [*changed, bought]
    assert changed[0] in await type_in(connection, "list")


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("add mall --billing bank", "funder_invalid"),
        ("add partner:mall --billing postpaid", "funder_invalid"),
        ("add partner:mall --partner nobody --billing prepaid", "not_found"),
        ("add fiscal:city --billing postpaid --price-fen-e6 -1", "terms_invalid"),
        ("list partner:nobody", "funder_not_found"),
        ("block partner:nobody --points 1 --paid-fen 1 --ref a", "funder_not_found"),
        ("block partner:nobody --points 0 --paid-fen 1 --ref a", "block_invalid"),
        ("terms bank --effective-on 2026-12-01 --billing postpaid", "funder_invalid"),
    ],
)
async def test_what_cannot_be_is_refused(connection: Connection, line: str, code: str) -> None:
    with pytest.raises(Refusal) as refused:
        await type_in(connection, line)
    assert refused.value.code == code
