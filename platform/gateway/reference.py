"""The API reference: the OpenAPI document, a page that shows it, and one sentence for every problem code.

The page loads nothing from elsewhere: its one script is vendored (static/MANIFEST.json) and hashed into its URL.
"""

from collections.abc import Callable
from functools import cached_property
from importlib.resources import files
from typing import Any

import msgspec
from litestar import Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from kernel.errors import Absent
from kernel.problem import catalogue, status_of

SCRIPT = "scalar-1.72.1.js"

#: the reference styles itself from script and keeps its fonts and pictures inline; nothing else is allowed
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

PAGE = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Tessera API reference</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
</head>
<body>
<div id="reference"></div>
<script src="/static/{SCRIPT}"></script>
<script src="/static/reference.js"></script>
</body>
</html>
""".encode()


class Reference:
    """The OpenAPI document, built on first use: it costs more than a worker should pay at every start."""

    def __init__(self, build: Callable[[], dict[str, Any]]) -> None:
        self._build = build

    @cached_property
    def document(self) -> bytes:
        return msgspec.json.encode(self._build())


@get("/openapi.json", public=True, include_in_schema=False)
async def show_document(reference: NamedDependency[Reference]) -> Response[bytes]:
    """The OpenAPI 3.1 document of everything partners may call."""
    return Response(
        reference.document, media_type="application/json", headers={"cache-control": "max-age=60"}
    )


@get("/docs", public=True, include_in_schema=False)
async def show_page() -> Response[bytes]:
    """The API reference, readable by people."""
    return Response(PAGE, media_type="text/html", headers={"content-security-policy": PAGE_POLICY})


@get("/static/{name:str}", public=True, include_in_schema=False)
async def show_static(name: FromPath[str]) -> Response[bytes]:
    """A file of the reference page."""
    if name not in (SCRIPT, "reference.js"):
        raise Absent
    content = (files("gateway") / "static" / name).read_bytes()
    return Response(content, media_type="text/javascript", headers={"cache-control": "public, max-age=86400"})


@get("/problems/{code:str}", public=True, tags=["health"])
async def explain_problem(code: FromPath[str]) -> dict[str, str | int]:
    """What a problem code means: the page behind every problem's `type`."""
    for refusal in catalogue():
        if refusal.code == code:
            return {"code": code, "status": status_of(refusal), "meaning": refusal.sentence()}
    raise Absent


routes = [show_document, show_page, show_static, explain_problem]
