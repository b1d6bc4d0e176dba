"""Who may do what: every route × everybody × what is one's own, another's and nobody's; a route that is missing fails.

What is expected follows from the declaration of the route. Another's thing and one that never was are told apart by
nothing: the answers are the same but for the name that was asked for and the trace id.
"""

import re
from collections.abc import AsyncGenerator, Mapping
from typing import Any
from uuid import uuid4

import httpx
import msgspec
import pytest
from attacks.house import House, MemberClient
from attacks.routes import ABSENT, ASKS, SUCCESS, Ask, Route, Verdict, declared, shape
from attacks.things import NOTHING, Things, ask_on_the_phone, prepare_things
from msgspec import Struct, structs
from phone import Phone
from points_routes import deliver

from gateway.client import Answer, PartnerClient
from partners.oauth.scopes import SCOPES

WHO = (
    "anonymous",
    "partner",
    "other_partner",
    "suspended_partner",
    "wrong_scope",
    "member",
    "other_member",
    "admin",
    "phone",
    "other_phone",
)
PHONES = ("phone", "other_phone")
WHOSE = ("own", "foreign", "absent")
OTHERS = ("other_partner", "other_phone")
OWNERS = ("partner", "other_partner", "wrong_scope", "member")
#: headers that differ from answer to answer
MOVING = ("x-request-id", "ratelimit", "ratelimit-policy", "dpop-nonce", "content-length", "date")
CELLS = [pytest.param(route, id=" ".join(route)) for route in ASKS]


class Cast(Struct, frozen=True, kw_only=True):
    """Everybody, and what is whose."""

    house: House
    partner: PartnerClient
    other_partner: PartnerClient
    suspended_partner: PartnerClient
    member: MemberClient
    other_member: MemberClient
    phone: Phone
    other_phone: Phone
    own: Things
    foreign: Things
    suspended: Things

    def client(self, who: str, scope: str) -> PartnerClient | Phone | None:
        if who == "wrong_scope":
            left = sorted(set(SCOPES) - set(scope.split("|")))
            return self.house.client(structs.replace(self.partner.credentials, scopes=left))
        return getattr(self, who, None)

    def owner(self, who: str) -> PartnerClient:
        """Whose things those are that are one's own."""
        return self.other_partner if who == "other_partner" else self.partner

    def things(self, who: str, whose: str) -> Things:
        if whose == "absent":
            return NOTHING
        if who == "suspended_partner" and whose == "own":
            return self.suspended
        return self.own if (who in OTHERS) == (whose == "foreign") else self.foreign


@pytest.fixture(scope="module")
async def cast(house: House) -> AsyncGenerator[Cast, None]:
    partner, other, suspended = [await house.partner() for _ in range(3)]
    own, foreign, gone = [await prepare_things(house, each) for each in (partner, other, suspended)]
    await house.suspend(suspended)
    phone, other_phone = [await house.phone() for _ in range(2)]
    own = await ask_on_the_phone(house, partner, phone, own)
    foreign = await ask_on_the_phone(house, other, other_phone, foreign)
    yield Cast(
        house=house,
        partner=partner,
        other_partner=other,
        suspended_partner=suspended,
        member=await house.grant(partner, own.member),
        other_member=await house.grant(partner, own.other),
        phone=phone,
        other_phone=other_phone,
        own=own,
        foreign=foreign,
        suspended=gone,
    )
    await deliver(house.runtime)


def expected(opt: Mapping[str, Any], ask: Ask, who: str, whose: str) -> Verdict:
    """What the declaration of a route says about this cell, most specific refusal first."""
    if opt.get("public") is True:
        return ask.public, ""
    if who == "anonymous":
        return 401, "token_missing"
    if who == "admin":
        return 401, "invalid_token"
    if (opt.get("audience") == "mobile") != (who in PHONES):
        return 401, "invalid_token"
    if who == "suspended_partner":
        return 403, "partner_not_active"
    if who in ("member", "other_member") and opt.get("member_token") is not True:
        return 403, "member_token_not_accepted"
    if who == "wrong_scope" and opt["scope"] != "self":
        return 403, "insufficient_scope"
    if ask.unnamed:
        return ask.own
    if whose != "own" or who == "other_member":
        return ABSENT
    return ask.own if who != "member" or ask.member is None else ask.member


async def put(
    cast: Cast, route: Route, who: str, things: Things, client: PartnerClient | Phone | None
) -> Answer:
    """The answer to one request of `route` about `things`."""
    method, path = route
    body = ASKS[route].body(cast.house, things)
    raw = b"" if body is None else msgspec.json.encode(body)
    where = path.format(**structs.asdict(things))
    key = str(uuid4()) if method == "POST" else None
    if isinstance(client, Phone):
        return _answer(await client.call(method, where, body))
    if client is not None:
        return await client.send(method, where, raw, idempotency_key=key)
    headers = {"content-type": "application/json"} if raw else {}
    if key:
        headers["idempotency-key"] = key
    if who == "admin":
        headers["authorization"] = "Basic bWFrZXI6c2VjcmV0"
    return _answer(await cast.house.http.request(method, where, content=raw, headers=headers))


def _answer(answer: httpx.Response) -> Answer:
    return Answer(status=answer.status_code, headers=dict(answer.headers), content=answer.content)


def outcome(answer: Answer, ask: Ask, opt: Mapping[str, Any]) -> Verdict:
    """Status and code; of a batch's only item where the batch itself was taken; of a public route the status alone."""
    if opt.get("public") is True or (answer.status < 400 and not ask.batch):
        return answer.status, ""
    document = answer.json()
    if ask.batch and answer.status == 200:
        [result] = document["results"]
        return result["status"], result.get("problem", {}).get("code", "")
    return answer.status, document.get("code", "")


def agrees(found: Verdict, wanted: Verdict) -> bool:
    if wanted == SUCCESS:
        return found[0] in (200, 201, 202, 204)
    return found == wanted or (wanted[1] == "*" and found[0] == wanted[0] and found[1] != "")


def told(answer: Answer, things: Things) -> tuple[int, dict[str, str], str]:
    """An answer without what has to differ."""
    text = re.sub(r"req_[0-9A-Z]{26}", "<trace>", answer.content.decode())
    for name in things.names() | NOTHING.names():
        text = text.replace(name, "<name>")
    headers = {name: value for name, value in answer.headers.items() if name not in MOVING}
    return answer.status, headers, text


def test_every_route_of_the_application_is_in_the_matrix() -> None:
    assert {(method, shape(path)) for method, path in ASKS} == set(declared())


@pytest.mark.parametrize("route", CELLS)
async def test_attack_15_and_16_a_route_is_for_those_it_says_and_their_own_things(
    cast: Cast, route: Route
) -> None:
    ask, opt = ASKS[route], declared()[route[0], shape(route[1])]
    deviations: list[str] = []
    for who in WHO:
        client = cast.client(who, str(opt.get("scope", "")))
        answers: dict[str, Answer] = {}
        for whose in WHOSE:
            things, asking = cast.things(who, whose), client
            wanted = expected(opt, ask, who, whose)
            if ask.fresh is not None and who in OWNERS and wanted in (ask.own, ask.member):
                things, its_own = await ask.fresh(cast.house, cast.owner(who), things)
                asking = its_own if who == "member" and its_own is not None else client
            answers[whose] = await put(cast, route, who, things, asking)
            found = outcome(answers[whose], ask, opt)
            if not agrees(found, wanted):
                deviations.append(f"{who}, {whose}: {found}, not {wanted}")
            deviations += leaked(cast, who, whose, answers[whose])
        foreign = told(answers["foreign"], cast.things(who, "foreign"))
        if names_something(opt, ask) and foreign != told(answers["absent"], NOTHING):
            deviations.append(f"{who}: what is another's is told from what is not there")
    assert deviations == []


def names_something(opt: Mapping[str, Any], ask: Ask) -> bool:
    return opt.get("public") is not True and not ask.unnamed


def leaked(cast: Cast, who: str, whose: str, answer: Answer) -> list[str]:
    """Names of another partner's things in an answer to one who did not say them."""
    theirs = cast.own if who in OTHERS else cast.foreign
    if whose == "foreign":
        return []
    text = answer.content.decode(errors="replace")
    return [f"{who}, {whose}: {name} is told" for name in sorted(theirs.private()) if name in text]
