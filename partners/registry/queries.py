"""Every statement on the registry's tables."""

from collections.abc import Collection, Sequence
from datetime import date, datetime
from uuid import UUID

from kernel.caller import MemberRef
from kernel.database import Connection, read, read_if_any
from partners.registry.model import Access, Agreement, App, Client, Key, KeyStatus, Partner, PartnerStatus

INSERT_PARTNER = """
INSERT INTO registry_partner (id, slug, name_zh, name_en, kind, scene, status, contact, created_at, changed_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9)
"""

FIND_PARTNER = """
SELECT id, slug, name_zh, name_en, kind, scene, status, epoch, contact FROM registry_partner WHERE id = $1
"""

FIND_PARTNER_BY_SLUG = """
SELECT id, slug, name_zh, name_en, kind, scene, status, epoch FROM registry_partner WHERE slug = $1
"""

LIST_PARTNERS = """
SELECT id, slug, name_zh, name_en, kind, scene, status, epoch
  FROM registry_partner
 ORDER BY slug
"""

# By id: whoever goes from partner to partner remembers the last one.
FIND_NEXT_PARTNER = """
SELECT id, slug, name_zh, name_en, kind, scene, status, epoch
  FROM registry_partner
 WHERE id > $1 AND status = ANY ($2::text[])
 ORDER BY id
 LIMIT 1
"""

LOCK_PARTNER = """
SELECT id, slug, name_zh, name_en, kind, scene, status, epoch
  FROM registry_partner
 WHERE id = $1
   FOR NO KEY UPDATE
"""

MOVE_PARTNER = """
UPDATE registry_partner
   SET status = $3, epoch = epoch + 1, changed_at = $4
 WHERE id = $1 AND status = $2
"""

RAISE_EPOCH = """
UPDATE registry_partner
   SET epoch = epoch + 1, changed_at = $2
  FROM registry_app AS a
 WHERE a.id = $1 AND registry_partner.id = a.partner_id
"""

REMOVE_APPS = "UPDATE registry_app SET status = 'removed' WHERE partner_id = $1"

INSERT_APP = """
INSERT INTO registry_app (id, partner_id, client_id, status, scopes, rate_per_second, burst, dpop_nonce_required, created_at)
VALUES ($1, $2, $3, 'active', $4, $5, $6, $7, $8)
RETURNING id, partner_id, client_id, status, scopes, rate_per_second, burst, dpop_nonce_required,
          jwks_uri, token_binding, certificate_subject, certificate_thumbprints, ip_allow::text[] AS ip_allow
"""

FIND_APP = """
SELECT id, partner_id, client_id, status, scopes, rate_per_second, burst, dpop_nonce_required,
       jwks_uri, token_binding, certificate_subject, certificate_thumbprints, ip_allow::text[] AS ip_allow
  FROM registry_app
 WHERE id = $1
"""

LIST_APPS = """
SELECT id, partner_id, client_id, status, scopes, rate_per_second, burst, dpop_nonce_required,
       jwks_uri, token_binding, certificate_subject, certificate_thumbprints, ip_allow::text[] AS ip_allow
  FROM registry_app
 WHERE partner_id = $1
 ORDER BY id
"""

FIND_APP_BY_CLIENT = """
SELECT id, partner_id, client_id, status, scopes, rate_per_second, burst, dpop_nonce_required,
       jwks_uri, token_binding, certificate_subject, certificate_thumbprints, ip_allow::text[] AS ip_allow
  FROM registry_app
 WHERE client_id = $1
"""

SET_ACCESS = """
UPDATE registry_app
   SET jwks_uri = $2, token_binding = $3, certificate_subject = $4, certificate_thumbprints = $5, ip_allow = $6::text[]::cidr[]
 WHERE id = $1 AND status <> 'removed'
RETURNING true
"""

MOVE_APP = """
UPDATE registry_app SET status = $2 WHERE id = $1 AND status <> 'removed' RETURNING true
"""

LOCK_APP = "SELECT true FROM registry_app WHERE id = $1 FOR NO KEY UPDATE"

# Fetched keys older than a day count no more; a key registered under the same kid is the one that is meant.
FIND_CLIENT = """
SELECT a.id AS app_id, a.partner_id, a.client_id, a.status AS app_status, p.status AS partner_status, p.epoch,
       a.scopes, a.rate_per_second, a.burst, a.dpop_nonce_required, a.redirect_uris, a.grant_types, a.jwks_uri, a.token_binding, a.certificate_subject,
       a.certificate_thumbprints, a.ip_allow::text[] AS ip_allow, j.fetched_at AS jwks_fetched_at,
       coalesce(j.keys, '{}') || coalesce(k.usable, '{}') AS keys, coalesce(k.pending, '{}') AS pending,
       a.request_signature,
       coalesce((SELECT jsonb_object_agg(m.serial_no, encode(m.x || m.y, 'hex'))
                   FROM registry_sm2_key AS m
                  WHERE m.app_id = a.id AND m.status = 'active'), '{}') AS sm2_keys
  FROM registry_app AS a
  JOIN registry_partner AS p ON p.id = a.partner_id
  LEFT JOIN registry_jwks AS j
    ON j.app_id = a.id AND j.jwks_uri = a.jwks_uri AND j.fetched_at > clock_timestamp() - interval '24 hours'
 CROSS JOIN LATERAL (
       SELECT jsonb_object_agg(kid, jwk) FILTER (WHERE status <> 'pending') AS usable,
              jsonb_object_agg(kid, jwk) FILTER (WHERE status = 'pending') AS pending
         FROM registry_key
        WHERE app_id = a.id AND status <> 'revoked' AND (not_after IS NULL OR not_after > clock_timestamp())) AS k
 WHERE a.client_id = $1
"""

# The same for several names.
LIST_CLIENTS = FIND_CLIENT.replace("a.client_id = $1", "a.client_id = ANY ($1::text[])")

# The member grants come with the first address a member can be sent back to.
ADD_REDIRECT_URI = """
UPDATE registry_app
   SET redirect_uris = redirect_uris || $2::text,
       grant_types = ARRAY(SELECT DISTINCT g FROM unnest(grant_types || ARRAY['authorization_code', 'refresh_token']) AS g
                            ORDER BY g)
 WHERE id = $1
"""

# Whoever may ask on the phone may go on asking with what came of it.
ALLOW_BACKCHANNEL = """
UPDATE registry_app
   SET grant_types = ARRAY(SELECT DISTINCT g
                             FROM unnest(grant_types || ARRAY['urn:openid:params:grant-type:ciba', 'refresh_token']) AS g
                            ORDER BY g)
 WHERE id = $1
"""

FORBID_BACKCHANNEL = """
UPDATE registry_app SET grant_types = array_remove(grant_types, 'urn:openid:params:grant-type:ciba') WHERE id = $1
"""

REMOVE_REDIRECT_URI = """
UPDATE registry_app SET redirect_uris = array_remove(redirect_uris, $2) WHERE id = $1
"""

INSERT_KEY = """
INSERT INTO registry_key (app_id, kid, jwk, status, added_at, overlap_seconds, revoked_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)
"""

LIST_KEYS = """
SELECT kid, jwk, status, added_at, overlap_seconds, not_after, activated_at, revoked_at
  FROM registry_key
 WHERE app_id = $1 AND kid > $2
 ORDER BY kid
 LIMIT $3
"""

MOVE_KEY = """
UPDATE registry_key
   SET status = $4, revoked_at = CASE WHEN $4 = 'revoked' THEN $5::timestamptz END
 WHERE app_id = $1 AND kid = $2 AND status = $3
RETURNING true
"""

ACTIVATE_KEY = """
UPDATE registry_key
   SET status = 'active', activated_at = $3
 WHERE app_id = $1 AND kid = $2 AND status = 'pending'
RETURNING coalesce(overlap_seconds, 0)
"""

RETIRE_OTHER_KEYS = """
UPDATE registry_key
   SET status = 'retiring', not_after = $3
 WHERE app_id = $1 AND kid <> $2 AND status = 'active'
RETURNING kid
"""

INSERT_AGREEMENT = """
INSERT INTO registry_agreement (id, partner_id, scenarios, funding, starts_on, ends_on, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)
"""

FIND_AGREEMENT = """
SELECT id, partner_id, scenarios, funding, starts_on, ends_on
  FROM registry_agreement
 WHERE partner_id = $1 AND $2 BETWEEN starts_on AND ends_on
 ORDER BY starts_on DESC, id DESC
 LIMIT 1
"""

LOCK_CUSTOMERS = "SELECT pg_advisory_xact_lock(hashtextextended('registry_customer:' || $1::uuid::text, 0))"

LIST_CUSTOMERS = """
SELECT ref_hash, member_id, bucket FROM registry_customer WHERE partner_id = $1 AND ref_hash = ANY($2::bytea[])
"""

INSERT_CUSTOMERS = """
INSERT INTO registry_customer (partner_id, ref_hash, member_id, bucket, bound_at)
SELECT $1, c.ref_hash, c.member_id, c.bucket, $5
  FROM unnest($2::bytea[], $3::bigint[], $4::smallint[]) AS c (ref_hash, member_id, bucket)
"""


async def insert_partner(connection: Connection, partner: Partner, *, now: datetime) -> None:
    await connection.execute(
        INSERT_PARTNER,
        partner.id,
        partner.slug,
        partner.name_zh,
        partner.name_en,
        partner.kind,
        partner.scene,
        partner.status,
        partner.contact,
        now,
    )


async def find_partner(connection: Connection, partner_id: UUID) -> Partner | None:
    return read_if_any(await connection.fetchrow(FIND_PARTNER, partner_id), Partner)


async def find_partner_by_slug(connection: Connection, slug: str) -> Partner | None:
    return read_if_any(await connection.fetchrow(FIND_PARTNER_BY_SLUG, slug), Partner)


async def list_partners(connection: Connection) -> list[Partner]:
    """Ordered by slug, as people look for them."""
    return [read(record, Partner) for record in await connection.fetch(LIST_PARTNERS)]


async def find_next_partner(
    connection: Connection, *, after: UUID, statuses: Collection[PartnerStatus]
) -> Partner | None:
    return read_if_any(await connection.fetchrow(FIND_NEXT_PARTNER, after, list(statuses)), Partner)


async def lock_partner(connection: Connection, partner_id: UUID) -> Partner | None:
    """The partner, and nobody else moves it until commit."""
    return read_if_any(await connection.fetchrow(LOCK_PARTNER, partner_id), Partner)


async def move_partner(
    connection: Connection, partner_id: UUID, *, present: PartnerStatus, wanted: PartnerStatus, now: datetime
) -> None:
    """The new epoch ends every token issued before."""
    await connection.execute(MOVE_PARTNER, partner_id, present, wanted, now)


async def raise_epoch(connection: Connection, app_id: UUID, *, now: datetime) -> None:
    """End every token of the app's partner."""
    await connection.execute(RAISE_EPOCH, app_id, now)


async def remove_apps(connection: Connection, partner_id: UUID) -> None:
    await connection.execute(REMOVE_APPS, partner_id)


async def insert_app(
    connection: Connection,
    *,
    app_id: UUID,
    partner_id: UUID,
    client_id: str,
    scopes: Sequence[str],
    rate_per_second: int,
    burst: int,
    dpop_nonce_required: bool,
    now: datetime,
) -> App:
    record = await connection.fetchrow(
        INSERT_APP, app_id, partner_id, client_id, scopes, rate_per_second, burst, dpop_nonce_required, now
    )
    return read(record, App)


async def find_app(connection: Connection, app_id: UUID) -> App | None:
    return read_if_any(await connection.fetchrow(FIND_APP, app_id), App)


async def find_app_by_client(connection: Connection, client_id: str) -> App | None:
    return read_if_any(await connection.fetchrow(FIND_APP_BY_CLIENT, client_id), App)


async def set_access(connection: Connection, app_id: UUID, access: Access) -> bool:
    """False if the app was removed."""
    return bool(
        await connection.fetchval(
            SET_ACCESS,
            app_id,
            access.jwks_uri,
            access.token_binding,
            access.certificate_subject,
            access.certificate_thumbprints,
            access.ip_allow,
        )
    )


async def list_apps(connection: Connection, partner_id: UUID) -> list[App]:
    """Ordered by id, which is the order of registration."""
    return [read(record, App) for record in await connection.fetch(LIST_APPS, partner_id)]


async def move_app(connection: Connection, app_id: UUID, status: str) -> bool:
    """False if the app was removed: that is final."""
    return bool(await connection.fetchval(MOVE_APP, app_id, status))


async def lock_app(connection: Connection, app_id: UUID) -> bool:
    """Whether there is such an app; its keys change one at a time until commit."""
    return bool(await connection.fetchval(LOCK_APP, app_id))


async def find_client(connection: Connection, client_id: str) -> Client | None:
    """Everything authentication asks for, in one round trip: app, partner and usable keys at one moment."""
    return read_if_any(await connection.fetchrow(FIND_CLIENT, client_id), Client)


async def list_clients(connection: Connection, client_ids: Sequence[str]) -> dict[str, Client]:
    """`find_client` for many, by name."""
    records = await connection.fetch(LIST_CLIENTS, client_ids)
    return {record["client_id"]: read(record, Client) for record in records}


async def add_redirect_uri(connection: Connection, app_id: UUID, uri: str) -> None:
    await connection.execute(ADD_REDIRECT_URI, app_id, uri)


async def remove_redirect_uri(connection: Connection, app_id: UUID, uri: str) -> None:
    await connection.execute(REMOVE_REDIRECT_URI, app_id, uri)


async def allow_backchannel(connection: Connection, app_id: UUID) -> None:
    await connection.execute(ALLOW_BACKCHANNEL, app_id)


async def forbid_backchannel(connection: Connection, app_id: UUID) -> None:
    await connection.execute(FORBID_BACKCHANNEL, app_id)


async def insert_key(
    connection: Connection,
    app_id: UUID,
    *,
    kid: str,
    jwk: dict[str, str],
    status: KeyStatus,
    overlap_seconds: int | None = None,
    now: datetime,
) -> None:
    revoked_at = now if status == "revoked" else None
    await connection.execute(INSERT_KEY, app_id, kid, jwk, status, now, overlap_seconds, revoked_at)


async def list_keys(
    connection: Connection, app_id: UUID, *, after: str = "", limit: int = 1_000
) -> list[Key]:
    """Ordered by kid, so that a page begins where the last one ended."""
    return [read(record, Key) for record in await connection.fetch(LIST_KEYS, app_id, after, limit)]


async def move_key(
    connection: Connection,
    app_id: UUID,
    kid: str,
    *,
    present: KeyStatus,
    wanted: KeyStatus,
    now: datetime | None = None,
) -> bool:
    """False if the key is not in its `present` status any more."""
    return bool(await connection.fetchval(MOVE_KEY, app_id, kid, present, wanted, now))


async def activate_key(connection: Connection, app_id: UUID, kid: str, *, now: datetime) -> int | None:
    """The overlap in seconds for whoever comes first; None for anybody after."""
    overlap: int | None = await connection.fetchval(ACTIVATE_KEY, app_id, kid, now)
    return overlap


async def retire_other_keys(
    connection: Connection, app_id: UUID, kid: str, *, not_after: datetime
) -> list[str]:
    """The kids of the keys that `kid` replaces."""
    records = await connection.fetch(RETIRE_OTHER_KEYS, app_id, kid, not_after)
    return sorted(record["kid"] for record in records)


async def insert_agreement(connection: Connection, agreement: Agreement, *, now: datetime) -> None:
    await connection.execute(
        INSERT_AGREEMENT,
        agreement.id,
        agreement.partner_id,
        agreement.scenarios,
        agreement.funding,
        agreement.starts_on,
        agreement.ends_on,
        now,
    )


async def find_agreement(connection: Connection, partner_id: UUID, *, today: date) -> Agreement | None:
    """The one that began last, where two overlap."""
    return read_if_any(await connection.fetchrow(FIND_AGREEMENT, partner_id, today), Agreement)


async def lock_customers(connection: Connection, partner_id: UUID) -> None:
    """One transaction at a time binds customers of the partner."""
    await connection.execute(LOCK_CUSTOMERS, partner_id)


async def list_customers(
    connection: Connection, partner_id: UUID, ref_hashes: Sequence[bytes]
) -> dict[bytes, MemberRef]:
    records = await connection.fetch(LIST_CUSTOMERS, partner_id, ref_hashes)
    return {
        record["ref_hash"]: MemberRef(member_id=record["member_id"], bucket=record["bucket"])
        for record in records
    }


async def insert_customers(
    connection: Connection, partner_id: UUID, customers: dict[bytes, MemberRef], *, now: datetime
) -> None:
    await connection.execute(
        INSERT_CUSTOMERS,
        partner_id,
        list(customers),
        [member.member_id for member in customers.values()],
        [member.bucket for member in customers.values()],
        now,
    )
