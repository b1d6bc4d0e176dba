"""Settings: typing mistakes stop the start, secrets do not show."""

import pytest

from kernel.settings import Secret, Settings, SettingsError, describe, from_environment


def test_nothing_set_is_the_sandbox() -> None:
    assert from_environment({"PATH": "/bin"}) == Settings()


def test_values_are_read_by_type() -> None:
    settings = from_environment(
        {"TESSERA_WORKERS": "4", "TESSERA_MODE": "sandbox", "TESSERA_DATABASE_URL": "postgresql://x"}
    )

    assert settings.workers == 4
    assert settings.database_url is not None and settings.database_url.reveal() == "postgresql://x"


@pytest.mark.parametrize(
    "environment",
    [
        {"TESSERA_WORKER": "4"},
        {"TESSERA_WORKERS": "many"},
        {"TESSERA_WORKERS": "0"},
        {"TESSERA_MODE": "production"},
        {"TESSERA_MODE": "live"},
        {"TESSERA_LOG_LEVEL": "loud"},
    ],
)
def test_a_mistake_stops_the_start(environment: dict[str, str]) -> None:
    with pytest.raises(SettingsError):
        from_environment(environment)


def test_a_secret_shows_only_when_asked() -> None:
    secret = Secret("hunter2")

    assert "hunter2" not in f"{secret} {secret!r} {Settings(master_keys=secret)}"
    assert secret.reveal() == "hunter2"


def test_every_setting_has_a_meaning() -> None:
    assert all(meaning for _, _, meaning in describe())
    assert len(describe()) == len(Settings.__struct_fields__)
