"""The books check of recent days: the same sentences, asked of the members who were touched since, and of their days.

A view is not written twice. Its own text runs over tables narrowed to the members in question: a WITH clause gives
each table's name to the rows that count. What needs more than one member's rows, and what was changed behind the
back of members nobody touched, only the full check sees.
"""

from collections.abc import Sequence
from datetime import date
from uuid import UUID

from msgspec import Struct

from gateway.books import LIST_VIEWS, ROWS_MAX, SECONDS, Finding
from kernel.calendar import start_of_day
from kernel.caller import MemberRef
from kernel.database import Connection, read

#: members from whom on reading whole tables is cheaper than looking everybody up
MANY = 2_000

#: sentences about one member at a time: true of a member whatever others did
OF_MEMBERS = frozenset(
    (
        "books_i01_entry_accounts",
        "books_i02_entry_operation",
        "books_i03_operation_points",
        "books_i04_wallet_is_its_entries",
        "books_i05_balances_after",
        "books_i06_never_negative",
        "books_i07_chain",
        "books_i09_wallet_is_its_lots",
        "books_i10_lot_is_its_moves",
        "books_i11_entry_is_its_moves",
        "books_i12_lot_funder",
        "books_i13_hold_is_its_lots",
        "books_i14_lot_is_pinned_by_open_holds",
        "books_i15_hold_operations",
        "books_i16_source_claims",
        "books_i17_reversals",
        "books_i18_restored_lots",
        "books_i19_entitlement_uses",
        "books_i33_points_end_in_time",
        "books_i40_statement_is_its_entries",
        "books_i41_statements_follow_each_other",
        "books_i43_earnings_replay",
        "books_i67_exchanges",
        "books_i68_point_types",
        "books_i69_pinned_lots_are_of_the_holds_type",
        "books_i70_redemptions_are_paid",
        "books_i71_redemption_holds",
    )
)
#: sentences about whole days of the house
OF_DAYS = frozenset(("books_i08_house_slots",))
#: sentences about what was told of an operation: both sides are of the same moment
OF_EVENTS = frozenset(("books_i21_operations_are_told",))
#: sentences that cost next to nothing
OF_ALL = frozenset(("books_i74_checks_leave_no_gap",))


class Recent(Struct, frozen=True, kw_only=True):
    """What a check of recent days found."""

    findings: list[Finding]
    #: how many members were looked at
    members: int


# Everybody with an operation or an entry of these days; the ids of operations follow time, the entries' days have an
# index. Either would do for books that nobody bent.
LIST_TOUCHED = """
SELECT DISTINCT bucket, member_id
  FROM (SELECT bucket, member_id FROM ledger_operation WHERE id >= $1
         UNION ALL
        SELECT bucket, member_id FROM ledger_entry WHERE business_on >= $2) AS touched
"""

# Which views each view is made of, the innermost first, so that a WITH clause in this order knows each before it is used.
LIST_PARTS = r"""
WITH RECURSIVE part (view, oid, depth) AS (
    SELECT name, name::regclass::oid, 0 FROM unnest($1::text[]) AS n (name)
     UNION
    SELECT part.view, used.oid, part.depth + 1
      FROM part
      JOIN pg_rewrite AS rewrite ON rewrite.ev_class = part.oid
      JOIN pg_depend AS depends ON depends.classid = 'pg_rewrite'::regclass AND depends.objid = rewrite.oid
       AND depends.refclassid = 'pg_class'::regclass AND depends.refobjid <> part.oid
      JOIN pg_class AS used ON used.oid = depends.refobjid AND used.relkind = 'v')
SELECT part.view, c.relname AS name, rtrim(pg_get_viewdef(c.oid), E'; \n') AS body
  FROM part JOIN pg_class AS c ON c.oid = part.oid
 GROUP BY part.view, c.oid, c.relname
 ORDER BY part.view, max(part.depth) DESC, c.relname
"""

# By name, so that the statement is the same every time.
LIST_MEMBER_TABLES = """
SELECT c.relname
  FROM pg_class AS c
  JOIN pg_attribute AS b ON b.attrelid = c.oid AND b.attname = 'bucket' AND NOT b.attisdropped
  JOIN pg_attribute AS m ON m.attrelid = c.oid AND m.attname = 'member_id' AND NOT m.attisdropped
 WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace
 ORDER BY c.relname
"""

# Rows are joined as in the full check; whether they are fetched by key, whatever the statistics say, depends on how many.
PREPARE = """
SELECT set_config('statement_timeout', $1, true),
       set_config('enable_nestloop', 'off', true),
       set_config('enable_seqscan', $2, true),
       set_config('work_mem', '64MB', true)
"""

_ROWS_OF = """{name} AS MATERIALIZED (
    SELECT rows.* FROM touched CROSS JOIN LATERAL (
        SELECT * FROM public.{name} AS n
         WHERE n.bucket = touched.bucket AND n.member_id = touched.member_id OFFSET 0) AS rows)"""
_ROWS_OF_MANY = """{name} AS MATERIALIZED (
    SELECT n.* FROM public.{name} AS n JOIN touched USING (bucket, member_id))"""
_TOUCHED = (
    "touched AS MATERIALIZED (SELECT * FROM unnest($1::smallint[], $2::bigint[]) AS t (bucket, member_id))"
)
_DAYS = [
    "ledger_entry AS MATERIALIZED (SELECT * FROM public.ledger_entry WHERE business_on >= $1)",
    "ledger_house_slot AS MATERIALIZED (SELECT * FROM public.ledger_house_slot WHERE business_on >= $1)",
]
_EVENTS = [
    _TOUCHED,
    """ledger_operation AS MATERIALIZED (
    SELECT rows.* FROM touched CROSS JOIN LATERAL (
        SELECT * FROM public.ledger_operation AS n
         WHERE n.bucket = touched.bucket AND n.member_id = touched.member_id AND n.business_on >= $3
        OFFSET 0) AS rows)""",
    """ledger_transfer AS MATERIALIZED (
    SELECT rows.* FROM touched CROSS JOIN LATERAL (
        SELECT * FROM public.ledger_transfer AS n
         WHERE n.bucket = touched.bucket AND n.from_member_id = touched.member_id AND n.sent_on >= $3
        OFFSET 0) AS rows)""",
    """outbox_event AS MATERIALIZED (
    SELECT rows.* FROM (SELECT DISTINCT bucket FROM touched) AS mine CROSS JOIN LATERAL (
        SELECT * FROM public.outbox_event AS n WHERE n.bucket = mine.bucket AND n.id >= $4 OFFSET 0) AS rows)""",
]


async def check_since(connection: Connection, since: date) -> Recent:
    """Findings about the members and days touched from `since` on. Needs a connection that is not in a transaction."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        return await look_since(connection, since)


async def look_since(connection: Connection, since: date) -> Recent:
    """The same, in the transaction there is."""
    await connection.execute(PREPARE, f"{SECONDS:.0f}s", "on")
    records = await connection.fetch(LIST_TOUCHED, first_id(since), since)
    members = [read(record, MemberRef) for record in records]
    await connection.execute(PREPARE, f"{SECONDS:.0f}s", "on" if len(members) > MANY else "off")
    return Recent(findings=await look_at(connection, members, since), members=len(members))


async def look_at(connection: Connection, members: Sequence[MemberRef], since: date) -> list[Finding]:
    """One finding for each sentence that can be asked of these members and of the days from `since` on, in order."""
    keys = [member.bucket for member in members], [member.member_id for member in members]
    rows_of = _ROWS_OF_MANY if len(members) > MANY else _ROWS_OF
    of_members = [
        _TOUCHED,
        *(rows_of.format(name=name) for (name,) in await connection.fetch(LIST_MEMBER_TABLES)),
    ]
    scopes: list[tuple[frozenset[str], list[str], tuple[object, ...]]] = [
        (OF_MEMBERS, of_members, keys),
        (OF_DAYS, _DAYS, (since,)),
        (OF_EVENTS, _EVENTS, (*keys, since, first_id(since))),
        (OF_ALL, [], ()),
    ]
    views = await connection.fetch(LIST_VIEWS)
    bodies = await _list_bodies(connection, [view for view, _ in views])
    findings = []
    for view, sentence in views:
        for scope, narrowed, arguments in scopes:
            if view in scope:
                named = ", ".join([*narrowed, *bodies[view]])
                statement = f"WITH {named} SELECT * FROM {view} LIMIT {ROWS_MAX}"  # noqa: S608  # names and texts from the catalogue
                records = await connection.fetch(statement, *arguments, timeout=SECONDS)
                findings.append(
                    Finding(view=view, sentence=sentence, rows=[dict(record) for record in records])
                )
    return findings


def first_id(since: date) -> UUID:
    """The smallest UUIDv7 of the day and those after it (RFC 9562 §5.7): nothing but its milliseconds."""
    return UUID(int=int(start_of_day(since).timestamp() * 1000) << 80)


async def _list_bodies(connection: Connection, views: Sequence[str]) -> dict[str, list[str]]:
    """Of each view, the parts of a WITH clause that spell it out; itself last."""
    bodies: dict[str, list[str]] = {view: [] for view in views}
    for view, name, body in await connection.fetch(LIST_PARTS, views):
        bodies[view].append(f"{name} AS MATERIALIZED ({body})")
    return bodies
