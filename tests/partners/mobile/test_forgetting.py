"""What time has ended is dropped; what still decides something stays."""

from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from kernel.database import Connection
from kernel.ids import new_id
from kernel.vault import sha256
from partners.mobile import queries, service
from partners.mobile.model import App, LoginDocument
from partners.mobile.rules import IDLE, PAGE_LIFE


@pytest.fixture
async def app(connection: Connection, now: datetime) -> App:
    return await service.register_app(
        connection,
        name_zh="银行",
        name_en=uuid4().hex,
        redirect_uris=["com.example.bank:/back"],
        actor="test",
        now=now,
    )


async def begin(connection: Connection, app: App, *, at: datetime, code: str | None = None) -> Any:
    document = LoginDocument(
        issuer="https://bank.example/mobile",
        redirect_uri=app.redirect_uris[0],
        state=None,
        code_challenge="A" * 43,
        dpop_jkt=None,
        scopes=app.scopes,
        ui_locales=None,
    )
    login_id = new_id(at)
    await queries.insert_login(
        connection,
        login_id=login_id,
        client_id=app.client_id,
        handle_hash=sha256(str(login_id)),
        document=document,
        expires_at=at + PAGE_LIFE,
        now=at,
    )
    if code is not None:
        approved = await queries.approve_login(
            connection,
            login_id,
            code_hash=sha256(code),
            code_expires_at=at + timedelta(seconds=60),
            member_id=1,
            bucket=1,
            authenticated_at=at,
            methods=["pwd", "otp"],
            now=at,
        )
        assert approved
    return login_id


async def count(connection: Connection, table: str, app: App) -> int:
    found: int = await connection.fetchval(
        f"SELECT count(*) FROM {table} WHERE client_id = $1",  # the test's own two tables
        app.client_id,
    )
    return found


async def test_a_login_nobody_completed_goes_soon_and_a_code_is_known_for_a_day(
    connection: Connection, app: App, now: datetime
) -> None:
    await begin(connection, app, at=now)
    await begin(connection, app, at=now, code="c-1")
    await service.forget_old(connection, now=now + PAGE_LIFE)
    assert await count(connection, "mobile_login", app) == 2
    await service.forget_old(connection, now=now + timedelta(minutes=21))
    assert await queries.find_code(connection, sha256("c-1")) is not None
    assert await count(connection, "mobile_login", app) == 1
    await service.forget_old(connection, now=now + timedelta(days=1, seconds=1))
    assert await count(connection, "mobile_login", app) == 0


async def test_a_session_is_known_until_nothing_of_it_could_be_refreshed(
    connection: Connection, app: App, now: datetime
) -> None:
    await begin(connection, app, at=now, code="c-2")
    login = await queries.find_code(connection, sha256("c-2"))
    assert login is not None
    await queries.insert_session(connection, login, jkt="j", now=now)
    await queries.insert_refresh(connection, sha256("r"), session_id=login.id, generation=0, now=now)
    await service.forget_old(connection, now=now + IDLE)
    assert await count(connection, "mobile_session", app) == 1
    await service.forget_old(connection, now=now + IDLE + timedelta(days=1, seconds=1))
    assert await count(connection, "mobile_session", app) == 0
    assert await queries.find_refresh(connection, sha256("r")) is None
