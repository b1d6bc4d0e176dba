"""Sending to a real receiver: signed, retried, fenced, and never to the wrong address."""

import base64
import gzip
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import httpx
import msgspec
import pytest
from standardwebhooks.webhooks import Webhook

from kernel.database import Pool, transaction
from kernel.vault import Vault
from partners.registry import service as registry
from partners.webhooks import delivery, service
from partners.webhooks.delivery import Address
from partners.webhooks.model import Answer, Claim, Delivery, Endpoint, NewEndpoint

from .conftest import Partner, Receiver

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def _status(status: int, *headers: str) -> bytes:
    return "\r\n".join((f"HTTP/1.1 {status} X", "Content-Length: 0", *headers, "", "")).encode()


async def _prepare(
    pool: Pool, partner: Partner, url: str, kind: str = "plan.captured", *, now: datetime, events: int = 1
) -> NewEndpoint:
    async with transaction(pool) as connection:
        new = await partner.listen(connection, url, kind, now=now)
        await partner.tell(connection, kind, now=now, count=events)
        while await service.relay(connection, limit=10_000, now=now):
            pass
    return new


async def _deliver(pool: Pool, client: httpx.AsyncClient, vault: Vault, moment: datetime) -> int:
    return await delivery.deliver_due(
        pool, client, vault, mode="sandbox", now_of=lambda: moment, jitter_of=lambda: 0
    )


async def _look(pool: Pool, endpoint: Endpoint) -> list[Delivery]:
    async with transaction(pool) as connection:
        found = await service.list_deliveries(
            connection, endpoint_id=endpoint.id, partner_id=endpoint.partner_id, limit=100
        )
    return list(reversed(found))


async def _endpoint(pool: Pool, endpoint: Endpoint) -> Endpoint:
    async with transaction(pool) as connection:
        return await service.find_endpoint(
            connection, endpoint_id=endpoint.id, partner_id=endpoint.partner_id
        )


async def _claim_one(pool: Pool, now: datetime) -> Claim:
    async with transaction(pool) as connection:
        [claim] = await service.claim_due(connection, limit=10, now=now)
    return claim


async def test_the_receiver_verifies_what_it_gets_with_the_standard_library(
    pool: Pool, lasting: Partner, receiver: Receiver, client: httpx.AsyncClient
) -> None:
    now = datetime.now(UTC)
    new = await _prepare(pool, lasting, receiver.url, now=now, events=3)
    assert await _deliver(pool, client, lasting.vault, now) == 3
    for request in receiver.received:
        body = Webhook(new.secret).verify(request.body, request.headers)
        assert body["type"] == "plan.captured"
        assert body["id"] == request.headers["webhook-id"]
        assert request.path == "/in?tenant=7"
        assert request.headers["host"] == receiver.url.split("/")[2]
    bodies = [msgspec.json.decode(request.body) for request in receiver.received]
    assert sorted(body["data"]["no"] for body in bodies) == [0, 1, 2]
    assert [(item.state, item.last_status) for item in await _look(pool, new.endpoint)] == [
        ("delivered", 204)
    ] * 3
    assert await _deliver(pool, client, lasting.vault, now) == 0


async def test_a_retry_has_the_same_id_and_body_and_a_new_timestamp(
    pool: Pool, lasting: Partner, receiver: Receiver, client: httpx.AsyncClient, now: datetime
) -> None:
    receiver.answers = [_status(500), _status(302, "Location: /elsewhere"), OK]
    new = await _prepare(pool, lasting, receiver.url, now=now)
    moments = [now, now + timedelta(seconds=10), now + timedelta(seconds=70)]
    assert await _deliver(pool, client, lasting.vault, moments[0]) == 1
    assert await _deliver(pool, client, lasting.vault, moments[0] + timedelta(seconds=9)) == 0
    [retrying] = await _look(pool, new.endpoint)
    assert (retrying.state, retrying.last_error, retrying.next_at) == ("retrying", "http_500", moments[1])
    assert (await _endpoint(pool, new.endpoint)).failing_since == now
    assert await _deliver(pool, client, lasting.vault, moments[1]) == 1
    assert await _deliver(pool, client, lasting.vault, moments[2]) == 1
    assert len({request.headers["webhook-id"] for request in receiver.received}) == 1
    assert len({request.body for request in receiver.received}) == 1
    assert [request.path for request in receiver.received] == ["/in?tenant=7"] * 3
    stamps = [int(request.headers["webhook-timestamp"]) for request in receiver.received]
    assert stamps == [int(moment.timestamp()) for moment in moments]
    [done] = await _look(pool, new.endpoint)
    assert (done.state, done.attempt, done.last_error) == ("delivered", 3, None)
    assert (await _endpoint(pool, new.endpoint)).failing_since is None


async def test_a_receiver_that_is_down_for_three_days_leaves_a_dead_delivery_that_can_be_replayed(
    pool: Pool, lasting: Partner, receiver: Receiver, client: httpx.AsyncClient, now: datetime
) -> None:
    receiver.answers = [_status(503)]
    new = await _prepare(pool, lasting, receiver.url, now=now)
    moment = now
    for _ in range(40):
        await _deliver(pool, client, lasting.vault, moment)
        [found] = await _look(pool, new.endpoint)
        if found.next_at is None:
            break
        moment = found.next_at
    assert found.state == "dead"
    assert timedelta(hours=60) < moment - now <= timedelta(hours=72)

    receiver.answers = [OK]
    async with transaction(pool) as connection:
        replay = await service.replay_event(
            connection,
            endpoint_id=new.endpoint.id,
            partner_id=lasting.id,
            event_id=found.event_id,
            now=moment,
        )
    assert replay.queued == 1
    assert await _deliver(pool, client, lasting.vault, moment) == 1
    assert len({request.headers["webhook-id"] for request in receiver.received}) == 1
    assert [item.state for item in await _look(pool, new.endpoint)] == ["delivered"]


async def test_what_a_delivery_asks_to_wait_for_is_granted(
    pool: Pool, lasting: Partner, receiver: Receiver, client: httpx.AsyncClient, now: datetime
) -> None:
    receiver.answers = [_status(429, "Retry-After: 600")]
    new = await _prepare(pool, lasting, receiver.url, now=now)
    await _deliver(pool, client, lasting.vault, now)
    assert (await _look(pool, new.endpoint))[0].next_at == now + timedelta(seconds=600)


@pytest.mark.parametrize(
    "date",
    [
        "Mon, 1 Jan 99999999999999999999 00:00:00 GMT",
        "1 Jan 2026 12.3 9999999999999999999999999",
        "Fri, 31 Dec 9999 23:59:59 -1200",
    ],
)
async def test_a_moment_that_no_calendar_has_is_only_a_failed_attempt(
    pool: Pool, lasting: Partner, receiver: Receiver, client: httpx.AsyncClient, now: datetime, date: str
) -> None:
    receiver.answers = [_status(503, f"Retry-After: {date}")]
    new = await _prepare(pool, lasting, receiver.url, now=now)
    assert await _deliver(pool, client, lasting.vault, now) == 1
    assert (await _look(pool, new.endpoint))[0].last_status == 503


async def test_gone_switches_the_endpoint_off_until_its_partner_switches_it_on(
    pool: Pool, lasting: Partner, receiver: Receiver, client: httpx.AsyncClient, now: datetime
) -> None:
    receiver.answers = [_status(410)]
    new = await _prepare(pool, lasting, receiver.url, now=now)
    await _deliver(pool, client, lasting.vault, now)
    assert [item.state for item in await _look(pool, new.endpoint)] == ["dead"]
    gone = await _endpoint(pool, new.endpoint)
    assert (gone.status, gone.disabled_reason) == ("disabled", "gone")

    receiver.answers = [OK]
    async with transaction(pool) as connection:
        await lasting.tell(connection, "plan.captured", now=now)
        await service.relay(connection, limit=1_000, now=now)
    assert await _deliver(pool, client, lasting.vault, now + timedelta(hours=1)) == 0

    async with transaction(pool) as connection:
        await service.enable_endpoint(connection, endpoint_id=new.endpoint.id, partner_id=lasting.id, now=now)
        missed = await service.replay_since(
            connection, endpoint_id=new.endpoint.id, partner_id=lasting.id, since=now, now=now
        )
        await service.relay(connection, limit=1_000, now=now)
    assert (missed.queued, missed.last_position) == (2, None)
    assert await _deliver(pool, client, lasting.vault, now) == 3
    types = {msgspec.json.decode(request.body)["type"] for request in receiver.received}
    assert types == {"plan.captured", "webhook.test"}
    assert (await _endpoint(pool, new.endpoint)).status == "active"


async def test_a_replay_goes_on_where_its_limit_stopped_it(
    pool: Pool, lasting: Partner, now: datetime
) -> None:
    async with transaction(pool) as connection:
        await lasting.tell(connection, "plan.captured", now=now, count=5)
        while await service.relay(connection, limit=1_000, now=now):
            pass
        late = (await lasting.listen(connection, "https://hooks.example.com/", "*", now=now)).endpoint
        after, queued = 0, []
        while True:
            run = await service.replay_since(
                connection,
                endpoint_id=late.id,
                partner_id=lasting.id,
                since=now,
                after=after,
                limit=2,
                now=now,
            )
            queued.append(run.queued)
            if run.last_position is None:
                break
            after = run.last_position
    assert queued == [2, 2, 1]


async def test_after_a_rotation_both_secrets_sign_for_a_day(
    pool: Pool, lasting: Partner, receiver: Receiver, client: httpx.AsyncClient
) -> None:
    now = datetime.now(UTC)
    old = await _prepare(pool, lasting, receiver.url, now=now)
    async with transaction(pool) as connection:
        new = await service.rotate_secret(
            connection, endpoint_id=old.endpoint.id, partner_id=lasting.id, vault=lasting.vault, now=now
        )
    await _deliver(pool, client, lasting.vault, now)
    [request] = receiver.received
    assert request.headers["webhook-signature"].count("v1,") == 2
    for secret in (old.secret, new.secret):
        assert Webhook(secret).verify(request.body, request.headers)

    async with transaction(pool) as connection:
        await lasting.tell(connection, "plan.captured", now=now)
        await service.relay(connection, limit=1_000, now=now)
    await _deliver(pool, client, lasting.vault, now + timedelta(hours=24))
    assert receiver.received[-1].headers["webhook-signature"].count("v1,") == 1


async def test_a_worker_that_wakes_after_its_lease_changes_nothing(
    pool: Pool, lasting: Partner, receiver: Receiver, now: datetime
) -> None:
    new = await _prepare(pool, lasting, receiver.url, now=now)
    sleeper = await _claim_one(pool, now)
    async with transaction(pool) as connection:
        assert await service.claim_due(connection, limit=10, now=now + timedelta(seconds=29)) == []
    later = now + timedelta(seconds=30)
    second = await _claim_one(pool, later)
    assert (second.id, second.attempt) == (sleeper.id, 2)
    async with transaction(pool) as connection:
        assert not await service.mark_delivered(connection, sleeper, status=200, now=later)
        failed = await service.mark_failed(
            connection, sleeper, Answer(status=500), jitter_permille=0, now=later
        )
        assert failed is None
        assert await service.mark_delivered(connection, second, status=204, now=later)
    assert [(item.state, item.last_status) for item in await _look(pool, new.endpoint)] == [
        ("delivered", 204)
    ]


async def test_no_endpoint_has_more_than_four_deliveries_in_flight(
    pool: Pool, lasting: Partner, receiver: Receiver, now: datetime
) -> None:
    await _prepare(pool, lasting, receiver.url, now=now, events=10)
    async with transaction(pool) as connection:
        first = await service.claim_due(connection, limit=100, now=now)
    async with transaction(pool) as connection:
        second = await service.claim_due(connection, limit=100, now=now)
        assert (len(first), second) == (4, [])
        for claim in first:
            await service.mark_failed(connection, claim, Answer(status=500), jitter_permille=0, now=now)
        assert len(await service.claim_due(connection, limit=100, now=now)) == 1


async def test_after_the_end_was_asked_for_nothing_more_is_sent(
    pool: Pool, lasting: Partner, receiver: Receiver, client: httpx.AsyncClient, now: datetime
) -> None:
    await _prepare(pool, lasting, receiver.url, now=now, events=3)
    made = await delivery.deliver_due(
        pool,
        client,
        lasting.vault,
        mode="sandbox",
        now_of=lambda: now,
        in_flight=1,
        ending=lambda: bool(receiver.received),
    )
    assert made == len(receiver.received) == 1


async def test_a_black_hole_holds_up_nobody_else(
    pool: Pool, lasting: Partner, receiver: Receiver, client: httpx.AsyncClient, now: datetime
) -> None:
    hole = Receiver()
    hole.answers = [None]
    await hole.start()
    try:
        await _prepare(pool, lasting, hole.url, "plan.voided", now=now, events=4)
        new = await _prepare(pool, lasting, receiver.url, now=now, events=20)
        client.timeout = httpx.Timeout(1.0)
        made = await _deliver(pool, client, lasting.vault, now)
    finally:
        await hole.stop()
    assert {item.state for item in await _look(pool, new.endpoint)} == {"delivered"}
    assert len(receiver.received) == 20
    assert (made, hole.most_connections) == (24, 4)


async def test_a_suspended_partner_is_told_nothing(
    pool: Pool, lasting: Partner, receiver: Receiver, client: httpx.AsyncClient, now: datetime
) -> None:
    await _prepare(pool, lasting, receiver.url, now=now)
    async with transaction(pool) as connection:
        await registry.set_partner_status(
            connection, partner_id=lasting.id, status="suspended", actor="admin:test", now=now
        )
    assert await _deliver(pool, client, lasting.vault, now) == 0
    async with transaction(pool) as connection:
        await registry.set_partner_status(
            connection, partner_id=lasting.id, status="live", actor="admin:test", now=now
        )
    assert await _deliver(pool, client, lasting.vault, now + timedelta(minutes=10)) == 1
    assert len(receiver.received) == 1


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(b"0" * 10_000_000),
    ],
    ids=["endless", "ten gigabytes", "gzip bomb"],
)
async def test_an_endless_answer_is_read_for_four_kilobytes(
    pool: Pool, lasting: Partner, receiver: Receiver, client: httpx.AsyncClient, now: datetime, head: bytes
) -> None:
    receiver.answers, receiver.endless = [head], True
    new = await _prepare(pool, lasting, receiver.url, now=now)
    await _deliver(pool, client, lasting.vault, now)
    assert [item.state for item in await _look(pool, new.endpoint)] == ["delivered"]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", "remote_protocol_error"),
        (b"nonsense\r\n\r\n", "remote_protocol_error"),
        (_status(404), "http_404"),
    ],
)
async def test_a_bad_answer_is_named_and_tried_again(
    pool: Pool,
    lasting: Partner,
    receiver: Receiver,
    client: httpx.AsyncClient,
    now: datetime,
    answer: bytes,
    error: str,
) -> None:
    receiver.answers = [answer]
    new = await _prepare(pool, lasting, receiver.url, now=now)
    await _deliver(pool, client, lasting.vault, now)
    assert [(item.state, item.last_error) for item in await _look(pool, new.endpoint)] == [
        ("retrying", error)
    ]


async def test_a_closed_port_is_a_connect_error(
    pool: Pool, lasting: Partner, client: httpx.AsyncClient, now: datetime
) -> None:
    closed = Receiver()
    await closed.start()
    url = closed.url
    await closed.stop()
    new = await _prepare(pool, lasting, url, now=now)
    await _deliver(pool, client, lasting.vault, now)
    assert [item.last_error for item in await _look(pool, new.endpoint)] == ["connect_error"]


class Wire(httpx.AsyncBaseTransport):
    """The far end of the client: answers 204 and keeps what would have gone out."""

    def __init__(self, dead: Sequence[str] = ()) -> None:
        self.requests: list[httpx.Request] = []
        self._dead = dead

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if request.url.host in self._dead:
            raise httpx.ConnectError("refused")
        return httpx.Response(204, stream=httpx.ByteStream(b""))


async def _attempt(
    pool: Pool, partner: Partner, wire: Wire, addresses: Sequence[str], now: datetime
) -> Answer:
    await _prepare(pool, partner, "https://hooks.example.com/in?a=1", now=now)
    claim = await _claim_one(pool, now)

    async def resolver(host: str, port: int) -> Sequence[Address]:
        assert (host, port) == ("hooks.example.com", 443)
        return [ip_address(address) for address in addresses]

    async with httpx.AsyncClient(transport=wire) as client:
        return await delivery.attempt(client, partner.vault, claim, mode="live", resolver=resolver, now=now)


async def test_it_connects_to_the_checked_address_under_the_name(
    pool: Pool, lasting: Partner, now: datetime
) -> None:
    wire = Wire(dead=["2606:4700::1111"])
    answer = await _attempt(pool, lasting, wire, ["2606:4700::1111", "93.184.216.34"], now)
    assert answer.status == 204
    assert [request.url.host for request in wire.requests] == ["2606:4700::1111", "93.184.216.34"]
    for request in wire.requests:
        assert (request.url.scheme, request.url.raw_path) == ("https", b"/in?a=1")
        assert request.headers["host"] == "hooks.example.com"
        assert request.extensions["sni_hostname"] == "hooks.example.com"


@pytest.mark.parametrize(
    "addresses",
    [["127.0.0.1"], ["10.1.2.3"], ["169.254.169.254"], ["93.184.216.34", "192.168.0.9"], ["::ffff:10.0.0.1"],
     ["64:ff9b::a00:1"], ["2002:a00:1::"], []],
    ids=str,
)  # fmt: skip
async def test_a_name_with_one_inner_address_is_not_called_at_all(
    pool: Pool, lasting: Partner, now: datetime, addresses: list[str]
) -> None:
    wire = Wire()
    answer = await _attempt(pool, lasting, wire, addresses, now)
    assert (answer.error, wire.requests) == ("address_refused", [])


async def test_a_loopback_endpoint_of_the_sandbox_is_dead_in_live_mode(
    pool: Pool, lasting: Partner, receiver: Receiver, client: httpx.AsyncClient, now: datetime
) -> None:
    await _prepare(pool, lasting, receiver.url, now=now)
    claim = await _claim_one(pool, now)
    answer = await delivery.attempt(
        client, lasting.vault, claim, mode="live", resolver=delivery.resolve, now=now
    )
    assert (answer.error, receiver.received) == ("url_refused", [])


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nsl"])
async def test_a_receiver_that_stalls_runs_out_of_time(
    pool: Pool, lasting: Partner, receiver: Receiver, client: httpx.AsyncClient, now: datetime, head: bytes
) -> None:
    receiver.answers, receiver.stalls = [head], True
    await _prepare(pool, lasting, receiver.url, now=now)
    claim = await _claim_one(pool, now)
    answer = await delivery.attempt(
        client, lasting.vault, claim, mode="sandbox", resolver=delivery.resolve, seconds=0.2, now=now
    )
    assert answer == Answer(error="timeout")


async def test_a_partner_secret_signs_for_every_new_endpoint(
    pool: Pool, lasting: Partner, now: datetime
) -> None:
    secret = "whsec_" + base64.b64encode(b"a secret the sandbox gave before").decode()
    async with transaction(pool) as connection:
        await service.set_partner_secret(
            connection, partner_id=lasting.id, secret=secret, vault=lasting.vault, now=now
        )
        new = await lasting.listen(connection, "https://hooks.example.com/", now=now)
        stored = await connection.fetchval(
            "SELECT secret_sealed FROM webhooks_endpoint WHERE id = $1", new.endpoint.id
        )
    assert new.secret == secret
    assert secret.encode() not in stored
    assert service.open_secret(lasting.vault, new.endpoint.id, stored) == secret
