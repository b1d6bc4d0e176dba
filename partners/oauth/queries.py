"""Every statement on the authorization server's tables."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Literal
from uuid import UUID

from msgspec import Struct

from kernel.caller import MemberRef
from kernel.database import Connection, read, read_if_any
from partners.oauth.grant_queries import read_consent
from partners.oauth.model import Consent, Standing


class StoredKey(Struct, frozen=True, kw_only=True):
    """A signing key as it lies in the database."""

    kid: str
    #: sealed by the vault
    private_jwk: bytes
    public_jwk: dict[str, str]
    status: Literal["pending", "active", "retiring", "retired"]
    #: when it took this status
    moved_at: datetime


LIST_SIGNING_KEYS = """
SELECT kid, private_jwk, public_jwk, status, moved_at
  FROM oauth_signing_key
 WHERE status <> 'retired'
 ORDER BY created_at DESC, kid
"""

INSERT_SIGNING_KEY = """
INSERT INTO oauth_signing_key (kid, private_jwk, public_jwk, status, created_at, moved_at)
VALUES ($1, $2, $3, $4, $5, $5)
ON CONFLICT DO NOTHING
"""

MOVE_SIGNING_KEYS = """
UPDATE oauth_signing_key SET status = $2, moved_at = coalesce($3, clock_timestamp()) WHERE status = $1
"""

MOVE_SIGNING_KEY = """
UPDATE oauth_signing_key SET status = $3, moved_at = coalesce($4, clock_timestamp()) WHERE kid = $1 AND status = $2
"""

# What one rotation finds, another has to wait for.
LOCK_SIGNING_KEYS = "SELECT pg_advisory_xact_lock(hashtextextended('oauth_signing_key', 0))"

LIST_SIGNING_KEY_STATES = """
SELECT kid, status FROM oauth_signing_key WHERE status <> 'retired' ORDER BY created_at DESC, kid
"""

FIND_FIRST_SIGNING_KEY = "SELECT min(created_at) FROM oauth_signing_key"

# A limit binds the token that carries it: the app's own carries none, so a grant with a limit is nothing for it to spend by.
LIST_STANDINGS = """
SELECT s.sub, s.member_id, s.bucket,
       EXISTS (SELECT
                 FROM oauth_consent AS c
                WHERE c.partner_id = s.partner_id AND c.member_id = s.member_id
                  AND c.withdrawn_at IS NULL AND c.ends_on >= $4 AND $3 = ANY(c.scopes)
                  AND ($5 OR $3 <> 'points:spend' OR NOT c.authorization_details @> '[{"type": "points_spend"}]')) AS consented
  FROM oauth_subject AS s
 WHERE s.partner_id = $1 AND s.sub = ANY($2::text[])
"""

# By place, so that many partners' subjects may be asked for together. The lateral subquery keeps any plan to key lookups.
LIST_STANDINGS_OF_EACH = """
SELECT asked.place::int, found.member_id, found.bucket, found.consented
  FROM unnest($1::uuid[], $2::text[]) WITH ORDINALITY AS asked (partner_id, sub, place)
 CROSS JOIN LATERAL (
       SELECT s.member_id, s.bucket,
              EXISTS (SELECT
                        FROM oauth_consent AS c
                       WHERE c.partner_id = s.partner_id AND c.member_id = s.member_id
                         AND c.withdrawn_at IS NULL AND c.ends_on >= $4 AND $3 = ANY(c.scopes)
                  AND ($5 OR $3 <> 'points:spend' OR NOT c.authorization_details @> '[{"type": "points_spend"}]')) AS consented
         FROM oauth_subject AS s
        WHERE s.partner_id = asked.partner_id AND s.sub = asked.sub
       OFFSET 0) AS found
"""

FIND_MEMBER = "SELECT member_id, bucket FROM oauth_subject WHERE partner_id = $1 AND sub = $2"

LIST_NAMES = """
SELECT member_id, sub FROM oauth_subject WHERE partner_id = $1 AND member_id = ANY($2::bigint[])
"""

INSERT_SUBJECTS = """
INSERT INTO oauth_subject (partner_id, member_id, bucket, sub, key_version, bound_at)
SELECT $1, s.member_id, s.bucket, s.sub, $5, $6
  FROM unnest($2::bigint[], $3::smallint[], $4::text[]) AS s (member_id, bucket, sub)
ON CONFLICT (partner_id, member_id) DO NOTHING
"""

FIND_BOUND_AT = "SELECT bound_at FROM oauth_subject WHERE partner_id = $1 AND member_id = $2"

WITHDRAW_CONSENTS = """
UPDATE oauth_consent
   SET withdrawn_at = $3
 WHERE partner_id = $1 AND member_id = ANY($2::bigint[]) AND withdrawn_at IS NULL
RETURNING id
"""

INSERT_CONSENTS = """
INSERT INTO oauth_consent (id, partner_id, member_id, bucket, scopes, purposes, granted_at, ends_on)
SELECT c.id, $2, c.member_id, c.bucket, $5, $6, $7, $8
  FROM unnest($1::uuid[], $3::bigint[], $4::smallint[]) AS c (id, member_id, bucket)
"""

# The newest first, as people look for them.
LIST_CONSENTS = """
SELECT id, member_id, bucket, scopes, purposes, data_kinds, authorization_details, sensitive, granted_at, ends_on
  FROM oauth_consent
 WHERE partner_id = $1 AND member_id = $2 AND withdrawn_at IS NULL AND ends_on >= $3
 ORDER BY granted_at DESC, id DESC
"""

# The newest first: it is what the member said last.
FIND_CONSENT = """
SELECT id, member_id, bucket, scopes, purposes, data_kinds, authorization_details, sensitive, granted_at, ends_on
  FROM oauth_consent
 WHERE partner_id = $1 AND member_id = $2 AND withdrawn_at IS NULL AND ends_on >= $3
   AND ($4::text IS NULL OR $4 = ANY(scopes)) AND ($5::uuid IS NULL OR id = $5)
 ORDER BY granted_at DESC, id DESC
 LIMIT 1
"""


async def list_signing_keys(connection: Connection) -> list[StoredKey]:
    """Newest first: the key set shows the next one before the old ones."""
    return [read(record, StoredKey) for record in await connection.fetch(LIST_SIGNING_KEYS)]


async def insert_signing_key(
    connection: Connection,
    *,
    kid: str,
    private_jwk: bytes,
    public_jwk: dict[str, str],
    status: str,
    now: datetime,
) -> None:
    """Does nothing if it would be a second active key: another process was first."""
    await connection.execute(INSERT_SIGNING_KEY, kid, private_jwk, public_jwk, status, now)


async def move_signing_keys(
    connection: Connection, *, present: str, wanted: str, now: datetime | None = None
) -> None:
    await connection.execute(MOVE_SIGNING_KEYS, present, wanted, now)


async def move_signing_key(
    connection: Connection, kid: str, *, present: str, wanted: str, now: datetime | None = None
) -> None:
    await connection.execute(MOVE_SIGNING_KEY, kid, present, wanted, now)


async def lock_signing_keys(connection: Connection) -> None:
    """One rotation at a time, until commit."""
    await connection.execute(LOCK_SIGNING_KEYS)


async def list_signing_key_states(connection: Connection) -> list[tuple[str, str]]:
    """Kid and status of the published keys, newest first as they are published."""
    records = await connection.fetch(LIST_SIGNING_KEY_STATES)
    return [(record["kid"], record["status"]) for record in records]


async def find_first_signing_key(connection: Connection) -> datetime | None:
    """When the first one was made."""
    first: datetime | None = await connection.fetchval(FIND_FIRST_SIGNING_KEY)
    return first


async def list_standings(
    connection: Connection,
    partner_id: UUID,
    subs: Sequence[str],
    *,
    scope: str,
    by_member: bool,
    today: date,
) -> list[Standing]:
    """The partner's subjects among `subs`, each with its member's consent to `scope`: one statement for any number."""
    records = await connection.fetch(LIST_STANDINGS, partner_id, subs, scope, today, by_member)
    return [Standing(**record) for record in records]


async def list_standings_of_each(
    connection: Connection, asked: Sequence[tuple[UUID, str]], *, scope: str, by_member: bool, today: date
) -> dict[int, tuple[MemberRef, bool]]:
    """Whom each (partner, sub) names and whether that member consents to `scope`, by place; unknown ones are left out."""
    records = await connection.fetch(
        LIST_STANDINGS_OF_EACH,
        [partner_id for partner_id, _ in asked],
        [sub for _, sub in asked],
        scope,
        today,
        by_member,
    )
    return {
        place - 1: (MemberRef(member_id=member_id, bucket=bucket), consented)
        for place, member_id, bucket, consented in records
    }


async def find_member(connection: Connection, partner_id: UUID, sub: str) -> MemberRef | None:
    return read_if_any(await connection.fetchrow(FIND_MEMBER, partner_id, sub), MemberRef)


async def list_names(connection: Connection, partner_id: UUID, member_ids: Sequence[int]) -> dict[int, str]:
    records = await connection.fetch(LIST_NAMES, partner_id, member_ids)
    return {record["member_id"]: record["sub"] for record in records}


async def insert_subjects(
    connection: Connection,
    partner_id: UUID,
    names: Sequence[tuple[MemberRef, str]],
    *,
    key_version: int,
    now: datetime,
) -> None:
    """A member the partner knows already keeps the name it has."""
    await connection.execute(
        INSERT_SUBJECTS,
        partner_id,
        [member.member_id for member, _ in names],
        [member.bucket for member, _ in names],
        [sub for _, sub in names],
        key_version,
        now,
    )


async def find_bound_at(connection: Connection, partner_id: UUID, member: MemberRef) -> datetime | None:
    moment: datetime | None = await connection.fetchval(FIND_BOUND_AT, partner_id, member.member_id)
    return moment


async def withdraw_consents(
    connection: Connection, partner_id: UUID, member_ids: Sequence[int], *, now: datetime
) -> list[UUID]:
    return [record["id"] for record in await connection.fetch(WITHDRAW_CONSENTS, partner_id, member_ids, now)]


async def insert_consents(
    connection: Connection,
    partner_id: UUID,
    members: Sequence[tuple[UUID, MemberRef]],
    *,
    scopes: Sequence[str],
    purposes: Sequence[str],
    ends_on: date,
    now: datetime,
) -> None:
    """The same consent of each of the members, each under its own id."""
    await connection.execute(
        INSERT_CONSENTS,
        [consent_id for consent_id, _ in members],
        partner_id,
        [member.member_id for _, member in members],
        [member.bucket for _, member in members],
        scopes,
        purposes,
        now,
        ends_on,
    )


async def find_consent(
    connection: Connection,
    partner_id: UUID,
    member: MemberRef,
    *,
    scope: str | None,
    grant_id: UUID | None,
    today: date,
) -> Consent | None:
    record = await connection.fetchrow(FIND_CONSENT, partner_id, member.member_id, today, scope, grant_id)
    return None if record is None else read_consent(record)


async def list_consents(
    connection: Connection, partner_id: UUID, member: MemberRef, *, today: date
) -> list[Consent]:
    records = await connection.fetch(LIST_CONSENTS, partner_id, member.member_id, today)
    return [read_consent(record) for record in records]
