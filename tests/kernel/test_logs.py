"""Logs: no secret, no local variable, no quoted row."""

import logging

import asyncpg
import msgspec

from kernel.logs import LibraryFormatter, redact, reduce_database_errors, tell_failure


def test_telling_names_are_starred() -> None:
    fields = redact(
        None, "info", {"event": "x", "access_token": "t", "DPoP": "p", "private_jwk": {}, "points": 5}
    )

    assert fields == {"event": "x", "access_token": "***", "DPoP": "***", "private_jwk": "***", "points": 5}


def test_a_database_error_is_its_sqlstate_and_constraint() -> None:
    error = asyncpg.UniqueViolationError("duplicate key")
    error.detail = "Key (phone)=(13800000000) already exists."
    error.constraint_name = "member_phone"

    fields = reduce_database_errors(None, "error", {"event": "x", "exc_info": error})

    assert fields["sqlstate"] == "23505" and fields["constraint"] == "member_phone"
    assert "13800000000" not in str(fields)


def _leaking() -> Exception:
    """What a service raises when a constraint it did not expect is broken."""
    try:
        try:
            error = asyncpg.UniqueViolationError("duplicate key")
            error.detail = "Key (phone)=(13800000000) already exists."
            raise error
        except asyncpg.UniqueViolationError:
            raise AssertionError("unexpected constraint")  # noqa: B904 - the context is what is tested
    except AssertionError as failure:
        return failure


def test_a_row_quoted_by_the_cause_of_an_error_is_not_told() -> None:
    for failure in (_leaking(), ExceptionGroup("several", [_leaking()])):
        told = str(tell_failure((type(failure), failure, failure.__traceback__)))

        assert "unexpected constraint" in told and "23505" in told
        assert "13800000000" not in told


def test_a_library_that_logs_an_error_does_not_quote_it() -> None:
    record = logging.LogRecord("uvicorn.error", logging.ERROR, __file__, 1, "told %s", ("13800000000",), None)
    failure = _leaking()
    record.exc_info = (type(failure), failure, failure.__traceback__)

    line = LibraryFormatter().format(record)

    assert msgspec.json.decode(line) == {
        "level": "ERROR",
        "logger": "uvicorn.error",
        "error": "AssertionError",
    }
