"""What each step of an authenticated request costs, alone and in process: `python -m bench.steps`.

The least of several runs, in CPU microseconds. The sums of real requests are the HTTP figures (`make bench ONLY=http`): a step
alone finds its memory warm, and the system's calls are not here.
"""

import hashlib
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from gateway.credentials import SigningKey
from gateway.edge import SECURITY_HEADERS
from gateway.limits import Limit, Verdict
from gateway.metrics import observe_request
from gateway.requests import read_fields
from kernel.ids import new_id, to_wire
from kernel.one_time import id_hash
from partners.oauth import jws, rules
from partners.oauth.model import ProofClaims
from partners.oauth.nonce import Nonces
from partners.registry.jwk import encode

RUNS, TIMES = 9, 2_000
BASE_URL = "https://bank.example"
PATH = "/v1/points/earnings"


def cost(step: Callable[[], Any]) -> float:
    """CPU microseconds of one call."""
    best = float("inf")
    for _ in range(RUNS):
        before = time.process_time()
        for _ in range(TIMES):
            step()
        best = min(best, (time.process_time() - before) / TIMES)
    return best * 1e6


def steps() -> dict[str, Callable[[], Any]]:
    """Each step under the name it is reported by, in the order of a request."""
    now = datetime.now(UTC)
    token, nonces = "t" * 700, Nonces(bytes(32))
    ath = encode(hashlib.sha256(token.encode()).digest())
    key = SigningKey.generate()
    claims = {
        "jti": os.urandom(16).hex(),
        "htm": "POST",
        "htu": BASE_URL + PATH,
        "iat": int(now.timestamp()),
        "ath": ath,
        "nonce": nonces.offered(now),
    }
    proof = key.sign({"typ": "dpop+jwt", "alg": "ES256", "jwk": key.public_jwk}, claims)
    taken = jws.parse(proof)
    verifier = taken.header.key
    assert verifier is not None
    verdict = Verdict(
        allowed=True,
        limit=Limit(name="write", per_second=200, burst=400),
        remaining=399,
        retry_after_seconds=1,
        degraded=False,
    )
    headers = [
        (b"host", b"bank.example"),
        (b"authorization", f"DPoP {token}".encode()),
        (b"dpop", proof.encode()),
        (b"content-type", b"application/json"),
        (b"content-length", b"200"),
        (b"idempotency-key", b"k"),
    ]
    return {
        "the request's id": lambda: to_wire("req", new_id(now)),
        "the header read": lambda: read_fields(headers),
        "the token hashed, to be found": lambda: hashlib.sha256(token.encode()).digest(),
        "the proof taken apart": lambda: jws.parse(proof),
        "the proof's claims typed": lambda: jws.convert(taken.claims, ProofClaims),
        "the proof's signature verified": lambda: verifier.verifies(taken.signature, taken.signed),
        "the proof, all of it": lambda: rules.check_proof(
            proof, method="POST", url=BASE_URL + PATH, now=now.timestamp(), ath=ath
        ),
        "the nonce judged and offered": lambda: (nonces.accepts(claims["nonce"], now), nonces.offered(now)),  # type: ignore[arg-type]  # a text
        "the proof's identifier hashed": lambda: id_hash("proof:" + ath, "jti"),
        "its end": lambda: now + timedelta(seconds=150),
        "the limit told": verdict.headers,
        "the security headers": lambda: [*SECURITY_HEADERS],
        "the request counted": lambda: observe_request("POST", PATH, 201, 0.01),
    }


def main() -> None:
    for name, step in steps().items():
        print(f"{name:<34} {cost(step):>8.2f} µs")


if __name__ == "__main__":
    main()
