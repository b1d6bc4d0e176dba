"""Who may pay for points: the funders' codes, by the numbers that lots carry, and which of them a partner is told."""

from collections.abc import Iterable, Mapping
from uuid import UUID

from msgspec import Struct

from kernel.database import Connection
from points.ledger import model

LIST_FUNDER_CODES = "SELECT id, code FROM ledger_funder"

LIST_FUNDERS_NAMED = "SELECT id, code, kind, partner_id FROM ledger_funder WHERE id = ANY($1::int[])"


class ToldFunders(Struct, frozen=True, kw_only=True):
    """Who pays, as partners may know it: the bank and themselves; with whom else the bank agreed is not theirs to see."""

    #: the bank's other names
    bank: Mapping[int, str]
    #: code and owner
    owned: Mapping[int, tuple[str, UUID]]

    def tell(self, funder_id: int, *, partner_id: UUID) -> str | None:
        """The funder's code, or None where it is not the partner's business."""
        if funder_id == model.BANK_FUNDER_ID:
            return model.BANK_FUNDER
        if funder_id in self.bank:
            return self.bank[funder_id]
        code, owner = self.owned.get(funder_id, (None, None))
        return code if owner == partner_id else None


async def list_funder_codes(connection: Connection) -> dict[int, str]:
    """Every funder's code by its number."""
    return {record["id"]: record["code"] for record in await connection.fetch(LIST_FUNDER_CODES)}


async def find_told_funders(connection: Connection, funder_ids: Iterable[int]) -> ToldFunders:
    """What may be told of these funders; the database is asked only where somebody other than the bank pays."""
    others = sorted(set(funder_ids) - {model.BANK_FUNDER_ID})
    records = await connection.fetch(LIST_FUNDERS_NAMED, others) if others else []
    return ToldFunders(
        bank={record["id"]: record["code"] for record in records if record["kind"] == "bank"},
        owned={
            record["id"]: (record["code"], record["partner_id"])
            for record in records
            if record["kind"] != "bank" and record["partner_id"] is not None
        },
    )
