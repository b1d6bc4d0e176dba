"""The sandbox: seeded once, its keys in private files alone, moved with the platform, and reset only when it is safe."""

import os
from collections.abc import AsyncGenerator
from datetime import datetime
from pathlib import Path
from uuid import uuid4

import msgspec
import pytest
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from msgspec import structs

from gateway import sandbox
from gateway.admins import AdminExists, NewAdmin, create_admin
from gateway.credentials import Credentials, SigningKey, read_credentials
from gateway.runtime import Runtime
from gateway.sandbox_logins import SandboxLogin, member_file
from gateway.sandbox_mobile import MobileApp, mobile_file, readdress_mobile
from kernel.caller import Caller, ConsentMissing
from kernel.database import Connection
from kernel.settings import Secret, Settings, SettingsError
from kernel.supervisor import SupervisorError
from kernel.supervisor.places import DataDirectory
from partners.login import service
from partners.login.model import Trial
from partners.mobile import service as mobile
from partners.oauth.backchannel_rules import GRANT_TYPE
from partners.oauth.service import PairwiseSubjects
from partners.registry import service as registry
from points.rewards import service as rewards

SLUGS = ["ecommerce", "hospital", "education", "tax"]


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
async def seeded(
    connection: Connection, runtime: Runtime, settings: Settings, data_dir: Path, now: datetime
) -> AsyncGenerator[Connection, None]:
    """A connection in whose transaction the sandbox is seeded."""
    await seed(connection, runtime, settings, data_dir, now)
    yield connection


async def seed(
    connection: Connection,
    runtime: Runtime,
    settings: Settings,
    data_dir: Path,
    now: datetime,
    base_url: str = "http://127.0.0.1:1",
) -> None:
    await sandbox.seed(
        connection,
        settings=settings,
        vault=runtime.vault,
        signer=runtime.signer,
        data_dir=data_dir,
        base_url=base_url,
        now=now,
    )


def files_in(data_dir: Path) -> dict[str, Credentials]:
    return {slug: read_credentials(sandbox.partner_file(data_dir, slug)) for slug in SLUGS}


async def test_every_partner_has_its_key_and_only_the_public_half_is_stored(
    seeded: Connection, data_dir: Path
) -> None:
    for slug, credentials in files_in(data_dir).items():
        partner = await registry.find_partner_by_slug(seeded, slug)
        client = await registry.find_client(seeded, credentials.client_id)
        assert client is not None
        assert (partner.status, client.partner_id) == ("live", partner.id)
        stored = client.keys[credentials.kid]
        assert "d" not in stored
        public = SigningKey.read(credentials.private_jwk).public_jwk
        assert {name: stored[name] for name in public} == public
        assert client.scopes == credentials.scopes


async def test_the_files_are_their_owners_alone(seeded: Connection, data_dir: Path) -> None:
    folder = data_dir / "sandbox" / "partners"
    assert folder.stat().st_mode & 0o077 == 0
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{slug}.json" for slug in SLUGS)
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


async def test_one_partner_has_a_second_app_with_every_policy_on(seeded: Connection, data_dir: Path) -> None:
    easy = read_credentials(sandbox.partner_file(data_dir, "ecommerce"))
    strict = read_credentials(sandbox.strict_file(data_dir, "ecommerce"))
    clients = [await registry.find_client(seeded, one.client_id) for one in (easy, strict)]

    assert clients[0] is not None and clients[1] is not None
    assert clients[0].partner_id == clients[1].partner_id
    assert [client.request_signature for client in clients if client] == ["optional", "fapi"]
    assert easy.private_jwk != strict.private_jwk
    assert (easy.members, easy.scopes, easy.issuer) == (strict.members, strict.scopes, strict.issuer)
    path = sandbox.strict_file(data_dir, "ecommerce")
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o077) == (0o600, 0)
    for slug in SLUGS[1:]:
        credentials = read_credentials(sandbox.partner_file(data_dir, slug))
        client = await registry.find_client(seeded, credentials.client_id)
        assert client is not None and client.request_signature == "optional"


async def test_two_of_the_banks_staff_can_approve_for_each_other(seeded: Connection, data_dir: Path) -> None:
    path = sandbox.admin_file(data_dir)
    admins = msgspec.json.decode(path.read_bytes(), type=list[NewAdmin])

    assert {admin.login: set(admin.roles) for admin in admins} == {
        "maker": {"viewer", "maker"},
        "checker": {"viewer", "checker", "duty_officer"},
    }
    assert path.stat().st_mode & 0o777 == 0o600
    kept = await seeded.fetch("SELECT login, password_hash, totp_sealed FROM gateway_admin")
    for admin in admins:
        (row,) = [row for row in kept if row["login"] == admin.login]
        Argon2id.verify_phc_encoded(admin.password.encode(), row["password_hash"])
        assert admin.totp_secret.encode() not in row["totp_sealed"]


async def test_every_member_can_log_in_and_no_secret_is_stored_in_the_clear(
    seeded: Connection, runtime: Runtime, data_dir: Path, now: datetime
) -> None:
    path = member_file(data_dir)
    assert path.stat().st_mode & 0o777 == 0o600
    logins = msgspec.json.decode(path.read_bytes(), type=list[SandboxLogin])
    assert [login.login for login in logins] == [f"member{number:02}" for number in range(1, 21)]
    assert [login.totp_secret is not None for login in logins] == [False] * 16 + [True] * 4
    assert len({login.password for login in logins}) == 20
    for login in logins:
        trial = await service.try_password(
            seeded, login=login.login, device_secret=None, address="local", vault=runtime.vault, now=now
        )
        assert isinstance(trial, Trial)
        assert (await runtime.passwords.look_at(trial.stored, login.password)).right
    stored = await seeded.fetch("SELECT name_sealed, totp_sealed FROM login_account")
    for row in stored:
        sealed = row["name_sealed"] + (row["totp_sealed"] or b"")
        assert not any(
            word and word.encode() in sealed for login in logins for word in (login.login, login.totp_secret)
        )


async def test_the_banks_app_is_registered_and_its_file_follows_the_platform(
    seeded: Connection, data_dir: Path
) -> None:
    path = mobile_file(data_dir)
    assert path.stat().st_mode & 0o777 == 0o600
    told = msgspec.json.decode(path.read_bytes(), type=MobileApp)
    assert told.issuer == f"{told.base_url}/mobile"
    assert told.redirect_uri == "http://127.0.0.1:8766/callback"
    assert [login.login for login in told.members][:2] == ["member01", "member02"]
    app = await mobile.find_app(seeded, told.client_id)
    assert app is not None
    assert (app.scopes, told.redirect_uri in app.redirect_uris) == (told.scopes, True)
    asking = {
        slug: await registry.find_client(seeded, credentials.client_id)
        for slug, credentials in files_in(data_dir).items()
    }
    assert [slug for slug, client in asking.items() if client and GRANT_TYPE in client.grant_types] == [
        "ecommerce",
        "hospital",
    ]
    readdress_mobile(data_dir, base_url="http://127.0.0.1:9999", write=rewrite)
    moved = msgspec.json.decode(path.read_bytes(), type=MobileApp)
    assert (moved.issuer, moved.client_id) == ("http://127.0.0.1:9999/mobile", told.client_id)


def rewrite(path: Path, app: MobileApp) -> None:
    path.write_bytes(msgspec.json.encode(app))


async def test_an_admin_is_created_once_and_put_on_record(
    connection: Connection, runtime: Runtime, now: datetime
) -> None:
    login = f"staff-{uuid4().hex[:8]}"
    await create_admin(connection, login=login, roles=["viewer"], vault=runtime.vault, now=now)

    record = await connection.fetchrow("SELECT * FROM audit_record WHERE detail ->> 'login' = $1", login)
    assert record is not None and record["action"] == "admin.create"
    with pytest.raises(AdminExists):
        await create_admin(connection, login=login, roles=["viewer"], vault=runtime.vault, now=now)


async def test_twenty_members_of_all_levels_consent_to_each_partner(
    seeded: Connection, data_dir: Path, now: datetime
) -> None:
    for slug, credentials in files_in(data_dir).items():
        partner = await registry.find_partner_by_slug(seeded, slug)
        client = await registry.find_client(seeded, credentials.client_id)
        assert client is not None
        assert len({member.sub for member in credentials.members}) == 20
        assert len({(member.bank_level, member.shop_level) for member in credentials.members}) == 16
        caller = Caller(
            partner_id=partner.id,
            app_id=client.app_id,
            client_id=client.client_id,
            scopes=frozenset(credentials.scopes),
            key_thumbprint="",
        )
        subs = [member.sub for member in credentials.members]
        found = await PairwiseSubjects().resolve(seeded, caller, subs, scope="points:earn", now=now)
        assert len({ref.member_id for ref in found.values()}) == 20
        in_six_years = now.replace(year=now.year + 6)
        with pytest.raises(ConsentMissing):
            await PairwiseSubjects().resolve_one(
                seeded, caller, subs[0], scope="points:earn", now=in_six_years
            )


async def test_a_new_user_can_redeem_something_of_every_kind(seeded: Connection, now: datetime) -> None:
    hospital = await registry.find_partner_by_slug(seeded, "hospital")
    shelf = {
        reward.kind: (reward.state, reward.provider_id, left)
        for reward, left in await rewards.list_rewards(seeded)
        if reward.starts_at == now
    }
    assert shelf == {
        "gift_card": ("active", None, 200),
        "fee_offset": ("active", None, None),
        "service": ("active", hospital.id, 1_000),
    }


async def test_a_second_start_only_moves_the_files(
    seeded: Connection, runtime: Runtime, settings: Settings, data_dir: Path, now: datetime
) -> None:
    before = files_in(data_dir)
    await seed(seeded, runtime, settings, data_dir, now, base_url="http://127.0.0.1:2")
    after = files_in(data_dir)
    for slug in SLUGS:
        assert after[slug].base_url == "http://127.0.0.1:2"
        assert structs.replace(after[slug], base_url=before[slug].base_url) == before[slug]


async def test_a_live_system_is_not_seeded(
    connection: Connection, runtime: Runtime, settings: Settings, data_dir: Path, now: datetime
) -> None:
    with pytest.raises(SettingsError):
        await seed(connection, runtime, structs.replace(settings, mode="live"), data_dir, now)
    assert os.listdir(data_dir.parent) == []


@pytest.fixture
def used(data_dir: Path) -> Settings:
    """A data directory as a stopped sandbox leaves it."""
    owner = DataDirectory(data_dir)
    owner.open()
    owner.close()
    for name in ("postgres", "valkey", "sandbox"):
        (data_dir / name).mkdir()
        (data_dir / name / "file").write_text("x")
    return Settings(data_dir=str(data_dir))


def test_a_reset_keeps_only_secrets_and_logs(used: Settings, data_dir: Path) -> None:
    assert [path.name for path in sandbox.reset(used)] == ["postgres", "valkey", "sandbox"]
    assert sorted(path.name for path in data_dir.iterdir()) == ["lock", "log", "secrets"]
    assert sandbox.reset(used) == []


def test_a_running_sandbox_is_not_reset(used: Settings, data_dir: Path) -> None:
    owner = DataDirectory(data_dir)
    owner.open()
    with pytest.raises(SupervisorError, match="in use by process"):
        sandbox.reset(used)
    owner.close()
    assert (data_dir / "postgres" / "file").exists()


def test_a_link_to_somewhere_else_is_not_followed(used: Settings, data_dir: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    (data_dir / "valkey").rename(precious)
    (data_dir / "valkey").symlink_to(precious)
    with pytest.raises(SettingsError, match="which tessera did not make"):
        sandbox.reset(used)
    assert (precious / "file").exists()
    assert (data_dir / "postgres" / "file").exists()


def test_what_is_not_ours_is_not_reset(tmp_path: Path, used: Settings) -> None:
    (tmp_path / "postgres").mkdir()
    for settings in (
        Settings(data_dir=str(tmp_path)),
        Settings(data_dir=str(tmp_path / "absent")),
        structs.replace(used, mode="live"),
        structs.replace(used, database_url=Secret("postgresql://elsewhere")),
    ):
        with pytest.raises(SettingsError):
            sandbox.reset(settings)
    assert (tmp_path / "postgres").is_dir()
    assert not (tmp_path / "absent").exists()
