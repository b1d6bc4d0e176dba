"""What a change or an end of a grant means for what was on its way at that moment."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import timedelta
from typing import Any

import pytest

from kernel.calendar import business_date, start_of_day
from kernel.database import Connection, Pool, open_pool, transaction
from kernel.ids import from_wire
from partners.oauth import grants, interaction
from partners.oauth.model import Consent, TokenRefused
from partners.registry import service as registry
from partners.registry.model import App
from points.membership.service import enrol_members

from .counter_flow import open_counter
from .member_flow import REDIRECT, Flow, claims_of, details, error_of, good

DAY = timedelta(days=1)


async def find_grant(connection: Connection, app: App, grant_id: str | None, now: Any) -> Consent:
    found = await grants.find_grant(
        connection, partner_id=app.partner_id, grant_id=from_wire("grt", grant_id or ""), now=now
    )
    assert found is not None
    return found


async def test_a_code_from_before_a_grant_was_replaced_is_worth_nothing(flow: Flow) -> None:
    first = await flow.issued(scope="members:read points:earn")
    code = await flow.code(scope="members:read", grant_management_action="merge", grant_id=first.grant_id)
    replaced = await flow.issued(
        scope="points:earn", grant_management_action="replace", grant_id=first.grant_id
    )
    assert error_of(await flow.exchange(code)) == "invalid_grant"
    good(await flow.refresh(replaced.refresh_token))


async def test_a_merge_makes_nothing_last_longer_than_the_member_was_shown(
    flow: Flow, connection: Connection, app: App
) -> None:
    """Neither what was agreed to before, of which the page says nothing, nor what is agreed to now."""
    soon, late = (str(business_date(flow.now) + days * DAY) for days in (10, 20))
    for first_ends, then_ends in ((soon, late), (late, soon)):
        first = await flow.issued(scope="members:read", grant_ends_on=first_ends)
        handle = await flow.ask(
            scope="points:earn",
            grant_management_action="merge",
            grant_id=first.grant_id,
            grant_ends_on=then_ends,
        )
        shown = await interaction.find_interaction(connection, handle=handle, now=flow.now)
        assert shown is not None
        assert str(shown.ends_on) == soon
        good(await flow.exchange((await flow.approve(handle))["code"]))
        assert str((await find_grant(connection, app, first.grant_id, flow.now)).ends_on) == soon


async def test_a_merge_that_names_no_end_keeps_the_grants(
    flow: Flow, connection: Connection, app: App
) -> None:
    end = business_date(flow.now) + 10 * DAY
    first = await flow.issued(scope="members:read", grant_ends_on=str(end))
    await flow.issued(scope="points:earn", grant_management_action="merge", grant_id=first.grant_id)
    assert (await find_grant(connection, app, first.grant_id, flow.now)).ends_on == end


async def test_no_token_outlives_its_grant(flow: Flow) -> None:
    today = business_date(flow.now)
    midnight = start_of_day(today + DAY)
    code_flow = flow.later((midnight - flow.now).total_seconds() - 20)
    issued = await code_flow.issued(grant_ends_on=str(today))
    assert issued.expires_in == 20
    assert claims_of(issued.access_token)["exp"] == int(midnight.timestamp())
    assert good(await code_flow.refresh(issued.refresh_token)).expires_in == 20


async def test_of_a_suspended_partner_no_page_is_shown(flow: Flow, connection: Connection, app: App) -> None:
    handle = await flow.ask()
    assert await interaction.find_interaction(connection, handle=handle, now=flow.now) is not None
    await registry.set_partner_status(
        connection, partner_id=app.partner_id, status="suspended", actor="test", now=flow.now
    )
    assert await interaction.find_interaction(connection, handle=handle, now=flow.now) is None


async def test_introspection_tells_no_scope_that_was_taken_from_the_app(
    flow: Flow, connection: Connection, app: App
) -> None:
    issued = await flow.issued(scope="members:read points:earn")
    await connection.execute(
        "UPDATE registry_app SET scopes = array_remove(scopes, 'points:earn') WHERE id = $1", app.id
    )
    for token in (issued.access_token, issued.refresh_token):
        assert (await flow.introspect(token))["scope"] == "members:read"


@pytest.fixture
async def two_pools(database_url: str, pool: Pool) -> AsyncGenerator[list[Pool], None]:
    """As two worker processes have them."""
    async with await open_pool(database_url, size=4, application="tessera-tests-2") as other:
        yield [pool, other]


@pytest.fixture
async def committed(two_pools: list[Pool], register: Any, lasting_signer: Any, vault: Any, now: Any) -> Flow:
    """A flow whose every step commits."""
    async with transaction(two_pools[0]) as connection:
        app, client = await register(connection, now)
        await registry.add_redirect_uri(
            connection, client_id=app.client_id, uri=REDIRECT, sandbox=False, actor="test", now=now
        )
        [member] = await enrol_members(connection, count=1, now=now)
    return Flow(
        lambda: transaction(two_pools[0]),
        client=client,
        signer=lasting_signer,
        vault=vault,
        member=member,
        now=now,
    )


async def until_done_or_waiting(step: asyncio.Task[Any], connection: Connection) -> None:
    """Until the step has ended, or waits for a lock that this connection holds."""
    waiting = (
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pg_backend_pid() = ANY(pg_blocking_pids(pid)))"
    )
    while not step.done() and not await connection.fetchval(waiting):
        await asyncio.wait([step], timeout=0.01)


async def test_an_answer_that_meets_a_withdrawal_widens_nothing(
    committed: Flow, two_pools: list[Pool]
) -> None:
    first = await committed.issued(scope="members:read")
    handle = await committed.ask(
        scope="points:earn", grant_management_action="merge", grant_id=first.grant_id
    )
    grant_id = from_wire("grt", first.grant_id or "")
    async with transaction(two_pools[1]) as connection:
        client = await registry.find_client(connection, committed.client.client_id)
        assert client is not None
        await grants.withdraw_grant(
            connection, partner_id=client.partner_id, grant_id=grant_id, now=committed.now
        )
        answer = asyncio.create_task(committed.approve(handle))
        await until_done_or_waiting(answer, connection)
    assert (await answer)["error"] == "access_denied"


async def test_an_exchange_that_meets_a_replacement_keeps_nothing(
    committed: Flow, two_pools: list[Pool]
) -> None:
    first = await committed.issued(scope="members:read points:earn")
    named = {"grant_id": first.grant_id}
    code = await committed.code(scope="members:read", grant_management_action="merge", **named)
    handle = await committed.ask(scope="points:earn", grant_management_action="replace", **named)
    async with transaction(two_pools[1]) as connection:
        await interaction.approve_interaction(
            connection,
            handle=handle,
            member=committed.member,
            authentication=grants.Authentication(at=committed.now, methods=["pwd", "otp"]),
            sensitive_given=False,
            now=committed.now,
        )
        exchanged = asyncio.create_task(committed.exchange(code))
        await until_done_or_waiting(exchanged, connection)
    assert error_of(await exchanged) == "invalid_grant"


@pytest.mark.parametrize(("first", "then", "ended"), [(100, 10, True), (None, 10, True), (10, 100, False)])
async def test_a_merge_that_lowers_a_limit_ends_the_tokens_with_the_higher_one(
    flow: Flow, connection: Connection, app: App, first: int | None, then: int, ended: bool
) -> None:
    await connection.execute(
        "UPDATE registry_app SET scopes = scopes || '{points:spend}' WHERE id = $1", app.id
    )

    def asked(limit: int | None) -> dict[str, Any]:
        wish = {} if limit is None else {"authorization_details": details(spend(limit))}
        return {"scope": "points:spend", **wish}

    before = await flow.issued(**asked(first))
    named = {"grant_management_action": "merge", "grant_id": before.grant_id}
    after = await flow.issued(**asked(then), **named)
    assert (await flow.introspect(before.access_token))["active"] is not ended
    assert (await flow.introspect(after.access_token))["active"] is True


def spend(points: int) -> dict[str, Any]:
    return {"type": "points_spend", "max_points": points}


async def test_what_was_asked_on_the_phone_before_a_grant_was_replaced_ends_with_it(
    flow: Flow, connection: Connection, app: App
) -> None:
    """The token that was fetched, and the one that waits to be; no refresh token tells of either."""
    counter = await open_counter(flow, app.partner_id)
    await connection.execute(
        "UPDATE registry_app SET grant_types = array_remove(grant_types, 'refresh_token') WHERE id = $1",
        app.id,
    )
    first = await counter.ask(scope="members:read points:earn")
    await counter.approve(first)
    fetched = good(await counter.poll(first))
    named = {"grant_id": fetched.grant_id}
    waiting = await counter.ask(scope="members:read", grant_management_action="merge", **named)
    await counter.approve(waiting)
    await flow.issued(scope="points:earn", grant_management_action="replace", **named)
    assert await flow.introspect(fetched.access_token) == {"active": False}
    assert isinstance(await counter.poll(waiting), TokenRefused)


async def test_a_merge_asked_on_the_phone_makes_nothing_last_longer(
    flow: Flow, connection: Connection, app: App
) -> None:
    counter = await open_counter(flow, app.partner_id)
    soon, late = (business_date(flow.now) + days * DAY for days in (10, 20))
    first = await flow.issued(scope="members:read", grant_ends_on=str(soon))
    asked = await counter.ask(
        scope="points:earn",
        grant_management_action="merge",
        grant_id=first.grant_id,
        grant_ends_on=str(late),
    )
    assert (await counter.find(asked)).request.document.ends_on == soon
    await counter.approve(asked)
    assert (await find_grant(connection, app, first.grant_id, flow.now)).ends_on == soon
