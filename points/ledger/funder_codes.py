"""Who may pay for points: the funders' codes, by the numbers that lots carry."""

from kernel.database import Connection

LIST_FUNDER_CODES = "SELECT id, code FROM ledger_funder"


async def list_funder_codes(connection: Connection) -> dict[int, str]:
    """Every funder's code by its number."""
    return {record["id"]: record["code"] for record in await connection.fetch(LIST_FUNDER_CODES)}
