"""The state store: SQLite by default, Postgres by URL; each stage brings its own tables and versions.

A stage declares a `Schema`: its name, version, tables and how to migrate forward. `open_store` creates what
is missing, migrates what is older after a backup, and refuses what is newer with the data untouched. Stages
never touch each other's tables, so each can run in a process of its own.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    event,
    func,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from mlobs.errors import ConfigError, MissingExtraError, Problem, UnavailableError, UnreadableError

Migration = Callable[[Connection], None]


@dataclass(frozen=True, slots=True)
class Schema:
    """A stage's tables. `migrations[n]` takes a database of version n - 1 to version n."""

    name: str
    version: int
    metadata: MetaData
    migrations: Mapping[int, Migration] = field(default_factory=dict)


_meta = MetaData()
_versions = Table(
    "mlobs_schema",
    _meta,
    Column("name", String, primary_key=True),
    Column("version", Integer, nullable=False),
)


_ADVISORY = 0x6D6C6F6273  # "mlobs": the lock that Postgres keeps for whoever creates or migrates


class Store:
    """An open state store. `read()` and `write()` give a connection in one transaction."""

    def __init__(self, engine: Engine, url: str) -> None:
        self.engine = engine
        self.url = url
        self._lock: IO[str] | None = None

    @property
    def path(self) -> Path | None:
        """The SQLite file; None for another server or for memory."""
        return _sqlite_path(self.url)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        with self.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction that takes SQLite's write lock at once: two writers wait, none fails on upgrade."""
        with self.engine.connect().execution_options(mlobs_write=True) as connection, connection.begin():
            yield connection

    def hold(self) -> None:
        """Take the single-server lock of a SQLite store; another holder raises UnavailableError (exit 3).

        The lock goes with the process, however it ends. Postgres needs none: rows are leased there.
        """
        path = self.path
        if path is None or self._lock is not None:
            return
        handle = open(f"{path}.lock", "a", encoding="utf-8")  # noqa: SIM115 - held until close()
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            handle.close()
            raise UnavailableError(
                Problem(
                    f"store {path}",
                    "no other `mlobs serve` on it",
                    "one that runs",
                    "stop it, or use Postgres where two serve together",
                )
            ) from None
        self._lock = handle

    @property
    def held(self) -> bool:
        """Whether this process alone serves the store."""
        return self._lock is not None

    def close(self) -> None:
        self.engine.dispose()
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def open_store(url: str, schemas: Sequence[Schema]) -> Store:
    """Open, create or migrate the store at `url`.

    Raises ConfigError for a URL that is none, UnreadableError for a file that is no database,
    UnavailableError for a server that does not answer or data newer than this version, MissingExtraError
    without the driver.
    """
    store = Store(_engine(url), url)
    try:
        _bring_up(store, schemas)
    except DBAPIError as problem:
        store.close()
        where = f"store {make_url(url).render_as_string(hide_password=True)}"
        if isinstance(problem.orig, sqlite3.DatabaseError) and "not a database" in str(problem.orig):
            raise UnreadableError(
                Problem(where, "a SQLite database", "another kind of file", "name another path in `store:`")
            ) from None
        raise UnavailableError(_unanswered(where, problem)) from None
    except BaseException:
        store.close()
        raise
    return store


def _unanswered(where: str, problem: DBAPIError) -> Problem:
    """What is said of a server; of what it said itself only what kind of refusal it was."""
    if "password" in str(problem.orig):  # wrong, or asked for and not found
        remedy = "check the user, and PGPASSWORD, PGPASSFILE (mode 0600) or ~/.pgpass of this process"
        return Problem(where, "a login", "a password that is missing or wrong", remedy)
    kind = type(problem.orig).__name__
    return Problem(where, "a database that answers", kind, "check that it runs and the URL")


def _engine(url: str) -> Engine:
    where = "mlobs.yaml: store"
    try:
        parsed = make_url(url)
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        path = _sqlite_path(url)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(parsed, pool_pre_ping=path is None)
    except (ArgumentError, NoSuchModuleError):
        raise ConfigError(
            Problem(where, "sqlite:///path or postgresql://...", "another form", "see docs/configuration.md")
        ) from None
    except ModuleNotFoundError:
        raise MissingExtraError.for_extra(where, "postgres") from None
    if parsed.get_backend_name() == "sqlite":
        event.listen(engine, "connect", _sqlite_connect)
        event.listen(engine, "begin", _sqlite_begin)
    return engine


def _sqlite_connect(raw: sqlite3.Connection, _record: object) -> None:
    raw.isolation_level = (
        None  # we begin transactions ourselves: pysqlite's own begin comes too late for reads
    )
    raw.execute("PRAGMA busy_timeout = 10000")
    for _ in range(50):
        try:
            raw.execute("PRAGMA journal_mode = WAL")
            break
        except sqlite3.OperationalError:
            # The first change of a new file's mode does not wait for others; a transaction does.
            raw.execute("BEGIN IMMEDIATE")
            raw.execute("COMMIT")
    raw.execute("PRAGMA synchronous = FULL")  # NORMAL lost committed rows at every simulated power cut
    raw.execute("PRAGMA foreign_keys = ON")


def _sqlite_begin(connection: Connection) -> None:
    write = connection.get_execution_options().get("mlobs_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _bring_up(store: Store, schemas: Sequence[Schema]) -> None:
    """Refuse everything that is newer before anything is changed; then back up; then migrate and create.

    In one transaction under the write lock: of two that start together one migrates, and one that is killed
    half way leaves the older store.
    """
    with store.write() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(select(func.pg_advisory_xact_lock(_ADVISORY)))
        found = _found_versions(connection)
        newer = [
            Problem(
                f"store table group {schema.name!r}",
                f"schema version {schema.version} or older",
                f"version {found[schema.name]}",
                "run the newer mlobs that wrote it, or name another store",
            )
            for schema in schemas
            if found.get(schema.name, 0) > schema.version
        ]
        if newer:
            raise UnavailableError(*newer)
        older = [schema for schema in schemas if 0 < found.get(schema.name, 0) < schema.version]
        if older and store.path is not None:
            # Another connection reads what was committed last, the older store, while we hold the lock.
            _back_up(store.path, "-".join(f"{schema.name}{found[schema.name]}" for schema in older))
        _meta.create_all(connection)
        for schema in schemas:
            _migrate(connection, schema, found.get(schema.name))


def _found_versions(connection: Connection) -> dict[str, int]:
    if not inspect(connection).has_table(_versions.name):
        return {}
    return {row.name: row.version for row in connection.execute(select(_versions))}


def _migrate(connection: Connection, schema: Schema, version: int | None) -> None:
    """From `version` (None: there is nothing yet) to the schema's."""
    if version is None:
        schema.metadata.create_all(connection)
        connection.execute(insert(_versions).values(name=schema.name, version=schema.version))
        return
    for step in range(version + 1, schema.version + 1):
        schema.migrations[step](connection)
    if version < schema.version:
        connection.execute(
            update(_versions).where(_versions.c.name == schema.name).values(version=schema.version)
        )


def _back_up(path: Path, label: str) -> None:
    target = path.with_name(f"{path.name}.{label}.backup")
    partial = target.with_name(target.name + ".partial")
    source, copy = sqlite3.connect(path), sqlite3.connect(partial)
    try:
        source.backup(copy)
    finally:
        copy.close()
        source.close()
    os.replace(partial, target)


def _sqlite_path(url: str) -> Path | None:
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database or parsed.database == ":memory:":
        return None
    return Path(parsed.database)
