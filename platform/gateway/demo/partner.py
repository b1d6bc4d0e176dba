"""`python -m gateway.demo.partner`: one partner's process. All it has is its credentials file and the network."""

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx

from gateway.client import ApiProblem, PartnerClient, Unreachable
from gateway.credentials import read_credentials
from gateway.demo import accounts, ecommerce, hospital, visits
from gateway.demo.telling import Teller

STORIES: dict[str, Callable[[Teller], Awaitable[None]]] = {
    "ecommerce": ecommerce.tell,
    "hospital": hospital.tell,
    "education": visits.tell_education,
    "tax": visits.tell_tax,
    "subscribe": accounts.subscribe,
    "compare": accounts.compare,
    "settlement": accounts.read_settlement,
    "unsubscribe": accounts.unsubscribe,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="gateway.demo.partner")
    parser.add_argument("--credentials", type=Path, required=True)
    parser.add_argument("--story", choices=STORIES, required=True)
    parser.add_argument("--run", required=True, help="part of every order number")
    parser.add_argument("--receiver", default="", help="where the webhook receiver listens")
    options = parser.parse_args()
    try:
        asyncio.run(_tell(options))
    except (ApiProblem, Unreachable, AssertionError, httpx.HTTPError) as fault:
        print(f"{options.credentials.stem:<10} did not expect: {fault}", flush=True)
        return 1
    return 0


async def _tell(options: argparse.Namespace) -> None:
    async with PartnerClient(read_credentials(options.credentials)) as client:
        teller = Teller(options.credentials.stem, client, run=options.run, receiver=options.receiver)
        await STORIES[options.story](teller)


if __name__ == "__main__":
    sys.exit(main())
