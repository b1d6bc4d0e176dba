"""Pairwise subjects and consents: under which name a partner knows a member, and what the member allows it."""

import hmac
from collections.abc import Sequence
from datetime import date, datetime
from typing import Literal
from uuid import UUID

from kernel.calendar import add_months, business_date
from kernel.caller import Caller, ConsentMissing, MemberRef, MemberUnknown
from kernel.database import Connection
from kernel.errors import Refusal, Unprocessable
from kernel.ids import from_wire, new_id
from kernel.vault import Vault
from partners.oauth import grants, queries
from partners.oauth.model import Consent
from partners.oauth.scopes import member_scopes
from partners.registry import service as registry
from partners.registry.jwk import encode
from points.membership.service import enrol_members

KEY_VERSION = 1
SANDBOX_CONSENT_MONTHS = 60


class ConsentScopeUnknown(Unprocessable):
    """A consent names a scope that does not exist or that is not a member's to give."""


class PairwiseSubjects:
    """kernel.caller.Subjects over the subjects and consents kept here."""

    async def resolve(
        self, connection: Connection, caller: Caller, subs: Sequence[str], *, scope: str, now: datetime
    ) -> dict[str, MemberRef]:
        """The members behind those `subs` that belong to the caller's partner and consent to `scope`."""
        named = [sub for sub in subs if caller.subject in (None, sub)]
        standings = await queries.list_standings(
            connection,
            caller.partner_id,
            _storable(named),
            scope=scope,
            by_member=caller.subject is not None,
            today=business_date(now),
        )
        return {s.sub: MemberRef(member_id=s.member_id, bucket=s.bucket) for s in standings if s.consented}

    async def resolve_one(
        self, connection: Connection, caller: Caller, sub: str, *, scope: str, now: datetime
    ) -> MemberRef:
        """The member behind `sub`; refuses with MemberUnknown or ConsentMissing."""
        standings = await queries.list_standings(
            connection,
            *_named(caller, sub),
            scope=scope,
            by_member=caller.subject is not None,
            today=business_date(now),
        )
        if not standings:
            raise MemberUnknown
        if not standings[0].consented:
            raise ConsentMissing(scope=scope)
        return MemberRef(member_id=standings[0].member_id, bucket=standings[0].bucket)

    async def resolve_each(
        self,
        connection: Connection,
        asked: Sequence[tuple[UUID, str]],
        *,
        scope: str,
        by_member: bool = False,
        now: datetime,
    ) -> list[MemberRef | Refusal]:
        """`resolve_one` for many (partner, sub), whosever they are; each is answered for itself, in their order."""
        storable = [(partner_id, sub if _is_storable(sub) else "") for partner_id, sub in asked]
        found = await queries.list_standings_of_each(
            connection, storable, scope=scope, by_member=by_member, today=business_date(now)
        )
        answers: list[MemberRef | Refusal] = []
        for place in range(len(asked)):
            member, consented = found.get(place, (None, False))
            if member is None:
                answers.append(MemberUnknown())
            else:
                answers.append(member if consented else ConsentMissing(scope=scope))
        return answers

    async def names(
        self, connection: Connection, *, partner_id: UUID, member_ids: Sequence[int]
    ) -> dict[int, str]:
        """The pairwise subjects under which a partner knows these members."""
        return await queries.list_names(connection, partner_id, member_ids)


async def subject_for(
    connection: Connection, *, partner_id: UUID, member: MemberRef, vault: Vault, now: datetime
) -> str:
    """The partner's name for the member, made on first sight."""
    names = [(member, pairwise(pairwise_key(vault), partner_id, member.member_id))]
    await queries.insert_subjects(connection, partner_id, names, key_version=KEY_VERSION, now=now)
    return (await queries.list_names(connection, partner_id, [member.member_id]))[member.member_id]


async def grant_consent(
    connection: Connection,
    *,
    partner_id: UUID,
    member: MemberRef,
    scopes: Sequence[str],
    ends_on: date,
    purposes: Sequence[str] = (),
    now: datetime,
) -> UUID:
    """The member's consent from now on, in place of the one before; returns its id."""
    if sorted(set(scopes)) != member_scopes(scopes):
        raise ConsentScopeUnknown
    await grants.lock_pair(connection, partner_id=partner_id, member=member)
    await _withdraw(connection, partner_id, member, now=now)
    consent_id = new_id(now)
    await queries.insert_consents(
        connection,
        partner_id,
        [(consent_id, member)],
        scopes=member_scopes(scopes),
        purposes=purposes,
        ends_on=ends_on,
        now=now,
    )
    await grants.tell(connection, "consent.granted", partner_id, member, consent_id, now=now)
    return consent_id


async def withdraw_consent(
    connection: Connection, *, partner_id: UUID, member: MemberRef, now: datetime
) -> bool:
    """End all the member's grants; from this commit on the partner is refused. False if there was none."""
    withdrawn = await _withdraw(connection, partner_id, member, now=now)
    for consent_id in withdrawn:
        await grants.tell(connection, "consent.withdrawn", partner_id, member, consent_id, now=now)
    return bool(withdrawn)


async def _withdraw(
    connection: Connection, partner_id: UUID, member: MemberRef, *, now: datetime
) -> list[UUID]:
    withdrawn = await queries.withdraw_consents(connection, partner_id, [member.member_id], now=now)
    if withdrawn:
        await grants.revoke(connection, [f"grant:{consent_id}" for consent_id in withdrawn], now=now)
    return withdrawn


async def find_consent(
    connection: Connection,
    *,
    partner_id: UUID,
    member: MemberRef,
    scope: str | None = None,
    grant_id: str | None = None,
    now: datetime,
) -> Consent | None:
    """The grant in force, for `scope` and of this id if they are given; of several, the one given last."""
    return await queries.find_consent(
        connection,
        partner_id,
        member,
        scope=scope,
        grant_id=None if grant_id is None else from_wire("grt", grant_id),
        today=business_date(now),
    )


async def list_consents(
    connection: Connection, *, partner_id: UUID, member: MemberRef, now: datetime
) -> list[Consent]:
    """Every grant in force, the one given last first."""
    return await queries.list_consents(connection, partner_id, member, today=business_date(now))


async def find_bound_at(connection: Connection, *, partner_id: UUID, member: MemberRef) -> datetime:
    """Since when the partner knows the member."""
    moment = await queries.find_bound_at(connection, partner_id, member)
    if moment is None:
        raise MemberUnknown
    return moment


async def bind_customers(
    connection: Connection,
    *,
    partner_id: UUID,
    customer_refs: Sequence[str],
    mode: Literal["sandbox", "live"],
    vault: Vault,
    now: datetime,
) -> dict[str, str]:
    """The subject of each of the partner's customer numbers; those left out are unknown.

    In the sandbox an unknown number becomes a new member who consents to all the partner's apps may ask; in live mode
    members bind themselves. A constant number of statements for any number of customers.
    """
    hashes = {
        ref: vault.blind_index("registry_customer", f"{partner_id}:{ref}") for ref in set(customer_refs)
    }
    wanted = list(hashes.values())
    known = await registry.list_customers(connection, partner_id=partner_id, ref_hashes=wanted)
    if len(known) < len(wanted) and mode == "sandbox":
        # Two imports of the same file must not enrol a customer twice: the second one waits, then finds the first's.
        await registry.lock_customers(connection, partner_id=partner_id)
        known = await registry.list_customers(connection, partner_id=partner_id, ref_hashes=wanted)
        missing = [ref_hash for ref_hash in wanted if ref_hash not in known]
        known |= await _enrol(connection, partner_id, missing, vault=vault, now=now)
    member_ids = [member.member_id for member in known.values()]
    names = await queries.list_names(connection, partner_id, member_ids)
    return {ref: names[known[hash_].member_id] for ref, hash_ in hashes.items() if hash_ in known}


async def _enrol(
    connection: Connection, partner_id: UUID, ref_hashes: Sequence[bytes], *, vault: Vault, now: datetime
) -> dict[bytes, MemberRef]:
    if not ref_hashes:
        return {}
    members = await enrol_members(connection, count=len(ref_hashes), now=now)
    customers = dict(zip(ref_hashes, members, strict=True))
    await registry.link_customers(connection, partner_id=partner_id, customers=customers, now=now)
    key = pairwise_key(vault)
    names = [(member, pairwise(key, partner_id, member.member_id)) for member in members]
    await queries.insert_subjects(connection, partner_id, names, key_version=KEY_VERSION, now=now)
    apps = await registry.list_apps(connection, partner_id)
    await queries.insert_consents(
        connection,
        partner_id,
        [(new_id(now), member) for member in members],
        scopes=member_scopes([scope for app in apps for scope in app.scopes]),
        purposes=["sandbox"],
        ends_on=add_months(business_date(now), SANDBOX_CONSENT_MONTHS),
        now=now,
    )
    return customers


def pairwise_key(vault: Vault, version: int = KEY_VERSION) -> bytes:
    """The key new names are made with. A name lies in its row with its version, so a new version renames nobody."""
    return vault.key("pairwise" if version == 1 else f"pairwise:{version}")


def pairwise(key: bytes, partner_id: UUID, member_id: int) -> str:
    """A name for the member that this partner always sees and no other partner can connect."""
    return encode(hmac.digest(key, partner_id.bytes + member_id.to_bytes(8, "big"), "sha256"))


def _named(caller: Caller, sub: str) -> tuple[UUID, list[str]]:
    partner_id, name = caller.name(sub)
    return partner_id, _storable([name])


def _storable(subs: Sequence[str]) -> list[str]:
    """Without those no subject can look like; the database would choke on some (NUL)."""
    return [sub for sub in subs if _is_storable(sub)]


def _is_storable(sub: str) -> bool:
    return len(sub) == 43 and sub.isascii() and sub.isprintable()
