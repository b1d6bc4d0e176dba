"""From the outbox to deliveries: once, in order, and only to those who asked."""

import asyncio
from datetime import datetime, timedelta
from uuid import UUID

import pytest

from kernel import outbox
from kernel.database import Connection, Pool, transaction
from kernel.errors import Absent
from kernel.ids import to_wire
from kernel.vault import Vault
from partners.webhooks import service

from .conftest import Partner, register

URL = "https://hooks.example.com/in"


async def _relay_all(connection: Connection, now: datetime) -> int:
    total = 0
    while done := await service.relay(connection, limit=1_000, now=now):
        total += done
    return total


async def _sequences(connection: Connection, endpoint_id: UUID, partner_id: UUID) -> list[tuple[str, int]]:
    deliveries = await service.list_deliveries(
        connection, endpoint_id=endpoint_id, partner_id=partner_id, limit=100
    )
    return [(delivery.type, delivery.sequence) for delivery in reversed(deliveries)]


async def test_an_endpoint_gets_the_types_it_asked_for(
    connection: Connection, partner: Partner, vault: Vault, now: datetime
) -> None:
    everything = await partner.listen(connection, URL, "*", now=now)
    plans = await partner.listen(connection, URL, "plan.captured", "plan.voided", now=now)
    stranger = await (await register(connection, vault, now)).listen(connection, URL, "*", now=now)
    for kind in ("points.earned", "plan.captured", "plan.paid_off"):
        await partner.tell(connection, kind, now=now)
    await _relay_all(connection, now)

    got = await _sequences(connection, everything.endpoint.id, partner.id)
    assert [kind for kind, _ in got] == ["points.earned", "plan.captured", "plan.paid_off"]
    assert [kind for kind, _ in await _sequences(connection, plans.endpoint.id, partner.id)] == [
        "plan.captured"
    ]
    assert await _sequences(connection, stranger.endpoint.id, stranger.endpoint.partner_id) == []


async def test_positions_follow_the_order_of_writing_even_against_the_clock(
    connection: Connection, partner: Partner, now: datetime
) -> None:
    await _relay_all(connection, now)
    await partner.tell(connection, "plan.authorised", now=now)
    await partner.tell(connection, "plan.captured", now=now - timedelta(seconds=3))
    await partner.tell(connection, "plan.refunded", now=now, count=20)
    assert await service.relay(connection, limit=5, now=now) == 5
    await _relay_all(connection, now)

    events = await service.list_events(connection, partner_id=partner.id, after=0, limit=100)
    assert [event.type for event in events[:3]] == ["plan.authorised", "plan.captured", "plan.refunded"]
    assert [event.payload["no"] for event in events[2:]] == list(range(20))
    assert [event.position for event in events] == sorted({event.position for event in events})


async def test_two_relays_at_once_give_each_event_one_position_and_one_delivery(
    pool: Pool, lasting: Partner, now: datetime
) -> None:
    async with transaction(pool) as connection:
        endpoint = (await lasting.listen(connection, URL, "*", now=now)).endpoint
        await lasting.tell(connection, "points.earned", now=now, count=300)

    async def relay() -> int:
        total = 0
        while True:
            async with transaction(pool) as connection:
                done = await service.relay(connection, limit=50, now=now)
                waiting = await connection.fetchval(
                    "SELECT count(*) FROM outbox_event WHERE position IS NULL"
                )
            total += done
            if not done and not waiting:
                return total

    counts = await asyncio.gather(relay(), relay(), relay())
    async with transaction(pool) as connection:
        positions = await connection.fetch(
            "SELECT position FROM outbox_event WHERE partner_id = $1 AND type = 'points.earned'", lasting.id
        )
        sequences = await connection.fetch(
            "SELECT sequence FROM webhooks_delivery WHERE endpoint_id = $1", endpoint.id
        )
    assert sum(counts) >= 300
    assert len({row["position"] for row in positions}) == 300
    assert {row["position"] for row in positions} == {row["sequence"] for row in sequences}
    assert len(sequences) == 300


async def test_a_second_relay_waits_for_nobody_and_takes_nothing(
    pool: Pool, lasting: Partner, now: datetime
) -> None:
    async with transaction(pool) as first:
        await lasting.tell(first, "points.earned", now=now)
        assert await service.relay(first, limit=10, now=now) >= 1
        async with transaction(pool) as second:
            await lasting.tell(second, "points.earned", now=now)
            assert await service.relay(second, limit=10, now=now) == 0


async def test_seventy_thousand_events_are_relayed_in_seconds(
    connection: Connection, partner: Partner, now: datetime
) -> None:
    await partner.listen(connection, URL, "plan.captured", now=now)
    await connection.execute(
        "INSERT INTO outbox_event (bucket, id, partner_id, type, aggregate, payload, occurred_at)"
        " SELECT n % 1024, gen_random_uuid(), $1, 'points.earned', 'ent_1', '{}', $2 FROM generate_series(1, 70000) AS n",
        partner.id,
        now,
    )
    started = asyncio.get_running_loop().time()
    relayed = 0
    while done := await service.relay(connection, limit=10_000, now=now):
        relayed += done
    assert relayed >= 70_000
    assert asyncio.get_running_loop().time() - started < 20


async def test_a_test_event_reaches_only_the_endpoint_it_is_addressed_to(
    connection: Connection, partner: Partner, now: datetime
) -> None:
    asked = (await partner.listen(connection, URL, "plan.captured", now=now)).endpoint
    other = (await partner.listen(connection, URL, "*", now=now)).endpoint
    await service.request_test(connection, endpoint_id=asked.id, partner_id=partner.id, now=now)
    await _relay_all(connection, now)
    assert [kind for kind, _ in await _sequences(connection, asked.id, partner.id)] == ["webhook.test"]
    assert await _sequences(connection, other.id, partner.id) == []


async def test_events_can_be_read_on_from_the_last_one_seen(
    connection: Connection, partner: Partner, vault: Vault, now: datetime
) -> None:
    await partner.tell(connection, "plan.captured", now=now, count=5)
    assert await service.list_events(connection, partner_id=partner.id, after=0, limit=10) == []
    await _relay_all(connection, now)
    first = await service.list_events(connection, partner_id=partner.id, after=0, limit=2)
    position = await service.find_position(connection, partner_id=partner.id, event_id=first[-1].id)
    rest = await service.list_events(connection, partner_id=partner.id, after=position, limit=10)
    assert [event.payload["no"] for event in (*first, *rest)] == [0, 1, 2, 3, 4]
    body = service.body_of(first[0])
    assert (body.id, body.partner, body.sequence) == (
        to_wire("evt", first[0].id),
        to_wire("ptn", partner.id),
        first[0].position,
    )
    stranger = await register(connection, vault, now)
    with pytest.raises(Absent):
        await service.find_position(connection, partner_id=stranger.id, event_id=first[0].id)


async def test_stamping_needs_no_event(connection: Connection, now: datetime) -> None:
    await _relay_all(connection, now)
    assert await outbox.stamp_positions(connection, limit=10) == []


async def test_each_partners_events_are_numbered_by_themselves_without_a_gap(
    connection: Connection, vault: Vault, now: datetime
) -> None:
    partners = [await register(connection, vault, now) for _ in range(3)]
    for number in range(12):
        partner = partners[0] if number % 3 else partners[1 + number % 2]
        await partner.tell(connection, "points.earned", now=now, count=number)
        if number % 5 == 0:
            await _relay_all(connection, now)
    await _relay_all(connection, now)
    for partner in partners:
        told = await service.list_events(connection, partner_id=partner.id, after=0, limit=100)
        assert [event.position for event in told] == list(range(1, len(told) + 1))
        assert len(told) > 5
