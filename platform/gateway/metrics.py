"""Numbers for the operator, in Prometheus form; served on the ops port only, never on the public one."""

from functools import lru_cache

from prometheus_client import Counter, Histogram

REQUESTS = Counter("tessera_requests_total", "Requests answered.", ["method", "route", "status"])
SECONDS = Histogram(
    "tessera_request_seconds",
    "Time from the request's first byte to the answer's last.",
    ["method", "route"],
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)


def observe_request(method: str, route: str, status: int, seconds: float) -> None:
    """`route` is the path template, so that ids never become labels."""
    answered, timed = _series(method, route, status)
    answered.inc()
    timed.observe(seconds)


@lru_cache(maxsize=4_096)
def _series(method: str, route: str, status: int) -> tuple[Counter, Histogram]:
    """The two series a request counts in; to find them by their labels takes longer than to count."""
    return REQUESTS.labels(method, route, str(status)), SECONDS.labels(method, route)
