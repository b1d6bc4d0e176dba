"""The unified identifier of every API (JR/T 0185-2020, Annex B): given once, in api_ids.txt, and never to another.

24 characters: `OP`, six of the bank's code, two for the level (01 is A1, 02 is A2), six for the kind of service, eight of
our own numbering. A line of the file is never changed or removed: a route whose level changes gets a new line, and its
last line counts. `make docs` adds the lines of new routes.
"""

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from msgspec import Struct

REGISTER = Path(__file__).with_name("api_ids.txt")

#: kinds of service by the longest prefix; 01 (accounts) and 02 (payments) are the standard's, those from 90 on our own
KINDS = {
    "/v1/members": "010100",
    "/v1/activity": "010200",
    "/v1/entitlements": "010300",
    "/v1/points": "020100",
    "/v1/rewards": "020200",
    "/v1/redemptions": "020200",
    "/v1/settlement_batches": "020300",
    "/v1/offers": "900100",
    "/v1/quotes": "900100",
    "/v1/applications": "900200",
    "/v1/plans": "900200",
    "/v1/events": "910100",
    "/v1/webhook_endpoints": "910100",
    "/mobile/": "920100",
    "/": "990100",
}
_PARAMETER = re.compile(r"\{[^}]*\}")
_LEVELS = {"A1": "01", "A2": "02"}


class ApiId(Struct, frozen=True, kw_only=True):
    """One line of the register."""

    number: int
    kind: str
    level: str
    method: str
    #: with its parameters' names left out
    path: str

    def written(self, bank_code: str) -> str:
        """The identifier as it is published."""
        return f"OP{bank_code}{_LEVELS[self.level]}{self.kind}{self.number:08}"

    def line(self) -> str:
        return f"{self.number:08} {self.kind} {self.level} {self.method} {self.path}\n"


class ApiRoute(Struct, frozen=True, kw_only=True, order=True):
    """A route that has to have an identifier."""

    path: str
    method: str
    level: str
    sentence: str


def find_api_id(method: str, path: str) -> ApiId | None:
    """The identifier of a route; of several lines the last one counts."""
    return _by_route().get((method.upper(), shape(path)))


def routes_with_level(handlers: Iterable[Any]) -> list[ApiRoute]:
    """Every route that declares a level, in the order of paths."""
    return sorted(
        ApiRoute(
            path=path,
            method=method,
            level=handler.opt["level"],
            sentence=" ".join((handler.fn.__doc__ or "").partition("\n\n")[0].split()),
        )
        for handler in handlers
        if "level" in handler.opt
        for path in handler.paths
        for method in map(str, handler.http_methods - {"HEAD", "OPTIONS"})
    )


def new_lines(routes: Iterable[ApiRoute]) -> list[ApiId]:
    """What the register lacks."""
    number = max((known.number for known in read_register()), default=0)
    found = []
    for route in routes:
        known = find_api_id(route.method, route.path)
        if known is None or known.level != route.level:
            number += 1
            kind = KINDS[max((prefix for prefix in KINDS if route.path.startswith(prefix)), key=len)]
            found.append(
                ApiId(
                    number=number, kind=kind, level=route.level, method=route.method, path=shape(route.path)
                )
            )
    return found


def add_lines(lines: Iterable[ApiId]) -> None:
    """Append to the register."""
    with REGISTER.open("a", encoding="ascii") as file:
        file.writelines(line.line() for line in lines)
    _by_route.cache_clear()


def read_register() -> list[ApiId]:
    """Every line, in the order in which they were given."""
    lines = [line.split() for line in REGISTER.read_text(encoding="ascii").splitlines()]
    return [
        ApiId(number=int(number), kind=kind, level=level, method=method, path=path)
        for number, kind, level, method, path in lines
    ]


def shape(path: str) -> str:
    """A path with whatever its parameters are called left out."""
    return _PARAMETER.sub("{}", path)


@cache
def _by_route() -> dict[tuple[str, str], ApiId]:
    return {(known.method, known.path): known for known in read_register()}
