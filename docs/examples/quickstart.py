"""Earn points for an order: a token, a proof, one call. Needs httpx and pyjwt[crypto], nothing of ours."""

import base64
import hashlib
import json
import sys
import time
import uuid

import httpx
import jwt

with open(
    sys.argv[1] if len(sys.argv) > 1 else "var/sandbox/partners/ecommerce.json", encoding="utf-8"
) as file:
    me = json.load(file)
key = jwt.PyJWK(me["private_jwk"], "ES256").key
public = {name: me["private_jwk"][name] for name in ("kty", "crv", "x", "y")}


def stamp() -> dict[str, str | int]:
    return {"jti": str(uuid.uuid4()), "iat": int(time.time())}


def proof(method: str, path: str, token: str = "", nonce: str = "") -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(token.encode()).digest()).rstrip(b"=").decode()
    claims = stamp() | {"htm": method, "htu": me["base_url"] + path}
    claims |= ({"ath": digest} if token else {}) | ({"nonce": nonce} if nonce else {})
    return jwt.encode(claims, key, "ES256", {"typ": "dpop+jwt", "jwk": public})


identity = stamp() | {
    "iss": me["client_id"],
    "sub": me["client_id"],
    "aud": me["issuer"],
    "exp": time.time() + 60,
}
form = {
    "grant_type": "client_credentials",
    "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    "client_assertion": jwt.encode(identity, key, "ES256", {"kid": me["kid"]}),
}
with httpx.Client(base_url=me["base_url"]) as bank:
    grant = bank.post("/oauth2/token", data=form, headers={"DPoP": proof("POST", "/oauth2/token")}).json()
    order = {
        "member": me["members"][0]["sub"],
        "source_ref": f"order-{uuid.uuid4()}",
        "kind": "purchase",
        "occurred_at": "2026-11-11T20:00:00+08:00",
        "amount_fen": 129900,
    }
    headers = {
        "Authorization": f"DPoP {grant['access_token']}",
        "DPoP": proof("POST", "/v1/points/earnings", grant["access_token"]),
        "Idempotency-Key": order["source_ref"],
    }
    answer = bank.post("/v1/points/earnings", json=order, headers=headers)
    if (
        answer.status_code == 401 and "DPoP-Nonce" in answer.headers
    ):  # this app's writes need the server's nonce
        again = proof("POST", "/v1/points/earnings", grant["access_token"], answer.headers["DPoP-Nonce"])
        answer = bank.post("/v1/points/earnings", json=order, headers=headers | {"DPoP": again})
sys.stdout.write(f"{answer.status_code} {json.dumps(answer.json(), indent=2)}\n")
