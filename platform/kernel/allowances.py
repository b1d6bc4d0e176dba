"""Limits that somebody else set and that are drawn from bit by bit, such as points a member lets a partner spend."""

from kernel.database import Connection

# The one statement that decides: parallel draws meet at the row.
DRAW = """
INSERT INTO kernel_allowance (name, drawn)
SELECT $1, $2::bigint
 WHERE $2::bigint <= $3::bigint
ON CONFLICT (name) DO UPDATE
   SET drawn = kernel_allowance.drawn + excluded.drawn
 WHERE kernel_allowance.drawn + excluded.drawn <= $3::bigint
RETURNING true
"""

GIVE_BACK = "UPDATE kernel_allowance SET drawn = drawn - $2 WHERE name = $1"


async def draw(connection: Connection, name: str, *, amount: int, limit: int) -> bool:
    """Whether so much is left under the name; if so, it is drawn. Several names are drawn in alphabetical order."""
    assert amount > 0, "a draw takes something"
    return bool(await connection.fetchval(DRAW, name, amount, limit))


async def give_back(connection: Connection, name: str, *, amount: int) -> None:
    """Undo a draw of this transaction."""
    await connection.execute(GIVE_BACK, name, amount)
