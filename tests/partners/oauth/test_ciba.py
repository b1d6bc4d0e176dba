"""OpenID CIBA Core 1.0 (poll) and FAPI-CIBA, clause by clause: asking, the member's answer, polling."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from partner_client import DROP, generate

from kernel.caller import MemberRef
from kernel.database import Connection, Pool, open_pool, transaction
from kernel.errors import Refusal
from kernel.ids import from_wire, new_id, to_wire
from kernel.vault import Vault, sha256
from partners.oauth.authorizations import (
    AuthorizationDecided,
    AuthorizationExpired,
    AuthorizationNotAsShown,
    AuthorizationUnknown,
    AuthorizationWithdrawn,
    InsufficientUserAuthentication,
)
from partners.oauth.backchannel import RequestAccepted
from partners.oauth.backchannel_rules import choose_expiry
from partners.oauth.grants import GRANTS_MAX
from partners.oauth.interaction import SensitiveConsentMissing
from partners.oauth.model import TokenIssued, TokenRefused
from partners.oauth.quote_terms import QuoteTerms
from partners.oauth.service import withdraw_consent
from partners.registry import service as registry
from partners.registry.model import App
from points.membership.service import enrol_members

from .counter_flow import Counter, open_counter
from .member_flow import Flow, claims_of, details, error_of, good

SPEND = {"type": "points_spend", "max_points": 500}
TAX = {"type": "tax_data", "tax_years": [2025], "datatypes": ["paid_tax"]}


@pytest.fixture
async def counter(flow: Flow, app: App) -> Counter:
    return await open_counter(flow, app.partner_id)


@pytest.fixture
async def generous(counter: Counter, connection: Connection, app: App) -> Counter:
    """A counter of an app that may ask for money and sensitive data too."""
    await connection.execute(
        "UPDATE registry_app SET scopes = scopes || '{points:spend,offers:write,data:write}' WHERE id = $1",
        app.id,
    )
    return counter


async def another_member(flow: Flow) -> MemberRef:
    async with flow.connect() as connection:
        [member] = await enrol_members(connection, count=1, now=flow.now)
    return member


async def test_ciba_7_3_the_answer_to_a_good_request(counter: Counter, connection: Connection) -> None:
    asked = await counter.ask()
    assert (asked.expires_in, asked.interval) == (300, 5)
    assert len(asked.auth_req_id) == 43  # 256 bits
    stored = await connection.fetchval(
        "SELECT auth_req_hash FROM oauth_backchannel WHERE id = $1", from_wire("aut", asked.authorization)
    )
    assert stored == sha256(asked.auth_req_id)


@pytest.mark.parametrize(
    ("clause", "changes", "error"),
    [
        ("7.1 no hint", {"login_hint": DROP}, "invalid_request"),
        ("7.1 an id_token_hint", {"login_hint": DROP, "id_token_hint": "x"}, "invalid_request"),
        ("7.1 a login_hint_token", {"login_hint": DROP, "login_hint_token": "x"}, "invalid_request"),
        ("7.1 two hints", {"id_token_hint": "x"}, "invalid_request"),
        ("7.1 a user code", {"user_code": "1234"}, "invalid_request"),
        ("7.1.1 a request object", {"request": "x.y.z"}, "invalid_request"),
        ("7.1 no scope", {"scope": DROP}, "invalid_scope"),
        ("7.1 openid and nothing else", {"scope": "openid"}, "invalid_scope"),
        ("13 a scope the app lacks", {"scope": "points:spend"}, "invalid_scope"),
        ("13 a scope that is not the member's", {"scope": "settlement:read"}, "invalid_scope"),
        ("13 nobody", {"login_hint": "A" * 43}, "unknown_user_id"),
        ("13 no subject at all", {"login_hint": "13800000000"}, "unknown_user_id"),
        ("13 a hint with NUL", {"login_hint": "A" * 42 + "\0"}, "unknown_user_id"),
        ("7.1 a long message", {"binding_message": "x" * 65}, "invalid_binding_message"),
        ("7.1 a message on two lines", {"binding_message": "a\nb"}, "invalid_binding_message"),
        ("7.1 a message that turns text", {"binding_message": "pay \u202e001"}, "invalid_binding_message"),
        ("7.1 an invisible message", {"binding_message": "\u200b"}, "invalid_binding_message"),
        ("7.1 a blank message", {"binding_message": "   "}, "invalid_binding_message"),
        ("7.1 expiry 0", {"requested_expiry": "0"}, "invalid_request"),
        ("7.1 expiry negative", {"requested_expiry": "-60"}, "invalid_request"),
        ("7.1 expiry of other digits", {"requested_expiry": "６0"}, "invalid_request"),
        ("RFC 8707", {"resource": "https://elsewhere.example/v1"}, "invalid_target"),
        ("RFC 9396 §5", {"authorization_details": "[]"}, "invalid_authorization_details"),
        ("RFC 9396 §5 the scope", {"authorization_details": details(SPEND)}, "invalid_authorization_details"),
        ("grant management", {"grant_management_action": "merge"}, "invalid_request"),
        (
            "grant management unknown",
            {"grant_management_action": "merge", "grant_id": "x"},
            "invalid_grant_id",
        ),
        ("7.1 no client authentication", {"client_assertion": DROP}, "invalid_client"),
    ],
)
async def test_ciba_7_1_and_13_a_request_is_refused(
    counter: Counter, connection: Connection, clause: str, changes: dict[str, Any], error: str
) -> None:
    assert error_of(await counter.try_ask(**changes)) == error, clause
    assert await counter.shown() == []


async def test_ciba_7_1_openid_is_allowed_and_means_nothing(counter: Counter) -> None:
    asked = await counter.ask(scope="openid members:read")
    assert (await counter.find(asked)).request.document.scopes == ["members:read"]


@pytest.mark.parametrize(
    ("requested", "seconds"), [(None, 300), ("1", 60), ("60", 60), ("61", 61), ("600", 600), ("86400", 600)]
)
def test_ciba_7_1_the_requested_expiry_is_held_between_bounds(requested: str | None, seconds: int) -> None:
    assert choose_expiry(requested) == seconds


@pytest.mark.parametrize("message", ["4711", "三号窗口 4711", "x" * 64, None])
async def test_ciba_7_1_the_binding_message_is_shown_as_it_was_sent(
    counter: Counter, message: str | None
) -> None:
    changes = {} if message is None else {"binding_message": message}
    asked = await counter.ask(**changes)
    assert (await counter.find(asked)).request.document.binding_message == message


async def test_an_app_that_was_not_allowed_to_ask_on_the_phone_is_refused(counter: Counter) -> None:
    asked = await counter.ask()
    async with counter.flow.connect() as connection:
        await registry.allow_backchannel(
            connection,
            client_id=counter.flow.client.client_id,
            allowed=False,
            actor="test",
            now=counter.now,
        )
    assert error_of(await counter.try_ask()) == "unauthorized_client"
    assert error_of(await counter.poll(asked)) == "unauthorized_client"


async def test_another_partners_subject_leads_to_nobody(
    counter: Counter, flow_of: Any, register: Any, connection: Connection
) -> None:
    app, client = await register(connection, counter.now)
    other = await open_counter(await flow_of(app, client), app.partner_id)
    assert error_of(await other.try_ask(login_hint=counter.sub)) == "unknown_user_id"


async def test_a_quote_of_another_member_is_not_asked_for(generous: Counter) -> None:
    quote_id = new_id(generous.now)
    stranger = await another_member(generous.flow)
    generous.flow.quotes.terms[generous.partner_id, quote_id] = _terms(stranger.member_id)
    asked = details({"type": "instalment_plan", "quote_id": to_wire("qte", quote_id)})
    refused = await generous.try_ask(authorization_details=asked)
    assert error_of(refused) == "invalid_authorization_details"


def _terms(member_id: int) -> QuoteTerms:
    return QuoteTerms(
        member_id=member_id,
        amount_fen=100_000,
        periods=12,
        annual_rate_simple_ppm=1,
        annual_rate_compound_ppm=1,
        total_payable_fen=100_001,
    )


# ---- the member's answer


async def test_ciba_10_1_an_approved_request_gives_a_members_token(counter: Counter) -> None:
    asked = await counter.ask()
    await counter.approve(asked)
    issued = good(await counter.poll(asked))
    claims = claims_of(issued.access_token)
    assert claims["sub"] == counter.sub
    assert claims["grant_id"] == issued.grant_id
    assert claims["origin"] == str(from_wire("aut", asked.authorization))
    assert issued.scope == "members:read points:earn"
    again = good(await counter.flow.refresh(issued.refresh_token))
    assert claims_of(again.access_token)["sub"] == counter.sub


async def test_rfc_9449_5_the_token_is_bound_to_the_key_of_the_polls_proof(counter: Counter) -> None:
    asked = await counter.ask()
    await counter.approve(asked)
    issued = good(await counter.poll(asked))
    counter.flow.client.proof_key = generate("ES256")
    assert error_of(await counter.flow.refresh(issued.refresh_token)) == "invalid_grant"


async def test_ciba_11_a_poll_without_a_proof_uses_nothing_up(counter: Counter) -> None:
    asked = await counter.ask()
    await counter.approve(asked)
    assert error_of(await counter.poll(asked, proofs=[])) == "invalid_dpop_proof"
    assert isinstance(await counter.poll(asked), TokenIssued)


async def test_ciba_11_an_auth_req_id_is_used_once(counter: Counter) -> None:
    asked = await counter.ask()
    await counter.approve(asked)
    good(await counter.poll(asked))
    assert error_of(await counter.poll(asked)) == "invalid_grant"


async def test_ciba_11_an_auth_req_id_is_of_one_client(
    counter: Counter, flow_of: Any, register: Any, connection: Connection
) -> None:
    asked = await counter.ask()
    await counter.approve(asked)
    app, client = await register(connection, counter.now)
    other = await open_counter(await flow_of(app, client), app.partner_id)
    assert error_of(await other.poll(asked)) == "invalid_grant"
    assert isinstance(await counter.poll(asked), TokenIssued)


@pytest.mark.parametrize("auth_req_id", [DROP, "", "x", "x" * 4000, "二"])
async def test_ciba_11_an_auth_req_id_of_no_request_is_refused(counter: Counter, auth_req_id: Any) -> None:
    asked = await counter.ask()
    error = error_of(await counter.poll(asked, auth_req_id=auth_req_id))
    assert error == ("invalid_request" if auth_req_id in (DROP, "") else "invalid_grant")


async def test_ciba_11_denied_pending_expired(counter: Counter) -> None:
    denied, waiting = await counter.ask(), await counter.ask()
    await counter.deny(denied)
    assert error_of(await counter.poll(denied)) == "access_denied"
    assert error_of(await counter.poll(waiting)) == "authorization_pending"
    assert error_of(await counter.later(300).poll(waiting)) == "expired_token"
    assert await counter.later(300).shown() == []
    with pytest.raises(AuthorizationExpired):
        await counter.later(300).approve(waiting, shown=await counter.find(waiting))
    with pytest.raises(AuthorizationExpired):
        await counter.later(300).deny(waiting)


async def test_what_was_approved_in_the_last_second_can_be_fetched_for_a_minute(counter: Counter) -> None:
    asked = await counter.ask()
    await counter.later(299).approve(asked, shown=await counter.find(asked))
    assert isinstance(await counter.later(358).poll(asked), TokenIssued)
    another = await counter.ask()
    await counter.later(299).approve(another, shown=await counter.find(another))
    assert error_of(await counter.later(359).poll(another)) == "expired_token"


async def test_ciba_11_polling_too_fast_makes_the_interval_grow(counter: Counter) -> None:
    asked = await counter.ask()
    steps = [
        (0, "authorization_pending"),
        (1, "slow_down"),  # from now on 10 s apart
        (7, "slow_down"),  # 15
        (21.8, "authorization_pending"),
        (36, "slow_down"),  # 20
        (56, "authorization_pending"),
        (76, "authorization_pending"),
    ]
    for seconds, error in steps:
        assert error_of(await counter.later(seconds).poll(asked)) == error, seconds
    await counter.later(77).approve(asked, shown=await counter.find(asked))
    assert isinstance(await counter.later(77).poll(asked), TokenIssued)


async def test_a_grant_withdrawn_before_the_poll_gives_no_token(counter: Counter) -> None:
    asked = await counter.ask()
    await counter.approve(asked)
    async with counter.flow.connect() as connection:
        await withdraw_consent(
            connection, partner_id=counter.partner_id, member=counter.flow.member, now=counter.now
        )
    assert error_of(await counter.poll(asked)) == "invalid_grant"


async def test_a_partner_that_is_not_live_is_given_nothing(counter: Counter) -> None:
    asked = await counter.ask()
    async with counter.flow.connect() as connection:
        await registry.set_partner_status(
            connection, partner_id=counter.partner_id, status="suspended", actor="test", now=counter.now
        )
    with pytest.raises(AuthorizationWithdrawn):
        await counter.approve(asked)
    assert error_of(await counter.poll(asked)) == "unauthorized_client"
    assert error_of(await counter.try_ask()) == "unauthorized_client"


async def test_an_answer_may_be_repeated_but_not_turned(counter: Counter) -> None:
    yes, no = await counter.ask(), await counter.ask()
    shown = await counter.find(yes)
    await counter.approve(yes)
    await counter.approve(yes, shown=shown)
    await counter.deny(no)
    await counter.deny(no)
    with pytest.raises(AuthorizationDecided):
        await counter.deny(yes)
    good(await counter.poll(yes))
    await counter.approve(yes, shown=shown)
    with pytest.raises(AuthorizationDecided):
        await counter.deny(yes)


async def test_bola_another_members_request_is_absent(counter: Counter) -> None:
    asked = await counter.ask()
    stranger = await another_member(counter.flow)
    assert await counter.shown(stranger) == []
    for step in (counter.approve(asked, member=stranger), counter.deny(asked, member=stranger)):
        with pytest.raises(AuthorizationUnknown):
            await step
    assert len(await counter.shown()) == 1


@pytest.mark.parametrize(
    "swap", [{"details_hash": "A" * 43}, {"binding_message": "4712"}, {"binding_message": None}]
)
async def test_a_swapped_request_is_not_approved(counter: Counter, swap: dict[str, Any]) -> None:
    asked = await counter.ask(binding_message="4711")
    with pytest.raises(AuthorizationNotAsShown):
        await counter.approve(asked, **swap)
    other = await counter.ask(binding_message="4711", scope="members:read")
    with pytest.raises(AuthorizationNotAsShown):
        await counter.approve(asked, details_hash=(await counter.find(other)).details_hash)
    assert error_of(await counter.poll(asked)) == "authorization_pending"


@pytest.mark.parametrize(
    ("changes", "sensitive"),
    [
        ({"scope": "members:read"}, False),
        ({"scope": "points:spend"}, None),
        ({"scope": "members:read", "authorization_details": details(SPEND)}, None),
        ({"scope": "members:read", "authorization_details": details(TAX)}, True),
    ],
)
async def test_what_is_sensitive_or_costs_something_takes_a_login_of_the_last_minutes(
    generous: Counter, changes: dict[str, Any], sensitive: bool | None
) -> None:
    asked = await generous.ask(**changes)
    shown = await generous.find(asked)
    assert shown.needs_fresh_login is (sensitive is not False)
    if shown.needs_fresh_login:
        with pytest.raises(InsufficientUserAuthentication) as refused:
            await generous.approve(asked, login_age=timedelta(minutes=5))
        assert 'error="insufficient_user_authentication"' in refused.value.challenge()
        assert refused.value.challenge().endswith("max_age=300")
    if sensitive:
        with pytest.raises(SensitiveConsentMissing):
            await generous.approve(asked, sensitive_given=False)
    age = timedelta(minutes=4, seconds=59) if shown.needs_fresh_login else timedelta(days=29)
    await generous.approve(asked, login_age=age)


async def test_a_grant_may_be_widened_on_the_phone_and_keeps_its_id(counter: Counter) -> None:
    first = await counter.ask(scope="members:read")
    await counter.approve(first)
    issued = good(await counter.poll(first))
    second = await counter.ask(scope="points:earn", grant_management_action="merge", grant_id=issued.grant_id)
    await counter.approve(second)
    widened = good(await counter.poll(second))
    assert widened.grant_id == issued.grant_id


async def test_another_members_grant_is_not_widened(counter: Counter) -> None:
    own = counter.flow.member
    asked = await counter.ask()
    await counter.approve(asked)
    issued = good(await counter.poll(asked))
    counter.flow.member = await another_member(counter.flow)
    stranger = await open_counter(counter.flow, counter.partner_id)
    changes = {"grant_management_action": "merge", "grant_id": issued.grant_id}
    assert error_of(await stranger.try_ask(**changes)) == "invalid_grant_id"
    counter.flow.member = own
    assert isinstance(await counter.try_ask(**changes), RequestAccepted)


async def test_a_grant_that_cannot_be_recorded_leaves_the_request_waiting(
    counter: Counter, connection: Connection
) -> None:
    for _ in range(GRANTS_MAX):
        asked = await counter.ask()
        await counter.approve(asked)
        await connection.execute("DELETE FROM oauth_backchannel")
    asked = await counter.ask()
    nested = connection.transaction()
    await nested.start()
    with pytest.raises(Refusal) as refused:
        await counter.approve(asked)
    await nested.rollback()
    assert refused.value.code == "grant_not_recorded"
    assert error_of(await counter.poll(asked)) == "authorization_pending"


async def test_the_decision_is_told_once(counter: Counter, connection: Connection) -> None:
    yes, no = await counter.ask(), await counter.ask()
    shown = await counter.find(yes)
    for _ in range(2):
        await counter.approve(yes, shown=shown)
        await counter.deny(no)
    records = await connection.fetch(
        "SELECT aggregate, payload FROM outbox_event WHERE type = 'authorization.decided' AND partner_id = $1",
        counter.partner_id,
    )
    assert {record["aggregate"]: record["payload"]["decision"] for record in records} == {
        yes.authorization: "approved",
        no.authorization: "denied",
    }
    assert len(records) == 2


# ---- a member is not worn out with prompts


async def test_one_partner_keeps_no_more_than_three_requests_waiting_for_a_member(counter: Counter) -> None:
    for _ in range(3):
        await counter.ask()
    refused = await counter.try_ask()
    assert isinstance(refused, TokenRefused)
    assert (refused.status, refused.error) == (403, "access_denied")
    await counter.deny(await _any(counter))
    await counter.ask()


async def _any(counter: Counter) -> RequestAccepted:
    [first, *_] = await counter.shown()
    return RequestAccepted(
        auth_req_id="", expires_in=0, interval=0, authorization=to_wire("aut", first.request.id)
    )


async def test_a_member_who_denies_is_asked_ten_times_an_hour_at_most(counter: Counter) -> None:
    for _ in range(10):
        await counter.deny(await counter.ask())
    refused = await counter.try_ask()
    assert isinstance(refused, TokenRefused) and refused.status == 403
    assert isinstance(await counter.later(3601).try_ask(), RequestAccepted)


async def test_all_partners_together_keep_no_more_than_six_waiting(
    counter: Counter, flow_of: Any, register: Any, connection: Connection
) -> None:
    counters = [counter]
    for _ in range(2):
        app, client = await register(connection, counter.now)
        flow: Flow = await flow_of(app, client)
        flow.member = counter.flow.member
        counters.append(await open_counter(flow, app.partner_id))
    for one in counters[:2]:
        for _ in range(3):
            await one.ask()
    refused = await counters[2].try_ask()
    assert isinstance(refused, TokenRefused) and refused.status == 403
    assert len(await counter.shown()) == 6


# ---- parallel copies, on two pools


@pytest.fixture
async def two_pools(database_url: str, pool: Pool) -> AsyncGenerator[list[Pool], None]:
    """As two worker processes have them."""
    async with await open_pool(database_url, size=8, application="tessera-tests-2") as other:
        yield [pool, other]


@pytest.fixture
async def committed(
    two_pools: list[Pool], register: Any, lasting_signer: Any, vault: Vault, now: Any
) -> Counter:
    """A counter whose every step commits, by turns on two pools."""
    turns = {"taken": 0}

    def connect() -> Any:
        turns["taken"] += 1
        return transaction(two_pools[turns["taken"] % 2])

    async with transaction(two_pools[0]) as connection:
        app, client = await register(connection, now)
        [member] = await enrol_members(connection, count=1, now=now)
    flow = Flow(connect, client=client, signer=lasting_signer, vault=vault, member=member, now=now)
    return await open_counter(flow, app.partner_id)


async def crowd(step: Any, copies: int = 100) -> list[Any]:
    """As many at once as the pools carry."""
    gate = asyncio.Semaphore(12)

    async def one(number: int) -> Any:
        async with gate:
            return await step(number)

    return await asyncio.gather(*(one(number) for number in range(copies)), return_exceptions=True)


async def test_of_a_hundred_polls_after_approval_one_gets_the_token(committed: Counter) -> None:
    asked = await committed.ask()
    await committed.approve(asked)
    outcomes = await crowd(lambda _: committed.poll(asked))
    issued = [outcome for outcome in outcomes if isinstance(outcome, TokenIssued)]
    assert len(issued) == 1
    assert {error_of(outcome) for outcome in outcomes if outcome is not issued[0]} == {"invalid_grant"}
    assert (await committed.flow.introspect(issued[0].access_token))["active"] is True


async def test_of_a_hundred_answers_the_first_counts(committed: Counter, pool: Pool) -> None:
    asked = await committed.ask()
    shown = await committed.find(asked)

    async def answer(number: int) -> None:
        if number % 2:
            await committed.approve(asked, shown=shown)
        else:
            await committed.deny(asked)

    outcomes = await crowd(answer)
    assert sum(outcome is None for outcome in outcomes) == 50
    assert {type(outcome) for outcome in outcomes if outcome is not None} == {AuthorizationDecided}
    identifier: UUID = from_wire("aut", asked.authorization)
    async with transaction(pool) as connection:
        given = await connection.fetchval(
            "SELECT count(*) FROM oauth_consent_given WHERE request_id = $1", identifier
        )
        told = await connection.fetchval(
            "SELECT count(*) FROM outbox_event WHERE aggregate = $1", asked.authorization
        )
    polled = await committed.poll(asked)
    assert given == (1 if isinstance(polled, TokenIssued) else 0)
    assert told == 1


async def test_of_a_hundred_requests_at_once_three_are_kept(committed: Counter) -> None:
    outcomes = await crowd(lambda _: committed.try_ask())
    assert len([outcome for outcome in outcomes if isinstance(outcome, RequestAccepted)]) == 3
    assert {o.error for o in outcomes if isinstance(o, TokenRefused)} == {"access_denied"}


async def test_of_a_hundred_polls_at_once_one_is_in_time(committed: Counter) -> None:
    asked = await committed.ask()
    outcomes = await crowd(lambda _: committed.poll(asked), copies=40)
    errors = [error_of(outcome) for outcome in outcomes]
    assert errors.count("authorization_pending") == 1
    assert errors.count("slow_down") == 39
