"""`tessera signatures`: what an app must sign its writes with, and its SM2 keys; public halves only."""

import argparse
import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any, get_args

import msgspec
from msgspec import structs

from gateway.admins import require_admin
from gateway.attach import attached
from gateway.runtime import Runtime
from kernel import sm2
from kernel.database import Connection, transaction
from kernel.settings import from_environment
from partners.oauth.sm2_keys import replace_sm2_key
from partners.registry import signatures
from partners.registry.model import RequestSignature

#: what is done for an admin: connection, the admin's name on record, now
Act = Callable[[Connection, str, datetime], Awaitable[None]]


def register(subparsers: Any) -> None:
    """Add the commands to the parser."""
    parser = subparsers.add_parser("signatures", help="what apps sign with")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    demand = commands.add_parser("demand", help="what the app's A2 writes must carry")
    demand.add_argument("client_id")
    demand.add_argument("policy", choices=get_args(RequestSignature))
    _finish(demand, _demand)
    add = commands.add_parser("add-sm2-key", help="register a public key: PEM, or a JWK with crv SM2")
    add.add_argument("client_id")
    add.add_argument("serial_no")
    add.add_argument("file", type=Path, metavar="FILE")
    _finish(add, _add)
    revoke = commands.add_parser("revoke-sm2-key", help="the key is good for nothing any more")
    revoke.add_argument("client_id")
    revoke.add_argument("serial_no")
    _finish(revoke, _revoke)
    rotate = commands.add_parser(
        "rotate-bank-sm2-key", help="sign answers with a new key from the next start on"
    )
    _finish(rotate, _rotate)


def _finish(parser: argparse.ArgumentParser, run: Any) -> None:
    parser.add_argument("--by", required=True, metavar="LOGIN", help="a maker")
    parser.add_argument("--data-dir", default=None, help="the system's data directory (default: var)")
    parser.set_defaults(run=run)


def _demand(options: argparse.Namespace) -> int:
    async def act(connection: Connection, actor: str, now: datetime) -> None:
        app = await signatures.find_app_of_client(connection, options.client_id)
        await signatures.set_request_signature(
            connection, app=app, policy=options.policy, actor=actor, now=now
        )

    return _run(options, act)


def _add(options: argparse.Namespace) -> int:
    try:
        key = _read(options.file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as fault:
        print(f"tessera: {options.file} cannot be read: {fault}", file=sys.stderr)
        return 2

    async def act(connection: Connection, actor: str, now: datetime) -> None:
        app = await signatures.find_app_of_client(connection, options.client_id)
        await signatures.add_sm2_key(
            connection, app=app, serial_no=options.serial_no, key=key, actor=actor, now=now
        )

    return _run(options, act)


def _revoke(options: argparse.Namespace) -> int:
    async def act(connection: Connection, actor: str, now: datetime) -> None:
        app = await signatures.find_app_of_client(connection, options.client_id)
        await signatures.revoke_sm2_key(
            connection, app=app, serial_no=options.serial_no, actor=actor, now=now
        )

    return _run(options, act)


def _rotate(options: argparse.Namespace) -> int:
    return _run(options, None)


def _read(text: str) -> sm2.PublicKey:
    if not text.lstrip().startswith("{"):
        return sm2.read_pem(text)
    try:
        return signatures.read_sm2_jwk(msgspec.json.decode(text, type=dict[str, Any]))
    except msgspec.DecodeError:
        raise sm2.Sm2KeyInvalid from None


def _run(options: argparse.Namespace, act: Act | None) -> int:
    settings = from_environment(os.environ)
    if options.data_dir is not None:
        settings = structs.replace(settings, data_dir=options.data_dir)

    async def work() -> None:
        runtime = Runtime(found)
        async with runtime.open(), transaction(runtime.pool) as connection:
            actor = await require_admin(connection, options.by, "maker")
            now = runtime.clock.now()
            if act is not None:
                await act(connection, actor, now)
            else:
                await replace_sm2_key(connection, vault=runtime.vault, actor=actor, now=now)

    with attached(settings) as found:
        asyncio.run(work())
    print("done")
    return 0
