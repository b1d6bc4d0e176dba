"""The modules of the plan for CIBA: a member asked on the phone, and a client that polls.

The plan is `fapi-ciba-id1-test-plan` with private_key_jwt and poll. It was written for FAPI 1, which demands signed request
objects; those of its modules that are about them do not apply to FAPI 2.0.
"""

from typing import Any

import httpx
import pytest
from conformance.assertions import WRONG, signed_assertion
from conformance.bank import Bank, RelyingParty, refused
from conformance.code_flow import SCOPE
from conformance.plan import module
from partner_client import DROP

from kernel.caller import MemberRef
from kernel.database import transaction
from kernel.ids import from_wire
from partners.oauth.authorizations import (
    Approval,
    approve_authorization,
    deny_authorization,
    list_authorizations,
)
from partners.oauth.grants import Authentication
from partners.oauth.service import subject_for
from partners.registry import service as registry

BACKCHANNEL = "/oauth2/bc-authorize"
GRANT_TYPE = "urn:openid:params:grant-type:ciba"


class Asking:
    """One client that asks one member."""

    def __init__(self, party: RelyingParty, member: MemberRef, sub: str) -> None:
        self.party = party
        self.member = member
        self.sub = sub

    async def ask(self, **changes: Any) -> httpx.Response:
        form = {"grant_type": DROP, "scope": SCOPE, "login_hint": self.sub, **changes}
        return await self.party.send_form(BACKCHANNEL, proofs=[], **form)

    async def asked(self, **changes: Any) -> dict[str, Any]:
        answer = await self.ask(**changes)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def poll(self, auth_req_id: str, **changes: Any) -> httpx.Response:
        return await self.party.ask_token(**{"grant_type": GRANT_TYPE, "auth_req_id": auth_req_id, **changes})

    async def approve(self, authorization: str) -> None:
        """The member approves what the phone shows."""
        bank = self.party.bank
        now, request_id = bank.clock.now(), from_wire("aut", authorization)
        async with transaction(bank.runtime.pool) as connection:
            waiting = await list_authorizations(connection, self.member, now=now)
            (shown,) = [each for each in waiting if each.request.id == request_id]
            approval = Approval(
                binding_message=shown.request.document.binding_message,
                details_hash=shown.details_hash,
                sensitive_given=True,
            )
            authentication = Authentication(at=now, methods=["pwd", "otp"])
            await approve_authorization(
                connection,
                self.member,
                request_id,
                approval=approval,
                authentication=authentication,
                now=now,
            )

    async def deny(self, authorization: str) -> None:
        bank = self.party.bank
        async with transaction(bank.runtime.pool) as connection:
            identifier = from_wire("aut", authorization)
            await deny_authorization(connection, self.member, identifier, now=bank.clock.now())


async def meet(bank: Bank, party: RelyingParty) -> Asking:
    """A new member whom the partner knows by a name."""
    member, now = await bank.enrol(), bank.clock.now()
    async with transaction(bank.runtime.pool) as connection:
        client = await registry.find_client(connection, party.client_id)
        assert client is not None
        if GRANT_TYPE not in client.grant_types:
            await registry.allow_backchannel(
                connection, client_id=party.client_id, allowed=True, actor="test", now=now
            )
        sub = await subject_for(
            connection, partner_id=client.partner_id, member=member, vault=bank.runtime.vault, now=now
        )
    return Asking(party, member, sub)


@pytest.fixture
async def asking(bank: Bank, first: RelyingParty) -> Asking:
    """The first client and a member."""
    return await meet(bank, first)


@module("fapi-ciba-id1", "CIBA-7.3", "CIBA-10.1.1", "CIBA-11")
async def test_a_member_approves_and_the_client_fetches_the_token(asking: Asking) -> None:
    asked = await asking.asked()
    assert len(asked["auth_req_id"]) * 6 >= 160
    assert (asked["expires_in"] > 0, asked["interval"]) == (True, 5)
    await asking.approve(asked["authorization"])
    given = await asking.poll(asked["auth_req_id"])
    assert given.status_code == 200, given.text
    assert given.json()["token_type"] == "DPoP"
    points = f"/v1/members/{asking.sub}/points"
    assert (await asking.party.call(given.json()["access_token"], path=points)).status_code == 200


@module("fapi-ciba-id1-multiple-call-to-token-endpoint", "CIBA-11")
async def test_who_polls_too_fast_is_told_to_slow_down(asking: Asking) -> None:
    asked = await asking.asked()
    refused(await asking.poll(asked["auth_req_id"]), 400, "authorization_pending")
    refused(await asking.poll(asked["auth_req_id"]), 400, "slow_down")


@module("fapi-ciba-id1-auth-req-id-expired", "CIBA-11")
async def test_a_request_nobody_answered_expires(bank: Bank, asking: Asking) -> None:
    asked = await asking.asked(requested_expiry="60")
    with bank.later(seconds=asked["expires_in"] + 1):
        refused(await asking.poll(asked["auth_req_id"]), 400, "expired_token")


@module("fapi-ciba-id1-user-rejects-authentication", "CIBA-11")
async def test_a_member_who_denies_gives_no_token(asking: Asking) -> None:
    asked = await asking.asked()
    await asking.deny(asked["authorization"])
    refused(await asking.poll(asked["auth_req_id"]), 400, "access_denied")


@module("fapi-ciba-id1-ensure-wrong-auth-req-id-in-token-endpoint-request", "CIBA-11", "RFC6749-5.2")
async def test_a_request_is_of_no_use_to_another_client(
    bank: Bank, asking: Asking, second: RelyingParty
) -> None:
    asked = await asking.asked()
    await asking.approve(asked["authorization"])
    thief = await meet(bank, second)
    refused(await thief.poll(asked["auth_req_id"]), 400, "invalid_grant")
    assert (await asking.poll(asked["auth_req_id"])).status_code == 200


@module("fapi-ciba-id1-ensure-authorization-request-with-binding-message-succeeds", "CIBA-7.1")
async def test_a_short_message_is_shown(asking: Asking) -> None:
    asked = await asking.asked(binding_message="1234")
    await asking.approve(asked["authorization"])
    assert (await asking.poll(asked["auth_req_id"])).status_code == 200


@module("fapi-ciba-id1-ensure-authorization-request-with-potentially-bad-binding-message", "CIBA-13")
@pytest.mark.parametrize("message", ["long " * 40, "turned \u202e around", "two\nlines"], ids=ascii)
async def test_a_message_no_phone_can_show_is_refused(message: str, asking: Asking) -> None:
    refused(await asking.ask(binding_message=message), 400, "invalid_binding_message")


@module("fapi-ciba-id1-ensure-authorization-request-with-multiple-hints-fails", "CIBA-7.2-3")
async def test_two_hints_are_one_too_many(asking: Asking) -> None:
    refused(await asking.ask(login_hint_token="x"), 400, "invalid_request")
    refused(await asking.ask(id_token_hint="x"), 400, "invalid_request")


@module("fapi-ciba-id1-ensure-other-scope-order-succeeds", "RFC6749-3.3")
async def test_the_order_of_scopes_does_not_matter_on_the_phone(asking: Asking) -> None:
    asked = await asking.asked(scope=" ".join(["openid", *reversed(SCOPE.split())]))
    await asking.approve(asked["authorization"])
    given = (await asking.poll(asked["auth_req_id"])).json()
    assert set(given["scope"].split()) == set(SCOPE.split())


@module("fapi-ciba-id1-ensure-requested-expiry-as-string-succeeds", "CIBA-7.1")
async def test_an_expiry_may_be_asked_for(asking: Asking) -> None:
    assert (await asking.asked(requested_expiry="120"))["expires_in"] == 120


@module("fapi-ciba-id1-ensure-without-client-assertion-in-backchannel-authorization-request", "CIBA-7.1")
async def test_nobody_asks_without_an_assertion(asking: Asking) -> None:
    answer = await asking.ask(client_assertion=DROP, client_id=asking.party.client_id)
    refused(answer, 401, "invalid_client")


@module("fapi-ciba-id1-ensure-without-client-assertion-in-token-endpoint-request", "RFC6749-5.2")
async def test_nobody_polls_without_an_assertion(asking: Asking) -> None:
    asked = await asking.asked()
    answer = await asking.poll(asked["auth_req_id"], client_assertion=DROP, client_id=asking.party.client_id)
    refused(answer, 401, "invalid_client")


@module("fapi-ciba-id1-ensure-invalid-client-assertions-in-backchannel-authorization-request-fail")
@pytest.mark.parametrize("changes", WRONG.values(), ids=WRONG)
async def test_a_wrong_assertion_asks_nobody(changes: dict[str, Any], asking: Asking) -> None:
    answer = await asking.ask(client_assertion=signed_assertion(asking.party, **changes))
    refused(answer, 401, "invalid_client")


@module("fapi-ciba-id1-refresh-token", "FAPI2-SP-FINAL-5.3.2.1-9", "RFC6749-6")
async def test_what_was_approved_on_the_phone_is_refreshed(asking: Asking) -> None:
    asked = await asking.asked()
    await asking.approve(asked["authorization"])
    token = (await asking.poll(asked["auth_req_id"])).json()["refresh_token"]
    form = {"grant_type": "refresh_token", "refresh_token": token}
    assert (await asking.party.ask_token(**form)).status_code == 200
    refused(await asking.party.ask_token(proofs=[], **form), 400, "invalid_dpop_proof")
