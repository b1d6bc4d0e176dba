"""What an app may be returned to, and what it may ask: tables."""

from typing import Any

import pytest

from partners.mobile.model import App
from partners.mobile.rules import AppRedirectInvalid, check_redirect_uri, read_login
from partners.mobile.scopes import MOBILE_SCOPES
from partners.oauth.rules import RequestRefused

BASE_URL = "https://bank.example"
RESOURCE = f"{BASE_URL}/mobile/v1"
APP = App(
    client_id="mob_" + "0" * 26,
    name_zh="银行",
    name_en="Bank",
    redirect_uris=["com.example.bank:/back"],
    scopes=sorted(MOBILE_SCOPES),
    status="active",
)
GOOD = {
    "client_id": APP.client_id,
    "redirect_uri": "com.example.bank:/back",
    "response_type": "code",
    "code_challenge": "A" * 43,
    "code_challenge_method": "S256",
}


@pytest.mark.parametrize(
    "uri",
    [
        "com.example.bank:/back",
        "com.example.bank:/",
        "http://127.0.0.1:8766/callback",
        "http://[::1]:9000/x",
        "https://m.bank.example/app/callback",
    ],
)
def test_rfc_8252_7_an_app_is_returned_to(uri: str) -> None:
    check_redirect_uri(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "bank:/back",
        "javascript:alert(1)",
        "data:text/html,x",
        "com.example.bank:/back#x",
        "com.example.bank://back host/",
        "http://localhost:8766/callback",
        "http://127.0.0.1/callback",
        "http://127.0.0.1.evil.example:80/",
        "http://bank.example/callback",
        "https://good.example@evil.example/",
        "https:///callback",
        "https://bank.example/\n",
        "com.example.bank:/" + "x" * 300,
    ],
)
def test_rfc_8252_8_other_addresses_are_not_registered(uri: str) -> None:
    with pytest.raises(AppRedirectInvalid):
        check_redirect_uri(uri)


@pytest.mark.parametrize(
    ("changes", "scopes"),
    [
        ({}, sorted(MOBILE_SCOPES)),
        ({"scope": "member:read"}, ["member:read"]),
        ({"prompt": "login", "dpop_jkt": "B" * 43, "resource": RESOURCE}, sorted(MOBILE_SCOPES)),
    ],
)
def test_a_good_request_is_read(changes: dict[str, str], scopes: list[str]) -> None:
    asked = read_login({**GOOD, **changes}, APP, base_url=BASE_URL)
    assert (asked.scopes, asked.redirect_uri) == (scopes, GOOD["redirect_uri"])


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": "code id_token"}, "unsupported_response_type"),
        ({"response_type": None}, "unsupported_response_type"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"dpop_jkt": "x"}, "invalid_request"),
        ({"scope": "members:read"}, "invalid_scope"),
        ({"scope": "openid"}, "invalid_scope"),
        ({"resource": "https://bank.example/v1"}, "invalid_target"),
        ({"prompt": "none"}, "login_required"),
        ({"request": "x.y.z"}, "request_not_supported"),
        ({"request_uri": "urn:x"}, "request_not_supported"),
        ({"ui_locales": "<b>"}, "invalid_request"),
    ],
)
def test_a_request_is_refused(changes: dict[str, Any], error: str) -> None:
    query = {name: text for name, text in {**GOOD, **changes}.items() if text is not None}
    with pytest.raises(RequestRefused) as refused:
        read_login(query, APP, base_url=BASE_URL)
    assert refused.value.error == error
