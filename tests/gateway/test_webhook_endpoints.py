"""Webhook endpoints over the whole gateway."""

import asyncio
from uuid import uuid4

import msgspec

from gateway.client import PartnerClient
from kernel.ids import to_wire
from partners.webhooks.service import ENDPOINTS_MAX

from .conftest import Register


async def test_no_crowd_gets_more_endpoints_than_a_partner_may_have(partner: PartnerClient) -> None:
    body = msgspec.json.encode({"url": "http://127.0.0.1:9/in", "event_types": ["*"]})

    answers = await asyncio.gather(
        *(
            partner.send("POST", "/v1/webhook_endpoints", body, idempotency_key=str(uuid4()))
            for _ in range(ENDPOINTS_MAX + 20)
        )
    )

    assert sum(answer.status == 201 for answer in answers) == ENDPOINTS_MAX
    assert {answer.json().get("code") for answer in answers} == {None, "too_many_webhook_endpoints"}


async def test_a_replay_since_a_moment_no_calendar_has_is_refused(partner: PartnerClient) -> None:
    new = await partner.post("/v1/webhook_endpoints", {"url": "http://127.0.0.1:9/in", "event_types": ["*"]})

    for since in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"):
        answer = await partner.send(
            "POST",
            f"/v1/webhook_endpoints/{new['id']}/replay",
            msgspec.json.encode({"since": since}),
            idempotency_key=str(uuid4()),
        )
        assert answer.status in (202, 422), answer.content


async def test_another_partners_endpoint_is_as_absent_as_none(
    partner: PartnerClient, register: Register
) -> None:
    other = await register("events:read")
    mine = await partner.post("/v1/webhook_endpoints", {"url": "http://127.0.0.1:9/in", "event_types": ["*"]})
    absent = to_wire("whe", uuid4())

    for call in ("rotate_secret", "test", "verify", "deliveries", "replay"):
        told = []
        for endpoint in (mine["id"], absent):
            path = f"/v1/webhook_endpoints/{endpoint}/{call}"
            body = b'{"since":"2026-01-01T00:00:00Z"}' if call == "replay" else b""
            method = "GET" if call == "deliveries" else "POST"
            answer = await other.send(method, path, body, idempotency_key=str(uuid4()))
            told.append((answer.status, answer.json() | {"trace_id": ""}))
        assert told[0] == told[1] and told[0][0] == 404
