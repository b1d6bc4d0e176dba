"""`tessera mobile-app` and `tessera backchannel`: what is registered, allowed and taken back is in the audit log."""

import argparse
from typing import Any
from uuid import uuid4

import pytest

from gateway.cli import phones
from gateway.client import PartnerClient
from gateway.runtime import Runtime
from kernel.database import acquire
from kernel.errors import Absent
from partners.mobile.rules import AppRedirectInvalid
from partners.mobile.service import AppNameTaken
from partners.oauth.backchannel_rules import GRANT_TYPE

URI = "com.example.bank:/callback"


async def type_in(runtime: Runtime, *words: str) -> list[str]:
    """What the command prints."""
    parser = argparse.ArgumentParser()
    phones.register(parser.add_subparsers(required=True))
    options: Any = parser.parse_args(words)
    return await phones._change(runtime.settings, options)


async def told(runtime: Runtime, subject: str) -> list[tuple[str, str]]:
    async with acquire(runtime.pool) as connection:
        rows = await connection.fetch(
            "SELECT actor, action FROM audit_record WHERE subject = $1 ORDER BY at", subject
        )
    return [(row["actor"], row["action"]) for row in rows]


async def test_an_app_is_registered_shown_and_switched_off(runtime: Runtime) -> None:
    name = f"App {uuid4().hex}"
    words = ("mobile-app", "add", "--name-zh", "银行", "--name-en", name, "--by", "maker", URI)
    [line] = [line for line in await type_in(runtime, *words) if name in line]
    client_id = line.partition(" ")[0]
    assert line == f"{client_id}  active  {name}  {URI}"
    await type_in(runtime, "mobile-app", "off", client_id, "--by", "checker")
    assert f"{client_id}  inactive  {name}  {URI}" in await type_in(runtime, "mobile-app", "list")
    assert await told(runtime, client_id) == [
        ("admin:maker", "mobile.app_registered"),
        ("admin:checker", "mobile.app_switched_off"),
    ]
    with pytest.raises(AppNameTaken):
        await type_in(runtime, *words)


async def test_what_is_no_address_or_no_app_is_refused(runtime: Runtime) -> None:
    words = ("mobile-app", "add", "--name-zh", "银行", "--name-en", uuid4().hex)
    with pytest.raises(AppRedirectInvalid):
        await type_in(runtime, *words, "http://bank.example/")
    with pytest.raises(Absent):
        await type_in(runtime, "mobile-app", "off", "mob_x")
    with pytest.raises(Absent):
        await type_in(runtime, "backchannel", "allow", "app_x")


async def test_a_partners_app_may_ask_on_the_phone_and_then_not_any_more(
    runtime: Runtime, partner: PartnerClient
) -> None:
    client_id = partner.credentials.client_id
    for _ in range(2):
        allowed = await type_in(runtime, "backchannel", "allow", client_id)
        assert allowed == ["client_credentials", "refresh_token", GRANT_TYPE]
    assert GRANT_TYPE not in await type_in(runtime, "backchannel", "forbid", client_id)
    assert [action for _, action in await told(runtime, client_id)] == [
        "app.backchannel.allow",
        "app.backchannel.allow",
        "app.backchannel.forbid",
    ]
