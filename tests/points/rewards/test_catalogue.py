"""The catalogue: states, prices, stock and codes, and what a member sees of it."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from kernel.caller import MemberRef
from kernel.database import Connection
from points.membership.service import enrol_members
from points.rewards import service
from points.rewards.model import Limit, RewardState
from points.rewards.rules import (
    CodeFileRefused,
    RewardDefinitionRefused,
    RewardTransitionRefused,
    RewardUnknown,
)

Shelf = Any


async def seen(shelf: Shelf, connection: Connection, member: MemberRef, **more: Any) -> list[Any]:
    asked = {"partner_id": shelf.partner_id, "limit": 100, "now": shelf.now} | more
    return await service.list_offered(connection, member=member, **asked)


@pytest.mark.parametrize(
    ("path", "refused"),
    [
        (["active", "paused", "active", "ended"], "active"),
        (["active", "paused", "ended"], "paused"),
        (["ended"], "active"),
        (["active"], "active"),
        ([], "paused"),
        (["active"], "draft"),
    ],
)
async def test_a_reward_goes_from_state_to_state(
    shelf: Shelf, connection: Connection, path: list[RewardState], refused: RewardState
) -> None:
    reward_id = await shelf.put(connection, "gift_card", active=False)
    for state in path:
        await service.move_reward(connection, reward_id=reward_id, state=state, actor="test", now=shelf.now)
        assert (await shelf.reward(connection, reward_id)).state == state
    with pytest.raises(RewardTransitionRefused):
        await service.move_reward(connection, reward_id=reward_id, state=refused, actor="test", now=shelf.now)


async def test_what_does_not_exist_is_not_looked_after(shelf: Shelf, connection: Connection) -> None:
    key = {"reward_id": uuid4(), "actor": "test", "now": shelf.now}
    with pytest.raises(RewardUnknown):
        await service.move_reward(connection, state="active", **key)
    with pytest.raises(RewardUnknown):
        await service.set_price(connection, price_points=1, **key)
    with pytest.raises(RewardUnknown):
        await service.add_pieces(connection, pieces=1, **key)
    with pytest.raises(RewardUnknown):
        await service.load_codes(connection, lines=["A"], vault=shelf.vault, **key)


async def test_a_price_has_versions_until_the_reward_ends(shelf: Shelf, connection: Connection) -> None:
    reward_id = await shelf.put(connection, "gift_card")
    key = {"reward_id": reward_id, "actor": "test", "now": shelf.now}
    assert await service.set_price(connection, price_points=200, **key) == 2
    reward = await shelf.reward(connection, reward_id)
    assert (reward.price_version, reward.price_points) == (2, 200)
    for wrong in (0, -1, 10**13):
        with pytest.raises(RewardDefinitionRefused):
            await service.set_price(connection, price_points=wrong, **key)
    await service.move_reward(connection, state="ended", **key)
    with pytest.raises(RewardTransitionRefused):
        await service.set_price(connection, price_points=300, **key)


async def test_pieces_are_added_to_what_is_counted_only(shelf: Shelf, connection: Connection) -> None:
    counted = await shelf.put(connection, "service", pieces=0)
    key = {"actor": "test", "now": shelf.now}
    assert await service.add_pieces(connection, reward_id=counted, pieces=3, **key) == 3
    for wrong in (0, -1, 1_000_001):
        with pytest.raises(RewardDefinitionRefused):
            await service.add_pieces(connection, reward_id=counted, pieces=wrong, **key)
    card = await shelf.put(connection, "gift_card")
    with pytest.raises(RewardDefinitionRefused):
        await service.add_pieces(connection, reward_id=card, pieces=1, **key)


async def test_codes_are_loaded_once_whatever_they_are_loaded_for(
    shelf: Shelf, connection: Connection
) -> None:
    first, second = [await shelf.put(connection, "gift_card") for _ in range(2)]
    key = {"actor": "test", "vault": shelf.vault, "now": shelf.now}
    lines = [f"{first}-{number}" for number in range(2_001)]
    loaded = await service.load_codes(connection, reward_id=first, lines=lines, **key)
    assert (loaded.loaded, loaded.known) == (2_001, 0)
    for reward_id in (first, second):
        again = await service.load_codes(
            connection, reward_id=reward_id, lines=[*lines, f"{reward_id}+"], **key
        )
        assert (again.loaded, again.known) == (1, 2_001)
    left = {reward.id: pieces for reward, pieces in await service.list_rewards(connection)}
    assert (left[first], left[second]) == (1_000, 1)


async def test_a_refused_file_loads_nothing(shelf: Shelf, connection: Connection) -> None:
    card, visit = await shelf.put(connection, "gift_card"), await shelf.put(connection, "service")
    key = {"actor": "test", "vault": shelf.vault, "now": shelf.now}
    with pytest.raises(CodeFileRefused):
        await service.load_codes(connection, reward_id=card, lines=["A", "A"], **key)
    with pytest.raises(CodeFileRefused):
        await service.load_codes(connection, reward_id=visit, lines=["A"], **key)
    assert await connection.fetchval("SELECT count(*) FROM rewards_code WHERE reward_id = $1", card) == 0


async def test_every_act_on_the_catalogue_is_in_the_audit_log(shelf: Shelf, connection: Connection) -> None:
    reward_id = await shelf.put(connection, "gift_card", codes=2)
    await service.set_price(connection, reward_id=reward_id, price_points=9, actor="admin:a", now=shelf.now)
    records = await connection.fetch(
        "SELECT actor, action, detail FROM audit_record ORDER BY lane, seq DESC LIMIT 4"
    )
    assert [(record["actor"], record["action"]) for record in reversed(records)] == [
        ("test", "reward.define"),
        ("test", "reward.load_codes"),
        ("test", "reward.active"),
        ("admin:a", "reward.price"),
    ]


async def test_a_member_sees_what_it_may_have(shelf: Shelf, connection: Connection) -> None:
    member = await shelf.member(connection)
    (noble,) = await enrol_members(
        connection, count=1, bank_level="private", shop_level="gold", now=shelf.now
    )
    everyone = await shelf.put(connection, "gift_card", codes=1, limit=Limit(count=2, period="month"))
    upper = await shelf.put(connection, "fee_offset", tiers=("gold", "platinum"))
    elsewhere = await shelf.put(connection, "fee_offset", partners=(uuid4(),))
    here = await shelf.put(connection, "service", pieces=4, partners=(shelf.partner_id,))
    draft = await shelf.put(connection, "fee_offset", active=False)
    early = await shelf.put(connection, "fee_offset", starts_at=shelf.now + timedelta(seconds=1))
    over = await shelf.put(connection, "fee_offset", ends_at=shelf.now)
    hidden = {elsewhere, draft, early, over}
    await shelf.redeem(connection, member, everyone)

    offered = {each.reward.id: each for each in await seen(shelf, connection, member)}
    assert not hidden & set(offered) and upper not in offered
    assert (offered[everyone].left, offered[everyone].times_left) == (0, 1)
    assert (offered[here].left, offered[here].times_left) == (4, None)
    assert upper in {each.reward.id for each in await seen(shelf, connection, noble)}
    through_another = {each.reward.id for each in await seen(shelf, connection, member, partner_id=uuid4())}
    assert here not in through_another and everyone in through_another


async def test_the_list_is_newest_first_and_goes_on_where_it_stopped(
    shelf: Shelf, connection: Connection
) -> None:
    member = await shelf.member(connection)
    made = []
    for second in range(3):
        shelf.now += timedelta(seconds=second)
        made.append(await shelf.put(connection, "fee_offset"))
    everything = [each.reward.id for each in await seen(shelf, connection, member)]
    assert [reward_id for reward_id in everything if reward_id in made] == made[::-1]
    rest = await seen(shelf, connection, member, limit=1, before=made[2])
    assert [each.reward.id for each in rest] == [made[1]]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE rewards_reward SET title_en = 'other'",
        "UPDATE rewards_price SET points = 1",
        "UPDATE rewards_redemption SET price_points = 1",
        "UPDATE rewards_code SET code_sealed = ''",
        "DELETE FROM rewards_code",
        "DELETE FROM rewards_redemption",
        "TRUNCATE rewards_code",
    ],
)
async def test_what_was_promised_cannot_be_changed(connection: Connection, statement: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute(statement)


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        ("redemption_id = gen_random_uuid()", asyncpg.IntegrityConstraintViolationError),
        ("redemption_id = NULL, handed_at = NULL", asyncpg.IntegrityConstraintViolationError),
        ("voided_at = NULL", asyncpg.IntegrityConstraintViolationError),
    ],
)
async def test_the_database_itself_hands_a_code_out_once(
    shelf: Shelf, connection: Connection, change: str, refused: type[Exception]
) -> None:
    reward_id = await shelf.put(connection, "gift_card", codes=1)
    await shelf.redeem(connection, await shelf.member(connection), reward_id)
    await connection.execute("UPDATE rewards_code SET voided_at = now() WHERE reward_id = $1", reward_id)
    with pytest.raises(refused):
        await connection.execute(f"UPDATE rewards_code SET {change} WHERE reward_id = $1", reward_id)


async def test_the_database_itself_keeps_the_stock_within_bounds(
    shelf: Shelf, connection: Connection
) -> None:
    reward_id = await shelf.put(connection, "service", pieces=1)
    with pytest.raises(asyncpg.CheckViolationError):
        await connection.execute("UPDATE rewards_stock SET taken = 2 WHERE reward_id = $1", reward_id)
