"""FAPI 2.0 Security Profile Final §5.3.2.1: codes, refresh tokens, introspection and revocation (docs/fapi.md)."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import timedelta
from typing import Any

import pytest
from partner_client import DROP, b64, generate

from kernel.database import Connection, DatabaseBusy, Pool, open_pool, transaction
from kernel.ids import from_wire
from partners.oauth import grants
from partners.oauth.model import TokenIssued, TokenRefused
from partners.oauth.pushing import RequestPushed
from partners.oauth.quote_terms import QuoteTerms
from partners.oauth.revocations import RevocationList
from partners.oauth.service import pairwise, withdraw_consent
from partners.registry import service as registry
from partners.registry.jwk import read_jwk
from partners.registry.model import App
from points.membership.service import enrol_members

from .member_flow import BASE_URL, REDIRECT, Flow, claims_of, corrupt, details, error_of, good

TOKEN = f"{BASE_URL}/oauth2/token"


async def test_a_member_token_says_whose_it_is_and_on_what_it_stands(flow: Flow, app: App) -> None:
    issued = await flow.issued()
    assert (issued.token_type, issued.expires_in, issued.scope) == ("DPoP", 300, "members:read points:earn")
    assert issued.refresh_token is not None and len(issued.refresh_token) >= 43
    claims = claims_of(issued.access_token)
    sub = pairwise(flow.vault.key("pairwise"), app.partner_id, flow.member.member_id)
    assert claims["sub"] == sub
    assert claims["client_id"] == flow.client.client_id != sub
    assert claims["grant_id"] == issued.grant_id
    assert claims["aud"] == f"{BASE_URL}/v1"


@pytest.mark.parametrize(
    ("clause", "changes"),
    [
        ("redirect_uri missing", {"redirect_uri": DROP}),
        ("redirect_uri another", {"redirect_uri": REDIRECT + "&x=1"}),
        ("ensure-pkce-code-verifier-required", {"code_verifier": DROP}),
        ("incorrect-pkce-code-verifier-rejected", {"code_verifier": "x" * 64}),
        ("verifier of another shape", {"code_verifier": "é" * 43}),
        ("unknown code", {"code": "x" * 43}),
        ("code of another shape", {"code": "x" * 1_000}),
        ("code with NUL", {"code": "\0"}),
    ],
)
async def test_a_code_is_not_exchanged_and_not_used_up(
    clause: str, changes: dict[str, Any], flow: Flow
) -> None:
    code = await flow.code()
    assert error_of(await flow.exchange(code, **changes)) == "invalid_grant", clause
    good(await flow.exchange(code))


async def test_a_code_is_named(flow: Flow) -> None:
    assert error_of(await flow.exchange("x", code=DROP)) == "invalid_request"


async def test_ensure_authorization_code_is_bound_to_client(
    flow: Flow, flow_of: Any, register: Any, connection: Connection
) -> None:
    other = await flow_of(*await register(connection, flow.now))
    code = await flow.code()
    assert error_of(await other.exchange(code)) == "invalid_grant"
    good(await flow.exchange(code))


async def test_attempt_to_use_expired_auth_code(flow: Flow) -> None:
    code = await flow.code()
    assert error_of(await flow.later(60).exchange(code)) == "invalid_grant"
    good(await flow.later(59).exchange(code))


async def test_attempt_reuse_authorization_code(flow: Flow, connection: Connection) -> None:
    code = await flow.code()
    issued = good(await flow.exchange(code))
    assert (await flow.introspect(issued.access_token))["active"] is True
    assert error_of(await flow.later(1).exchange(code)) == "invalid_grant"
    # RFC 6749 §4.1.2: what came of it is revoked
    assert await flow.introspect(issued.access_token) == {"active": False}
    assert await flow.introspect(issued.refresh_token) == {"active": False}
    assert error_of(await flow.refresh(issued.refresh_token)) == "invalid_grant"


async def test_a_foreign_client_with_a_used_code_ends_nothing(
    flow: Flow, flow_of: Any, register: Any, connection: Connection
) -> None:
    other = await flow_of(*await register(connection, flow.now))
    code = await flow.code()
    issued = good(await flow.exchange(code))
    assert error_of(await other.exchange(code)) == "invalid_grant"
    assert (await flow.introspect(issued.access_token))["active"] is True


async def test_ensure_token_endpoint_fails_with_mismatched_dpop_jkt(flow: Flow) -> None:
    jkt = read_jwk(flow.client.public_jwk).thumbprint
    code = await flow.code(dpop_jkt=jkt)
    assert error_of(await flow.exchange(code)) == "invalid_grant"
    flow.client.proof_key = flow.client.key
    good(await flow.exchange(code))


async def test_ensure_holder_of_key_required(flow: Flow) -> None:
    code = await flow.code()
    assert error_of(await flow.exchange(code, proofs=[])) == "invalid_dpop_proof"
    good(await flow.exchange(code))


async def test_a_code_of_a_grant_that_ended_meanwhile_is_worth_nothing(
    flow: Flow, connection: Connection, app: App
) -> None:
    code = await flow.code()
    await withdraw_consent(connection, partner_id=app.partner_id, member=flow.member, now=flow.now)
    assert error_of(await flow.exchange(code)) == "invalid_grant"


async def test_the_password_grant_does_not_exist(flow: Flow) -> None:
    for grant_type in ("password", "implicit", "urn:ietf:params:oauth:grant-type:jwt-bearer"):
        assert error_of(await flow.token(grant_type=grant_type)) == "unsupported_grant_type"


async def test_refresh_token_is_not_rotated(flow: Flow) -> None:
    issued = await flow.issued()
    later = flow.later(400)
    for _ in range(2):
        again = good(await later.refresh(issued.refresh_token))
        assert again.refresh_token is None
        assert again.grant_id == issued.grant_id
        assert again.scope == issued.scope
        assert claims_of(again.access_token)["sub"] == claims_of(issued.access_token)["sub"]


async def test_a_refresh_may_narrow_and_never_widens(flow: Flow) -> None:
    issued = await flow.issued(scope="members:read")
    for scope in ("points:earn", "members:read points:earn", "admin"):
        assert error_of(await flow.refresh(issued.refresh_token, scope=scope)) == "invalid_scope"
    wide = await flow.issued()
    assert good(await flow.refresh(wide.refresh_token, scope="points:earn")).scope == "points:earn"
    assert good(await flow.refresh(wide.refresh_token)).scope == "members:read points:earn"


async def test_a_refresh_token_is_bound_to_client_and_key(
    flow: Flow, flow_of: Any, register: Any, connection: Connection
) -> None:
    other = await flow_of(*await register(connection, flow.now))
    issued = await flow.issued()
    assert error_of(await other.refresh(issued.refresh_token)) == "invalid_grant"
    own, flow.client.proof_key = flow.client.proof_key, generate("ES256")
    assert error_of(await flow.refresh(issued.refresh_token)) == "invalid_grant"
    flow.client.proof_key = own
    good(await flow.refresh(issued.refresh_token))


async def test_a_refresh_token_lives_while_it_is_used(flow: Flow) -> None:
    day = 86_400
    issued = await flow.issued()
    good(await flow.later(29 * day).refresh(issued.refresh_token))
    good(await flow.later(58 * day).refresh(issued.refresh_token))
    assert error_of(await flow.later(88 * day).refresh(issued.refresh_token)) == "invalid_grant"
    assert await flow.later(88 * day).introspect(issued.refresh_token) == {"active": False}


async def test_a_refresh_token_ends_with_the_grants_last_day(flow: Flow) -> None:
    issued = await flow.issued(
        grant_ends_on="2026-11-20"
    )  # until 16:00 UTC, twelve hours from noon in Shanghai
    told = await flow.introspect(issued.refresh_token)
    midnight = int(flow.later(12 * 3_600).now.timestamp())
    assert told["exp"] == midnight
    good(await flow.later(12 * 3_600 - 1).refresh(issued.refresh_token))
    assert error_of(await flow.later(12 * 3_600).refresh(issued.refresh_token)) == "invalid_grant"


async def test_a_scope_taken_from_the_app_is_gone_from_its_refreshed_tokens(
    flow: Flow, connection: Connection, app: App
) -> None:
    issued = await flow.issued()
    await connection.execute("UPDATE registry_app SET scopes = '{members:read}' WHERE id = $1", app.id)
    assert good(await flow.refresh(issued.refresh_token)).scope == "members:read"


async def test_a_withdrawn_grant_ends_its_tokens_at_once_also_while_the_partner_is_suspended(
    flow: Flow, connection: Connection, app: App
) -> None:
    issued, kept = await flow.issued(), await flow.issued()
    assert issued.grant_id != kept.grant_id
    await registry.set_partner_status(
        connection, partner_id=app.partner_id, status="suspended", actor="test", now=flow.now
    )
    assert error_of(await flow.refresh(kept.refresh_token)) == "unauthorized_client"
    assert await flow.introspect(kept.access_token) == {"active": False}
    assert await flow.revoke(issued.grant_id) is None
    await registry.set_partner_status(
        connection, partner_id=app.partner_id, status="live", actor="test", now=flow.now
    )
    assert error_of(await flow.refresh(issued.refresh_token)) == "invalid_grant"
    good(await flow.refresh(kept.refresh_token))


async def test_introspection_tells_a_client_of_its_own_tokens_only(
    flow: Flow, flow_of: Any, register: Any, connection: Connection
) -> None:
    other = await flow_of(*await register(connection, flow.now))
    issued = await flow.issued()
    told = await flow.introspect(issued.access_token)
    claims = claims_of(issued.access_token)
    assert told == {
        "active": True,
        "token_type": "DPoP",
        "scope": issued.scope,
        **{
            name: claims[name]
            for name in ("client_id", "sub", "aud", "iss", "exp", "iat", "nbf", "jti", "cnf")
        },
        "grant_id": issued.grant_id,
    }
    assert (await flow.introspect(issued.refresh_token))["grant_id"] == issued.grant_id
    own = good(await flow.token(grant_type="client_credentials"))
    assert (await flow.introspect(own.access_token))["sub"] == flow.client.client_id
    for token in (issued.access_token, issued.refresh_token, own.access_token):
        assert await other.introspect(token) == {"active": False}


@pytest.mark.parametrize("token", ["x", "x" * 43, "a.b.c", "é", "\0", "x" * 20_000, "grt_" + "0" * 26])
async def test_an_unknown_token_is_inactive_and_revoked_without_a_word(token: str, flow: Flow) -> None:
    assert await flow.introspect(token) == {"active": False}
    assert await flow.revoke(token) is None


async def test_a_token_that_is_no_access_token_of_ours_is_inactive(flow: Flow) -> None:
    issued = await flow.issued()
    tokens = [corrupt(issued.access_token), flow.client.assertion(flow.now)]
    tokens.append(flow.client.proof("POST", TOKEN, flow.now))
    for token in tokens:
        assert await flow.introspect(token) == {"active": False}
    assert await flow.later(300).introspect(issued.access_token) == {"active": False}


async def test_introspection_and_revocation_ask_for_a_client_and_a_token(flow: Flow) -> None:
    for ask in (flow.introspect, flow.revoke):
        assert error_of(await ask(None, token=DROP)) == "invalid_request"
        assert error_of(await ask("x", client_assertion=DROP)) == "invalid_client"
        assertion = flow.client.assertion(flow.now)
        await ask("x", client_assertion=assertion)
        assert error_of(await ask("x", client_assertion=assertion)) == "invalid_client"


async def test_a_revoked_access_token_ends_alone_and_a_refresh_token_with_all_its_own(
    flow: Flow, flow_of: Any, register: Any, connection: Connection
) -> None:
    other = await flow_of(*await register(connection, flow.now))
    issued = await flow.issued()
    second = good(await flow.refresh(issued.refresh_token))
    for token in (issued.access_token, issued.refresh_token, issued.grant_id):
        assert await other.revoke(token) is None
    assert (await flow.introspect(issued.access_token))["active"] is True
    await flow.revoke(issued.access_token)
    assert await flow.introspect(issued.access_token) == {"active": False}
    assert (await flow.introspect(second.access_token))["active"] is True
    await flow.revoke(issued.refresh_token)
    assert await flow.introspect(second.access_token) == {"active": False}
    assert error_of(await flow.refresh(issued.refresh_token)) == "invalid_grant"


async def test_merge_widens_a_grant_and_replace_narrows_it_and_both_keep_its_id(
    flow: Flow, connection: Connection, app: App
) -> None:
    first = await flow.issued(scope="members:read", grant_ends_on="2027-01-01")
    named = {"grant_id": first.grant_id}
    merged = await flow.issued(
        scope="points:earn", grant_management_action="merge", grant_ends_on="2026-12-01", **named
    )
    assert merged.grant_id == first.grant_id

    async def grant() -> Any:
        found = await grants.find_grant(
            connection,
            partner_id=app.partner_id,
            grant_id=from_wire("grt", first.grant_id or ""),
            now=flow.now,
        )
        assert found is not None
        return found.scopes, str(found.ends_on)

    assert await grant() == (["members:read", "points:earn"], "2026-12-01")
    assert (await flow.introspect(first.access_token))["active"] is True
    replaced = await flow.later(1).issued(
        scope="points:earn", grant_management_action="replace", grant_ends_on="2026-12-01", **named
    )
    assert replaced.grant_id == first.grant_id
    assert await grant() == (["points:earn"], "2026-12-01")
    # what was granted before may be more than is granted now: its tokens end, the new ones do not
    for old in (first, merged):
        assert await flow.introspect(old.access_token) == {"active": False}
        assert error_of(await flow.refresh(old.refresh_token)) == "invalid_grant"
    assert (await flow.introspect(replaced.access_token))["active"] is True
    good(await flow.refresh(replaced.refresh_token))


async def test_another_partners_or_members_grant_is_as_absent_as_none(
    flow: Flow, flow_of: Any, register: Any, connection: Connection
) -> None:
    other = await flow_of(*await register(connection, flow.now))
    issued = await flow.issued()
    asked = {"grant_management_action": "merge", "grant_id": issued.grant_id}
    assert error_of(await other.push(**asked)) == "invalid_grant_id"
    [stranger] = await enrol_members(connection, count=1, now=flow.now)
    answer = await flow.approve(await flow.ask(**asked), member=stranger)
    assert (answer["error"], "code" in answer) == ("access_denied", False)


async def test_there_may_be_sixteen_grants_and_no_more(flow: Flow) -> None:
    for _ in range(grants.GRANTS_MAX):
        assert "code" in await flow.approve(await flow.ask())
    assert (await flow.approve(await flow.ask()))["error"] == "access_denied"


async def test_a_request_about_one_member_is_answered_by_no_other(
    flow: Flow, connection: Connection, app: App
) -> None:
    await connection.execute(
        "UPDATE registry_app SET scopes = scopes || '{offers:write}' WHERE id = $1", app.id
    )
    quote_id = "qte_" + "0" * 25 + "1"
    flow.quotes.terms[app.partner_id, from_wire("qte", quote_id)] = QuoteTerms(
        member_id=flow.member.member_id,
        amount_fen=120_000,
        periods=12,
        annual_rate_simple_ppm=60_000,
        annual_rate_compound_ppm=61_678,
        total_payable_fen=123_000,
    )
    asked = {
        "scope": "offers:write",
        "authorization_details": details({"type": "instalment_plan", "quote_id": quote_id}),
    }
    [stranger] = await enrol_members(connection, count=1, now=flow.now)
    answer = await flow.approve(await flow.ask(**asked), member=stranger)
    assert answer["error"] == "access_denied"
    issued = await flow.issued(**asked)
    assert issued.authorization_details == [
        {
            "type": "instalment_plan",
            "quote_id": quote_id,
            "amount_fen": 120_000,
            "periods": 12,
            "annual_rate_simple_ppm": 60_000,
            "annual_rate_compound_ppm": 61_678,
            "total_payable_fen": 123_000,
        }
    ]


@pytest.fixture
async def two_pools(database_url: str, pool: Pool) -> AsyncGenerator[list[Pool], None]:
    """As two worker processes have them."""
    async with await open_pool(database_url, size=8, application="tessera-tests-2") as other:
        yield [pool, other]


@pytest.fixture
async def committed(two_pools: list[Pool], register: Any, lasting_signer: Any, vault: Any, now: Any) -> Flow:
    """A flow whose every step commits, by turns on two pools."""
    turns = {"taken": 0}

    def connect() -> Any:
        turns["taken"] += 1
        return transaction(two_pools[turns["taken"] % 2])

    async with transaction(two_pools[0]) as connection:
        app, client = await register(connection, now)
        await registry.add_redirect_uri(
            connection, client_id=app.client_id, uri=REDIRECT, sandbox=False, actor="test", now=now
        )
        [member] = await enrol_members(connection, count=1, now=now)
    return Flow(connect, client=client, signer=lasting_signer, vault=vault, member=member, now=now)


async def crowd(step: Any, copies: int = 100) -> list[Any]:
    """As many at once as the pools carry."""
    gate = asyncio.Semaphore(12)

    async def one() -> Any:
        async with gate:
            return await step()

    return await asyncio.gather(*(one() for _ in range(copies)), return_exceptions=True)


async def test_of_a_hundred_copies_of_a_code_one_is_exchanged(committed: Flow) -> None:
    code = await committed.code()
    outcomes = await crowd(lambda: committed.exchange(code))
    issued = [outcome for outcome in outcomes if isinstance(outcome, TokenIssued)]
    assert len(issued) == 1
    assert {error_of(outcome) for outcome in outcomes if outcome is not issued[0]} == {"invalid_grant"}
    assert await committed.introspect(issued[0].access_token) == {"active": False}


async def test_of_a_hundred_answers_to_a_page_one_counts(committed: Flow) -> None:
    pushed = await committed.push()
    assert isinstance(pushed, RequestPushed)
    handles = await crowd(lambda: committed.open(pushed.request_uri), copies=20)
    assert len(set(handles)) == 1
    answers = await crowd(lambda: committed.approve(handles[0]))
    assert len([answer for answer in answers if isinstance(answer, dict)]) == 1


async def test_of_a_hundred_copies_of_a_refresh_request_one_is_answered(committed: Flow) -> None:
    issued = await committed.issued()
    assertion = committed.client.assertion(committed.now)
    outcomes = await crowd(lambda: committed.refresh(issued.refresh_token, client_assertion=assertion))
    assert len([outcome for outcome in outcomes if isinstance(outcome, TokenIssued)]) == 1


async def test_of_a_hundred_copies_of_a_pushed_request_one_is_kept(committed: Flow) -> None:
    body = committed.asked()
    outcomes = await crowd(lambda: committed.push(body=body))
    assert len([outcome for outcome in outcomes if isinstance(outcome, RequestPushed)]) == 1
    assert {error_of(o) for o in outcomes if isinstance(o, TokenRefused)} == {"invalid_client"}


class Timer:
    """A monotonic timer that a test winds."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


async def test_the_revocation_list_misses_nobody_who_commits_late(two_pools: list[Pool], now: Any) -> None:
    timer = Timer()
    revoked = RevocationList(two_pools[0], life_seconds=0.5, monotonic=timer)
    async with two_pools[1].acquire() as early, two_pools[1].acquire() as late:
        first, second = late.transaction(), early.transaction()
        # the one that began first commits last
        await first.start()
        await grants.revoke(late, ["token:late"], now=await clock(late))
        await second.start()
        await grants.revoke(early, ["token:early"], now=await clock(early))
        await second.commit()
        assert await revoked.includes(["token:early"], now=now)
        assert not await revoked.includes(["token:late"], now=now)
        await first.commit()
    assert not await revoked.includes(["token:late"], now=now)  # the list is young enough
    timer.seconds += 0.5
    assert await revoked.includes(["token:late"], now=now)


async def clock(connection: Connection) -> Any:
    return await connection.fetchval("SELECT clock_timestamp()")


async def test_a_revocation_list_beyond_its_bound_asks_the_database(two_pools: list[Pool], now: Any) -> None:
    async with transaction(two_pools[0]) as connection:
        moment = await clock(connection)
        for second in range(20):
            again = moment + timedelta(seconds=second)
            await grants.revoke(connection, ["token:bound-0"], now=again)
        await grants.revoke(connection, [f"token:bound-{n}" for n in range(1, 20)], now=moment)
    small = RevocationList(two_pools[1], entries_max=5)
    assert await small.includes(["token:bound-19"], now=moment)
    assert not await small.includes(["token:bound-20"], now=moment)


async def test_a_revocation_list_that_cannot_be_read_lets_nobody_in(database_url: str, now: Any) -> None:
    timer = Timer()
    async with await open_pool(database_url, size=2, application="tessera-tests-3") as lost:
        revoked = RevocationList(lost, monotonic=timer)
        assert not await revoked.includes(["token:x"], now=now)
        lost.terminate()
        timer.seconds += 4.9
        assert not await revoked.includes(["token:x"], now=now)
        timer.seconds += 0.2
        with pytest.raises(DatabaseBusy):
            await revoked.includes(["token:x"], now=now)


def test_thumbprints_are_of_one_length() -> None:
    assert len(b64(b"\0" * 32)) == 43


async def test_a_merged_grant_has_one_spending_limit_and_eight_details_at_most(
    flow: Flow, connection: Connection, app: App
) -> None:
    scopes = ["points:spend", "offers:write", "data:write"]
    await connection.execute(
        "UPDATE registry_app SET scopes = scopes || $2::text[] WHERE id = $1", app.id, scopes
    )

    async def merge(*each: dict[str, Any], grant_id: str | None) -> dict[str, str]:
        asked = {"grant_management_action": "merge", "grant_id": grant_id}
        wish = details(*each)
        return await flow.approve(
            await flow.ask(scope="points:spend", authorization_details=wish, **asked), sensitive_given=True
        )

    limit = {"type": "points_spend", "max_points": 5}
    first = await flow.issued(scope="points:spend", authorization_details=details(limit))
    for product in ("edu_savings", "elderly_wealth"):
        account = {"type": "account_open", "product": product}
        answer = await merge(limit | {"max_points": 9}, account, grant_id=first.grant_id)
    merged = good(await flow.exchange(answer["code"]))
    assert merged.authorization_details == [
        {"type": "account_open", "product": "edu_savings"},
        {"type": "points_spend", "max_points": 9},
        {"type": "account_open", "product": "elderly_wealth"},
    ]
    for year in range(2020, 2026):
        data = {"type": "tax_data", "tax_years": [year], "datatypes": ["paid_tax"]}
        answer = await merge(data, grant_id=first.grant_id)
        assert ("code" in answer) is (year < 2025)
