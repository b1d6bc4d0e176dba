"""Every API has one identifier (JR/T 0185-2020, Annex B), keeps it, and shares it with nobody."""

import hashlib
import re
from typing import Any

import pytest

from gateway.api_ids import (
    REGISTER,
    ApiId,
    ApiRoute,
    find_api_id,
    new_lines,
    read_register,
    routes_with_level,
)
from gateway.app import ROUTES, describe
from gateway.runtime import Runtime

#: of the lines given so far; more may follow them, none of them may change
GIVEN = 66
GIVEN_SHA256 = "9333b104575d15faf3c6059968764af112e073d4030a4bf98f099b153b6a7351"


def test_what_was_given_stays_given() -> None:
    lines = REGISTER.read_text(encoding="ascii").splitlines(keepends=True)

    assert hashlib.sha256("".join(lines[:GIVEN]).encode()).hexdigest() == GIVEN_SHA256
    assert [known.line() for known in read_register()] == lines
    assert [known.number for known in read_register()] == list(range(1, len(lines) + 1))


def test_every_route_of_the_partner_api_has_an_identifier_of_its_level() -> None:
    served = {
        (method, path)
        for route in ROUTES
        for path in route.paths
        for method in map(str, route.http_methods - {"HEAD", "OPTIONS"})
        if path.startswith(("/v1/", "/mobile/v1/"))
    }
    routes = routes_with_level(ROUTES)

    assert served <= {(route.method, route.path) for route in routes}
    assert new_lines(routes) == [], "run `make docs`"
    written = [_id(route).written("000000") for route in routes]
    assert len(set(written)) == len(written)
    for route in routes:
        known = _id(route)
        assert (known.level, known.method) == (route.level, route.method)


def _id(route: ApiRoute) -> ApiId:
    known = find_api_id(route.method, route.path)
    assert known is not None
    return known


def test_the_identifier_is_made_as_the_standard_says() -> None:
    earn = find_api_id("POST", "/v1/points/earnings")
    assert earn is not None
    written = earn.written("A1B2C3")

    assert (len(written), written.isascii()) == (24, True)
    assert written == f"OPA1B2C302020100{earn.number:08}", "bank, level A2, payments, our number"
    read = find_api_id("get", "/v1/members/{whoever:str}/points")
    assert read is not None
    assert read.written("A1B2C3").startswith("OPA1B2C301010100")


@pytest.mark.parametrize(
    ("route", "kind"),
    [
        (ApiRoute(path="/v1/points/gifts", method="POST", level="A2", sentence=""), "020100"),
        (ApiRoute(path="/mobile/v1/gifts", method="GET", level="A1", sentence=""), "920100"),
        (ApiRoute(path="/v1/leads", method="GET", level="A1", sentence=""), "990100"),
        (ApiRoute(path="/v1/points/earnings", method="POST", level="A1", sentence=""), "020100"),
    ],
    ids=["new", "mobile", "of no kind yet", "another level"],
)
def test_a_route_without_an_identifier_gets_the_next_number(route: ApiRoute, kind: str) -> None:
    (line,) = new_lines([route])

    assert (line.number, line.kind, line.level) == (len(read_register()) + 1, kind, route.level)


def test_openapi_names_level_and_identifier(runtime: Runtime) -> None:
    named: dict[str, Any] = {}
    for path, item in describe(runtime)["paths"].items():
        for method, operation in item.items():
            if "security" in operation:
                known = find_api_id(method, re.sub(r"\{(\w+)\}", "{x}", path))
                assert known is not None
                assert operation["x-u-api-id"] == known.written(runtime.settings.bank_code)
                assert operation["x-security-level"] == known.level
                signed = known.level == "A2" and method != "get"
                assert ("x-request-signature" in operation) == signed
                named[operation["x-u-api-id"]] = path
    assert len(named) == len(routes_with_level(ROUTES))
