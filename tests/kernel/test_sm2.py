"""SM2 by the system's OpenSSL agrees with the published example and with a pure Python implementation, and loses no memory."""

import base64
import gc
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from gmssl.sm2 import CryptSM2
from gmssl.sm3 import sm3_hash
from sm2_peer import peer

from kernel import sm2

# GB/T 32918.5 (GM/T 0003.5), the digital signature example on the recommended curve.
PRIVATE = "3945208F7B2144B13F36E38AC6D39F95889393692860B51A42FB81EF4DF7C5B8"
X = bytes.fromhex("09F9DF311E5421A150DD7D161E4BC5C672179FAD1833FC076BB08FF356F35020")
Y = bytes.fromhex("CCEA490CE26775A52DC6EA718CC1AA600AED05FBF35E084A6632F6072DA9AD13")
R = 0xF5A03B0648D2C4630EEAC513E1BB81A15944DA3827D5B74143AC7EACEEE720B3
S = 0xB1B6AA29DF212FD8763182BC0D421CA1BB9038FD1F7F42D4840B69C485BBC1AA
MESSAGE = b"message digest"


@pytest.fixture
def oracle() -> CryptSM2:
    """The example's key pair in another implementation."""
    return peer(X, Y, private=PRIVATE)


def test_the_example_of_the_standard_verifies() -> None:
    assert sm2.PublicKey.at(X, Y).verifies(encode_dss_signature(R, S), MESSAGE)


@pytest.mark.parametrize(
    ("signature", "message", "user_id"),
    [
        pytest.param(encode_dss_signature(R, S), b"another message", sm2.USER_ID, id="message"),
        pytest.param(encode_dss_signature(R, S), MESSAGE, b"ALICE123@YAHOO.COM", id="user id"),
        pytest.param(encode_dss_signature(S, R), MESSAGE, sm2.USER_ID, id="halves exchanged"),
        pytest.param(encode_dss_signature(R, S + 1), MESSAGE, sm2.USER_ID, id="signature"),
        pytest.param(encode_dss_signature(0, S), MESSAGE, sm2.USER_ID, id="zero"),
        pytest.param(encode_dss_signature(R, S) + b"\0", MESSAGE, sm2.USER_ID, id="trailing byte"),
        pytest.param(R.to_bytes(32, "big") + S.to_bytes(32, "big"), MESSAGE, sm2.USER_ID, id="not DER"),
        pytest.param(b"", MESSAGE, sm2.USER_ID, id="empty"),
        pytest.param(b"\x30" * 10_000, MESSAGE, sm2.USER_ID, id="long"),
    ],
)
def test_anything_else_does_not(signature: bytes, message: bytes, user_id: bytes) -> None:
    assert not sm2.PublicKey.at(X, Y).verifies(signature, message, user_id=user_id)


def test_what_the_other_implementation_signs_verifies_here(oracle: CryptSM2) -> None:
    signature = bytes.fromhex(oracle.sign_with_sm3(b"a request"))

    assert sm2.PublicKey.at(X, Y).verifies(signature, b"a request")


def test_what_is_signed_here_verifies_there() -> None:
    key = sm2.PrivateKey.generate()
    other = peer(*key.public().point)

    assert other.verify_with_sm3(key.sign(b"an answer").hex(), b"an answer")
    assert not other.verify_with_sm3(key.sign(b"an answer").hex(), b"another")


def test_the_digest_agrees_with_the_standard_and_with_the_other_implementation() -> None:
    # GB/T 32905, example 1
    assert sm2.sm3(b"abc").hex() == "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0"
    assert sm2.sm3(b"x" * 1_000).hex() == sm3_hash(list(b"x" * 1_000))


def test_a_private_key_is_the_same_after_it_was_stored_and_never_shows_itself() -> None:
    key = sm2.PrivateKey.generate()
    again = sm2.PrivateKey(key.to_der())

    assert again.public().spki == key.public().spki
    assert key.public().verifies(again.sign(b"x"), b"x")
    assert key.to_der().hex() not in repr(key) and repr(key) == "PrivateKey(SM2)"


def _pem(der: bytes, label: str = "PUBLIC KEY") -> str:
    return f"-----BEGIN {label}-----\n{base64.encodebytes(der).decode()}-----END {label}-----\n"


def test_a_public_key_is_read_from_pem() -> None:
    assert sm2.read_pem(_pem(sm2.PublicKey.at(X, Y).spki)).point == (X, Y)


GOOD = sm2.PublicKey.at(X, Y).spki


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(_pem(sm2.PrivateKey.generate().to_der(), "PRIVATE KEY"), id="private"),
        pytest.param(_pem(sm2.PrivateKey.generate().to_der()), id="private under another name"),
        pytest.param(_pem(GOOD[:-1]), id="short"),
        pytest.param(_pem(GOOD + b"\0"), id="long"),
        pytest.param(_pem(GOOD[:-1] + b"\0"), id="off the curve"),
        pytest.param(_pem(GOOD[:26] + bytes(65)), id="infinity"),
        pytest.param(
            _pem(GOOD.replace(bytes.fromhex("811ccf5501822d"), bytes.fromhex("811ccf5501822c"))), id="curve"
        ),
        pytest.param("-----BEGIN PUBLIC KEY-----\n!!!!\n-----END PUBLIC KEY-----", id="not base64"),
        pytest.param("", id="empty"),
        pytest.param(_pem(GOOD) * 2, id="two"),
    ],
)
def test_anything_but_one_public_key_on_the_curve_is_refused(text: str) -> None:
    with pytest.raises(sm2.Sm2KeyInvalid):
        sm2.read_pem(text)


def test_ten_thousand_verifications_and_keys_leave_no_memory_behind() -> None:
    good = encode_dss_signature(R, S)
    private = sm2.PrivateKey.generate()

    def work(times: int) -> None:
        for number in range(times):
            key = sm2.PublicKey.at(X, Y)
            assert key.verifies(good, MESSAGE) is True
            assert key.verifies(good, b"false") is False
            if number % 50 == 0:
                private.sign(MESSAGE)
                sm2.PrivateKey(private.to_der()).public()
                with pytest.raises(sm2.Sm2KeyInvalid):
                    sm2.PublicKey.at(X, X)

    work(500)  # what is allocated once
    gc.collect()
    before = _resident_kib()
    work(5_000)
    gc.collect()
    # one context of each of ten thousand verifications would be several MiB
    assert _resident_kib() - before < 2_048


@pytest.mark.parametrize("names", [(), ("libnowhere.so.3", None), ("libc.so.6",)])
def test_without_openssl_3_there_is_no_library(names: tuple[str | None, ...]) -> None:
    assert sm2.open_library(names) is None


def test_the_system_of_these_tests_has_it() -> None:
    assert sm2.is_available()


def _resident_kib() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024
