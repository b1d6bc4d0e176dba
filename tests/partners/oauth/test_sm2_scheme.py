"""The header of the SM2 scheme is read exactly or refused, and no two requests have one text."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partners.oauth.http_signature import Request, SignatureUnfit
from partners.oauth.sm2_scheme import NAME, Sm2Signature, check_header, read_header, request_text

NONCE = "n" * 16
GOOD = f'{NAME} app_id="app_1",serial_no="sn",timestamp="1800000000",nonce="{NONCE}",signature="AA=="'
REQUEST = Request(method="POST", origin="https://bank.example", path="/v1/x", query="a=1", fields={})


def test_the_header_is_read_in_any_order_and_with_spaces_after_commas() -> None:
    read = read_header(GOOD)

    assert read == Sm2Signature(
        app_id="app_1", serial_no="sn", timestamp=1_800_000_000, nonce=NONCE, value=b"\0"
    )
    name, _, members = GOOD.partition(" ")
    assert read_header(f"{name} {', '.join(reversed(members.split(',')))}") == read


@pytest.mark.parametrize("now", [1_800_000_060.0, 1_799_999_990.0])
def test_it_is_of_this_minute(now: float) -> None:
    check_header(read_header(GOOD), client_id="app_1", now=now)


@pytest.mark.parametrize(
    ("client_id", "now"), [("app_1", 1_800_000_061.0), ("app_1", 1_799_999_989.0), ("app_2", 1_800_000_000.0)]
)
def test_it_is_not_of_another_minute_or_app(client_id: str, now: float) -> None:
    with pytest.raises(SignatureUnfit):
        check_header(read_header(GOOD), client_id=client_id, now=now)


@given(st.one_of(st.text(max_size=200), st.text(max_size=80).map(lambda more: GOOD + more)))
def test_whatever_is_sent_is_read_or_refused(field: str) -> None:
    try:
        assert read_header(field) is not None
    except SignatureUnfit:
        return


def test_the_text_has_a_line_for_everything_the_request_depends_on() -> None:
    text = request_text(REQUEST, timestamp=1, nonce=NONCE, body=b"abc", token="abc").decode()

    abc = "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0"
    assert text == f"POST\nhttps://bank.example/v1/x?a=1\n1\n{NONCE}\n{abc}\n{abc}\n\n"
    assert base64.b64decode("AA==") == read_header(GOOD).value
