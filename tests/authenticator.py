"""An authenticator in software: makes passkeys and signs with them as WebAuthn says, or as a test wants it wrong."""

import hashlib
import json
import secrets
from typing import Any

import cbor2
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from webauthn.helpers import bytes_to_base64url

PRESENT, VERIFIED, BACKUP_ELIGIBLE, BACKED_UP, ATTESTED = 0x01, 0x04, 0x08, 0x10, 0x40


class Authenticator:
    """One device with one key; `flags` say whether its holder was there and was verified."""

    def __init__(self, *, origin: str, flags: int = PRESENT | VERIFIED, counts: bool = True) -> None:
        self.origin = origin
        self.flags = flags
        self.sign_count = 0
        self._counts = counts
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.credential_id = secrets.token_bytes(32)

    def create(self, options: str) -> str:
        """Answer to navigator.credentials.create, attestation `none`."""
        asked = json.loads(options)
        data = self._data(asked["rp"]["id"], self.flags | ATTESTED) + self._attested()
        attestation = cbor2.dumps({"fmt": "none", "attStmt": {}, "authData": data})
        client = self._client("webauthn.create", asked["challenge"])
        return self._answer({"clientDataJSON": client, "attestationObject": attestation})

    def get(self, options: str) -> str:
        """Answer to navigator.credentials.get."""
        asked = json.loads(options)
        if self._counts:
            self.sign_count += 1
        data = self._data(asked["rpId"], self.flags)
        client = self._client("webauthn.get", asked["challenge"])
        signed = self._key.sign(data + hashlib.sha256(client).digest(), ec.ECDSA(SHA256()))
        return self._answer({"clientDataJSON": client, "authenticatorData": data, "signature": signed})

    def _data(self, rp_id: str, flags: int) -> bytes:
        return hashlib.sha256(rp_id.encode()).digest() + bytes((flags,)) + self.sign_count.to_bytes(4, "big")

    def _attested(self) -> bytes:
        numbers = self._key.public_key().public_numbers()
        public = {1: 2, 3: -7, -1: 1, -2: numbers.x.to_bytes(32, "big"), -3: numbers.y.to_bytes(32, "big")}
        return (
            bytes(16)
            + len(self.credential_id).to_bytes(2, "big")
            + self.credential_id
            + bytes(cbor2.dumps(public))
        )

    def _client(self, kind: str, challenge: str) -> bytes:
        return json.dumps({"type": kind, "challenge": challenge, "origin": self.origin}).encode()

    def _answer(self, response: dict[str, bytes]) -> str:
        name = bytes_to_base64url(self.credential_id)
        answer: dict[str, Any] = {
            "id": name,
            "rawId": name,
            "type": "public-key",
            "response": {key: bytes_to_base64url(value) for key, value in response.items()},
        }
        return json.dumps(answer)
