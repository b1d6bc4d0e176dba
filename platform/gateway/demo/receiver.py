"""`python -m gateway.demo.receiver`: the webhook receivers of some partners, as any partner might have one.

Signatures are verified with the public Standard Webhooks library, repeated deliveries are recognised by their id.
Besides its webhooks it answers the demo's own questions: PUT and GET /{slug}/since, PUT /{slug}/gone, GET /{slug}/verified.
"""

import argparse
import json
import signal
import sys
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from standardwebhooks import Webhook, WebhookVerificationError

from gateway.credentials import read_credentials

#: of each type only so many are worth a line: an order file makes hundreds
SHOWN_OF_EACH_TYPE = 3
BODY_BYTES_MAX = 1 << 20


class Mailbox:
    """What one partner has received."""

    def __init__(self, slug: str, secret: str) -> None:
        self.slug = slug
        self.verified: set[str] = set()
        #: the last event before the demo
        self.since = ""
        self.gone = False
        self._webhook = Webhook(secret)
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()

    def take(self, body: bytes, headers: dict[str, str]) -> int:
        """Verify, recognise, remember; returns the status to answer."""
        if self.gone:
            return 410
        try:
            event = self._webhook.verify(body, headers)
        except (WebhookVerificationError, ValueError) as fault:
            self._say(f"REFUSED a delivery: {fault}")
            return 401
        with self._lock:
            if event["id"] in self.verified:
                return 204
            self.verified.add(event["id"])
            self._seen[event["type"]] += 1
            seen = self._seen[event["type"]]
        if seen <= SHOWN_OF_EACH_TYPE:
            more = " (further ones are only counted)" if seen == SHOWN_OF_EACH_TYPE else ""
            self._say(f"webhook {event['type']} …{event['id'][-4:]} no. {event['sequence']} verified{more}")
        return 204

    def _say(self, text: str) -> None:
        # One write, so that the lines of two processes do not mix.
        sys.stdout.write(f"{self.slug:<10}   ← {text}\n")
        sys.stdout.flush()


class Receiver(BaseHTTPRequestHandler):
    """The HTTP side."""

    protocol_version = "HTTP/1.1"
    mailboxes: dict[str, Mailbox]

    def do_POST(self) -> None:
        mailbox = self.mailboxes.get(self.path.strip("/"))
        body = self._read()
        self._answer(404 if mailbox is None else mailbox.take(body, dict(self.headers.items())))

    def do_PUT(self) -> None:
        slug, _, what = self.path.strip("/").partition("/")
        mailbox, body = self.mailboxes.get(slug), self._read()
        if mailbox is None or what not in ("since", "gone"):
            self._answer(404)
            return
        if what == "since":
            mailbox.since = body.decode()
        else:
            mailbox.gone = True
        self._answer(204)

    def do_GET(self) -> None:
        slug, _, what = self.path.strip("/").partition("/")
        mailbox = self.mailboxes.get(slug)
        if mailbox is None or what not in ("since", "verified"):
            self._answer(404)
        elif what == "since":
            self._answer(200, mailbox.since.encode())
        else:
            self._answer(200, json.dumps(sorted(mailbox.verified)).encode())

    def _read(self) -> bytes:
        return self.rfile.read(min(int(self.headers.get("content-length", 0)), BODY_BYTES_MAX))

    def _answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """The mailbox says what is worth saying."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="gateway.demo.receiver")
    parser.add_argument("--credentials", type=Path, action="append", required=True)
    options = parser.parse_args()
    Receiver.mailboxes = {
        path.stem: Mailbox(path.stem, read_credentials(path).webhook_secret) for path in options.credentials
    }
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        print(f"listening http://127.0.0.1:{server.server_address[1]}", flush=True)
        server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
