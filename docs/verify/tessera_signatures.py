"""Verifies who sealed an export, with nothing but Python 3.11: `python3 -I tessera_signatures.py FILE [JWKS]`.

A seal's signature is a compact JWS (RFC 7515) by ES256 over its figures; its public key stands beside it, so that a key
rotated since still verifies. That says only that all is of one piece: JWKS, the bank's key set got elsewhere and earlier
(`/oauth2/jwks`), says who it was. With it every seal must be signed by a key of the set.
"""

import base64
import hashlib
import json
import sys
from typing import Any

# NIST P-256: field, order of the group, coefficient b, generator
P = 2**256 - 2**224 + 2**192 + 2**96 - 1
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)
FIGURES = ("lane", "business_on", "leaves", "root", "hash")
Point = tuple[int, int] | None


def decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def thumbprint(jwk: dict[str, str]) -> str:
    """RFC 7638 §3: the key's name is the hash of its required members."""
    members = {name: jwk[name] for name in ("crv", "kty", "x", "y")}
    digest = hashlib.sha256(json.dumps(members, separators=(",", ":")).encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def add(a: Point, b: Point) -> Point:
    if a is None or b is None:
        return b if a is None else a
    if a[0] == b[0] and (a[1] + b[1]) % P == 0:
        return None
    rise, run = (3 * a[0] * a[0] - 3, 2 * a[1]) if a == b else (b[1] - a[1], b[0] - a[0])
    slope = rise * pow(run, -1, P) % P
    x = (slope * slope - a[0] - b[0]) % P
    return x, (slope * (a[0] - x) - a[1]) % P


def verifies(jwk: dict[str, str], signed: bytes, signature: bytes) -> bool:
    """FIPS 186-5 §6.4.2: is this the key's signature?"""
    x, y = (int.from_bytes(decode(jwk[name]), "big") for name in ("x", "y"))
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    on_curve = x < P and y < P and (y * y - x**3 + 3 * x - B) % P == 0
    if len(signature) != 64 or not (0 < r < N and 0 < s < N and on_curve):
        return False
    inverse = pow(s, -1, N)
    u, v = int.from_bytes(hashlib.sha256(signed).digest(), "big") * inverse % N, r * inverse % N
    points: tuple[Point, ...] = (None, G, (x, y), add(G, (x, y)))
    sum_: Point = None
    for bit in range(255, -1, -1):
        sum_ = add(add(sum_, sum_), points[(u >> bit & 1) + 2 * (v >> bit & 1)])
    return sum_ is not None and sum_[0] % N == r


def fault_of(seal: dict[str, Any], trusted: set[str] | None) -> str | None:
    """What is wrong with a seal's signature; None when nothing is."""
    if seal["signature"] is None:
        return None if trusted is None else "not signed"
    head, body, signature = seal["signature"].split(".")
    header, claims = json.loads(decode(head)), json.loads(decode(body))
    if (header["alg"], header["typ"]) != ("ES256", "tessera-seal+jwt"):
        return "not a seal's signature"
    if header["kid"] != thumbprint(seal["signing_jwk"]):
        return "another key than it names"
    if trusted is not None and header["kid"] not in trusted:
        return f"key {header['kid']} is not in the set"
    if any(claims[name] != seal[name] for name in FIGURES):
        return "other figures are signed"
    if not verifies(seal["signing_jwk"], f"{head}.{body}".encode(), decode(signature)):
        return "the signature does not verify"
    return None


def main(file: str, keys: str | None = None) -> int:
    trusted = None
    if keys is not None:
        with open(keys, encoding="utf-8") as jwks:
            trusted = {thumbprint(key) for key in json.load(jwks)["keys"]}
    signed, unsigned, faults = 0, 0, 0
    with open(file, encoding="utf-8") as lines:
        for line in lines:
            if not line.startswith('{"type":"seal"'):
                continue
            seal = json.loads(line)
            try:
                fault = fault_of(seal, trusted)
            except (ValueError, LookupError, TypeError, AttributeError) as mistake:
                fault = f"cannot be read: {mistake!r}"
            signed, unsigned = signed + bool(seal["signature"]), unsigned + (not seal["signature"])
            if fault is not None:
                faults += 1
                print(f"BROKEN lane {seal['lane']} {seal['business_on']}: {fault}")
    by = "keys of the set" if trusted is not None else "keys that the file itself names"
    print(f"{signed} seals signed, {unsigned} not; by {by}; {faults} faults")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
