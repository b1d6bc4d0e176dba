"""Versions of the rules: proposed by one person, tried on every member, switched on from a date by another."""

from collections import Counter
from collections.abc import Sequence
from datetime import date, datetime

from msgspec.structs import replace

from kernel import audit
from kernel.database import Connection
from kernel.jobs import BUCKETS
from points.membership import version_queries as queries
from points.membership.model import (
    SHOP_LEVELS,
    TIERS,
    BankLevel,
    Inputs,
    Matrix,
    Privilege,
    Proposal,
    Scheme,
    ShopLevel,
    Simulation,
    Tier,
    Verdict,
    VersionKind,
)
from points.membership.period_queries import list_members
from points.membership.periods import look
from points.membership.version_rules import (
    VersionUnknown,
    check_matrix,
    check_privileges,
    check_scheme,
    check_switch,
)

PAGE = 1_000


async def propose_matrix(connection: Connection, matrix: Matrix, *, by: str, now: datetime) -> Proposal:
    """Write a matrix down under the next version, whatever version it names."""
    check_matrix(matrix)
    proposal = await _propose(connection, "matrix", parts=len(matrix.cells), by=by, now=now)
    await queries.insert_cells(connection, replace(matrix, version=proposal.version))
    return proposal


async def propose_scheme(connection: Connection, scheme: Scheme, *, by: str, now: datetime) -> Proposal:
    """Write a scheme down under the next version, whatever version it names."""
    check_scheme(scheme)
    proposal = await _propose(connection, "scheme", parts=len(scheme.levels), by=by, now=now)
    await queries.insert_scheme(connection, replace(scheme, version=proposal.version), ranks=SHOP_LEVELS)
    return proposal


async def propose_privileges(
    connection: Connection, privileges: Sequence[Privilege], *, by: str, now: datetime
) -> Proposal:
    """Write down under the next version what every tier gives."""
    check_privileges(privileges)
    proposal = await _propose(connection, "privileges", parts=len(privileges), by=by, now=now)
    await queries.insert_privileges(connection, proposal.version, privileges)
    return proposal


async def switch_on(
    connection: Connection, kind: VersionKind, version: int, *, effective_on: date, by: str, now: datetime
) -> None:
    """Put a version in force from a date on, by somebody who did not propose it."""
    proposal = await queries.find_proposal(connection, kind, version)
    check_switch(proposal, effective_on=effective_on, by=by, now=now)
    assert proposal is not None
    await queries.insert_switch(connection, proposal, effective_on=effective_on, by=by, now=now)
    record = audit.AuditRecord(
        actor=f"admin:{by}",
        action="membership.switch",
        subject=f"{kind}:{version}",
        detail={"effective_on": effective_on.isoformat(), "proposed_by": proposal.proposed_by},
    )
    await audit.append(connection, record, partner_id=None, now=now)


async def simulate(
    connection: Connection,
    *,
    business_on: date,
    matrix_version: int | None = None,
    scheme_version: int | None = None,
) -> Simulation:
    """What the evaluation of a date would do by these versions instead of those in force; changes nothing."""
    asked: tuple[tuple[VersionKind, int | None], ...] = (
        ("matrix", matrix_version),
        ("scheme", scheme_version),
    )
    for kind, version in asked:
        if version is not None and await queries.find_proposal(connection, kind, version) is None:
            raise VersionUnknown
    rules = await queries.find_rules(
        connection, day=business_on, matrix_version=matrix_version, scheme_version=scheme_version
    )
    tally = _Tally()
    last = None
    while page := await list_members(connection, buckets=range(BUCKETS), after=last, limit=PAGE):
        for inputs, verdict in await look(connection, page, rules, day=business_on, cause="evaluation"):
            tally.add(inputs, verdict)
        last = page[-1]
    return tally.report(rules.matrix.version, rules.scheme.version, business_on)


async def _propose(
    connection: Connection, kind: VersionKind, *, parts: int, by: str, now: datetime
) -> Proposal:
    await queries.lock_proposals(connection, kind)
    return await queries.insert_version(connection, kind=kind, parts=parts, by=by, now=now)


class _Tally:
    """Counts verdicts."""

    def __init__(self) -> None:
        self._tiers: Counter[tuple[Tier, Tier]] = Counter()
        self._pairs: Counter[tuple[tuple[BankLevel, ShopLevel], int]] = Counter()
        self._protected = 0

    def add(self, inputs: Inputs, verdict: Verdict) -> None:
        before, after = TIERS.index(inputs.tier), TIERS.index(verdict.tier)
        self._tiers[inputs.tier, verdict.tier] += 1
        self._pairs[(inputs.bank_level, inputs.shop_level), (after > before) - (after < before)] += 1
        self._protected += verdict.reason in ("protected", "grace")

    def report(self, matrix_version: int, scheme_version: int, business_on: date) -> Simulation:
        ways = Counter[int]()
        for (_, way), members in self._pairs.items():
            ways[way] += members
        return Simulation(
            matrix_version=matrix_version,
            scheme_version=scheme_version,
            business_on=business_on,
            members=ways.total(),
            up=ways[1],
            down=ways[-1],
            unchanged=ways[0],
            protected=self._protected,
            by_tier=dict(sorted(self._tiers.items())),
            by_pair={
                pair: (self._pairs[pair, 1], self._pairs[pair, -1], self._pairs[pair, 0])
                for pair in sorted({pair for pair, _ in self._pairs})
            },
        )
