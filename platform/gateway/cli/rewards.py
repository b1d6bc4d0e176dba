"""`tessera rewards`: the catalogue of what points buy, until the console has it."""

import argparse
import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar, get_args
from uuid import UUID

import msgspec
from msgspec import structs

from gateway.attach import attached
from gateway.runtime import Runtime
from kernel.database import Connection, transaction
from kernel.errors import Absent
from kernel.ids import from_wire, to_wire
from kernel.settings import from_environment
from points.rewards import service as rewards
from points.rewards.model import Definition, RewardState
from points.rewards.rules import CodeFileRefused, RewardUnknown

T = TypeVar("T")

ACTOR = "cli"
CODE_FILE_BYTES = 64 * 2**20


def register(subparsers: Any) -> None:
    """Add the commands to the parser."""
    parser = subparsers.add_parser("rewards", help="look after what points buy")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _command(commands, "list", _list, "the whole catalogue, with what is left of each")
    define = _command(commands, "define", _define, "a new reward, as a draft")
    define.add_argument("file", type=Path, metavar="FILE", help="its definition in JSON")
    codes = _command(
        commands, "load-codes", _load_codes, "gift card codes, one per line; again changes nothing"
    )
    codes.add_argument("id", metavar="ID")
    codes.add_argument("file", type=Path, metavar="FILE")
    for name, meaning in (("price", "a new price from now on"), ("add-pieces", "more of a counted reward")):
        number = _command(commands, name, _price if name == "price" else _add_pieces, meaning)
        number.add_argument("id", metavar="ID")
        number.add_argument("number", type=int, metavar="N")
    move = _command(commands, "move", _move, "draft to active, active to paused and back, anything to ended")
    move.add_argument("id", metavar="ID")
    move.add_argument("state", choices=[state for state in get_args(RewardState) if state != "draft"])


def _command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], meaning: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=meaning)
    parser.add_argument("--data-dir", default=None, help="the system's data directory (default: var)")
    parser.set_defaults(run=run)
    return parser


def _list(options: argparse.Namespace) -> int:
    shelf = _in_system(options, lambda connection, _: rewards.list_rewards(connection))
    for reward, left in shelf:
        pieces = "" if left is None else f", {left:,} left"
        print(
            f"{to_wire('rwd', reward.id)} {reward.state:<6} {reward.kind:<10} "
            f"{reward.price_points:>9,} points{pieces}  {reward.title_en}"
        )
    return 0


def _define(options: argparse.Namespace) -> int:
    try:
        definition = msgspec.json.decode(options.file.read_bytes(), type=Definition)
    except (OSError, msgspec.DecodeError) as mistake:
        return _mistaken(mistake)
    reward_id = _in_system(
        options,
        lambda connection, runtime: rewards.define_reward(
            connection, definition, actor=ACTOR, now=runtime.clock.now()
        ),
    )
    print(to_wire("rwd", reward_id))
    return 0


def _load_codes(options: argparse.Namespace) -> int:
    """The whole file in one transaction, or nothing of it. What is printed never holds a code."""
    try:
        if options.file.stat().st_size > CODE_FILE_BYTES:
            raise CodeFileRefused
        lines = options.file.read_text(encoding="ascii").splitlines()
        done = _in_system(
            options,
            lambda connection, runtime: rewards.load_codes(
                connection,
                reward_id=_reward_id(options.id),
                lines=lines,
                actor=ACTOR,
                vault=runtime.vault,
                now=runtime.clock.now(),
            ),
        )
    except UnicodeDecodeError:
        raise CodeFileRefused from None  # whose own words would hold a code
    except CodeFileRefused as refusal:
        sys.stderr.write(f"tessera: line {refusal.facts.get('line', '?')}: {refusal.sentence()}\n")
        return 2
    except OSError as mistake:
        return _mistaken(mistake)
    print(f"{done.loaded:,} codes loaded, {done.known:,} were there before")
    return 0


def _price(options: argparse.Namespace) -> int:
    version = _in_system(
        options,
        lambda connection, runtime: rewards.set_price(
            connection,
            reward_id=_reward_id(options.id),
            price_points=options.number,
            actor=ACTOR,
            now=runtime.clock.now(),
        ),
    )
    print(f"price version {version}")
    return 0


def _add_pieces(options: argparse.Namespace) -> int:
    left = _in_system(
        options,
        lambda connection, runtime: rewards.add_pieces(
            connection,
            reward_id=_reward_id(options.id),
            pieces=options.number,
            actor=ACTOR,
            now=runtime.clock.now(),
        ),
    )
    print(f"{left:,} left")
    return 0


def _move(options: argparse.Namespace) -> int:
    _in_system(
        options,
        lambda connection, runtime: rewards.move_reward(
            connection,
            reward_id=_reward_id(options.id),
            state=options.state,
            actor=ACTOR,
            now=runtime.clock.now(),
        ),
    )
    print(options.state)
    return 0


def _in_system(options: argparse.Namespace, deed: Callable[[Connection, Runtime], Awaitable[T]]) -> T:
    """One transaction in the system the settings lead to."""
    settings = from_environment(os.environ)
    if options.data_dir is not None:
        settings = structs.replace(settings, data_dir=options.data_dir)

    async def work(runtime: Runtime) -> T:
        async with runtime.open(), transaction(runtime.pool) as connection:
            return await deed(connection, runtime)

    with attached(settings) as found:
        return asyncio.run(work(Runtime(found)))


def _reward_id(text: str) -> UUID:
    try:
        return from_wire("rwd", text)
    except Absent:
        raise RewardUnknown from None


def _mistaken(mistake: Exception) -> int:
    sys.stderr.write(f"tessera: {mistake}\n")
    return 2
