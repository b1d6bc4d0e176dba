"""The ledger as one would tell it: a member's lots, holds and debts in plain lists. The real one must agree.

It is written from the rules of the points alone and shares no code with what it is compared with. Points that have
ended are simply not there; whether anybody has booked that yet is of no interest here.
"""

from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone

SHANGHAI = timezone(timedelta(hours=8))
GRACE = timedelta(days=30)
#: points of the other kind for points of this one, and back
RATES = {"out": (3, 2), "back": (1, 2)}


class Refused(Exception):
    """The word with which it is refused."""

    @property
    def code(self) -> str:
        return str(self.args[0])


@dataclass
class Lot:
    """Points granted together."""

    funder: int
    points: int
    left: int
    ends: datetime | None
    #: nothing of it can be spent before; None for points that can at once
    begins: datetime | None = None
    held: int = 0

    def lives(self, now: datetime) -> bool:
        return self.ends is None or now < self.ends

    def waits(self, now: datetime) -> bool:
        return self.begins is not None and now < self.begins

    def free(self, now: datetime) -> int:
        return self.left - self.held if self.lives(now) and not self.waits(now) else 0

    def pending(self, now: datetime) -> int:
        return self.left if self.waits(now) else 0


@dataclass
class Pin:
    """What a hold reserves of a lot."""

    lot: Lot
    points: int
    captured: int = 0
    restored: int = 0


@dataclass
class Hold:
    """Points reserved for a checkout."""

    points: int
    deadline: datetime
    pins: list[Pin]
    state: str = "open"
    captured: int = 0


@dataclass
class Deal:
    """What refunds may undo: so many points for so many fen."""

    fen: int
    points: int
    refunded: int = 0
    undone: int = 0
    refs: list[str] = field(default_factory=list)

    def share(self, ref: str, fen: int) -> int:
        """The points that a refund of `fen` stands for: all refunds together are exact to the last floor."""
        if ref in self.refs:
            raise Refused("refund_already_posted")
        if self.refunded + fen > self.fen:
            raise Refused("refund_exceeds_order")
        self.refs.append(ref)
        self.refunded += fen
        before, self.undone = self.undone, self.points * self.refunded // self.fen
        return self.undone - before


@dataclass
class Earning(Deal):
    """A deal that granted lots."""

    lots: list[Lot] = field(default_factory=list)


@dataclass
class Transfer:
    """Points on their way to the friend: of which lots, and how many."""

    sent: list[tuple[Lot, int]]
    state: str = "sent"


class Wallet:
    """One member's points, those of another kind, and those of a friend to whom they may be given."""

    def __init__(self, friend: "Wallet | None" = None, mall: "Wallet | None" = None) -> None:
        self.friend = friend
        self.mall = mall
        #: by the partner's own number
        self.exchanges: set[str] = set()
        self.transfers: dict[str, Transfer] = {}
        #: in the order in which they were granted
        self.lots: list[Lot] = []
        self.holds: dict[str, Hold] = {}
        self.earnings: dict[str, Earning] = {}
        self.spends: dict[str, Deal] = {}
        self.owed = 0

    def available(self, now: datetime) -> int:
        return sum(lot.free(now) for lot in self.lots)

    def held(self) -> int:
        return sum(lot.held for lot in self.lots)

    def balance(self, now: datetime) -> dict[str, int]:
        return {
            "available_points": self.available(now),
            "held_points": self.held(),
            "pending_points": sum(lot.pending(now) for lot in self.lots),
            "arrears_points": self.owed,
        }

    def earn(self, ref: str, *, fen: int, grants: Iterable[Lot], now: datetime) -> int:
        """An event earns once for ever; who owes repays first, with what can be spent."""
        if ref in self.earnings:
            raise Refused("source_already_earned")
        lots = [replace(lot) for lot in grants]
        points = sum(lot.points for lot in lots)
        self.earnings[ref] = Earning(fen=fen, points=points, lots=lots)
        for lot in lots:
            self.lots.append(lot)
            self._repay([(lot, lot.free(now))])
        return points

    def pass_time(self, before: datetime, now: datetime) -> None:
        """What waits no longer repays the debt in the order in which it ripened; also what has ended by now."""
        ripe = [lot for lot in self.lots if lot.waits(before) and not lot.waits(now)]
        self._repay([(lot, lot.left) for lot in sorted(ripe, key=lambda lot: (lot.begins or now, _end(lot)))])

    def hold(self, name: str, points: int, *, deadline: datetime, now: datetime) -> None:
        """Soonest end first, then oldest; what never ends comes last."""
        if points > self.available(now):
            raise Refused("insufficient_points")
        pins = [Pin(lot=lot, points=taken) for lot, taken in take(self._in_spend_order(now), points, now)]
        for pin in pins:
            pin.lot.held += pin.points
        self.holds[name] = Hold(points=points, deadline=deadline, pins=pins)

    def spend(self, name: str, points: int, *, order_fen: int | None, now: datetime) -> None:
        """As a hold that is captured when it is placed."""
        self.hold(name, points, deadline=now + timedelta(seconds=1), now=now)
        self.capture(name, None, order_fen=order_fen, now=now)

    def send(self, name: str, points: int, *, now: datetime) -> None:
        """They leave at once, and are nobody's until they arrive."""
        if points > self.available(now):
            raise Refused("insufficient_points")
        sent = take(self._in_spend_order(now), points, now)
        for lot, taken in sent:
            lot.left -= taken
        self.transfers[name] = Transfer(sent=sent)

    def end_transfers(self, *, now: datetime) -> None:
        """With the friend they live as long as they would have; where nothing of them lives any more they come back."""
        assert self.friend is not None
        for transfer in self.transfers.values():
            if transfer.state != "sent":
                continue
            alive = any(lot.lives(now) for lot, _ in transfer.sent)
            transfer.state = "arrived" if alive else "returned"
            home = self.friend if alive else self
            made = [Lot(funder=lot.funder, points=n, left=n, ends=lot.ends) for lot, n in transfer.sent]
            home.lots.extend(made)
            home._repay([(lot, lot.free(now)) for lot in made])

    def adjust(self, points: int, *, now: datetime) -> None:
        """The bank gives a lot of its own, which repays what is owed first; or takes what ends soonest."""
        if points > 0:
            given = Lot(funder=1, points=points, left=points, ends=end_of_base_points(now))
            self.lots.append(given)
            self._repay([(given, points)])
            return
        if -points > self.available(now):
            raise Refused("insufficient_points")
        for lot, taken in take(self._in_spend_order(now), -points, now):
            lot.left -= taken

    def exchange(self, name: str, points: int, way: str, *, now: datetime) -> tuple[int, int]:
        """(taken, given): the most whole points that `points` make, and the fewest that make as many.

        What is given lives as long as what it is made of; a point made of parts of several lots as long as the first.
        """
        assert self.mall is not None
        source, target = (self, self.mall) if way == "out" else (self.mall, self)
        numerator, denominator = RATES[way]
        given = points * numerator // denominator
        taken = -(-given * denominator // numerator)
        if given == 0:
            raise Refused("exchange_too_small")
        if name in self.exchanges:
            raise Refused("exchange_already_posted")
        if taken > source.available(now):
            raise Refused("insufficient_points")
        self.exchanges.add(name)
        so_far = made = 0
        granted = []
        for lot, part in take(source._in_spend_order(now), taken, now):
            lot.left -= part
            so_far += part
            upto = min(given, -(-so_far * numerator // denominator))
            if upto > made:
                granted.append(Lot(funder=lot.funder, points=upto - made, left=upto - made, ends=lot.ends))
            made = upto
        target.lots.extend(granted)
        target._repay([(lot, lot.left) for lot in granted])
        return taken, given

    def refund_both(
        self, name: str, ref: str, refund: str, fen: int, *, now: datetime
    ) -> tuple[int, int, int]:
        """(restored, clawed back, newly owed): what comes back first pays for what is taken; both or neither."""
        trial = deepcopy(self)
        trial.refund_spend(name, refund, fen, now=now)
        trial.refund_earning(ref, refund, fen, now=now)
        return self.refund_spend(name, refund, fen, now=now), *self.refund_earning(ref, refund, fen, now=now)

    def capture(self, name: str, points: int | None, *, order_fen: int | None, now: datetime) -> int:
        """What ends soonest is spent, the rest is free again; returns the points spent."""
        hold = self.holds[name]
        wanted = hold.points if points is None else points
        if wanted > hold.points:
            raise Refused("capture_exceeds_hold")
        if hold.state == "open" and hold.deadline <= now:
            raise Refused("hold_lapsed")
        self._close(name, "captured", wanted, now)
        hold.captured = wanted
        self.spends[name] = Deal(fen=wanted if order_fen is None else order_fen, points=wanted)
        return wanted

    def release(self, name: str, *, now: datetime) -> None:
        self._close(name, "released", 0, now)

    def lapse(self, *, now: datetime) -> None:
        """Every hold whose time is up is over."""
        for name, hold in self.holds.items():
            if hold.state == "open" and hold.deadline <= now:
                self._close(name, "lapsed", 0, now)

    def refund_earning(self, ref: str, refund: str, fen: int, *, now: datetime) -> tuple[int, int]:
        """(clawed back, newly owed): of its own lots, then of its funders', then owed; never of held points.

        Of its own lots what waits goes first, of the others' last. Who owes has nothing free: what others have funded
        pays the debt at once.
        """
        earning = self.earnings[ref]
        points = earning.share(refund, fen)
        funders = {lot.funder for lot in earning.lots}
        own = [lot for lot in self.lots if any(lot is mine for mine in earning.lots)]
        akin = [lot for lot in self.lots if lot.funder in funders and not any(lot is mine for mine in own)]
        owed_before, missing = self.owed, points
        for lots, part in ((own, Lot.pending), (own, Lot.free), (akin, Lot.free), (akin, Lot.pending)):
            for lot, taken in take(sorted(lots, key=_end), missing, now, part):
                lot.left -= taken
                missing -= taken
        self.owed += missing
        self._repay([(lot, lot.free(now)) for lot in self._in_spend_order(now)])
        return points, self.owed - owed_before

    def refund_spend(self, name: str, refund: str, fen: int, *, now: datetime) -> int:
        """Back to the lots it came from, last taken first; a lot that has ended meanwhile gets a child for a while."""
        hold = self.holds[name]
        if hold.state != "captured":
            raise Refused("operation_not_reversible")
        points = missing = self.spends[name].share(refund, fen)
        back: list[tuple[Lot, int]] = []
        children: list[tuple[Lot, int]] = []
        for pin in reversed(hold.pins):
            share = min(missing, pin.captured - pin.restored)
            if share == 0:
                continue
            pin.restored += share
            missing -= share
            if pin.lot.lives(now):
                pin.lot.left += share
                back.append((pin.lot, share))
            else:
                child = Lot(funder=pin.lot.funder, points=share, left=share, ends=now + GRACE)
                self.lots.append(child)
                children.append((child, share))
        self._repay([*back, *children])
        return points

    def _close(self, name: str, state: str, spent: int, now: datetime) -> None:
        hold = self.holds[name]
        if hold.state != "open":
            raise Refused("hold_not_open")
        hold.state = state
        freed: list[tuple[Lot, int]] = []
        for pin in hold.pins:
            pin.captured = min(spent, pin.points)
            spent -= pin.captured
            pin.lot.held -= pin.points
            pin.lot.left -= pin.captured
            if pin.lot.lives(now):
                freed.append((pin.lot, pin.points - pin.captured))
        self._repay(freed)

    def _repay(self, freed: Iterable[tuple[Lot, int]]) -> None:
        """What has just come free pays the debt first."""
        for lot, points in freed:
            paid = min(self.owed, points)
            lot.left -= paid
            self.owed -= paid

    def _in_spend_order(self, now: datetime) -> list[Lot]:
        return sorted((lot for lot in self.lots if lot.free(now)), key=_end)


def _end(lot: Lot) -> datetime:
    return lot.ends or datetime.max.replace(tzinfo=SHANGHAI)


def take(
    lots: Iterable[Lot], points: int, now: datetime, part: Callable[[Lot, datetime], int] = Lot.free
) -> list[tuple[Lot, int]]:
    """So many points of these lots, in their order."""
    taken = []
    for lot in lots:
        share = min(points, part(lot, now))
        if share:
            taken.append((lot, share))
            points -= share
    return taken


def end_of_base_points(occurred: datetime) -> datetime:
    """Two years on, then to the end of the month, in Shanghai."""
    local = occurred.astimezone(SHANGHAI)
    months = local.year * 12 + (local.month - 1) + 25
    return datetime(months // 12, months % 12 + 1, 1, tzinfo=SHANGHAI)
