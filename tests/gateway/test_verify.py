"""A file of the books holds for anyone with Python alone, and whatever is bent in it, however consistently, does not."""

import asyncio
import io
import json
import os
import runpy
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg
import pytest

from gateway.books_export import export_books
from gateway.statement_export import StatementUnknown, audit_path, export_statement
from kernel import jobs
from kernel.caller import MemberRef
from kernel.database import Connection, Pool, acquire, open_pool, transaction
from kernel.ids import new_id
from kernel.supervisor import Endpoints
from kernel.vault import Vault, generate_ring
from partners.oauth.keys import Signer, load_signer, stage_signing_key
from points.ledger import service as ledger
from points.ledger.model import EarnPosting, Grant
from points.ledger.seals import TYPE, claims_of
from points.membership import service as membership

SCRIPT = Path(__file__).parents[2] / "docs" / "verify" / "tessera_verify.py"
SIGNATURES = SCRIPT.with_name("tessera_signatures.py")
STATEMENT = SCRIPT.with_name("tessera_statement.py")
VERIFIER = runpy.run_path(str(SCRIPT))
RING = generate_ring()
PARTNER = UUID(int=7)
START = datetime(2024, 9, 28, 4, tzinfo=UTC)
LATER = datetime(2024, 12, 1, tzinfo=UTC)
DAY = timedelta(days=1)

Record = dict[str, Any]
Lines = list[Record]


class Autumn:
    """Three members' business from September to November, through the services only."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.signer: Signer | None = None

    async def run(self) -> None:
        connection = self.connection
        members = await membership.enrol_members(connection, count=3, now=START)
        for month in range(3):
            now = START + month * 29 * DAY
            for place, member in enumerate(members):
                earned = await self.earn(member, 1_000 + place, now)
                hold = await ledger.place_hold(
                    connection,
                    member=member,
                    partner_id=PARTNER,
                    points=700,
                    order_ref=f"order-{month}",
                    ttl_seconds=600_000,
                    now=now + DAY,
                )
                await ledger.capture_hold(
                    connection, hold_id=hold.id, partner_id=PARTNER, points=600, now=now + 3 * DAY
                )
                if place == 1 and month == 1:
                    await ledger.reverse(
                        connection,
                        operation_id=earned,
                        partner_id=PARTNER,
                        side="earn",
                        refund_ref=f"refund-{month}",
                        refunded_fen=100_000,
                        now=now + 4 * DAY,
                    )
                if place == 2:
                    await ledger.reverse(
                        connection,
                        operation_id=hold.id,
                        partner_id=PARTNER,
                        side="spend",
                        refund_ref=f"refund-{month}",
                        refunded_fen=300,
                        now=now + 4 * DAY,
                    )
        await ledger.expire_due(connection, limit=100, now=START + 63 * DAY)
        for period in await ledger.list_open_months(connection, until=date(2024, 11, 1)):
            while await jobs.advance(self.connection, ledger.issuing(2), business_on=period, now=LATER):
                pass
        self.signer = await load_signer(connection, Vault(RING), "https://bank.example", LATER)
        for day in await ledger.list_open_days(connection, until=date(2024, 11, 30)):
            await ledger.seal_day(connection, day=day, signer=self.signer, now=LATER)
        await self.earn(members[0], 5, LATER)  # not sealed, on no statement

    async def earn(self, member: MemberRef, points: int, now: datetime) -> UUID:
        grant = Grant(
            rule="base",
            multiplier_pct=100,
            points=points,
            lot_id=new_id(now),
            expires_at=now + 33 * DAY,
        )
        posting = EarnPosting(
            operation_id=new_id(now),
            member=member,
            partner_id=PARTNER,
            source_kind="purchase",
            source_ref=str(new_id(now)),
            amount_fen=points * 100,
            occurred_at=now,
            rule_version=1,
            tier="start",
            multiplier_pct=100,
            own_card=False,
            category=None,
            grants=(grant,),
        )
        (outcome,) = await ledger.post_earnings(self.connection, [posting], now=now)
        return outcome.operation_id


@pytest.fixture(scope="module")
async def database(servers: Endpoints, template: str, worker: int) -> AsyncGenerator[str, None]:
    """A database of its own: an export is of everything."""
    name = f"tessera_verify_{worker}"
    connection = await asyncpg.connect(servers.superuser_url)
    await connection.execute(f"CREATE DATABASE {name} OWNER tessera_owner TEMPLATE {template}")
    await connection.execute(f"GRANT CONNECT ON DATABASE {name} TO tessera_app")
    yield urlsplit(servers.database_url)._replace(path=f"/{name}").geturl()
    await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await connection.close()


@pytest.fixture(scope="module")
async def autumn(database: str) -> AsyncGenerator[tuple[Pool, Autumn], None]:
    """Three months, stated and sealed."""
    async with await open_pool(database, size=2) as pool:
        async with transaction(pool) as connection:
            season = Autumn(connection)
            await season.run()
        yield pool, season


@pytest.fixture(scope="module")
async def exported(autumn: tuple[Pool, Autumn]) -> str:
    """The file."""
    return await _export(autumn[0])


async def _export(pool: Pool, until: date | None = None) -> str:
    file = io.StringIO()
    async with acquire(pool) as connection:
        await export_books(connection, file, until=until, now=LATER)
    return file.getvalue()


@pytest.fixture
def verify(tmp_path: Path) -> Callable[..., tuple[int, list[str], str]]:
    """Runs the script as a stranger would: isolated, without any package; what is broken, and all it said."""

    def verify(text: str, earlier: str | None = None) -> tuple[int, list[str], str]:
        file, older = tmp_path / "books.jsonl", tmp_path / "older.jsonl"
        file.write_text(text, encoding="utf-8")
        older.write_text(earlier or "", encoding="utf-8")
        command = [sys.executable, "-I", "-S", str(SCRIPT), str(file)]
        done = subprocess.run(
            [*command, str(older)] if earlier else command, capture_output=True, text=True, check=False
        )
        assert done.stderr == ""
        said = done.stdout.splitlines()
        return done.returncode, [line.split()[1] for line in said if line.startswith("BROKEN")], done.stdout

    return verify


Verify = Callable[..., tuple[int, list[str], str]]


def read(text: str) -> Lines:
    return [json.loads(line) for line in text.splitlines()]


def write(lines: Lines, *, count: bool = True) -> str:
    """As the exporter writes; by default the end agrees with what is there."""
    if count and lines and lines[-1]["type"] == "end":
        lines[-1]["lines"] = Counter(line["type"] for line in lines[:-1])
    return "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)


def places(lines: Lines, kind: str) -> list[int]:
    return [place for place, line in enumerate(lines) if line["type"] == kind]


def all_of(lines: Lines, kind: str) -> Lines:
    return [line for line in lines if line["type"] == kind]


def test_an_export_is_verified_by_python_alone(exported: str, verify: Verify) -> None:
    code, broken, said = verify(exported)
    assert (code, broken) == (0, []), said
    assert said.endswith("verified\n") and "sealed until 2024-11-30" in said
    kinds = Counter(line["type"] for line in read(exported))
    assert (kinds["wallet"], kinds["statement"], kinds["seal"], kinds["end"]) == (3, 9, 64 * 8, 1)
    assert verify(exported, exported)[0] == 0


def test_the_scripts_are_small_and_lean_on_nothing() -> None:
    text = SCRIPT.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 240
    text += SIGNATURES.read_text(encoding="utf-8") + STATEMENT.read_text(encoding="utf-8")
    imported = {line.split()[1] for line in text.splitlines() if line.startswith(("import ", "from "))}
    assert imported <= sys.stdlib_module_names


@pytest.mark.parametrize(
    "until", [date(2024, 9, 27), date(2024, 9, 30), date(2024, 10, 15), date(2024, 11, 30)]
)
async def test_an_export_up_to_a_day_is_whole_and_under_the_same_seals(
    autumn: tuple[Pool, Autumn], exported: str, verify: Verify, until: date
) -> None:
    text = await _export(autumn[0], until)
    code, broken, said = verify(text, exported)
    assert (code, broken) == (0, []), said
    entries = all_of(read(text), "entry")
    assert all(entry["business_on"] <= until.isoformat() for entry in entries)
    assert len(entries) == sum(e["business_on"] <= until.isoformat() for e in all_of(read(exported), "entry"))


def books_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob("books*"))


async def test_the_command_line_exports_verifies_and_runs_the_jobs(
    database: str, redis_url: str, autumn: tuple[Pool, Autumn], tmp_path: Path
) -> None:
    urls = {"TESSERA_DATABASE_URL": database, "TESSERA_REDIS_URL": redis_url, "TESSERA_MASTER_KEYS": RING}

    async def tessera(*arguments: str, attach: bool = True) -> tuple[int, list[str]]:
        where = ("--data-dir", str(tmp_path)) if attach else ()
        command = [sys.executable, "-m", "gateway", *arguments, *where]
        done = await asyncio.to_thread(
            subprocess.run, command, env=os.environ | urls, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout.splitlines()

    file = tmp_path / "books.jsonl"
    assert (await tessera("books", "export", str(file), "--until", "2024-11-30"))[0] == 0
    assert books_in(tmp_path) == ["books.jsonl"], "nothing half-written is left"
    code, said = await tessera("books", "verify", str(file), "--earlier", str(file), attach=False)
    assert (code, said[-1]) == (0, "verified")
    file.write_text(file.read_text().replace('"points":600', '"points":601', 1))
    assert (await tessera("books", "verify", str(file), attach=False))[0] == 1
    done = (0, ["2024-11 3 statements", "1 months issued"])
    assert await tessera("job", "statements", "--month", "2024-11") == done
    code, said = await tessera("job", "seal", "--date", "2024-11-30")
    assert (code, said[-1]) == (0, "8 seals")
    assert (await tessera("job", "statements", "--month", "2099-01"))[0] == 2, "it is not over"
    code, said = await tessera("job", "run", "settlement", "--date", "2024-11-30")
    assert (code, said[-1]) == (0, "1 runs")
    assert said[0].startswith("settlement       2024-11-30    1/1 lanes            0 rows started 20")
    assert await tessera("job", "run", "settlement", "--date", "2024-11-30") == (0, said), "once is enough"
    assert (await tessera("job", "run", "settlement", "--date", "2099-01-01"))[0] == 2, "it is not over"
    code, listed = await tessera("job", "list", "--limit", "1")
    assert (code, listed) == (0, said)


def test_the_file_tells_nobodys_name(exported: str) -> None:
    kinds = {name for line in read(exported) for name in line}
    assert not {"name", "phone", "sub", "source_ref", "order_ref", "partner_id"} & kinds


async def test_every_seal_is_signed_by_the_platforms_key(autumn: tuple[Pool, Autumn]) -> None:
    pool, season = autumn
    assert season.signer is not None
    async with transaction(pool) as connection:
        sealed = await ledger.seal_day(connection, day=date(2024, 10, 1), now=LATER)
    for seal in sealed:
        assert seal.signature is not None and seal.signing_jwk == season.signer.jwks()["keys"][0]
        assert season.signer.verify(seal.signature, TYPE) == claims_of(seal)


@pytest.fixture
def check_signatures(tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """Runs the other script as a stranger would."""

    def check(lines: Lines, keys: Any = None) -> tuple[int, str]:
        file, jwks = tmp_path / "sealed.jsonl", tmp_path / "jwks.json"
        file.write_text(write(lines), encoding="utf-8")
        jwks.write_text(json.dumps(keys), encoding="utf-8")
        command = [sys.executable, "-I", "-S", str(SIGNATURES), str(file), *([str(jwks)] if keys else [])]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.stderr == ""
        return done.returncode, done.stdout

    return check


def sealed_days(exported: str, days: int) -> Lines:
    """Few, because Python takes milliseconds for each."""
    return [line for line in read(exported) if line["type"] == "seal"][:days]


def test_signatures_are_verified_by_python_alone(
    exported: str, autumn: tuple[Pool, Autumn], check_signatures: Callable[..., tuple[int, str]]
) -> None:
    assert autumn[1].signer is not None
    seals = sealed_days(exported, 10)
    for keys in (None, autumn[1].signer.jwks()):
        code, said = check_signatures(seals, keys)
        assert (code, said.split(";")[0]) == (0, "10 seals signed, 0 not"), said


async def test_a_seal_that_the_bank_did_not_sign_is_told(
    exported: str, autumn: tuple[Pool, Autumn], check_signatures: Callable[..., tuple[int, str]]
) -> None:
    signer = autumn[1].signer
    assert signer is not None
    async with transaction(autumn[0]) as connection:
        await connection.execute("SAVEPOINT before")
        await stage_signing_key(connection, Vault(RING), now=LATER)
        stranger = await load_signer(connection, Vault(RING), "https://bank.example", LATER)
        await connection.execute("ROLLBACK TO before")
    other = next(key for key in stranger.jwks()["keys"] if key["kid"] != signer.kid)
    bends: list[tuple[str, Callable[[Record], Any]]] = [
        ("other figures are signed", lambda seal: seal.update(leaves=seal["leaves"] + 1)),
        ("other figures are signed", lambda seal: seal.update(root=other_hash(seal["root"]))),
        ("another key than it names", lambda seal: seal.update(signing_jwk=other)),
        ("does not verify", lambda seal: seal.update(signature=seal["signature"][:-8] + "AAAAAAAA")),
        ("cannot be read", lambda seal: seal.update(signature="signed")),
        ("not signed", lambda seal: seal.update(signature=None, signing_jwk=None)),
    ]
    for told, bend in bends:
        seals = sealed_days(exported, 3)
        bend(seals[1])
        code, said = check_signatures(seals, signer.jwks())
        assert (code, said.count("BROKEN")) == (1, 1) and told in said, said
    code, said = check_signatures(sealed_days(exported, 2), {"keys": [other]})
    assert code == 1 and said.count("is not in the set") == 2


# ---------------------------------------------------------------------------------------------------------------
# Tampering
# ---------------------------------------------------------------------------------------------------------------


def change(kind: str, nth: int, **fields: Any) -> Callable[[Lines], None]:
    """Put other values in one line; a function gets the old one."""

    def bend(lines: Lines) -> None:
        line = all_of(lines, kind)[nth]
        for name, value in fields.items():
            new = value(line[name]) if callable(value) else value
            assert new != line[name]
            line[name] = new

    return bend


def drop(kind: str, nth: int) -> Callable[[Lines], None]:
    def bend(lines: Lines) -> None:
        del lines[places(lines, kind)[nth]]

    return bend


def more(value: int) -> int:
    return value + 1


def other_hash(value: str) -> str:
    return ("0" if value[0] != "0" else "1") + value[1:]


def swap_entries(lines: Lines) -> None:
    first, second = places(lines, "entry")[2:4]
    lines[first], lines[second] = lines[second], lines[first]


def swap_between_wallets(lines: Lines) -> None:
    wallets = places(lines, "wallet")
    first, second = wallets[0] + 1, wallets[1] + 1
    lines[first], lines[second] = lines[second], lines[first]


def swap_wallets(lines: Lines) -> None:
    first, second = places(lines, "wallet")[:2]
    lines[first:], lines[first:second] = lines[second:], lines[second:first]


def drop_tail(lines: Lines) -> None:
    """The last entry of the first wallet, and the wallet as it stood before."""
    wallet, second = places(lines, "wallet")[:2]
    last = max(place for place in places(lines, "entry") if place < second)
    before = lines[last - 1]
    for name in ("available", "held", "pending", "arrears", "seq"):
        lines[wallet][name] = before[name]
    lines[wallet]["head_hash"] = before["hash"]
    del lines[last]


def drop_wallet(lines: Lines) -> None:
    """With its statements, and with the house slots of its bucket."""
    first, second = places(lines, "wallet")[:2]
    del lines[first:second]


def reseal(lines: Lines) -> None:
    """Every root and seal anew above the entries that are there."""
    trees: dict[tuple[int, str], list[tuple[int, bytes]]] = {}
    wallet: Record = {}
    heads: dict[str, Record] = {}
    for line in lines:
        if line["type"] == "entry":
            heads[line["business_on"]] = line
        elif line["type"] != "statement":
            for day, head in heads.items():
                leaf = VERIFIER["leaf_hash"](wallet, head["seq"], head["hash"])
                VERIFIER["grow"](trees.setdefault((wallet["bucket"] // 128, day), []), leaf)
            wallet, heads = line, {}
    last: dict[int, str] = {}
    for seal in all_of(lines, "seal"):
        tree = trees.get((seal["lane"], seal["business_on"]), [])
        seal["root"], seal["leaves"] = VERIFIER["root_of"](tree).hex(), sum(size for size, _ in tree)
        seal["previous_hash"] = last.get(seal["lane"], "")
        seal["hash"] = last[seal["lane"]] = VERIFIER["seal_hash"](seal).hex()


def enrich(lines: Lines) -> None:
    """A hundred points more for one member from the first day on, and everything that follows made to agree."""
    wallet = places(lines, "wallet")[0]
    end = places(lines, "wallet")[1]
    link, hashes = b"", {}
    for line in lines[wallet + 1 : end]:
        if line["type"] == "entry":
            line["points"] += 100 if line["seq"] == 1 else 0
            line["available"] += 100
            link = VERIFIER["entry_hash"](link, lines[wallet], line)
            line["hash"] = hashes[line["seq"]] = link.hex()
        if line["type"] == "statement":
            first = line["first_seq"] == 1
            line["earned"] += 100 if first else 0
            line["opening"] += 0 if first else 100
            line["closing"] += 100
            line["head_hash"] = hashes[line["last_seq"]]
    lines[wallet]["available"] += 100
    lines[wallet]["head_hash"] = link.hex()
    key = (lines[wallet]["bucket"], 10, lines[wallet + 1]["business_on"])
    for slot in all_of(lines, "slot"):
        slot["debit"] += 100 if (slot["bucket"], slot["account"], slot["business_on"]) == key else 0


def forge_last_seal(lines: Lines) -> None:
    """Another root for a day that nobody chained to yet, hashed as it should be."""
    seal = all_of(lines, "seal")[-1]
    seal["root"] = other_hash(seal["root"])
    seal["hash"] = VERIFIER["seal_hash"](seal).hex()


def strip_seals(lines: Lines) -> None:
    lines[:] = [line for line in lines if line["type"] != "seal"]
    lines[0]["sealed_until"] = None


def repeat_line(lines: Lines) -> None:
    lines.insert(6, lines[5])


# (what is bent, how, the checks that must break and no others)
TAMPERING: list[tuple[str, Callable[[Lines], None], set[str]]] = [
    ("points of an entry", change("entry", 4, points=more), {"chain", "balances"}),
    ("cost of an entry", change("entry", 4, value_fen=more), {"chain"}),
    ("balance of an entry", change("entry", 4, available=more), {"chain", "balances"}),
    ("hash of an entry", change("entry", 4, hash=other_hash), {"chain"}),
    ("moment of an entry", change("entry", 4, recorded_at=lambda at: at.replace(":00Z", ":01Z")), {"chain"}),
    ("day of an entry", change("entry", 0, business_on="2024-09-29"), {"accounts", "chain", "house", "seals"}),
    ("operation of an entry", change("entry", 4, operation=other_hash), {"chain"}),
    ("funder of an entry", change("entry", 4, funder=77), {"accounts", "chain"}),
    ("account of an entry", change("entry", 0, debit=12), {"chain", "house", "statements"}),
    ("unknown account", change("entry", 0, debit=77), {"accounts", "chain", "house", "statements"}),
    ("a fraction", change("entry", 4, points=0.5), {"file"}),
    ("a negative amount", change("entry", 4, points=lambda points: -points), {"accounts", "chain", "balances"}),
    ("number of an entry", change("entry", 4, seq=more), {"chain"}),
    ("a dropped entry", drop("entry", 4), {"chain", "balances", "statements"}),
    ("a dropped tail", drop_tail, {"house", "statements", "seals", "zero-sum"}),
    ("swapped entries", swap_entries, {"chain", "balances"}),
    ("entries swapped between wallets", swap_between_wallets, {"chain", "seals"}),
    ("swapped wallets", swap_wallets, {"file"}),
    ("a repeated line", repeat_line, {"chain"}),
    ("balance of a wallet", change("wallet", 1, available=more), {"wallets", "zero-sum"}),
    ("head of a wallet", change("wallet", 1, head_hash=other_hash), {"wallets"}),
    ("owner of a wallet", change("wallet", 2, member=more), {"chain", "seals"}),
    ("a dropped wallet", drop_wallet, {"seals"}),
    ("a house slot", change("slot", 3, debit=more), {"house", "zero-sum"}),
    ("a dropped house slot", drop("slot", 3), {"house", "zero-sum"}),
    ("sum of a statement", change("statement", 1, earned=more, spent=more), {"statements"}),
    ("closing of a statement", change("statement", 1, earned=more, closing=more), {"statements"}),
    ("opening of a statement", change("statement", 1, opening=more, earned=lambda earned: earned - 1), {"statements"}),
    ("head of a statement", change("statement", 1, head_hash=other_hash), {"statements"}),
    ("month of a statement", change("statement", 0, period="2024-08-01"), {"statements"}),
    ("reach of a statement", change("statement", 0, last_seq=more), {"statements"}),
    ("a dropped statement", drop("statement", 1), {"statements"}),
    ("a dropped last statement", drop("statement", 2), {"statements"}),
    ("root of a seal", change("seal", 20, root=other_hash), {"seals"}),
    ("leaves of a seal", change("seal", 20, leaves=more), {"seals"}),
    ("hash of a seal", change("seal", 20, hash=other_hash), {"seals"}),
    ("a forged last seal", forge_last_seal, {"seals"}),
    ("a dropped seal", drop("seal", 20), {"seals"}),
    ("a dropped last seal", drop("seal", -1), {"seals"}),
    ("a whole wallet, consistently, after sealing", enrich, {"seals"}),
    ("a missing header", drop("header", 0), {"file"}),
    ("a missing end", drop("end", 0), {"file"}),
    ("a line of another kind", change("slot", 3, type="note"), {"file"}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("bend", "broken"), [case[1:] for case in TAMPERING], ids=[case[0] for case in TAMPERING]
)
def test_what_is_bent_does_not_hold(
    exported: str, verify: Verify, bend: Callable[[Lines], None], broken: set[str]
) -> None:
    lines = read(exported)
    bend(lines)
    code, found, said = verify(write(lines))
    assert code == 1 and said.endswith("NOT VERIFIED\n")
    assert broken <= set(found), said


@pytest.mark.parametrize("share", [0.1, 0.5, 0.999])
def test_a_file_that_was_cut_off_does_not_hold(exported: str, verify: Verify, share: float) -> None:
    code, broken, _ = verify(exported[: int(len(exported) * share)])
    assert code == 1 and "file" in broken


def test_a_count_that_is_not_true_does_not_hold(exported: str, verify: Verify) -> None:
    lines = read(exported)
    del lines[places(lines, "slot")[0]]
    assert "file" in verify(write(lines, count=False))[1]


@pytest.mark.parametrize("bends", [(enrich, reseal), (strip_seals,), (enrich, strip_seals)])
def test_books_forged_with_their_seals_are_told_by_an_earlier_copy_alone(
    exported: str, verify: Verify, bends: tuple[Callable[[Lines], None], ...]
) -> None:
    lines = read(exported)
    for bend in bends:
        bend(lines)
    forged = write(lines)
    assert verify(forged)[0] == 0, "everything in the file agrees"
    code, broken, _ = verify(forged, exported)
    assert (code, broken) == (1, ["seals"])


async def _months(pool: Pool) -> list[tuple[MemberRef, date]]:
    async with acquire(pool) as connection:
        records = await connection.fetch(
            "SELECT bucket, member_id, period FROM ledger_statement WHERE period < $1 ORDER BY member_id, period",
            LATER.date(),
        )
    return [(MemberRef(bucket=bucket, member_id=number), period) for bucket, number, period in records]


async def _proof(pool: Pool, member: MemberRef, period: date) -> str:
    file = io.StringIO()
    async with acquire(pool) as connection:
        await export_statement(connection, file, member=member, period=period, now=LATER)
    return file.getvalue()


def _judged(text: str, tmp_path: Path, keys: dict[str, Any] | None = None) -> tuple[int, str]:
    file, jwks = tmp_path / "statement.jsonl", tmp_path / "jwks.json"
    file.write_text(text, encoding="utf-8")
    jwks.write_text(json.dumps(keys), encoding="utf-8")
    command = [sys.executable, "-I", "-S", str(STATEMENT), str(file), *([str(jwks)] if keys else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout


async def test_every_month_of_every_member_is_proved_by_itself(
    autumn: tuple[Pool, Autumn], tmp_path: Path
) -> None:
    pool, season = autumn
    months = await _months(pool)
    assert len(months) == 9
    assert season.signer is not None
    for member, period in months:
        told = _judged(await _proof(pool, member, period), tmp_path, season.signer.jwks())
        assert told == (0, "verified\n"), (period, told)


BENT: list[tuple[str, Callable[[Lines], object]]] = [
    ("a figure", lambda lines: all_of(lines, "statement")[0].update(earned=1)),
    ("the closing", lambda lines: all_of(lines, "statement")[0].update(closing=1)),
    ("the opening", lambda lines: all_of(lines, "statement")[0].update(opening=1)),
    ("an entry", lambda lines: all_of(lines, "entry")[0].update(points=1)),
    ("the link", lambda lines: all_of(lines, "wallet")[0].update(link="00")),
    ("an entry left out", lambda lines: lines.pop(places(lines, "entry")[0])),
    ("the owner", lambda lines: all_of(lines, "wallet")[0].update(member=99)),
    ("the root", lambda lines: all_of(lines, "seal")[0].update(root="00" * 32)),
    ("the day", lambda lines: all_of(lines, "seal")[0].update(business_on="2024-10-01")),
    ("the signature", lambda lines: all_of(lines, "seal")[0].update(signature=None)),
    ("a step more", lambda lines: all_of(lines, "path")[0]["steps"].append(["left", "00" * 32])),
    ("no seal", lambda lines: lines.pop(places(lines, "seal")[0])),
    ("a hash that is none", lambda lines: all_of(lines, "wallet")[0].update(link="zz")),
]


@pytest.mark.parametrize(("what", "bend"), BENT, ids=[what for what, _ in BENT])
async def test_a_bent_month_is_noticed(
    autumn: tuple[Pool, Autumn], tmp_path: Path, what: str, bend: Callable[[Lines], object]
) -> None:
    pool, season = autumn
    assert season.signer is not None
    member, period = (await _months(pool))[4]
    lines = read(await _proof(pool, member, period))
    bend(lines)
    code, said = _judged(write(lines), tmp_path, season.signer.jwks())
    assert code == 1 and said.endswith("NOT VERIFIED\n"), what


async def test_a_month_without_a_statement_is_not_proved(autumn: tuple[Pool, Autumn]) -> None:
    pool, _ = autumn
    member, _ = (await _months(pool))[0]
    with pytest.raises(StatementUnknown):
        await _proof(pool, member, date(2024, 8, 1))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 8, 13])
def test_the_path_leads_from_every_leaf_to_the_root(count: int) -> None:
    leaves = [bytes([n]) * 32 for n in range(count)]
    tree: list[tuple[int, bytes]] = []
    for leaf in leaves:
        VERIFIER["grow"](tree, leaf)
    for place, leaf in enumerate(leaves):
        node = leaf
        for side, other in audit_path(leaves, place):
            pair = (other, node) if side == "left" else (node, other)
            node = VERIFIER["sha"](b"\1", *pair)
        assert node == VERIFIER["root_of"](tree)
