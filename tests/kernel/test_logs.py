"""Logs: no secret, no local variable, no quoted row."""

import asyncpg

from kernel.logs import redact, reduce_database_errors


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
