"""The state store: created, migrated after a backup, refused when newer, one server at a time."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest
from sqlalchemy import Column, Connection, Integer, MetaData, String, Table, inspect, text

from mlobs.errors import ConfigError, UnavailableError, UnreadableError
from mlobs.store import Schema, open_store


def schema(version: int = 1, migrations: dict[int, object] | None = None) -> Schema:
    meta = MetaData()
    columns = [Column("id", Integer, primary_key=True)] + [
        Column(f"c{n}", String) for n in range(2, version + 1)
    ]
    Table("things", meta, *columns)
    return Schema("things", version, meta, migrations or {})  # type: ignore[arg-type]


def add_column(connection: Connection) -> None:
    connection.execute(text("ALTER TABLE things ADD COLUMN c2 VARCHAR"))


def test_a_store_is_created_and_reopened(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/deep/er/mlobs.db"
    for _ in range(2):
        store = open_store(url, [schema()])
        with store.read() as connection:
            assert connection.execute(text("SELECT version FROM mlobs_schema")).scalars().all() == [1]
            assert connection.execute(text("PRAGMA synchronous")).scalar() == 2
            assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        store.close()


def test_an_older_store_is_backed_up_and_migrated(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/mlobs.db"
    store = open_store(url, [schema()])
    with store.write() as connection:
        connection.execute(text("INSERT INTO things VALUES (7)"))
    store.close()
    store = open_store(url, [schema(2, {2: add_column})])
    with store.read() as connection:
        assert {column["name"] for column in inspect(connection).get_columns("things")} == {"id", "c2"}
    store.close()
    with sqlite3.connect(tmp_path / "mlobs.db.things1.backup") as backup:
        assert backup.execute("SELECT * FROM things").fetchall() == [(7,)]
    backup.close()


def test_a_migration_that_fails_leaves_the_old_version_whole(tmp_path: Path) -> None:
    def broken(connection: Connection) -> None:
        add_column(connection)
        raise RuntimeError("half way")

    url = f"sqlite:///{tmp_path}/mlobs.db"
    open_store(url, [schema()]).close()
    with pytest.raises(RuntimeError):
        open_store(url, [schema(2, {2: broken})])
    store = open_store(url, [schema()])
    with store.read() as connection:
        assert [column["name"] for column in inspect(connection).get_columns("things")] == ["id"]
    store.close()


def test_a_newer_store_is_refused_with_the_data_untouched(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/mlobs.db"
    open_store(url, [schema(2)]).close()
    before = (tmp_path / "mlobs.db").read_bytes()
    with pytest.raises(UnavailableError, match="version 2"):
        open_store(url, [schema(1)])
    assert (tmp_path / "mlobs.db").read_bytes() == before


def test_a_file_that_is_no_database_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "mlobs.db").write_bytes(b"this is a text and no database, long enough to be looked at" * 20)
    with pytest.raises(UnreadableError, match="another kind of file"):
        open_store(f"sqlite:///{tmp_path}/mlobs.db", [schema()])


@pytest.mark.parametrize("url", ["nonsense", "oracle9://x", ""])
def test_an_unusable_address_is_a_configuration_error(url: str) -> None:
    with pytest.raises(ConfigError, match="sqlite:///path or postgresql"):
        open_store(url, [schema()])


def test_a_second_server_on_one_sqlite_store_is_unavailable(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/mlobs.db"
    first, second = open_store(url, [schema()]), open_store(url, [schema()])
    first.hold()
    with pytest.raises(UnavailableError, match="no other") as caught:
        second.hold()
    assert caught.value.exit_code == 3
    first.close()
    second.hold()
    second.close()


def test_a_password_in_the_address_is_not_shown_when_the_server_is_away() -> None:
    with pytest.raises(UnavailableError) as caught:
        open_store("postgresql://user:hunter2@127.0.0.1:1/x", [schema()])
    assert "hunter2" not in str(caught.value)


def open_at_once(url: str) -> list[BaseException | None]:
    """Eight processes' worth of first starts; what each met."""
    ready = threading.Barrier(8)
    met: list[BaseException | None] = []

    def start() -> None:
        ready.wait(20)
        try:
            open_store(url, [schema()]).close()
            met.append(None)
        except BaseException as problem:  # shown by the test's own thread
            met.append(problem)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(60)
    return met


def test_several_may_come_first_to_one_sqlite_file(tmp_path: Path) -> None:
    assert open_at_once(f"sqlite:///{tmp_path}/mlobs.db") == [None] * 8


def test_several_may_come_first_to_one_postgres(postgres_url: str) -> None:
    assert open_at_once(postgres_url) == [None] * 8
