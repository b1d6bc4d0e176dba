"""Earn points with a signed request and check the bank's signature. Needs httpx, pyjwt[crypto], http-message-signatures."""

import base64
import hashlib
import json
import sys
import time
import uuid
from types import SimpleNamespace

import httpx
import jwt
from http_message_signatures import HTTPMessageSigner, HTTPMessageVerifier, MappingKeyResolver, algorithms

with open(
    sys.argv[1] if len(sys.argv) > 1 else "var/sandbox/strict/ecommerce.json", encoding="utf-8"
) as file:
    me = json.load(file)
key = jwt.PyJWK(me["private_jwk"], "ES256").key
public = {name: me["private_jwk"][name] for name in ("kty", "crv", "x", "y")}
nonce: dict[str, str] = {}


def proof(method: str, path: str, token: str = "") -> str:
    claims = {"jti": str(uuid.uuid4()), "iat": int(time.time()), "htm": method, "htu": me["base_url"] + path}
    if token:
        digest = hashlib.sha256(token.encode()).digest()
        claims["ath"] = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    return jwt.encode(claims | nonce, key, "ES256", {"typ": "dpop+jwt", "jwk": public})


def learn_nonce(answer: httpx.Response) -> bool:
    """RFC 9449 §8: whether the bank has named a new nonce for the proofs that follow."""
    named = answer.headers.get("dpop-nonce", "")
    new = bool(named) and named != nonce.get("nonce")
    nonce.update({"nonce": named} if new else {})
    return new


def fetch_token() -> str:
    moment = int(time.time())
    identity = {"iss": me["client_id"], "sub": me["client_id"], "aud": me["issuer"]}
    identity |= {"jti": str(uuid.uuid4()), "iat": moment, "exp": moment + 60}
    form = {
        "grant_type": "client_credentials",
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": jwt.encode(identity, key, "ES256", {"kid": me["kid"]}),
    }
    answer = bank.post("/oauth2/token", data=form, headers={"DPoP": proof("POST", "/oauth2/token")})
    if learn_nonce(answer) and answer.status_code == 400:
        return fetch_token()
    return str(answer.raise_for_status().json()["access_token"])


def signed_post(path: str, body: bytes, idempotency_key: str) -> httpx.Response:
    """RFC 9421 with the tag of FAPI 2.0: the signature covers everything the call depends on."""
    headers = {
        "Authorization": f"DPoP {token}",
        "DPoP": proof("POST", path, token),
        "Content-Type": "application/json",
        "Idempotency-Key": idempotency_key,
    }
    request = SimpleNamespace(method="POST", url=me["base_url"] + path, headers=headers)
    signer = HTTPMessageSigner(
        signature_algorithm=algorithms.ECDSA_P256_SHA256,
        key_resolver=MappingKeyResolver(public_keys={}, private_keys={me["kid"]: key}),
    )
    signer.sign(
        request,
        key_id=me["kid"],
        tag="fapi-2-request",
        covered_component_ids=("@method", "@target-uri", "authorization", "dpop", "idempotency-key"),
        body=body,  # adds Content-Digest and covers it
    )
    answer = bank.post(path, content=body, headers=headers)
    if learn_nonce(answer) and answer.status_code == 401:
        return signed_post(path, body, idempotency_key)
    check_answer(request, answer)
    return answer


def check_answer(request: SimpleNamespace, answer: httpx.Response) -> None:
    """An answer without a good signature of the bank is a forgery, whatever it says."""
    bank_keys = {jwk["kid"]: jwt.PyJWK(jwk, "ES256").key for jwk in bank.get("/oauth2/jwks").json()["keys"]}
    verifier = HTTPMessageVerifier(
        signature_algorithm=algorithms.ECDSA_P256_SHA256,
        key_resolver=MappingKeyResolver(public_keys=bank_keys, private_keys={}),
    )
    verifier.verify(
        SimpleNamespace(status_code=answer.status_code, headers=dict(answer.headers), request=request),
        expect_tag="fapi-2-response",
        require_components=('"@status"', '"@method";req', '"@target-uri";req', '"signature";req'),
        body=answer.content,
    )


with httpx.Client(base_url=me["base_url"]) as bank:
    token = fetch_token()
    order = {
        "member": me["members"][0]["sub"],
        "source_ref": f"order-{uuid.uuid4()}",
        "kind": "purchase",
        "occurred_at": "2026-11-11T20:00:00+08:00",
        "amount_fen": 129900,
    }
    done = signed_post("/v1/points/earnings", json.dumps(order).encode(), order["source_ref"])
    sys.stdout.write(f"{done.status_code} signed by the bank {json.dumps(done.json(), indent=2)}\n")
