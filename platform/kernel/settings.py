"""Settings: read once from the environment at start, frozen, every variable documented where it is declared.

`TESSERA_` and the field's name in capitals is the variable. docs/configuration.md is generated from this file.
"""

from collections.abc import Mapping
from typing import Annotated, Literal, get_args, get_type_hints

import msgspec
from msgspec import Meta, Struct

PREFIX = "TESSERA_"


class SettingsError(Exception):
    """The environment does not describe a runnable system; the text names the variable."""


class Secret(str):
    """A text that never shows itself: logs, tracebacks and reprs print stars."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def reveal(self) -> str:
        return str.__str__(self)


def _described(text: str) -> Meta:
    return Meta(description=text)


class Settings(Struct, frozen=True, kw_only=True):
    """What a deployment may choose; the defaults are the sandbox's."""

    mode: Annotated[
        Literal["sandbox", "live"],
        _described(
            "`sandbox` seeds test partners and generates keys; `live` refuses to start without its own."
        ),
    ] = "sandbox"
    base_url: Annotated[
        str | None,
        _described(
            "Public address of the API, without a trailing slash; issuer and `htu` are built from it."
        ),
    ] = None
    data_dir: Annotated[str, _described("Where the embedded servers, secrets and sandbox files live.")] = (
        "var"
    )
    database_url: Annotated[
        Secret | None,
        _described(
            "PostgreSQL (15 or newer) as the application role; without it the embedded server is used."
        ),
    ] = None
    migration_url: Annotated[
        Secret | None,
        _described(
            "The same database as the owner role; needed by `tessera migrate` and at start in sandbox mode."
        ),
    ] = None
    redis_url: Annotated[
        Secret | None,
        _described("Redis 7 or Valkey 7.2 and newer; without it the embedded server is used."),
    ] = None
    master_keys: Annotated[
        Secret | None,
        _described(
            "Key ring `id:base64url(32 bytes)[,id:…]`, newest first: encryption, blind indexes, pairwise subjects and "
            "cursors derive from it. Required in live mode; generated under `DATA_DIR/secrets` in sandbox mode."
        ),
    ] = None
    bank_code: Annotated[
        str,
        Meta(pattern="^[0-9A-Z]{6}$"),
        _described(
            "Six characters of the bank's code (JR/T 0124), part of every API identifier; the default is the sandbox's."
        ),
    ] = "000000"
    workers: Annotated[int, Meta(ge=1, le=64), _described("HTTP worker processes of `tessera serve`.")] = 1
    pool_size: Annotated[int, Meta(ge=2, le=100), _described("Database connections of each process.")] = 8
    body_limit_bytes: Annotated[
        int, Meta(ge=1024), _described("Largest request body of an ordinary route.")
    ] = 65_536
    batch_body_limit_bytes: Annotated[
        int, Meta(ge=1024), _described("Largest request body of a batch route.")
    ] = 1_048_576
    statement_timeout_ms: Annotated[
        int, Meta(ge=100), _described("PostgreSQL ends a statement of a request after this long.")
    ] = 5_000
    lock_timeout_ms: Annotated[
        int, Meta(ge=50), _described("PostgreSQL gives up waiting for a row lock after this long.")
    ] = 2_000
    drain_seconds: Annotated[
        int, Meta(ge=1, le=120), _described("How long requests in flight may take to finish after SIGTERM.")
    ] = 10
    private_port: Annotated[
        Annotated[int, Meta(ge=1, le=65_535)] | None,
        _described(
            "A second port, on loopback, for the proxy that ends TLS on this host: what comes in there may carry "
            "`Client-Cert` (RFC 9440) and the forwarding header."
        ),
    ] = None
    trusted_proxies: Annotated[
        str | None,
        _described(
            "Networks of the proxies, `10.0.0.0/28,…`, whose `Client-Cert` and forwarding header are believed. They must "
            "remove both from what clients send."
        ),
    ] = None
    forwarded_header: Annotated[
        Literal["x-forwarded-for", "forwarded"],
        _described("The one header in which the proxies write the client's address; the other is not read."),
    ] = "x-forwarded-for"
    mtls_base_url: Annotated[
        str | None,
        _described(
            "Public address under which the proxy asks for client certificates; published as `mtls_endpoint_aliases`."
        ),
    ] = None
    token_requests_per_minute: Annotated[
        int, Meta(ge=1), _described("Requests one client, and one address, may make to the OAuth endpoints.")
    ] = 12_000
    token_failures_per_minute: Annotated[
        int,
        Meta(ge=1),
        _described(
            "Failed client authentications of one address before it is refused until the minute is over."
        ),
    ] = 60
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], _described("Least severe log line that is written.")
    ] = "info"


def from_environment(environment: Mapping[str, str]) -> Settings:
    """Settings from `environment`; an unknown `TESSERA_` variable is an error, for it is a typing mistake."""
    fields = {name.upper(): name for name in Settings.__struct_fields__}
    given = {key.removeprefix(PREFIX): value for key, value in environment.items() if key.startswith(PREFIX)}
    unknown = sorted(set(given) - set(fields))
    if unknown:
        raise SettingsError(f"{PREFIX}{unknown[0]} is not a setting")
    try:
        settings = msgspec.convert(
            {fields[key]: value for key, value in given.items()},
            Settings,
            strict=False,
            dec_hook=_decode_secret,
        )
    except msgspec.ValidationError as mistake:
        raise SettingsError(f"a {PREFIX}… variable is wrong: {mistake}") from None
    if settings.mode == "live":
        for name in ("base_url", "database_url", "redis_url", "master_keys"):
            if getattr(settings, name) is None:
                raise SettingsError(f"{PREFIX}{name.upper()} is required in live mode")
    return settings


def _decode_secret(kind: type, value: object) -> object:
    if kind is Secret and isinstance(value, str):
        return Secret(value)
    raise NotImplementedError(f"no setting is a {kind}")


def describe() -> list[tuple[str, str, str]]:
    """(variable, default, meaning) of every setting, in the order of declaration."""
    hints = get_type_hints(Settings, include_extras=True)
    defaults = dict(
        zip(
            Settings.__struct_fields__[-len(Settings.__struct_defaults__) :],
            Settings.__struct_defaults__,
            strict=True,
        )
    )
    rows = []
    for name in Settings.__struct_fields__:
        meanings = [
            meta.description
            for meta in get_args(hints[name])[1:]
            if isinstance(meta, Meta) and meta.description
        ]
        default = defaults[name]
        rows.append((f"{PREFIX}{name.upper()}", "–" if default is None else f"`{default}`", meanings[0]))
    return rows
