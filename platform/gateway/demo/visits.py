"""The days of the academy and of the tax service: who is this member, and points for what they did."""

from gateway.demo.ecommerce import earn, greet
from gateway.demo.telling import Teller, short

COURSE_FEN = 268_000
TAX_FEN = 50_000


async def tell_education(teller: Teller) -> None:
    """A course is paid."""
    member = teller.client.credentials.members[9].sub
    await greet(teller, member)
    await earn(teller, member, number=1, amount_fen=COURSE_FEN, kind="tuition")


async def tell_tax(teller: Teller) -> None:
    """A return is filed; and what the partner may not do."""
    member = teller.client.credentials.members[3].sub
    await greet(teller, member)
    await earn(teller, member, number=1, amount_fen=TAX_FEN, kind="tax")
    body = {"member": member, "points": 1, "order_ref": f"{teller.run}-2", "ttl_seconds": 60}
    await teller.expect_refusal(
        f"spending points of {short(member)} without the scope",
        "/v1/points/holds",
        body,
        code="insufficient_scope",
    )
