"""Every statement on the offers tables."""

from datetime import datetime
from uuid import UUID

from kernel.database import Connection, read, read_if_any
from partners.offers.model import Evidence, OfferDefinition, OfferVersion, Quote

_VERSION = "id, offer_id, partner_id, scenario, state, starts_at, ends_at, doc"

_QUOTE = """
bucket, id, member_id, partner_id, version_id, state, cart_hash, disclosure_hash, doc, jws, issued_at, expires_at,
disclosed_at, accepted_at, consent_id
"""

INSERT_OFFER = "INSERT INTO offers_offer (id, partner_id, scenario, created_at) VALUES ($1, $2, $3, $4)"

INSERT_VERSION = """
INSERT INTO offers_version (id, offer_id, number, partner_id, scenario, state, starts_at, ends_at, min_total_fen,
                            max_total_fen, doc, created_at)
VALUES ($1, $2, 1, $3, $4, 'active', $5, $6, $7, $8, $9, $10)
"""

FIND_VERSION = f"SELECT {_VERSION} FROM offers_version WHERE id = $1 AND partner_id = $2"  # noqa: S608 - constant

LIST_ON_SALE = f"""
SELECT {_VERSION}
  FROM offers_version
 WHERE partner_id = $1 AND scenario = $2 AND state = 'active'
   AND starts_at <= $4 AND $4 < ends_at
   AND $3 BETWEEN min_total_fen AND max_total_fen
 ORDER BY id
 LIMIT 100
"""  # noqa: S608 - a constant list

MOVE_VERSION = """
UPDATE offers_version SET state = $4 WHERE id = $1 AND partner_id = $2 AND state = $3 RETURNING true
"""

INSERT_QUOTE = """
INSERT INTO offers_quote (bucket, id, member_id, partner_id, version_id, state, cart_hash, disclosure_hash, doc, jws,
                          issued_at, expires_at)
VALUES ($1, $2, $3, $4, $5, 'issued', $6, $7, $8, $9, $10, $11)
"""

FIND_QUOTE = f"SELECT {_QUOTE} FROM offers_quote WHERE id = $1 AND partner_id = $2"  # noqa: S608 - a constant list

LOCK_QUOTE = f"SELECT {_QUOTE} FROM offers_quote WHERE id = $1 AND partner_id = $2 FOR UPDATE"  # noqa: S608 - constant

DISCLOSE_QUOTE = """
UPDATE offers_quote
   SET state = 'disclosed', disclosed_at = $3
 WHERE bucket = $1 AND id = $2 AND state = 'issued' AND expires_at > $3
RETURNING true
"""

ACCEPT_QUOTE = """
UPDATE offers_quote
   SET state = 'accepted', accepted_at = $3, consent_id = $4
 WHERE bucket = $1 AND id = $2 AND state = 'disclosed' AND expires_at > $3
RETURNING true
"""

INSERT_EVIDENCE = """
INSERT INTO offers_disclosure_evidence (bucket, quote_id, hash, displayed_seconds, confirmed_at, recorded_at)
VALUES ($1, $2, $3, $4, $5, $6)
"""


async def insert_offer(
    connection: Connection,
    definition: OfferDefinition,
    *,
    offer_id: UUID,
    version_id: UUID,
    partner_id: UUID,
    now: datetime,
) -> None:
    """An offer with its first version, on sale at once."""
    await connection.execute(INSERT_OFFER, offer_id, partner_id, definition.scenario, now)
    await connection.execute(
        INSERT_VERSION,
        version_id,
        offer_id,
        partner_id,
        definition.scenario,
        definition.window.starts_at,
        definition.window.ends_at,
        definition.doc.terms.min_total_fen,
        definition.doc.terms.max_total_fen,
        definition.doc,
        now,
    )


async def find_version(connection: Connection, version_id: UUID, *, partner_id: UUID) -> OfferVersion | None:
    return read_if_any(await connection.fetchrow(FIND_VERSION, version_id, partner_id), OfferVersion)


async def list_on_sale(
    connection: Connection, *, partner_id: UUID, scenario: str, total_fen: int, now: datetime
) -> list[OfferVersion]:
    """What fits the cart now, in the order of publication; the ranking is the rules' affair."""
    records = await connection.fetch(LIST_ON_SALE, partner_id, scenario, total_fen, now)
    return [read(record, OfferVersion) for record in records]


async def move_version(
    connection: Connection, version_id: UUID, *, partner_id: UUID, present: str, wanted: str
) -> bool:
    """False if the version was not in the `present` state."""
    return bool(await connection.fetchval(MOVE_VERSION, version_id, partner_id, present, wanted))


async def insert_quote(connection: Connection, quote: Quote) -> None:
    await connection.execute(
        INSERT_QUOTE,
        quote.bucket,
        quote.id,
        quote.member_id,
        quote.partner_id,
        quote.version_id,
        quote.cart_hash,
        quote.disclosure_hash,
        quote.doc,
        quote.jws,
        quote.issued_at,
        quote.expires_at,
    )


async def find_quote(connection: Connection, quote_id: UUID, *, partner_id: UUID) -> Quote | None:
    return read_if_any(await connection.fetchrow(FIND_QUOTE, quote_id, partner_id), Quote)


async def lock_quote(connection: Connection, quote_id: UUID, *, partner_id: UUID) -> Quote | None:
    """The quote; whoever else wants to accept it waits here and then finds it accepted."""
    return read_if_any(await connection.fetchrow(LOCK_QUOTE, quote_id, partner_id), Quote)


async def disclose_quote(connection: Connection, quote: Quote, *, now: datetime) -> bool:
    """False if the quote was no longer open."""
    return bool(await connection.fetchval(DISCLOSE_QUOTE, quote.bucket, quote.id, now))


async def accept_quote(connection: Connection, quote: Quote, *, consent_id: UUID, now: datetime) -> bool:
    """False if the quote was not disclosed any more or ran out: this is what makes it good once."""
    return bool(await connection.fetchval(ACCEPT_QUOTE, quote.bucket, quote.id, now, consent_id))


async def insert_evidence(connection: Connection, quote: Quote, evidence: Evidence, *, now: datetime) -> None:
    await connection.execute(
        INSERT_EVIDENCE,
        quote.bucket,
        quote.id,
        evidence.hash,
        evidence.displayed_seconds,
        evidence.confirmed_at,
        now,
    )
