"""A partner and one of its customers, with a few points to play with; the books of that customer, counted and hashed."""

from typing import Any
from uuid import uuid4

from exactness.house import NOW, Answer, Customer, House, Partner
from kernel.calendar import rfc3339
from kernel.database import transaction
from points.ledger.exchanges import set_rate
from points.ledger.model import POINTS
from points.ledger.point_types import register_point_type


class Checkout:
    """A partner, a member with a thousand points, and what stands open at it."""

    def __init__(self, house: House, partner: Partner, customer: Customer) -> None:
        self.house = house
        self.partner = partner
        self.customer = customer

    async def ask(self, path: str, body: Any, key: str | None = None) -> Answer:
        return await self.house.post(self.partner, path, body, key=key)

    def activity(self, **changed: Any) -> dict[str, Any]:
        return {
            "member": self.customer.sub,
            "source_ref": uuid4().hex,
            "kind": "purchase",
            "occurred_at": rfc3339(NOW),
            "amount_fen": 10_000,
        } | changed

    async def earn(self, fen: int = 10_000) -> str:
        answer = await self.ask("/v1/points/earnings", self.activity(amount_fen=fen))
        assert answer.status == 201, answer.content
        return str(answer.body["id"])

    async def hold(self, points: int) -> str:
        body = {"member": self.customer.sub, "points": points, "order_ref": uuid4().hex}
        answer = await self.ask("/v1/points/holds", body)
        assert answer.status == 201, answer.content
        return str(answer.body["id"])

    async def exchange(self) -> dict[str, Any]:
        """The body of an exchange into another type of points, two for three."""
        name = f"miles_{uuid4().hex[:12]}"
        async with transaction(self.house.desk) as connection:
            miles = await register_point_type(
                connection, name=name, value_fen_e6=1_000_000, by="ann", now=NOW
            )
            await set_rate(
                connection,
                from_type=POINTS,
                to_type=miles,
                numerator=2,
                denominator=3,
                valid_from=NOW,
                by="ann",
                now=NOW,
            )
        return {
            "member": self.customer.sub,
            "from_type": POINTS.name,
            "to_type": name,
            "points": 61,
            "exchange_ref": "x-1",
        }

    async def books(self) -> dict[str, int]:
        """How many rows of each kind the member has."""
        rows = await self.house.desk.fetch(ROWS, self.customer.member.member_id)
        return {name: count for name, count in rows}


# In alphabetical order, so that two readings can be compared.
ROWS = """
SELECT kind, count(*)::int FROM ledger_operation WHERE member_id = $1 GROUP BY kind
 UNION ALL SELECT 'entries', count(*)::int FROM ledger_entry WHERE member_id = $1
 UNION ALL SELECT 'lots', count(*)::int FROM ledger_lot WHERE member_id = $1
 ORDER BY 1
"""

# Whatever the ledger and what goes with it consist of, hashed table by table; in order, so that two readings compare.
TABLES = """
SELECT c.relname FROM pg_class AS c
 WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace
   AND (c.relname ~ '^(ledger|membership|earning|rewards|outbox)_' OR c.relname = 'kernel_idempotency')
 ORDER BY c.relname
"""


async def digest(house: House) -> dict[str, str]:
    """A hash of every row of the ledger, by table."""
    found = {}
    for (table,) in await house.desk.fetch(TABLES):
        found[table] = await house.desk.fetchval(
            f"SELECT md5(coalesce(string_agg(t::text, chr(10) ORDER BY t::text), '')) FROM {table} AS t"
        )
    return found
