"""`tessera signatures`: what an app must sign its writes with, and its SM2 keys; public halves only."""

import argparse
import asyncio
import os
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
from kernel.errors import Unprocessable
from kernel.settings import Settings, from_environment
from kernel.vault import Vault
from partners.oauth.sm2_keys import replace_sm2_key
from partners.registry import signatures
from partners.registry.model import RequestSignature


class KeyFileUnreadable(Unprocessable):
    """The file cannot be read: it must be a public key on the SM2 curve, as PEM or as a JWK with `crv` SM2."""


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
    replace = commands.add_parser(
        "replace-bank-key", help="sign SM2 answers with a new key from the next start on"
    )
    _finish(replace, _replace)


def _finish(parser: argparse.ArgumentParser, deed: Any) -> None:
    parser.add_argument("--by", required=True, metavar="LOGIN", help="a maker")
    parser.add_argument("--data-dir", default=None, help="the system's data directory (default: var)")
    parser.set_defaults(run=_run, deed=deed)


async def _demand(
    connection: Connection, options: argparse.Namespace, _vault: Vault, actor: str, now: datetime
) -> str:
    app = await signatures.find_app_of_client(connection, options.client_id)
    await signatures.set_request_signature(connection, app=app, policy=options.policy, actor=actor, now=now)
    return f"{app.client_id}  request_signature {options.policy}"


async def _add(
    connection: Connection, options: argparse.Namespace, _vault: Vault, actor: str, now: datetime
) -> str:
    key = _read(options.file)
    app = await signatures.find_app_of_client(connection, options.client_id)
    await signatures.add_sm2_key(
        connection, app=app, serial_no=options.serial_no, key=key, actor=actor, now=now
    )
    return f"{app.client_id}  {options.serial_no} active  sm3 {sm2.sm3(b''.join(key.point)).hex()}"


async def _revoke(
    connection: Connection, options: argparse.Namespace, _vault: Vault, actor: str, now: datetime
) -> str:
    app = await signatures.find_app_of_client(connection, options.client_id)
    await signatures.revoke_sm2_key(connection, app=app, serial_no=options.serial_no, actor=actor, now=now)
    return f"{app.client_id}  {options.serial_no} revoked"


async def _replace(
    connection: Connection, _options: argparse.Namespace, vault: Vault, actor: str, now: datetime
) -> str:
    serial_no = await replace_sm2_key(connection, vault=vault, actor=actor, now=now)
    return f"{serial_no}  active from the next start on"


def _read(path: Path) -> sm2.PublicKey:
    try:
        text = path.read_text(encoding="utf-8")
        if not text.lstrip().startswith("{"):
            return sm2.read_pem(text)
        return signatures.read_sm2_jwk(msgspec.json.decode(text, type=dict[str, Any]))
    except (OSError, ValueError):
        raise KeyFileUnreadable(file=str(path)) from None


def _run(options: argparse.Namespace) -> int:
    settings = from_environment(os.environ)
    if options.data_dir is not None:
        settings = structs.replace(settings, data_dir=options.data_dir)
    with attached(settings) as found:
        print(asyncio.run(_act(found, options)))
    return 0


async def _act(settings: Settings, options: argparse.Namespace) -> str:
    runtime = Runtime(settings)
    async with runtime.open(), transaction(runtime.pool) as connection:
        actor = await require_admin(connection, options.by, "maker")
        told: str = await options.deed(connection, options, runtime.vault, actor, runtime.clock.now())
        return told
