"""The migration runner: what it refuses, that it runs once, and what the application role may see of it."""

import asyncio
from pathlib import Path

import asyncpg
import pytest

from kernel import migrate
from kernel.migrate import MigrationError

FIRST = "CREATE TABLE first_thing (id integer PRIMARY KEY);\nGRANT SELECT ON first_thing TO tessera_app;\n"
SECOND = "ALTER TABLE first_thing ADD COLUMN word text;\n"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return write(tmp_path / "migrations", {"0001_first.sql": FIRST, "0002_second.sql": SECOND})


def write(directory: Path, files: dict[str, str]) -> Path:
    directory.mkdir(exist_ok=True)
    for name, sql in files.items():
        (directory / name).write_text(sql)
    return directory


async def test_migrations_are_applied_in_order_and_once(empty_owner_url: str, directory: Path) -> None:
    assert await migrate.pending(empty_owner_url, directory) == ["0001_first.sql", "0002_second.sql"]
    assert await migrate.apply(empty_owner_url, directory) == ["0001_first.sql", "0002_second.sql"]
    assert await migrate.apply(empty_owner_url, directory) == []
    write(directory, {"0003_third.sql": "SELECT 1"})
    assert await migrate.apply(empty_owner_url, directory) == ["0003_third.sql"]


async def test_two_runs_at_once_both_succeed_and_apply_once(empty_owner_url: str, directory: Path) -> None:
    write(
        directory,
        {
            "0003_index.sql": f"{migrate.NO_TRANSACTION}\nCREATE INDEX CONCURRENTLY first_word ON first_thing (word)",
            "0004_last.sql": "SELECT 1",
        },
    )
    runs = await asyncio.gather(*(migrate.apply(empty_owner_url, directory) for _ in range(2)))
    assert sorted(map(len, runs)) == [0, 4]


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["0001_first.sql", "0001_again.sql"], "0001_again.sql and 0001_first.sql have the same number"),
        (["0001_first.sql", "0003_third.sql"], "0003_third.sql leaves a gap: the next number is 0002"),
        (["0002_second.sql"], "0002_second.sql leaves a gap: the next number is 0001"),
        (["0000_zero.sql"], "0000_zero.sql leaves a gap: the next number is 0001"),
        (["1_first.sql"], "1_first.sql is not named like 0001_some_words.sql"),
        (["0001_First.sql"], "0001_First.sql is not named like 0001_some_words.sql"),
        (["0001-first.sql"], "0001-first.sql is not named like 0001_some_words.sql"),
        (["0001_.sql"], "0001_.sql is not named like 0001_some_words.sql"),
    ],
)
def test_a_directory_out_of_order_is_refused(tmp_path: Path, names: list[str], sentence: str) -> None:
    write(tmp_path, dict.fromkeys(names, "SELECT 1"))
    with pytest.raises(MigrationError) as refused:
        migrate.read_directory(tmp_path)
    assert str(refused.value) == sentence


def test_a_missing_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MigrationError, match="no migrations directory"):
        migrate.find_directory(tmp_path / "nowhere")


def test_other_files_of_the_directory_are_not_migrations(tmp_path: Path) -> None:
    write(tmp_path, {"README.md": "words", "0001_first.sql": FIRST})
    assert [migration.name for migration in migrate.read_directory(tmp_path)] == ["0001_first.sql"]


def test_line_ends_of_another_system_are_not_an_edit(tmp_path: Path) -> None:
    unix = write(tmp_path / "unix", {"0001_first.sql": FIRST})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "0001_first.sql").write_bytes(FIRST.replace("\n", "\r\n").encode())
    assert migrate.read_directory(unix) == migrate.read_directory(tmp_path / "other")


async def test_an_edited_file_is_refused(empty_owner_url: str, directory: Path) -> None:
    await migrate.apply(empty_owner_url, directory)
    write(directory, {"0002_second.sql": SECOND + "-- one word more\n"})
    await expect_refusal(empty_owner_url, directory, "0002_second.sql was edited after it was applied")


async def test_a_missing_file_is_refused(empty_owner_url: str, directory: Path) -> None:
    await migrate.apply(empty_owner_url, directory)
    (directory / "0002_second.sql").unlink()
    await expect_refusal(empty_owner_url, directory, "0002_second.sql was applied, but the file is missing")


async def test_a_renamed_file_is_refused(empty_owner_url: str, directory: Path) -> None:
    await migrate.apply(empty_owner_url, directory)
    (directory / "0002_second.sql").rename(directory / "0002_other.sql")
    await expect_refusal(
        empty_owner_url, directory, "0002_second.sql was applied, but is now named 0002_other"
    )


async def test_a_file_before_an_applied_one_is_out_of_order(empty_owner_url: str, directory: Path) -> None:
    await migrate.apply(empty_owner_url, directory)
    connection = await asyncpg.connect(empty_owner_url)
    await connection.execute("DELETE FROM kernel_migration WHERE number = 1")
    await connection.close()
    await expect_refusal(
        empty_owner_url, directory, "0001_first.sql is out of order: 0002_second.sql has been applied already"
    )


async def expect_refusal(url: str, directory: Path, sentence: str) -> None:
    for ask in (migrate.apply, migrate.pending):
        with pytest.raises(MigrationError) as refused:
            await ask(url, directory)
        assert str(refused.value).startswith(sentence)
    assert [said[: len(sentence)] for said in await migrate.check(url, directory)] == [sentence]


async def test_a_failing_file_leaves_nothing_and_names_its_line(
    empty_owner_url: str, directory: Path
) -> None:
    write(
        directory,
        {
            "0003_bad.sql": "CREATE TABLE half_made (id integer);\nINSERT INTO first_thing\n  VALUES (nobody);\n"
        },
    )
    with pytest.raises(MigrationError, match=r"^0003_bad\.sql failed in line 3: column .* \(42703\)$"):
        await migrate.apply(empty_owner_url, directory)
    connection = await asyncpg.connect(empty_owner_url)
    assert await connection.fetchval("SELECT to_regclass('half_made')") is None
    await connection.close()
    assert await migrate.check(empty_owner_url, directory) == ["0003_bad.sql is not applied"]


async def test_an_error_does_not_quote_rows(empty_owner_url: str, directory: Path) -> None:
    write(directory, {"0003_twice.sql": "INSERT INTO first_thing VALUES (13800138), (13800138)"})
    with pytest.raises(MigrationError) as refused:
        await migrate.apply(empty_owner_url, directory)
    assert "13800138" not in str(refused.value)


async def test_check_says_what_is_due_and_writes_nothing(empty_owner_url: str, directory: Path) -> None:
    due = ["0001_first.sql is not applied", "0002_second.sql is not applied"]
    assert await migrate.check(empty_owner_url, directory) == due
    connection = await asyncpg.connect(empty_owner_url)
    assert await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
    await connection.close()
    await migrate.apply(empty_owner_url, directory)
    assert await migrate.check(empty_owner_url, directory) == []


async def test_the_application_role_sees_the_history_and_cannot_change_it(
    empty_owner_url: str, empty_app_url: str, directory: Path
) -> None:
    await migrate.apply(empty_owner_url, directory)
    assert await migrate.pending(empty_app_url, directory) == []
    connection = await asyncpg.connect(empty_app_url)
    for statement in (
        "DELETE FROM kernel_migration",
        "UPDATE kernel_migration SET sha256 = ''",
        "INSERT INTO kernel_migration VALUES (9, '', '', now(), 0)",
        "TRUNCATE kernel_migration",
        "INSERT INTO first_thing VALUES (1)",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
    assert await connection.fetch("SELECT id FROM first_thing") == []
    await connection.close()


async def test_the_application_role_cannot_migrate(empty_app_url: str, directory: Path) -> None:
    with pytest.raises(MigrationError, match="migrate as the owner role"):
        await migrate.apply(empty_app_url, directory)


async def test_an_unreachable_database_is_said_plainly(tmp_path: Path, directory: Path) -> None:
    url = f"postgresql://nobody@/nothing?host={tmp_path}&port=5432"
    with pytest.raises(MigrationError, match="the database cannot be reached"):
        await migrate.apply(url, directory)


async def test_the_project_s_own_migrations_are_applied(owner_url: str) -> None:
    assert await migrate.check(owner_url, migrate.find_directory()) == []
