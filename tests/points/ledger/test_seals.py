"""Every day of the books is sealed once, under the roots of the wallets that moved, in an unbroken line."""

import hashlib
from datetime import UTC, date, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from kernel.database import Connection
from points.ledger import service
from points.ledger.model import Seal
from points.ledger.seals import EarlierDayOpen, claims_of
from points.ledger.statements import PeriodNotOver

Bank = Any
#: a day long before any other test's, so that the line begins here
DAY = date(2020, 2, 28)
AT = datetime(2020, 2, 28, 4, tzinfo=UTC)
LATER = datetime(2020, 4, 1, tzinfo=UTC)

# the leaves and roots with which implementations of RFC 6962 test themselves
LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


class Stamp:
    """A signer whose signature can be read with the eye."""

    kid = "k1"

    def sign(self, claims: dict[str, Any], *, typ: str) -> str:
        return f"{typ} {claims['business_on']} {claims['lane']} {claims['hash']}"

    def jwks(self) -> dict[str, Any]:
        return {"keys": [{"kid": "k0"}, {"kid": "k1", "kty": "EC"}]}


async def seal(connection: Connection, day: date) -> list[Seal]:
    return await service.seal_day(connection, day=day, now=LATER)


@pytest.mark.parametrize("leaves", range(9))
async def test_the_root_is_that_of_rfc_6962(connection: Connection, leaves: int) -> None:
    hashes = [hashlib.sha256(b"\0" + bytes.fromhex(leaf)).digest() for leaf in LEAVES[:leaves]]
    root = await connection.fetchval("SELECT ledger_merkle_root($1)", hashes)
    assert root.hex() == ROOTS[leaves]


async def test_a_day_is_sealed_in_every_lane_and_chained_to_the_day_before(
    bank: Bank, connection: Connection
) -> None:
    member = await bank.enrol(connection)
    await bank.earn(connection, member, 10, now=AT)
    await bank.earn(connection, member, 5, now=AT)
    first, second = await seal(connection, DAY), await seal(connection, DAY + timedelta(days=1))
    assert [s.lane for s in first] == list(range(8))
    assert [s.leaves for s in first] == [int(s.lane == member.bucket // 128) for s in first]
    assert {s.previous_hash for s in first} == {b""}
    assert [s.previous_hash for s in second] == [s.hash for s in first]
    assert {s.leaves for s in second} == {0}, "who rested is sealed by the last leaf"
    assert second[0].business_on == date(2020, 2, 29)
    head = await connection.fetchval(
        "SELECT head_hash FROM ledger_wallet WHERE member_id = $1", member.member_id
    )
    leaf = await connection.fetchval(
        "SELECT ledger_leaf_hash($1, $2, 1::smallint, 2, $3)", member.bucket, member.member_id, head
    )
    assert first[member.bucket // 128].root == leaf, "one leaf is its own root"


async def test_a_second_run_changes_nothing_and_a_day_is_not_skipped(
    bank: Bank, connection: Connection
) -> None:
    member = await bank.enrol(connection)
    await bank.earn(connection, member, 10, now=AT)
    assert await service.list_open_days(connection, until=DAY + timedelta(days=1)) == [
        DAY,
        DAY + timedelta(days=1),
    ]
    with pytest.raises(EarlierDayOpen):
        await seal(connection, DAY + timedelta(days=1))
    first = await seal(connection, DAY)
    assert await service.seal_day(connection, day=DAY, now=LATER + timedelta(days=1)) == first
    assert await service.list_open_days(connection, until=DAY) == []


@pytest.mark.parametrize("minutes", [-1, 0, 9])
async def test_a_day_is_sealed_ten_minutes_after_it_is_over(connection: Connection, minutes: int) -> None:
    midnight = datetime(2020, 2, 28, 16, tzinfo=UTC)
    with pytest.raises(PeriodNotOver):
        await service.seal_day(connection, day=DAY, now=midnight + timedelta(minutes=minutes))


async def test_nothing_is_sealed_before_the_first_entry(bank: Bank, connection: Connection) -> None:
    member = await bank.enrol(connection)
    await bank.earn(connection, member, 10, now=AT)
    assert await seal(connection, DAY - timedelta(days=1)) == []


async def test_a_seal_is_signed_by_the_key_that_is_handed_in(bank: Bank, connection: Connection) -> None:
    member = await bank.enrol(connection)
    await bank.earn(connection, member, 10, now=AT)
    sealed = await service.seal_day(connection, day=DAY, signer=Stamp(), now=LATER)
    assert sealed[3].signature == f"tessera-seal+jwt 2020-02-28 3 {sealed[3].hash.hex()}"
    assert sealed[3].signing_jwk == {"kid": "k1", "kty": "EC"}
    assert set(claims_of(sealed[3])) == {"lane", "business_on", "leaves", "root", "hash"}
    assert await seal(connection, DAY) == sealed


FORGED = """
INSERT INTO ledger_seal (lane, business_on, leaves, root, previous_hash, hash, sealed_at)
SELECT lane, business_on + 1, 0, root, {previous}, {hash}, sealed_at FROM ledger_seal WHERE lane = 0
"""


@pytest.mark.parametrize(
    ("previous", "hash_", "constraint"),
    [
        ("hash", "hash", "ledger_seal_hashes"),
        ("root", "ledger_seal_hash(lane, business_on + 1, 0, root, root)", "ledger_seal_link"),
    ],
)
async def test_a_seal_that_does_not_follow_cannot_be_written(
    bank: Bank, connection: Connection, previous: str, hash_: str, constraint: str
) -> None:
    member = await bank.enrol(connection)
    await bank.earn(connection, member, 10, now=AT)
    await seal(connection, DAY)
    with pytest.raises(asyncpg.IntegrityConstraintViolationError) as violation:
        await connection.execute(FORGED.format(previous=previous, hash=hash_))
    assert violation.value.constraint_name == constraint
