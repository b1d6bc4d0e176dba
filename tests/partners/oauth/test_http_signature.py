"""HTTP message signatures against the examples of RFC 9421 and RFC 9530, and by rules as tables."""

import base64
import hashlib
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256, SHA512, HashAlgorithm
from hypothesis import given
from hypothesis import strategies as st
from partner_client import public_jwk

from partners.oauth.http_signature import (
    Request,
    Signature,
    SignatureUnfit,
    check_digest,
    check_request,
    check_signed_by,
    content_digest,
    read_signatures,
    signature_base,
    signature_parameters,
)
from partners.registry.jwk import read_jwk

# RFC 9421 Appendix B.1
ED25519 = {"kty": "OKP", "crv": "Ed25519", "x": "JrQLj5P_89iXES9-vFgrIy29clF9CC_oPPsw3c5D0bs"}
P256 = {
    "kty": "EC",
    "crv": "P-256",
    "x": "qIVYZVLCrPZHGHjP17CTW0_-D9Lfw0EkjqF7xB4FivA",
    "y": "Mc4nN9LTDOBhfoUeg8Ye9WedFRhnZXZJA12Qp0zZ6F0",
}
# The request of RFC 9421 Appendix B.2.
EXAMPLE = Request(
    method="POST",
    origin="http://example.com",
    path="/foo",
    query="param=Value&Pet=dog",
    fields={
        "host": "example.com",
        "date": "Tue, 20 Apr 2021 02:07:55 GMT",
        "content-type": "application/json",
        "content-digest": "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm"
        "+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:",
        "content-length": "18",
    },
)
BODY = b'{"hello": "world"}'


def test_rfc9421_b_2_6_signing_a_request_using_ed25519() -> None:
    parameters: dict[str, str | int] = {"created": 1618884473, "keyid": "test-key-ed25519"}
    signature = Signature(
        components=("date", "@method", "@path", "@authority", "content-type", "content-length"),
        parameters=parameters,
        value=base64.b64decode(
            "wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw=="
        ),
    )

    check_signed_by(signature, read_jwk(ED25519), EXAMPLE)

    changed = Request(method="PUT", origin=EXAMPLE.origin, path=EXAMPLE.path, query="", fields=EXAMPLE.fields)
    with pytest.raises(SignatureUnfit):
        check_signed_by(signature, read_jwk(ED25519), changed)


def test_rfc9421_b_2_4_signing_a_response_using_ecdsa_p256() -> None:
    digest = "mEWXIS7MaLRuGgxOBdODa3xqM1XdEvxoYhvlCFJ41QJgJc4GTsPp29l5oGX69wWdXymyU0rjJuahq4l5aGgfLQ=="
    lines = [
        ('"@status"', "200"),
        ('"content-type"', "application/json"),
        ('"content-digest"', f"sha-512=:{digest}:"),
        ('"content-length"', "23"),
    ]
    parameters: dict[str, str | int] = {"created": 1618884473, "keyid": "test-key-ecc-p256"}
    value = "wNmSUAhwb5LxtOtOpNa6W5xj067m5hFrj0XQ4fvpaCLx0NKocgPquLgyahnzDnDAUy5eCdlYUEkLIj+32oiasw=="

    assert read_jwk(P256).verifies(base64.b64decode(value), signature_base(lines, parameters))


def test_rfc9530_appendix_d_the_digests_of_the_example() -> None:
    assert content_digest(BODY) == "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:"
    check_digest(EXAMPLE.fields["content-digest"], BODY)
    check_digest(content_digest(BODY), BODY)


def _digest(name: str, body: bytes) -> str:
    return f"{name}=:{base64.b64encode(hashlib.new(name.replace('-', ''), body).digest()).decode()}:"


@pytest.mark.parametrize(
    "field",
    [
        "",
        _digest("md5", BODY),
        _digest("sha1", BODY),
        f"{_digest('sha-256', BODY)}, {_digest('md5', BODY)}",
        f"{_digest('sha-256', BODY)}, {_digest('sha-512', b'')}",
        f"{_digest('sha-256', b'')}, {_digest('sha-256', BODY)}",
        _digest("sha-256", BODY + b" "),
        _digest("sha-256", BODY)[:-2],
        _digest("sha-256", BODY).upper(),
        "sha-256=::",
        'sha-256="X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE="',
        "sha-256",
        "sha-256=(:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:)",
        "a" * 9_000,
    ],
)
def test_rfc9530_5_a_digest_that_is_weak_false_or_unreadable_is_refused(field: str) -> None:
    with pytest.raises(SignatureUnfit):
        check_digest(field, BODY)


@pytest.mark.parametrize(
    ("alg", "hashed", "good"),
    [
        pytest.param(None, SHA256(), True, id="none: PS256, the key's own"),
        pytest.param("rsa-pss-sha512", SHA512(), True, id="rsa-pss-sha512"),
        pytest.param(None, SHA512(), False, id="none, but SHA-512"),
        pytest.param("rsa-pss-sha512", SHA256(), False, id="rsa-pss-sha512, but SHA-256"),
        pytest.param("rsa-v1_5-sha256", SHA256(), False, id="rsa-v1_5"),
        pytest.param("ecdsa-p256-sha256", SHA256(), False, id="of another kind of key"),
        pytest.param("PS256", SHA256(), False, id="a JWS name is no name here"),
    ],
)
def test_rfc9421_3_3_the_algorithm_is_the_keys(alg: str | None, hashed: HashAlgorithm, good: bool) -> None:
    private = rsa.generate_private_key(65537, 2048)
    parameters: dict[str, str | int] = {"created": 1} | ({} if alg is None else {"alg": alg})
    base = signature_base([('"@method"', "POST")], parameters)
    pss = padding.PSS(padding.MGF1(hashed), salt_length=hashed.digest_size)
    signature = Signature(
        components=("@method",), parameters=parameters, value=private.sign(base, pss, hashed)
    )
    key = read_jwk(public_jwk("PS256", private))

    if good:
        check_signed_by(signature, key, EXAMPLE)
    else:
        with pytest.raises(SignatureUnfit):
            check_signed_by(signature, key, EXAMPLE)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("@method", "POST"),
        ("@target-uri", "http://example.com/foo?param=Value&Pet=dog"),
        ("@authority", "example.com"),
        ("@scheme", "http"),
        ("@request-target", "/foo?param=Value&Pet=dog"),
        ("@path", "/foo"),
        ("@query", "?param=Value&Pet=dog"),
        ("date", "Tue, 20 Apr 2021 02:07:55 GMT"),
    ],
)
def test_rfc9421_2_2_the_value_of_a_component(name: str, value: str) -> None:
    key = rsa.generate_private_key(65537, 2048)
    base = f'"{name}": {value}\n"@signature-params": ("{name}");created=1'.encode()
    pss = padding.PSS(padding.MGF1(SHA256()), salt_length=32)
    signature = Signature(components=(name,), parameters={"created": 1}, value=key.sign(base, pss, SHA256()))

    check_signed_by(signature, read_jwk(public_jwk("PS256", key)), EXAMPLE)


NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("parameters", "good"),
    [
        ({"created": 1_800_000_000}, True),
        ({"created": 1_799_999_940}, True),
        ({"created": 1_799_999_939}, False),
        ({"created": 1_800_000_010}, True),
        ({"created": 1_800_000_011}, False),
        ({"created": 1_800_000_000, "expires": 1_800_000_001}, True),
        ({"created": 1_800_000_000, "expires": 1_800_000_000}, False),
        ({}, False),
    ],
)
def test_fapi_a_signature_is_of_this_minute(parameters: dict[str, str | int], good: bool) -> None:
    signature = Signature(
        components=("@method", "@target-uri", "authorization"), parameters=parameters, value=b""
    )
    request = Request(method="GET", origin="https://bank.example", path="/", query="", fields={})

    if good:
        check_request(signature, request, body=b"", now=NOW)
    else:
        with pytest.raises(SignatureUnfit):
            check_request(signature, request, body=b"", now=NOW)


@pytest.mark.parametrize(
    ("fields", "body", "needed"),
    [
        ({}, b"", set()),
        ({}, b"{}", {"content-digest"}),
        ({"dpop": "x"}, b"", {"dpop"}),
        ({"idempotency-key": "x"}, b"", {"idempotency-key"}),
    ],
)
def test_fapi_what_a_request_has_must_be_covered(
    fields: dict[str, str], body: bytes, needed: set[str]
) -> None:
    request = Request(method="POST", origin="https://bank.example", path="/", query="", fields=fields)
    whole = {"@method", "@target-uri", "authorization"} | needed
    check_request(_covering(whole), request, body=body, now=NOW)
    for missing in whole:
        with pytest.raises(SignatureUnfit, match=missing):
            check_request(_covering(whole - {missing}), request, body=body, now=NOW)


def _covering(names: set[str]) -> Signature:
    return Signature(components=tuple(sorted(names)), parameters={"created": int(NOW)}, value=b"")


def test_parameters_are_written_as_they_were_sent() -> None:
    sent = 'sig=("@method" "date");tag="fapi-2-request";keyid="a\\"b\\\\c";created=7;nonce=""'
    (signature,) = read_signatures(sent, "sig=:AA==:")

    written = signature_parameters([f'"{name}"' for name in signature.components], signature.parameters)

    assert f"sig={written}" == sent


@given(st.text(max_size=60), st.text(max_size=60))
def test_whatever_is_sent_is_read_or_refused(signature_input: str, signature: str) -> None:
    _read_or_refuse(signature_input, signature)


@given(
    st.lists(
        st.sampled_from(
            [
                "a=",
                '("x")',
                '("x"',
                ';tag="fapi-2-request"',
                ";created=1",
                ":AA==:",
                ",",
                " ",
                "?1",
                "%",
                '"',
                "\\",
                "1.5",
                "@1",
            ]
        ),
        max_size=12,
    ).map("".join)
)
def test_whatever_looks_like_a_field_is_read_or_refused(field: str) -> None:
    _read_or_refuse(field, field)
    _read_or_refuse(f'a=("@method");tag="fapi-2-request"{field}', "a=:AA==:")


def _read_or_refuse(signature_input: str, signature: str) -> Any:
    try:
        return read_signatures(signature_input, signature)
    except SignatureUnfit:
        return None
