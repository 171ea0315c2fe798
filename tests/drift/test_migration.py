"""The drift tables of older versions are brought up whole or not at all, in SQLite and in Postgres."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import Connection, MetaData, insert, inspect, select, text

from mlobs.drift import tables
from mlobs.drift.loop import DriftStage
from mlobs.settings import Settings
from mlobs.store import Schema, Store, open_store
from tests.featurelog.helpers import opened, record

ADDED = {
    2: {"drift_totals"},
    3: {"drift_predictions", "drift_early_labels"},
    4: {"drift_arrivals"},
}
"""Tables by the version that brought them."""
ROW = {
    "source": "log",
    "cursor": b"\0\xff",
    "offered": 9,
    "delivered": 7,
    "late": 1,
    "unusable": 1,
    "event_time": 1.5,
}


def later(version: int) -> set[str]:
    return {name for since, names in ADDED.items() if since > version for name in names}


def schema_of(version: int) -> Schema:
    """The tables as that version made them: none of those that stood then has changed since."""
    meta = MetaData()
    for table in tables.SCHEMA.metadata.sorted_tables:
        if table.name not in later(version):
            table.to_metadata(meta)
    return Schema("drift", version, meta, {2: tables.SCHEMA.migrations[2]})


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path}/state.db"


@pytest.fixture
def reopened(url: str) -> Iterator[Callable[[Schema], Store]]:
    """Opens the store as the schema's version does."""
    stores: list[Store] = []

    def reopen(schema: Schema) -> Store:
        stores.append(open_store(url, [schema]))
        return stores[-1]

    yield reopen
    for store in stores:
        store.close()


def filled(store: Store) -> None:
    with store.write() as connection:
        connection.execute(insert(tables.cursors).values(**ROW))


def rows(store: Store) -> list[dict[str, Any]]:
    with store.read() as connection:
        return [dict(row) for row in connection.execute(select(tables.cursors)).mappings()]


def shape(store: Store) -> dict[str, Any]:
    """Tables, columns with their types, keys and indexes."""
    with store.read() as connection:
        seen = inspect(connection)
        return {
            name: (
                {
                    column["name"]: (str(column["type"]), column["nullable"])
                    for column in seen.get_columns(name)
                },
                seen.get_pk_constraint(name)["constrained_columns"],
                sorted((each["name"], tuple(each["column_names"])) for each in seen.get_indexes(name)),
            )
            for name in seen.get_table_names()
        }


def version_of(store: Store) -> int:
    with store.read() as connection:
        return int(
            connection.execute(text("SELECT version FROM mlobs_schema WHERE name = 'drift'")).scalar_one()
        )


@pytest.mark.parametrize("version", [1, 2, 3])
def test_an_older_store_becomes_what_a_new_one_is_and_keeps_its_rows(
    reopened: Callable[[Schema], Store], version: int
) -> None:
    old = reopened(schema_of(version))
    filled(old)
    assert version_of(old) == version
    assert not later(version) & set(shape(old))
    new = reopened(tables.SCHEMA)
    assert (version_of(new), rows(new)) == (tables.SCHEMA.version, [ROW])
    found = shape(new)
    with new.write() as connection:
        tables.SCHEMA.metadata.drop_all(connection)
        tables.SCHEMA.metadata.create_all(connection)
    assert shape(new) == found


def test_the_stage_ticks_on_a_store_that_was_migrated(
    tmp_path: Path, reopened: Callable[[Schema], Store]
) -> None:
    reopened(schema_of(2))
    log = opened(tmp_path / "log")
    for number in range(50):
        log.offer(record(number))
    assert log.close(5)
    settings = Settings("fraud-api", feature_log=str(tmp_path / "log"), clock="driven")
    store = reopened(tables.SCHEMA)
    DriftStage(settings, store, CollectorRegistry()).tick(90000.0)
    (cursor,) = rows(store)
    assert (cursor["offered"], cursor["delivered"] + cursor["late"] + cursor["unusable"]) == (50, 50)


def with_third(migration: Callable[[Connection], None]) -> Schema:
    """Today's schema, but for the way to version 3."""
    now = tables.SCHEMA
    return Schema(now.name, now.version, now.metadata, {**now.migrations, 3: migration})


def half_way(then: Callable[[], None]) -> Schema:
    """A migration to version 3 that makes one of its two tables."""

    def migration(connection: Connection) -> None:
        tables.predictions.create(connection)
        then()

    return with_third(migration)


def raising() -> None:
    raise RuntimeError("half way")


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("how", ["raises", "killed"])
def test_a_migration_that_ends_half_way_leaves_the_older_store_usable(
    url: str, reopened: Callable[[Schema], Store], how: str
) -> None:
    filled(reopened(schema_of(2)))
    if how == "raises":
        with pytest.raises(RuntimeError, match="half way"):
            open_store(url, [half_way(raising)])
    else:
        child = os.fork()
        if child == 0:
            try:
                open_store(url, [half_way(killed)])
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
    old = reopened(schema_of(2))
    assert (version_of(old), rows(old)) == (2, [ROW])
    assert not later(2) & set(shape(old))
    new = reopened(tables.SCHEMA)
    assert (version_of(new), rows(new)) == (tables.SCHEMA.version, [ROW])
    assert set(shape(new)) >= later(2)


def test_two_that_open_an_older_store_together_migrate_it_once(
    url: str, reopened: Callable[[Schema], Store]
) -> None:
    filled(reopened(schema_of(2)))
    begun, troubles, ran = threading.Barrier(2, timeout=20), [], []
    slow = tables.SCHEMA.migrations[3]

    def migration(connection: Connection) -> None:
        ran.append(1)
        slow(connection)

    def run() -> None:
        begun.wait()
        try:
            open_store(url, [with_third(migration)]).close()
        except Exception as trouble:
            troubles.append(trouble)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (troubles, ran) == ([], [1])
    assert version_of(reopened(tables.SCHEMA)) == tables.SCHEMA.version
