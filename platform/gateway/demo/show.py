"""The order of the demo: a platform of its own, four partners one after the other, the day's account, the books."""

import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

from gateway.demo.children import Children, Failed, Interrupted, last_words
from gateway.sandbox import PARTNERS, partner_file
from kernel.calendar import business_date
from kernel.clock import SystemClock

READY_SECONDS = 180.0
LISTENING_SECONDS = 20.0
BOOKS_SECONDS = 120.0
WITH_WEBHOOKS = ("ecommerce", "hospital")

EXAMPLE = Path(__file__).resolve().parents[3] / "docs" / "examples" / "orders.csv"


def show(*, data_dir: Path, port: int, orders: Path) -> int:
    """Run the demo; 0 only if every step succeeded and the books balance."""
    if not orders.is_file():
        sys.stderr.write(f"tessera: {orders} is missing: name an order file with --orders\n")
        return 2
    began_at = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tessera-demo-") as scratch:
        log = Path(scratch) / "serve.log"
        try:
            with Children() as children:
                verdict = _play(children, data_dir=data_dir.absolute(), port=port, orders=orders, log=log)
        except Failed as fault:
            sys.stderr.write(f"tessera: the demo failed: {fault}\n{last_words(log)}\n")
            return 1
        except Interrupted:
            sys.stderr.write("\ntessera: interrupted; everything the demo started has ended\n")
            return 130
    _say("demo", f"everything the demo started has ended; {time.monotonic() - began_at:.0f} s in all")
    print(verdict, flush=True)
    return 0 if verdict == "books balanced" else 1


def _play(children: Children, *, data_dir: Path, port: int, orders: Path, log: Path) -> str:
    """All acts; returns the last line of `books check`."""
    _say("demo", f"starting the platform on {data_dir}")
    with log.open("wb") as errors:
        serve = children.start(
            "gateway", "serve", "--port", str(port), "--data-dir", str(data_dir), errors=errors
        )
    ready = serve.read_line(READY_SECONDS)
    if not ready.startswith("ready "):
        raise Failed(f"serve said {ready!r} instead of being ready")
    _say("platform", ready)

    run = _run_of(SystemClock().now())
    files: dict[str, Path] = {partner.slug: partner_file(data_dir, partner.slug) for partner in PARTNERS}
    receiver_files = [word for slug in WITH_WEBHOOKS for word in ("--credentials", str(files[slug]))]
    receiver = children.start("gateway.demo.receiver", *receiver_files)
    listening = receiver.read_line(LISTENING_SECONDS)
    receiver.pass_on()
    _say("receiver", f"the partners' webhook receivers, {listening}")
    address = listening.removeprefix("listening ")

    def tell(story: str, slug: str) -> None:
        arguments = ["--credentials", str(files[slug]), "--story", story, "--run", run]
        children.run("gateway.demo.partner", *arguments, "--receiver", address)

    for slug in WITH_WEBHOOKS:
        tell("subscribe", slug)
    for slug in files:
        tell(slug, slug)
    _say("ecommerce", f"sends its order file {orders.name}")
    children.run(
        "gateway",
        "import",
        "orders",
        str(orders.absolute()),
        "--credentials",
        str(files["ecommerce"]),
        "--progress",
    )
    for slug in WITH_WEBHOOKS:
        tell("compare", slug)
    today = business_date(SystemClock().now()).isoformat()
    _say("bank", f"closes the settlement of {today}")
    children.run("gateway", "job", "settlement", "--date", today, "--data-dir", str(data_dir))
    for slug in files:
        tell("settlement", slug)
    for slug in WITH_WEBHOOKS:
        tell("unsubscribe", slug)
    return _check_books(children, data_dir)


def _check_books(children: Children, data_dir: Path) -> str:
    _say("bank", "checks the books")
    lines, code = children.start("gateway", "books", "check", "--data-dir", str(data_dir)).read_rest(
        BOOKS_SECONDS
    )
    *details, verdict = lines or [f"books check said nothing and ended with {code}"]
    for line in details:
        print(f"    {line}", flush=True)
    return verdict


def _run_of(now: datetime) -> str:
    """What makes this run's order numbers its own."""
    return now.strftime("%Y%m%d%H%M%S")


def _say(who: str, what: str) -> None:
    print(f"{who:<10} {what}", flush=True)
