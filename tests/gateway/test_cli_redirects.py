"""`tessera redirect-uri`: an address is registered, shown and struck, or refused; each change is in the audit log."""

import argparse
from typing import Any

import pytest

from gateway.cli import redirects
from gateway.client import PartnerClient
from gateway.runtime import Runtime
from kernel.database import acquire
from kernel.errors import Absent
from partners.registry.rules import RedirectUriInvalid

URI = "https://mall.example/back"


async def type_in(runtime: Runtime, *words: str) -> list[str]:
    """What the command prints."""
    parser = argparse.ArgumentParser()
    redirects.register(parser.add_subparsers(required=True))
    options: Any = parser.parse_args(["redirect-uri", *words])
    return await redirects._change(runtime.settings, options)


async def test_an_address_is_added_once_shown_and_removed(runtime: Runtime, partner: PartnerClient) -> None:
    client_id = partner.credentials.client_id
    assert await type_in(runtime, "list", client_id) == []
    for _ in range(2):
        assert await type_in(runtime, "add", client_id, URI, "--by", "maker") == [URI]
    assert await type_in(runtime, "list", client_id) == [URI]
    assert await type_in(runtime, "remove", client_id, URI, "--by", "maker") == []
    async with acquire(runtime.pool) as connection:
        told = await connection.fetch(
            "SELECT actor, action FROM audit_record WHERE subject = $1 ORDER BY at", client_id
        )
        granted = await connection.fetchval(
            "SELECT grant_types FROM registry_app WHERE client_id = $1", client_id
        )
    assert [(row["actor"], row["action"]) for row in told] == [
        ("admin:maker", "app.redirect_uri.add"),
        ("admin:maker", "app.redirect_uri.remove"),
    ]
    assert granted == ["authorization_code", "client_credentials", "refresh_token"]


async def test_what_is_no_address_or_no_app_is_refused(runtime: Runtime, partner: PartnerClient) -> None:
    client_id = partner.credentials.client_id
    with pytest.raises(RedirectUriInvalid):
        await type_in(runtime, "add", client_id, "http://mall.example/back")
    for words in (("add", "app_x", URI), ("remove", client_id, URI), ("list", "app_x")):
        with pytest.raises(Absent):
            await type_in(runtime, *words)
