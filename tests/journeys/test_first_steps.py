"""What a new partner tries in a fresh sandbox: there is something of everything, and no staff is needed for it."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from gateway.client import PartnerClient

Make = Callable[..., dict[str, Any]]


async def test_points_are_exchanged_and_spent_in_the_other_type(
    ecommerce: PartnerClient, earning: Make, ref: Callable[[], str]
) -> None:
    member = ecommerce.credentials.members[14].sub
    await ecommerce.post("/v1/points/earnings", earning(member))
    body = {
        "member": member,
        "from_type": "tessera",
        "to_type": "mall",
        "points": 4,
        "exchange_ref": ref(),
    }
    done = await ecommerce.post("/v1/points/exchanges", body)
    assert (done["taken_points"], done["given_points"]) == (4, 6)
    spend = {"member": member, "points": 6, "order_ref": ref(), "point_type": "mall"}
    spent = await ecommerce.post("/v1/points/spends", spend)
    assert (spent["point_type"], spent["value_fen"]) == ("mall", 3)
    read = await ecommerce.get(f"/v1/members/{member}/points?point_type=mall")
    assert (read["point_type"], read["available_points"]) == ("mall", 0)


async def test_a_right_is_booked_used_and_a_booking_cancelled(
    hospital: PartnerClient, ref: Callable[[], str]
) -> None:
    member = hospital.credentials.members[-1].sub
    rights = (await hospital.get(f"/v1/members/{member}/entitlements"))["data"]
    (right,) = [each for each in rights if each["kind"] == "health_consultation" and each["left"] >= 2]
    path = f"/v1/entitlements/{right['id']}"
    day = (datetime.now(UTC) + timedelta(days=2)).date().isoformat()
    first, second = ref(), ref()
    for booking_ref in (first, second):
        booking = await hospital.post(f"{path}/book", {"booking_ref": booking_ref, "booked_for": day})
        assert booking["state"] == "booked"
    used = await hospital.post(f"{path}/use", {"use_ref": ref(), "booking_ref": first})
    assert (used["used"], used["booked"]) == (right["used"] + 1, right["booked"] + 1)
    cancelled = await hospital.post(f"{path}/cancel", {"booking_ref": second})
    assert (cancelled["state"], cancelled["entitlement"]["left"]) == ("cancelled", right["left"] - 1)
