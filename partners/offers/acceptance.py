"""From a price to a plan: evidence that the cost was shown, then acceptance, once and in one transaction."""

from datetime import datetime
from typing import Literal
from uuid import UUID

from kernel.caller import Caller, ConsentMissing, Subjects
from kernel.database import Connection
from kernel.errors import Absent
from partners.credit.service import Answer, apply_for_plan
from partners.oauth.service import find_consent
from partners.offers import queries
from partners.offers.authorizing import check_may_accept, check_own
from partners.offers.canonical import canonical_hash
from partners.offers.model import Cart, Evidence, Quote
from partners.offers.quoting import tell
from partners.offers.rules import check_acceptance, check_disclosure

SCOPE = "offers:write"


async def disclose_quote(
    connection: Connection, evidence: Evidence, *, quote_id: UUID, caller: Caller, now: datetime
) -> None:
    """Record that the member saw this quote's cost table for long enough and confirmed it.

    The first evidence counts; the same table confirmed again changes nothing.
    """
    quote = await _lock(connection, quote_id, caller)
    check_disclosure(quote, evidence, now=now)
    if quote.state == "disclosed":
        return
    moved = await queries.disclose_quote(connection, quote, now=now)
    assert moved, "a locked quote does not move under our hands"
    await queries.insert_evidence(connection, quote, evidence, now=now)
    await tell(connection, quote, "quote.disclosed", now=now)


async def accept_quote(
    connection: Connection,
    *,
    quote_id: UUID,
    caller: Caller,
    subjects: Subjects,
    cart: Cart | None,
    jws: str | None,
    mode: Literal["sandbox", "live"],
    now: datetime,
) -> Answer:
    """Accept a quote: application, decision, points hold and plan commit together or not at all.

    A declined or referred application is an answer, not a refusal: the quote is used up and the decision stays.
    """
    quote = await _lock(connection, quote_id, caller)
    check_may_accept(caller, quote, mode=mode)
    cart_hash = None if cart is None else canonical_hash(cart)
    check_acceptance(quote, cart_hash=cart_hash, jws=jws, now=now)
    # The consent may have been withdrawn since the quote was issued.
    member = await subjects.resolve_one(connection, caller, quote.doc.terms.member_sub, scope=SCOPE, now=now)
    assert member == quote.member, "a subject stands for one member for ever"
    consent = await find_consent(
        connection,
        partner_id=caller.partner_id,
        member=member,
        scope=SCOPE,
        grant_id=caller.grant_id,
        now=now,
    )
    if consent is None:
        raise ConsentMissing(scope=SCOPE)
    moved = await queries.accept_quote(connection, quote, consent_id=consent.id, now=now)
    assert moved, "a locked quote does not move under our hands"
    await tell(connection, quote, "quote.accepted", now=now)
    return await apply_for_plan(
        connection, quote.doc.terms, member=member, partner_id=caller.partner_id, now=now
    )


async def _lock(connection: Connection, quote_id: UUID, caller: Caller) -> Quote:
    quote = await queries.lock_quote(connection, quote_id, partner_id=caller.partner_id)
    if quote is None:
        raise Absent
    check_own(caller, quote)
    return quote
