"""Which keys are accepted, and under which name they are known."""

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from partner_client import b64, generate, private_jwk, public_jwk

from kernel.errors import Refusal
from partners.registry.jwk import (
    KeyNotForSigning,
    KeyNotSupported,
    PrivateKeySent,
    decode,
    read_jwk,
)

EC_KEY = public_jwk("ES256", generate("ES256"))
OKP_KEY = public_jwk("EdDSA", generate("EdDSA"))
RSA_KEY = public_jwk("PS256", generate("PS256"))

# RFC 7638 §3.1
RFC_RSA = {
    "kty": "RSA",
    "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjh"
    "Mstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5"
    "hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
    "e": "AQAB",
    "alg": "RS256",
    "kid": "2011-04-29",
}
# RFC 8037 appendix A.3
RFC_OKP = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}


@pytest.mark.parametrize(
    ("jwk", "alg"), [(EC_KEY, "ES256"), (OKP_KEY, "EdDSA"), (RSA_KEY, "PS256")], ids=["EC", "OKP", "RSA"]
)
def test_the_three_kinds_are_accepted(jwk: dict[str, Any], alg: str) -> None:
    assert read_jwk(jwk).alg == alg


def test_thumbprints_are_those_of_the_rfcs() -> None:
    rsa_members = {name: RFC_RSA[name] for name in ("kty", "n", "e")}
    assert read_jwk(rsa_members).thumbprint == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
    assert read_jwk(RFC_OKP).thumbprint == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def _rsa(bits: int) -> dict[str, Any]:
    return public_jwk("PS256", rsa.generate_private_key(65537, bits))


def _p384() -> dict[str, Any]:
    numbers = ec.generate_private_key(ec.SECP384R1()).public_key().public_numbers()
    return {
        "kty": "EC",
        "crv": "P-384",
        "x": b64(numbers.x.to_bytes(48, "big")),
        "y": b64(numbers.y.to_bytes(48, "big")),
    }


@pytest.mark.parametrize(
    ("jwk", "refusal"),
    [
        pytest.param(private_jwk("ES256", generate("ES256")), PrivateKeySent, id="private EC"),
        pytest.param(private_jwk("EdDSA", generate("EdDSA")), PrivateKeySent, id="private OKP"),
        pytest.param(private_jwk("PS256", generate("PS256")), PrivateKeySent, id="private RSA"),
        pytest.param({"kty": "oct", "k": "c2VjcmV0"}, PrivateKeySent, id="shared secret"),
        pytest.param(_p384(), KeyNotSupported, id="P-384"),
        pytest.param({**EC_KEY, "crv": "secp256k1"}, KeyNotSupported, id="secp256k1"),
        pytest.param({**EC_KEY, "y": EC_KEY["x"]}, KeyNotSupported, id="not on the curve"),
        pytest.param({**EC_KEY, "x": EC_KEY["x"] + "="}, KeyNotSupported, id="padding"),
        pytest.param({**EC_KEY, "x": "AA" + EC_KEY["x"]}, KeyNotSupported, id="too long a coordinate"),
        pytest.param({**EC_KEY, "x": "é" * 43}, KeyNotSupported, id="not ASCII"),
        pytest.param({**EC_KEY, "x": 7}, KeyNotSupported, id="number for a text"),
        pytest.param({**OKP_KEY, "crv": "X25519"}, KeyNotSupported, id="key agreement curve"),
        pytest.param({**OKP_KEY, "x": b64(b"short")}, KeyNotSupported, id="short Ed25519"),
        pytest.param(_rsa(1024), KeyNotSupported, id="RSA 1024"),
        pytest.param({**RSA_KEY, "e": b64(b"\x01" * 64)}, KeyNotSupported, id="huge exponent"),
        pytest.param({**RSA_KEY, "e": "Ag"}, KeyNotSupported, id="even exponent"),
        pytest.param({}, KeyNotSupported, id="nothing"),
        pytest.param({**EC_KEY, "use": "enc"}, KeyNotForSigning, id="for encryption"),
        pytest.param({**EC_KEY, "alg": "ES384"}, KeyNotForSigning, id="other algorithm"),
        pytest.param({**RSA_KEY, "alg": "RS256"}, KeyNotForSigning, id="PKCS 1.5"),
        pytest.param({**EC_KEY, "key_ops": ["sign"]}, KeyNotForSigning, id="for signing"),
    ],
)
def test_other_keys_are_refused(jwk: dict[str, Any], refusal: type[Refusal]) -> None:
    with pytest.raises(refusal):
        read_jwk(jwk)


PRIME = 2**255 - 19
POINTS_OF_SMALL_ORDER = {
    "identity": 1,
    "order two": PRIME - 1,
    "order four": 0,
    "order eight": 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
    "order eight, the other": 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7,
    "identity in another spelling": PRIME + 1,
    "order four in another spelling": PRIME,
    "a y beyond the field": PRIME + 2,
}


@pytest.mark.parametrize("sign", [0, 1])
@pytest.mark.parametrize("y", POINTS_OF_SMALL_ORDER.values(), ids=POINTS_OF_SMALL_ORDER)
def test_rfc8032_8_4_an_ed25519_key_for_which_anybody_can_sign_is_refused(y: int, sign: int) -> None:
    x = b64((y | sign << 255).to_bytes(32, "little"))
    with pytest.raises(KeyNotSupported):
        read_jwk({"kty": "OKP", "crv": "Ed25519", "x": x})


@pytest.mark.parametrize("text", ["a", "ab==", "a+b/", "a b", "ab\n", "é", "AB", "AAB", "AAAAA"])
def test_base64url_is_read_strictly(text: str) -> None:
    with pytest.raises(ValueError, match="base64url"):
        decode(text)
