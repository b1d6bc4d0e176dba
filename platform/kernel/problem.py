"""RFC 9457 problem documents: the one table that gives every kind of refusal its status and title."""

from typing import Any

from kernel.errors import (
    Absent,
    Conflict,
    Exhausted,
    Failed,
    Forbidden,
    Malformed,
    Refusal,
    TooLarge,
    Unauthenticated,
    Unavailable,
    Unprocessable,
    WrongMethod,
)

MEDIA_TYPE = "application/problem+json"

_KINDS: tuple[tuple[type[Refusal], int, str], ...] = (
    (Malformed, 400, "The request cannot be understood"),
    (Unauthenticated, 401, "Authentication is needed"),
    (Forbidden, 403, "Not allowed"),
    (Absent, 404, "Not found"),
    (WrongMethod, 405, "Method not allowed"),
    (Conflict, 409, "Conflict with the present state"),
    (TooLarge, 413, "Too large"),
    (Unprocessable, 422, "A rule is broken"),
    (Exhausted, 429, "Too many requests"),
    (Failed, 500, "Internal error"),
    (Unavailable, 503, "Temporarily unavailable"),
)


def status_of(refusal: Refusal | type[Refusal]) -> int:
    """The HTTP status of a refusal's kind."""
    return _kind_of(refusal)[0]


def to_problem(refusal: Refusal, *, base_url: str, trace_id: str | None = None) -> dict[str, Any]:
    """The document a partner reads; the refusal's facts become members of it."""
    status, title = _kind_of(refusal)
    document: dict[str, Any] = {
        "type": f"{base_url}/problems/{refusal.code}",
        "title": title,
        "status": status,
        "detail": refusal.sentence(),
        "code": refusal.code,
    }
    if trace_id is not None:
        document["trace_id"] = trace_id
    for name, value in refusal.facts.items():
        document.setdefault(name, value)
    return document


def catalogue() -> list[type[Refusal]]:
    """Every concrete refusal that has been imported, by status and code."""
    found: dict[str, type[Refusal]] = {}
    waiting = list(Refusal.__subclasses__())
    kinds = {kind for kind, _, _ in _KINDS}
    while waiting:
        refusal = waiting.pop()
        waiting.extend(refusal.__subclasses__())
        if refusal not in kinds or refusal is Absent:
            found[refusal.code] = refusal
    return sorted(found.values(), key=lambda refusal: (status_of(refusal), refusal.code))


def _kind_of(refusal: Refusal | type[Refusal]) -> tuple[int, str]:
    kind = refusal if isinstance(refusal, type) else type(refusal)
    for family, status, title in _KINDS:
        if issubclass(kind, family):
            return status, title
    raise AssertionError(f"{kind.__name__} belongs to no kind of refusal")
