"""The modules about grants that live on: asked for, widened, replaced, read and given back."""

from typing import Any

import pytest
from conformance.bank import Bank, RelyingParty, refused
from conformance.code_flow import CALLBACK_WITH_QUERY, SCOPE, CodeFlow
from conformance.plan import module

GRANTS = "/oauth2/grants/"
NOBODYS = "grt_" + "0" * 26


@pytest.fixture
async def flow(bank: Bank, first: RelyingParty) -> CodeFlow:
    """A request of the first client."""
    return CodeFlow(first, await bank.enrol())


async def read(party: RelyingParty, grant_id: str) -> tuple[int, Any]:
    answer = await party.call(await party.token(), path=GRANTS + grant_id)
    return answer.status_code, answer.json()


async def end(party: RelyingParty, grant_id: str) -> int:
    answer = await party.call(await party.token(), method="DELETE", path=GRANTS + grant_id)
    assert answer.status_code != 204 or answer.content == b""
    return answer.status_code


@module("grant-management-happy-flow", "GM-6.3", "GM-6.4", "GM-6.5", "GM-6.6")
async def test_a_grant_is_read_ended_and_gone(flow: CodeFlow, first: RelyingParty) -> None:
    tokens = await flow.tokens(grant_management_action="create")
    status, grant = await read(first, tokens["grant_id"])
    assert status == 200
    assert {scope for entry in grant["scopes"] for scope in entry["scope"].split()} == set(SCOPE.split())
    assert await end(first, tokens["grant_id"]) == 204
    assert (await read(first, tokens["grant_id"]))[0] == 404


@module("grant-management-merge", "GM-4.1")
async def test_a_merge_adds_and_keeps_the_id(flow: CodeFlow, first: RelyingParty) -> None:
    before = await flow.tokens(scope="members:read", grant_management_action="create")
    merged = await flow.tokens(
        scope="points:earn", grant_management_action="merge", grant_id=before["grant_id"]
    )
    assert merged["grant_id"] == before["grant_id"]
    assert (await read(first, before["grant_id"]))[1]["scopes"] == [{"scope": SCOPE}]


@module("grant-management-replace", "GM-4.1")
async def test_a_replacement_takes_and_keeps_the_id(flow: CodeFlow, first: RelyingParty) -> None:
    before = await flow.tokens(grant_management_action="create")
    replaced = await flow.tokens(
        scope="members:read", grant_management_action="replace", grant_id=before["grant_id"]
    )
    assert replaced["grant_id"] == before["grant_id"]
    assert (await read(first, before["grant_id"]))[1]["scopes"] == [{"scope": "members:read"}]
    # of the refresh token of before, what is granted now is left
    again = await flow.refresh(before["refresh_token"])
    if again.status_code == 200:
        assert again.json()["scope"] == "members:read"
    else:
        refused(again, 400, "invalid_grant")


@module("grant-management-ensure-invalid-grant-id-fails", "GM-4.2")
@pytest.mark.parametrize("grant_id", [NOBODYS, "invalid-grant-id-that-does-not-exist"])
async def test_a_grant_that_does_not_exist_is_not_merged_into(grant_id: str, flow: CodeFlow) -> None:
    answer = await flow.push(grant_management_action="merge", grant_id=grant_id)
    refused(answer, 400, "invalid_grant_id")


@module("ensure-server-handles-non-matching-intent-id", "GM-4.2")
async def test_a_grant_of_another_client_is_not_merged_into(flow: CodeFlow, second: RelyingParty) -> None:
    theirs = await CodeFlow(second, flow.member, redirect_uri=CALLBACK_WITH_QUERY).tokens()
    answer = await flow.push(grant_management_action="merge", grant_id=theirs["grant_id"])
    refused(answer, 400, "invalid_grant_id")


@module("grant-management-ensure-query-non-existent-grant-fails", "GM-6.6")
@pytest.mark.parametrize("grant_id", [NOBODYS, "x"])
async def test_a_grant_that_does_not_exist_is_not_found(grant_id: str, first: RelyingParty) -> None:
    assert (await read(first, grant_id))[0] == 404


@module("grant-management-ensure-query-after-revoke-fails", "GM-6.5", "GM-6.6")
async def test_an_ended_grant_is_not_found_and_its_tokens_are_worth_nothing(
    bank: Bank, flow: CodeFlow, first: RelyingParty
) -> None:
    tokens = await flow.tokens()
    assert await end(first, tokens["grant_id"]) == 204
    assert (await read(first, tokens["grant_id"]))[0] == 404
    refused(await flow.refresh(tokens["refresh_token"]), 400, "invalid_grant")


@module("grant-management-ensure-wrong-client-cannot-query-grant", "GM-6.6")
async def test_another_clients_grant_is_as_absent_as_none(flow: CodeFlow, second: RelyingParty) -> None:
    tokens = await flow.tokens()
    theirs, nothing = await read(second, tokens["grant_id"]), await read(second, NOBODYS)
    assert theirs[0] == nothing[0] == 404
    assert {name: value for name, value in theirs[1].items() if name != "trace_id"} == {
        name: value for name, value in nothing[1].items() if name != "trace_id"
    }


@module("grant-management-ensure-wrong-client-cannot-revoke-grant", "GM-6.6")
async def test_another_client_cannot_end_a_grant(
    flow: CodeFlow, first: RelyingParty, second: RelyingParty
) -> None:
    tokens = await flow.tokens()
    assert await end(second, tokens["grant_id"]) == 404
    assert (await read(first, tokens["grant_id"]))[0] == 200
    assert (await flow.refresh(tokens["refresh_token"])).status_code == 200
