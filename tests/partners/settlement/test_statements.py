"""Every statement of settlement is valid on the migrated schema, and every rule names a kind the books publish."""

import pytest

from kernel.database import Connection
from partners.settlement import queries

STATEMENTS = {
    name: value
    for name, value in vars(queries).items()
    if name.isupper() and isinstance(value, str) and " " in value
}


@pytest.mark.parametrize("name", STATEMENTS)
async def test_it_can_be_prepared(connection: Connection, name: str) -> None:
    await connection.prepare(STATEMENTS[name])


async def test_what_is_done_and_undone_point_in_opposite_directions(connection: Connection) -> None:
    rules = {
        (row["kind"], row["funder_kind"]): row["direction"]
        for row in await connection.fetch("SELECT kind, funder_kind, direction FROM settlement_rule")
    }
    opposite = {
        "none": "none",
        "partner_owes_bank": "bank_owes_partner",
        "bank_owes_partner": "partner_owes_bank",
    }
    pairs = {
        "points_issued": "points_clawed_back",
        "points_redeemed": "points_restored",
        "capture": "refund",
        "discount": "discount_reversal",
        "merchant_subsidy": "subsidy_reversal",
        "prepaid_used": "prepaid_returned",
    }
    final = {"prepaid_bought", "breakage_share"}
    assert {kind for kind, _ in rules} == {*pairs.keys(), *pairs.values(), *final}
    for (kind, funder), direction in rules.items():
        if kind in pairs:
            assert rules[pairs[kind], funder] == opposite[direction]
