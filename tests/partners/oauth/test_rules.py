"""Decisions on forms, addresses and scopes."""

import pytest

from partners.oauth.rules import RequestRefused, check_resource, choose_scope, normal_url, read_form

FORM = "application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        pytest.param(b"grant_type=a&grant_type=a", FORM, id="a parameter twice"),
        pytest.param(b"unknown=1&unknown=2", FORM, id="an unknown parameter twice"),
        pytest.param(b'{"grant_type": "a"}', "application/json", id="JSON"),
        pytest.param(b"grant_type=a", "", id="no content type"),
        pytest.param(b"grant_type=\xff", FORM, id="not ASCII"),
        pytest.param(b"grant_type=%ff", FORM, id="not UTF-8"),
        pytest.param(b"&".join(b"p%d=1" % n for n in range(40)), FORM, id="too many parameters"),
    ],
)
def test_a_form_that_cannot_be_trusted_is_refused(body: bytes, content_type: str) -> None:
    with pytest.raises(RequestRefused) as refused:
        read_form(body, content_type)
    assert refused.value.error == "invalid_request"


def test_a_form_is_read() -> None:
    form = read_form(b"grant_type=a&scope=&resource=r&resource=s&other=x", f"{FORM}; charset=UTF-8")
    assert (form.grant_type, form.scope, form.resource) == ("a", None, ("r", "s"))


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("https://bank.example/v1/me", "https://bank.example/v1/me"),
        ("HTTPS://Bank.Example/v1/me", "https://bank.example/v1/me"),
        ("https://bank.example:443/v1/me", "https://bank.example/v1/me"),
        ("http://bank.example:80/v1/me", "http://bank.example/v1/me"),
        ("http://127.0.0.1:8080/v1/me", "http://127.0.0.1:8080/v1/me"),
        ("https://bank.example:8443/v1/me", "https://bank.example:8443/v1/me"),
        ("https://bank.example/v1/me?a=b#c", "https://bank.example/v1/me"),
        ("https://bank.example", "https://bank.example/"),
        ("https://[::1]:443/x", "https://[::1]/x"),
        ("https://bank.example/V1/me", "https://bank.example/V1/me"),
        ("https://bank.example/v1/../v1/me", "https://bank.example/v1/../v1/me"),
        ("https://user@bank.example/v1/me", None),
        ("https://bank.example:99999/", None),
        ("https://bank.example:x/", None),
        ("ftp://bank.example/v1/me", None),
        ("//bank.example/v1/me", None),
        ("/v1/me", None),
        ("https:///v1/me", None),
        ("https://bank\n.example/v1/me", None),
        ("https://bank.example/v1/me ", None),
        ("https://bänk.example/", None),
        ("https://[::1/", None),
        ("", None),
    ],
)
def test_addresses_are_normalised_in_scheme_host_and_port_only(url: str, normal: str | None) -> None:
    assert normal_url(url) == normal


@pytest.mark.parametrize(
    ("requested", "chosen"),
    [
        (None, ["a", "b"]),
        ("b", ["b"]),
        ("b a", ["a", "b"]),
        ("a a", ["a"]),
        ("c", None),
        ("a c", None),
        (" a", None),
    ],
)
def test_a_token_allows_what_was_asked_of_what_may_be(
    requested: str | None, chosen: list[str] | None
) -> None:
    if chosen is None:
        with pytest.raises(RequestRefused, match="granted") as refused:
            choose_scope(requested, ["b", "a"])
        assert refused.value.error == "invalid_scope"
    else:
        assert choose_scope(requested, ["b", "a"]) == chosen


def test_tokens_are_for_the_partner_api_only() -> None:
    check_resource([], resource="https://bank.example/v1")
    check_resource(["https://bank.example/v1"], resource="https://bank.example/v1")
    with pytest.raises(RequestRefused) as refused:
        check_resource(
            ["https://bank.example/v1", "https://other.example"], resource="https://bank.example/v1"
        )
    assert refused.value.error == "invalid_target"
