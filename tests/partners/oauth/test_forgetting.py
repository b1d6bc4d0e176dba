"""Time ends what nobody answered, and only what has ended is forgotten."""

from datetime import datetime
from typing import Any

from kernel.database import Connection
from partners.oauth.forgetting import forget_flows
from partners.oauth.pushing import RequestPushed

from .member_flow import Flow, good

TABLES = ("oauth_request", "oauth_code", "oauth_refresh")
DAY = 86_400


async def count(connection: Connection, flow: Flow) -> list[int]:
    return [
        await connection.fetchval(
            f"SELECT count(*) FROM {table} WHERE client_id = $1",
            flow.client.client_id,
        )
        for table in TABLES
    ]


async def states(connection: Connection, flow: Flow) -> list[str]:
    rows = await connection.fetch(
        "SELECT state FROM oauth_request WHERE client_id = $1 ORDER BY pushed_at, id", flow.client.client_id
    )
    return [row["state"] for row in rows]


async def test_a_request_nobody_answered_expires(flow: Flow, connection: Connection) -> None:
    assert isinstance(await flow.push(), RequestPushed)
    await flow.later(1).ask()
    await flow.later(2).deny(await flow.later(2).ask())
    await forget_flows(connection, now=flow.later(90).now)
    assert await states(connection, flow) == ["expired", "pushed", "denied"]
    await forget_flows(connection, now=flow.later(601).now)
    assert await states(connection, flow) == ["expired", "expired", "denied"]


async def test_what_still_works_is_not_forgotten(flow: Flow, connection: Connection, now: datetime) -> None:
    issued = await flow.issued()
    await forget_flows(connection, now=flow.later(3_599).now)
    assert await count(connection, flow) == [1, 1, 1]
    await forget_flows(connection, now=flow.later(2 * DAY).now)
    assert await count(connection, flow) == [0, 0, 1]
    late = flow.later(29 * DAY)
    good(await late.refresh(issued.refresh_token))
    await forget_flows(connection, now=flow.later(58 * DAY).now)
    assert await count(connection, flow) == [0, 0, 1]
    await forget_flows(connection, now=flow.later(61 * DAY).now)
    assert await count(connection, flow) == [0, 0, 0]


async def test_a_revocation_is_kept_as_long_as_a_token_could_live(flow: Flow, connection: Connection) -> None:
    issued = await flow.issued()
    await flow.revoke(issued.access_token)

    async def kept() -> Any:
        return await connection.fetchval(
            "SELECT count(*) FROM oauth_revocation WHERE revoked_at = $1 AND subject LIKE 'token:%'", flow.now
        )

    await forget_flows(connection, now=flow.later(300).now)
    assert await kept() == 1
    await forget_flows(connection, now=flow.later(361).now)
    assert await kept() == 0
