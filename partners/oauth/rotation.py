"""When the bank's signing keys change: published for a day before the first signature, kept for a day after the last.

A daily job does what is due. In an emergency one of the bank's people replaces the key at once: what it signed is worth
nothing from then on.
"""

from datetime import date, datetime, timedelta

from kernel import audit
from kernel.audit import AuditRecord
from kernel.calendar import business_date
from kernel.database import Connection
from kernel.jobs import Job, Run, Step
from kernel.vault import Vault
from partners.oauth import queries
from partners.oauth.keys import insert_key, promote_signing_key, stage_signing_key

#: how long a key signs before the next one is staged
SIGNS_FOR = timedelta(days=90)
#: whoever keeps our key set for less than this never meets an unknown key
PUBLISHED_FOR = timedelta(hours=24)
#: far more than a token lives (300 s) and a key set is cached (300 s): quotes are verified offline for longer
KEPT_FOR = timedelta(hours=24)
JOB_NAME = "signing_keys"


def rotating(vault: Vault | None) -> Job:
    """The daily job; without the vault no new key is made."""

    async def step(connection: Connection, _run: Run, now: datetime) -> Step:
        return Step(done=len(await rotate_due(connection, vault, now=now)), cursor=None)

    return Job(name=JOB_NAME, lanes=1, step=step)


async def rotate_due(connection: Connection, vault: Vault | None, *, now: datetime) -> list[str]:
    """What is due by now: old keys leave, the next one begins to sign or is published. Returns what was done."""
    await queries.lock_signing_keys(connection)
    keys = await queries.list_signing_keys(connection)
    done = []
    for key in keys:
        if key.status == "retiring" and key.moved_at <= now - KEPT_FOR:
            await queries.move_signing_key(connection, key.kid, present="retiring", wanted="retired", now=now)
            done.append(await _record(connection, "retired", key.kid, "job:signing_keys", now=now))
    # The oldest first, should there be several.
    pending = next((key for key in reversed(keys) if key.status == "pending"), None)
    active = next((key for key in keys if key.status == "active"), None)
    if pending is not None and pending.moved_at <= now - PUBLISHED_FOR:
        await promote_signing_key(connection, pending.kid, now=now)
        done.append(await _record(connection, "promoted", pending.kid, "job:signing_keys", now=now))
    elif vault is not None and pending is None and active is not None and active.moved_at <= now - SIGNS_FOR:
        kid = await stage_signing_key(connection, vault, now=now)
        done.append(await _record(connection, "staged", kid, "job:signing_keys", now=now))
    return done


async def replace_now(connection: Connection, vault: Vault, *, reason: str, by: str, now: datetime) -> str:
    """A new key signs at once and every other one is unpublished, those that wait included; returns the new kid."""
    await queries.lock_signing_keys(connection)
    for status in ("pending", "retiring", "active"):
        await queries.move_signing_keys(connection, present=status, wanted="retired", now=now)
    kid = await insert_key(connection, vault, status="active", now=now)
    await _record(connection, "replaced", kid, by, reason=reason, now=now)
    return kid


async def find_first_key_day(connection: Connection) -> date | None:
    """The business date of the first signing key."""
    first = await queries.find_first_signing_key(connection)
    return None if first is None else business_date(first)


async def _record(
    connection: Connection, verb: str, kid: str, actor: str, *, reason: str | None = None, now: datetime
) -> str:
    detail = {} if reason is None else {"reason": reason}
    record = AuditRecord(actor=actor, action=f"signing_key.{verb}", subject=kid, detail=detail)
    await audit.append(connection, record, partner_id=None, now=now)
    return f"{verb} {kid}"
