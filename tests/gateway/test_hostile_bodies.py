"""Every points route, with every field of its body made hostile in turn: refused with a code, and nothing moved."""

from collections.abc import AsyncGenerator, Iterator
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from points_routes import MATRIX, NOTHING, Probe, Scene, deliver, prepare

from gateway.client import Answer, PartnerClient
from gateway.runtime import Runtime

POSTS = [
    pytest.param(path, id=path)
    for (method, path), probe in MATRIX.items()
    if method == "POST" and probe.body(NOTHING)
]
BATCHES = [
    pytest.param(path, id=path)
    for (method, path), probe in MATRIX.items()
    if method == "POST" and probe.batch
]
NEITHER: list[Any] = [[], {}, [[[]]], 1.5, -1, True, None]
TEXT: list[Any] = [*NEITHER, "", "\0", "a\0b", "x" * 300]
NUMBER: list[Any] = [[], {}, 1.5, -1, True, "1", "", 2**31, 2**63, 2**64, 10**30]
#: where a number of that size is a sum of money or a limit, and sound
SMALL = 2**31
LONELY = b'"\\ud800"'
BOUNDARY = "~"


@pytest.fixture(autouse=True)
async def delivered(runtime: Runtime) -> AsyncGenerator[None, None]:
    """Nothing is left under way for the next test."""
    yield
    await deliver(runtime)


def spoiled(body: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The body with one of its fields, however deep, made hostile; and where."""
    for name, value in body.items():
        if isinstance(value, dict):
            for where, changed in spoiled(value):
                yield f"{name}/{where}", body | {name: changed}
        else:
            for hostile in NUMBER if isinstance(value, int) else TEXT:
                if hostile != SMALL or "fen" not in name:
                    yield f"{name} {hostile!r:.20}", body | {name: hostile}
    yield "unknown field", body | {"unknown": 1}


def is_refused(answer: Answer, probe: Probe) -> bool:
    """By a problem with a code that is the caller's fault."""
    document = answer.json()
    problem = document
    if probe.batch and answer.status == 200:
        [result] = document["results"]
        problem = result.get("problem", {"status": result["status"]})
    return 400 <= problem["status"] < 500 and bool(problem.get("code"))


async def state(partner: PartnerClient, scene: Scene) -> list[Any]:
    """All that a partner sees of its member."""
    read = [
        await partner.get(f"/v1/members/{scene.member}/{part}")
        for part in ("points", "points/entries?limit=100", "entitlements", "membership")
    ]
    return [answer | {"as_of": None} for answer in read]


@pytest.mark.parametrize("path", POSTS)
async def test_a_hostile_field_is_refused_and_nothing_moves(
    runtime: Runtime, partner: PartnerClient, path: str
) -> None:
    probe, scene = MATRIX["POST", path], await prepare(runtime, partner)
    where = path.format(**msgspec.structs.asdict(scene))
    before, taken = await state(partner, scene), []
    body = dict(probe.body(scene) or {})
    item = body["items"][0] if probe.batch else body
    for place, changed in spoiled(item):
        wrapped = {"items": [changed]} if probe.batch else changed
        answer = await partner.send("POST", where, msgspec.json.encode(wrapped), idempotency_key=str(uuid4()))
        if not is_refused(answer, probe):
            taken.append((place, answer.status, answer.content))
    for name, value in item.items():
        if isinstance(value, str):
            marked = msgspec.json.encode(item | {name: BOUNDARY})
            lonely = marked.replace(f'"{BOUNDARY}"'.encode(), LONELY)
            wrapped_lonely = b'{"items":[' + lonely + b"]}" if probe.batch else lonely
            answer = await partner.send("POST", where, wrapped_lonely, idempotency_key=str(uuid4()))
            if not is_refused(answer, probe):
                taken.append((name, answer.status, answer.content))
    assert taken == []
    assert await state(partner, scene) == before


@pytest.mark.parametrize("path", BATCHES)
@pytest.mark.parametrize("items", [None, {}, "x", 1, [], [0] * 1_001], ids=lambda items: repr(items)[:8])
async def test_a_batch_is_a_list_of_one_to_a_thousand(partner: PartnerClient, path: str, items: Any) -> None:
    answer = await partner.send(
        "POST", path, msgspec.json.encode({"items": items}), idempotency_key=str(uuid4())
    )
    assert (answer.status, answer.json()["code"]) == (422, "validation_failed")


@pytest.mark.parametrize("path", BATCHES)
async def test_items_of_the_wrong_kind_are_refused_one_by_one(partner: PartnerClient, path: str) -> None:
    answer = await partner.post(path, {"items": [None, 1, "x", [], {}, [[]] * 50]})
    assert {result["status"] for result in answer["results"]} == {422}
    assert all(result["problem"]["code"] == "item_invalid" for result in answer["results"])


@pytest.mark.parametrize("path", BATCHES)
async def test_a_batch_has_its_bound_in_bytes(partner: PartnerClient, path: str) -> None:
    answer = await partner.send(
        "POST", path, b'{"items": [' + b" " * (1 << 20) + b"]}", idempotency_key=str(uuid4())
    )
    assert (answer.status, answer.json()["code"]) == (413, "body_too_large")


@pytest.mark.parametrize(
    "wrong",
    ["ptn_" + "0" * 26, "hld_", "hld_" + "0" * 25, "hld_" + "U" * 26, "%00", "x" * 3_000, "%F0%9F%92%A5"],
)
@pytest.mark.parametrize(
    "route", [pytest.param(route, id=" ".join(route)) for route in MATRIX if "/{" in route[1]]
)
async def test_a_name_of_the_wrong_kind_is_absent(
    partner: PartnerClient, route: tuple[str, str], wrong: str
) -> None:
    method, path = route
    fields = dict.fromkeys(msgspec.structs.asdict(NOTHING), wrong)
    body = MATRIX[route].body(NOTHING)
    raw = b"" if body is None else msgspec.json.encode(body)
    key = str(uuid4()) if method == "POST" else None
    answer = await partner.send(method, path.format(**fields), raw, idempotency_key=key)
    assert answer.status == 404
    assert answer.json()["code"].endswith("not_found")


BARE = [
    pytest.param(path, id=path)
    for (method, path), probe in MATRIX.items()
    if method == "POST" and probe.body(NOTHING) is None
]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"points": 1}', (422, "validation_failed")),
        (b"[]", (422, "validation_failed")),
        (b"1", (422, "validation_failed")),
        (b"{", (400, "body_malformed")),
    ],
)
@pytest.mark.parametrize("path", BARE)
async def test_what_a_route_does_not_read_is_refused_not_ignored(
    runtime: Runtime, partner: PartnerClient, path: str, body: bytes, expected: tuple[int, str]
) -> None:
    scene = await prepare(runtime, partner)
    before = await state(partner, scene)
    where = path.format(**msgspec.structs.asdict(scene))
    answer = await partner.send("POST", where, body, idempotency_key=str(uuid4()))
    assert (answer.status, answer.json()["code"]) == expected
    assert await state(partner, scene) == before


@pytest.mark.parametrize("body", [b"", b"{}"])
async def test_a_hold_is_released_without_a_body_or_with_an_empty_one(
    runtime: Runtime, partner: PartnerClient, body: bytes
) -> None:
    scene = await prepare(runtime, partner)
    path = f"/v1/points/holds/{scene.hold}/release"
    assert (await partner.send("POST", path, body, idempotency_key=str(uuid4()))).status == 200


async def test_queries_of_lists_are_bounded(runtime: Runtime, partner: PartnerClient) -> None:
    scene = await prepare(runtime, partner)
    for path in ("points/entries", "membership/history", "entitlements"):
        for query in (
            "limit=0",
            "limit=101",
            "limit=x",
            "limit=99999999999999999999",
            "cursor=x",
            "cursor=%00",
        ):
            answer = await partner.send("GET", f"/v1/members/{scene.member}/{path}?{query}")
            assert answer.status in (400, 422), (path, query)
    for name in ("%00", "x" * 300, "%ED%A0%80"):
        answer = await partner.send("GET", f"/v1/members/{scene.member}/points?point_type={name}")
        assert answer.status in (400, 422), name
