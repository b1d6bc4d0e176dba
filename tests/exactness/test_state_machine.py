"""Whatever is asked of the points, in any order, at once, again, or while sessions die: the books equal the model."""

import asyncio
import os
from collections.abc import Callable, Generator
from copy import deepcopy
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from exactness import deeds
from exactness.deeds import Decision, Deed, Scene, Sweep
from exactness.house import MALL, Answer, House, Loop, open_house
from exactness.model import RATES, Lot, Wallet
from kernel.calendar import rfc3339
from kernel.caller import MemberRef
from kernel.database import transaction
from kernel.supervisor import Endpoints
from points.ledger import service as ledger
from points.ledger.model import POINTS as TESSERA_TYPE
from points.ledger.model import TESSERA

#: `make soak` asks for more
EXAMPLES = int(os.environ.get("SOAK_EXAMPLES", "0"))
STEPS = 40 if EXAMPLES else 25

FEN = st.sampled_from([0, 99, 100, 12_345, 30_000])
POINTS = st.integers(1, 150)
TTL = st.sampled_from([60, 3_600, 600_000])
REFUND = st.sampled_from([1, 50, 3_333, 12_345, 30_000])
PLACE = st.integers(0, 30)
#: funder, points, seconds until they end, seconds until they begin
GRANTS = st.lists(
    st.tuples(
        st.sampled_from([1, 2, 3]),
        st.integers(1, 120),
        st.sampled_from([90, 5_000, 86_400 * 5, None]),
        st.sampled_from([None, None, 30, 4_000]),
    ),
    max_size=3,
)
#: what may be asked at once or be killed, the place of what it is about, and its figures
ACTS = st.tuples(
    st.sampled_from(
        [
            *("earn", "hold", "batch", "spend", "transfer", "capture", "capture", "release"),
            *("refund_spend", "refund_earning", "refund_both", "lapse", "expire", "arrive"),
            *("give", "take", "exchange", "exchange_back"),
        ]
    ),
    PLACE,
    FEN,
    POINTS,
    TTL,
    REFUND,
)
Act = tuple[str, int, int, int, int, int]
Step = Deed | Decision | Sweep
ITEMS = st.lists(
    st.tuples(st.sampled_from(["good", "good", "good", "stranger", "negative", "future", "again"]), FEN),
    min_size=1,
    max_size=5,
)


class Machine(RuleBasedStateMachine):
    """One member's life at one partner; every step is compared."""

    house: House
    run: Loop
    #: the code of the other kind of points
    mall: int
    steps = 0
    #: how often something rare was reached
    reached: dict[str, int]

    def __init__(self) -> None:
        super().__init__()
        self.wallet = Wallet(friend=Wallet(), mall=Wallet())
        self.done: list[tuple[Deed, Answer]] = []
        self.names = 0
        self.scene = self.run(self._begin)
        self.step(deeds.earn(self.scene, self.name(), 30_000))

    async def _begin(self) -> Scene:
        partner = await self.house.register()
        customer, friend = await self.house.enrol(partner, count=2)
        return Scene(self.house, partner, customer, friend)

    # What is asked

    @rule(fen=FEN)
    def earn(self, fen: int) -> None:
        self.step(deeds.earn(self.scene, self.name(), fen))

    @rule(grants=GRANTS)
    def earn_funded(self, grants: list[tuple[int, int, int | None, int | None]]) -> None:
        now = self.scene.now
        lots = [
            Lot(
                funder=funder,
                points=points,
                left=points,
                ends=None if end is None else now + timedelta(seconds=end),
                begins=None
                if begin is None or (end is not None and end <= begin)
                else now + timedelta(seconds=begin),
            )
            for funder, points, end, begin in grants
        ]
        fen = 100 * sum(lot.points for lot in lots)
        self.step(deeds.earn_funded(self.scene, self.name(), fen, lots))

    @rule(items=ITEMS)
    def batch(self, items: list[tuple[str, int]]) -> None:
        refs = [(self.known("earning", 0) if what == "again" else None) or self.name() for what, _ in items]
        asked = [
            ("good" if what == "again" else what, ref, fen)
            for (what, fen), ref in zip(items, refs, strict=True)
        ]
        self.step(deeds.batch(self.scene, asked))

    @rule(points=POINTS, ttl=TTL)
    def hold(self, points: int, ttl: int) -> None:
        self.step(deeds.hold(self.scene, self.name(), points, ttl))

    @rule(place=PLACE, points=st.none() | POINTS, order_fen=st.none() | st.just(30_000))
    def capture(self, place: int, points: int | None, order_fen: int | None) -> None:
        if name := self.known("hold", place):
            self.step(deeds.capture(self.scene, name, points, order_fen))

    @rule(place=PLACE)
    def release(self, place: int) -> None:
        if name := self.known("hold", place):
            self.step(deeds.release(self.scene, name))

    @rule(place=PLACE, fen=REFUND)
    def refund_earning(self, place: int, fen: int) -> None:
        if name := self.known("earning", place):
            self.step(deeds.refund_earning(self.scene, name, self.name(), fen))

    @rule(place=PLACE, fen=REFUND)
    def refund_spend(self, place: int, fen: int) -> None:
        if name := self.known("hold", place):
            self.step(deeds.refund_spend(self.scene, name, self.name(), fen))

    @rule(points=POINTS, order_fen=st.none() | st.just(30_000))
    def spend(self, points: int, order_fen: int | None) -> None:
        self.step(deeds.spend(self.scene, self.name(), points, order_fen))

    @rule(place=PLACE, other=PLACE, fen=REFUND)
    def refund_both(self, place: int, other: int, fen: int) -> None:
        spent, earned = self.known("hold", place), self.known("earning", other)
        if spent and earned:
            self.step(deeds.refund_both(self.scene, spent, earned, self.name(), fen))

    @rule(points=POINTS)
    def transfer(self, points: int) -> None:
        self.step(deeds.transfer(self.scene, self.name(), points))

    @rule(points=POINTS, way=st.sampled_from(["out", "out", "back"]))
    def exchange(self, points: int, way: str) -> None:
        assert self.wallet.mall is not None
        way = way if self.wallet.mall.lots else "out"
        self.step(deeds.exchange(self.scene, self.name(), points, way))
        self.reach("exchange asked")

    @rule(points=st.integers(-40, 150).filter(bool))
    def adjust(self, points: int) -> None:
        self.step(deeds.adjust(self.scene, points))
        self.reach("adjustment decided")

    @rule()
    def arrive(self) -> None:
        self.step(deeds.arrive_all(self.scene))

    @rule()
    def lapse(self) -> None:
        self.step(deeds.lapse_all(self.scene))

    @rule()
    def expire(self) -> None:
        self.step(deeds.expire_all(self.scene))
        unbooked = self.run(lambda: self.house.desk.fetchval(UNBOOKED, self.member_id, self.scene.now))
        assert unbooked == 0, "the sweep leaves nothing that has ended unbooked"

    @rule()
    def activate(self) -> None:
        self.step(deeds.activate_all(self.scene))

    @rule(seconds=st.sampled_from([1, 60, 90, 3_600, 86_400 * 4, 86_400 * 40]))
    def wait(self, seconds: int) -> None:
        before = self.scene.now
        self.house.clock.at += timedelta(seconds=seconds)
        owed = self.wallet.owed
        self.wallet.pass_time(before, self.scene.now)
        if self.wallet.owed < owed:
            # Until it is booked, balances know that the debt is repaid, but lots do not.
            self.reach("repaid by time")
            self.step(deeds.activate_all(self.scene))
        self.compare(self.wallet)

    # Again, at once, and with sessions that die

    @rule(place=PLACE)
    def repeat(self, place: int) -> None:
        """The same request under its key has the same answer, and nothing changes."""
        if not self.done:
            return
        deed, answered = self.done[place % len(self.done)]
        answer = self.run(lambda: deed.do(self.scene))
        assert (answer.status, answer.content, answer.replayed) == (answered.status, answered.content, True)
        self.compare(self.wallet)
        self.reach("replayed")

    @rule(place=PLACE)
    def repeat_changed(self, place: int) -> None:
        """Another body under a used key is refused, and nothing changes."""
        told = [deed for deed, _ in self.done if isinstance(deed.body, dict)]
        if not told:
            return
        deed = told[place % len(told)]
        changed = Deed(deed.path, {**deed.body, **_another(deed.body)}, deed.tell, key=deed.key)
        answer = self.run(lambda: changed.do(self.scene))
        assert (answer.status, answer.code) == (422, "idempotency_key_reused"), answer.content
        self.compare(self.wallet)

    @rule(place=PLACE)
    def earn_again(self, place: int) -> None:
        """The same event under another key earns nothing."""
        if name := self.known("earning", place):
            self.step(deeds.earn(self.scene, name, 12_345))

    @rule(first=ACTS, second=ACTS)
    def pair(self, first: Act, second: Act) -> None:
        """Two at once: the books are as if one had come after the other."""
        pair = (self.meant(first), self.meant(second))
        answers = self.run(lambda: self._together(pair))
        self.settle(pair, answers)
        self.reach("pair")

    @rule(act=ACTS, turns=st.integers(0, 60))
    def kill_racing(self, act: Act, turns: int) -> None:
        """All of the gateway's sessions die at some moment of a request; asked again, it tells what happened."""
        self.killed(self.meant(act), lambda deed: self._race(deed, turns))

    @rule(act=ACTS)
    def kill_waiting(self, act: Act) -> None:
        """The session dies while it waits for the wallet, its key and its proof already taken."""
        self.killed(self.meant(act), self._interrupt)

    def killed(self, deed: Step, attempt: Callable[[Deed], Any]) -> None:
        if not isinstance(deed, Deed):
            self.step(deed)  # not the gateway's
            return
        first: Answer = self.run(lambda: attempt(deed))
        self.reach("unknown" if first.is_open else "answered")
        final = self.run(lambda: deed.do_until_known(self.scene))
        if first.status < 300:
            assert (final.status, final.content) == (first.status, first.content)
        self.settle((deed,), (final,))

    async def _together(self, pair: tuple[Step, Step]) -> tuple[Answer, ...]:
        return tuple(await asyncio.gather(*(deed.do_until_known(self.scene) for deed in pair)))

    async def _race(self, deed: Deed, turns: int) -> Answer:
        asking = asyncio.create_task(deed.do(self.scene))
        for _ in range(turns):
            await asyncio.sleep(0)
        await self.house.kill_sessions()
        return await asking

    async def _interrupt(self, deed: Deed) -> Answer:
        async with self.house.desk.acquire() as connection, connection.transaction():
            await connection.execute(
                "SELECT FROM ledger_wallet WHERE member_id = $1 FOR UPDATE", self.member_id
            )
            asking = asyncio.create_task(deed.do(self.scene))
            while not asking.done():
                if await self.house.kill_sessions(waiting=True):
                    self.reach("killed while waiting")
                    break
        return await asking

    # How it is compared

    @property
    def member_id(self) -> int:
        return self.scene.customer.member.member_id

    def step(self, deed: Step) -> None:
        self.settle((deed,), (self.run(lambda: deed.do(self.scene)),))

    def settle(self, asked: tuple[Step, ...], answers: tuple[Answer, ...]) -> None:
        """Some order of what was asked explains every answer and the books."""
        found = []
        for order in ((0,),) if len(asked) == 1 else ((0, 1), (1, 0)):
            candidate = deepcopy(self.wallet)
            expected = {place: asked[place].predict(candidate) for place in order}
            wrong = [
                f"{answers[place].status} {answers[place].content!r} is not {expected[place]}"
                for place in order
                if not _fits(expected[place], answers[place])
            ]
            difference = wrong or self.differences(candidate)
            if not difference:
                break
            found.append(difference)
        else:
            raise AssertionError(f"no order explains {asked}: {found}")
        self.wallet = candidate
        for deed, answer in zip(asked, answers, strict=True):
            deed.learn(self.scene, answer)
            if isinstance(deed, Deed) and answer.status < 300:
                self.done.append((deed, answer))
            self.reach(answer.code or "done")

    def compare(self, wallet: Wallet) -> None:
        assert self.differences(wallet) == []

    def differences(self, wallet: Wallet) -> list[str]:
        type(self).steps += 1
        return self.run(lambda: self._differences(wallet))

    async def _differences(self, wallet: Wallet) -> list[str]:
        assert wallet.friend is not None and wallet.mall is not None
        found = [
            *await self._differences_of(wallet, self.scene.customer.member),
            *await self._differences_of(wallet.mall, self.scene.customer.member, self.mall),
            *await self._differences_of(wallet.friend, self.scene.friend.member),
        ]
        holds = await self.house.desk.fetch(HOLDS, self.member_id)
        states = {name: (hold.state, hold.points, hold.captured) for name, hold in wallet.holds.items()}
        kept = {name: (state, points, captured) for name, state, points, captured in holds}
        if kept != states:
            found.append(f"holds {kept} are not {states}")
        return found

    async def _differences_of(
        self, wallet: Wallet, member: MemberRef, point_type: int = TESSERA
    ) -> list[str]:
        now = self.scene.now
        async with transaction(self.house.desk) as connection:
            read = await ledger.read_balance(connection, member, point_type=point_type, now=now)
            lots = await connection.fetch(LOTS, member.member_id, point_type)
        balance = {name: getattr(read, name) for name in read.__struct_fields__}
        found = []
        if balance != wallet.balance(now):
            found.append(f"balance {balance} is not {wallet.balance(now)}")
        told = [
            (lot.funder, lot.points, lot.held, _utc(lot.ends), lot.left if lot.lives(now) else lot.held)
            for lot in wallet.lots
        ]
        booked = []
        for funder, points, held, ends, left in lots:
            lives = ends is None or ends > now
            booked.append((funder, points, held, _utc(ends), left if lives else held))
        # Transfers that were sent at the same moment may arrive in any order.
        if sorted(booked) != sorted(told):
            found.append(f"lots {booked} are not {told}")
        return found

    def teardown(self) -> None:
        self.step(deeds.arrive_all(self.scene))
        members = [self.scene.customer.member, self.scene.friend.member]
        assert self.run(lambda: self.house.broken_sentences_of(members)) == {}

    # Names and choices

    def name(self) -> str:
        self.names += 1
        return f"o-{self.names}"

    def known(self, kind: str, place: int) -> str | None:
        names = [name for name in self._all(kind) if name in self.scene.wire]
        return names[place % len(names)] if names else None

    def _all(self, kind: str) -> list[str]:
        return list(self.wallet.holds if kind == "hold" else self.wallet.earnings)

    def meant(self, act: Act) -> Step:
        """What is asked, if there is something to ask it of; an earning otherwise."""
        scene = self.scene
        kind, place, fen, points, ttl, refund = act
        hold, earning = self.known("hold", place), self.known("earning", place)
        match kind:
            case "batch":
                return deeds.batch(scene, [("good", self.name(), fen), ("stranger", self.name(), fen)])
            case "hold":
                return deeds.hold(scene, self.name(), points, ttl)
            case "spend":
                return deeds.spend(scene, self.name(), points, None)
            case "transfer":
                return deeds.transfer(scene, self.name(), points)
            case "arrive":
                return deeds.arrive_all(scene)
            case "give" | "take":
                return deeds.adjust(scene, points if kind == "give" else -points)
            case "exchange" | "exchange_back":
                return deeds.exchange(scene, self.name(), points, "out" if kind == "exchange" else "back")
            case "refund_both" if hold and earning:
                return deeds.refund_both(scene, hold, earning, self.name(), refund)
            case "lapse":
                return deeds.lapse_all(scene)
            case "expire":
                return deeds.expire_all(scene)
            case "capture" if hold:
                return deeds.capture(scene, hold, points if place % 2 else None, None)
            case "release" if hold:
                return deeds.release(scene, hold)
            case "refund_spend" if hold:
                return deeds.refund_spend(scene, hold, self.name(), refund)
            case "refund_earning" if earning:
                return deeds.refund_earning(scene, earning, self.name(), refund)
        return deeds.earn(scene, self.name(), fen)

    def reach(self, what: str) -> None:
        self.reached[what] = self.reached.get(what, 0) + 1


# In the order in which they were granted.
LOTS = """
SELECT funder_id, points, held_points, expires_at, remaining_points
  FROM ledger_lot WHERE member_id = $1 AND point_type = $2 ORDER BY lot_seq
"""
HOLDS = "SELECT order_ref, state, points, captured_points FROM ledger_hold WHERE member_id = $1"
UNBOOKED = """
SELECT coalesce(sum(remaining_points - held_points), 0)::int
  FROM ledger_lot WHERE member_id = $1 AND expires_at <= $2
"""


def _utc(moment: datetime | None) -> str:
    return "never" if moment is None else rfc3339(moment)


def _fits(expected: tuple[int, dict[str, Any]], answer: Answer) -> bool:
    status, facts = expected
    return status == answer.status and _contains(answer.body, facts)


def _contains(found: Any, wanted: Any) -> bool:
    """Whether `found` says all that `wanted` says."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(
            name in found and _contains(found[name], value) for name, value in wanted.items()
        )
    if isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(_contains, found, wanted))
    return bool(found == wanted)


def _another(body: dict[str, Any]) -> dict[str, Any]:
    """A change that leaves the body one that its route accepts."""
    for name, change in (("amount_fen", 1), ("refunded_fen", 1), ("ttl_seconds", 1), ("points", 1)):
        if name in body:
            return {name: body[name] + change}
    if "items" in body:
        return {"items": [*body["items"], {}]}
    return {"points": 7}


@pytest.fixture(scope="module")
def run() -> Generator[Loop, None, None]:
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture(scope="module")
def house(
    servers: Endpoints, template: str, worker: int, redis_url: str, run: Loop
) -> Generator[House, None, None]:
    opened = open_house(servers, template=template, name=f"tessera_machine_{worker}", redis_url=redis_url)
    house = run(opened.__aenter__)
    yield house
    run(lambda: opened.__aexit__(None, None, None))


def test_the_books_equal_the_model_after_every_step(
    house: House, run: Loop, record_property: Callable[[str, object], None]
) -> None:
    async def prepare() -> int:
        for code in ("partner:one", "partner:two"):
            await house.superuser.execute(
                "INSERT INTO ledger_funder (code, kind, partner_id) VALUES ($1, 'partner', $2)", code, uuid4()
            )
        now = house.clock.at
        async with transaction(house.desk) as connection:
            mall = await ledger.register_point_type(
                connection, name=MALL, value_fen_e6=500_000, by="tests", now=now
            )
            for (numerator, denominator), (one, other) in zip(
                (RATES["out"], RATES["back"]), ((TESSERA_TYPE, mall), (mall, TESSERA_TYPE)), strict=True
            ):
                await ledger.set_rate(
                    connection,
                    from_type=one,
                    to_type=other,
                    numerator=numerator,
                    denominator=denominator,
                    valid_from=now,
                    by="tests",
                    now=now,
                )
        return mall.code

    Machine.mall = run(prepare)
    reached: dict[str, int] = {}
    Machine.house, Machine.run, Machine.reached, Machine.steps = house, run, reached, 0
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=EXAMPLES or 30,
            stateful_step_count=STEPS,
            deadline=None,
            derandomize=not EXAMPLES,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink],
        ),
    )
    print(f"{Machine.steps} steps compared; reached {dict(sorted(reached.items()))}")  # noqa: T201  # make soak shows it
    record_property("steps", Machine.steps)
    for rare in (
        "replayed",
        "pair",
        "unknown",
        "insufficient_points",
        "refund_exceeds_order",
        "hold_not_open",
        "exchange asked",
        "adjustment decided",
    ):
        assert reached.get(rare), f"{rare} was never reached: the test is too weak"
    assert run(house.broken_sentences) == {}
