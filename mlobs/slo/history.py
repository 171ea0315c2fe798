"""The past of every counter, in the store: two samples answer any window."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from sqlalchemy import Connection, Insert, Table, bindparam, delete, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from mlobs.slo import schema
from mlobs.slo.counters import Book, TargetState
from mlobs.slo.intake import Accounts, Vector, grown
from mlobs.store import Store

RAW_FOR = 8 * 3600.0
"""Every sample is kept so long: the page windows and their growth read to the second."""
THIN_TO = 300.0
"""Older ones are thinned to one in so many seconds: 0.3 % of a day's window."""
_THIN_EVERY = 3600.0


def pack(vector: Vector) -> bytes:
    """Bytes of a vector: its float64 bytes sorted by place, which a light zlib takes a fifth smaller."""
    plain = np.ascontiguousarray(vector, dtype="<f8")
    return zlib.compress(plain.view(np.uint8).reshape(-1, 8).T.tobytes(), 1)


def unpack(body: bytes) -> Vector:
    """The vector of `pack`'s bytes."""
    shuffled = np.frombuffer(zlib.decompress(body), dtype=np.uint8).reshape(8, -1)
    return np.ascontiguousarray(shuffled.T).view("<f8").reshape(-1, 2).astype(np.float64)


_BEFORE = (
    select(schema.sample.c.body)
    .where(schema.sample.c.at <= bindparam("t"))
    .order_by(schema.sample.c.at.desc())
    .limit(1)
)


class History:
    """Reads and writes the engine's rows. Every change of a tick goes into one transaction."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._cache: dict[float, Vector | None] = {}
        self._thinned: float | None = None
        self._written: dict[str, str] = {}
        self._listed: set[str] = set()
        self._born: set[int] = set()
        self._now_born: set[int] = set()

    # -- the past ---------------------------------------------------------------------------------

    def at(self, t: float, accounts: int) -> Vector:
        """The counters as the last sample at or before `t` had them; zeros before the first."""
        if t not in self._cache:
            self.fetch([t])
        found = self._cache[t]
        return np.zeros((accounts, 2)) if found is None else grown(found, accounts)

    def fetch(self, times: Iterable[float]) -> None:
        """Look the samples of several times up in one transaction."""
        with self._store.read() as connection:
            for t in times:
                if t not in self._cache:
                    body = connection.execute(_BEFORE, {"t": t}).scalar()
                    self._cache[t] = None if body is None else unpack(body)

    def forget(self) -> None:
        """A new tick asks about other times."""
        self._cache.clear()

    def first(self) -> float | None:
        with self._store.read() as connection:
            return connection.execute(
                select(schema.sample.c.at).order_by(schema.sample.c.at).limit(1)
            ).scalar()

    def last(self) -> float | None:
        """Time of the last sample."""
        with self._store.read() as connection:
            return connection.execute(select(func.max(schema.sample.c.at))).scalar()

    # -- start -------------------------------------------------------------------------------------

    def load(self, fingerprints: Mapping[str, str]) -> tuple[Accounts, Book]:
        """The accounts and counters as the last tick left them."""
        with self._store.read() as connection:
            rows = connection.execute(select(schema.account)).all()
            last = connection.execute(
                select(schema.sample).order_by(schema.sample.c.at.desc()).limit(1)
            ).first()
            targets = connection.execute(select(schema.target)).all()
        accounts = Accounts(fingerprints, [(row.id, row.slo, row.part, row.fingerprint) for row in rows])
        count = len(accounts)
        book = Book(np.zeros((count, 2)), np.full(count, np.nan), np.full(count, np.nan))
        for row in rows:
            if row.born is not None:
                book.born[row.id] = row.born
                self._born.add(row.id)
        if last is not None:
            book.totals = grown(unpack(last.body), count)
            book.seen = np.where(np.isnan(book.born), np.nan, last.at)
        for row in targets:
            book.targets[row.name] = TargetState(
                bool(row.up), row.at, row.started, unpack(row.body), row.error
            )
        book.began = self.first()
        return accounts, book

    def past(self, slo: str, fingerprint: str) -> tuple[list[float], list[float], list[float]] | None:
        """Times, cumulative bad and total of an objective's events; None if nothing was counted by this
        definition."""
        table = schema.account
        wanted = (table.c.slo == slo) & (table.c.part == "") & (table.c.fingerprint == fingerprint)
        with self._store.read() as connection:
            account = connection.execute(select(table.c.id).where(wanted)).scalar()
            if account is None:
                return None
            rows = connection.execute(select(schema.sample).order_by(schema.sample.c.at)).all()
        times, bad, total = [], [], []
        for row in rows:
            vector = unpack(row.body)
            if account < len(vector):
                times.append(row.at)
                bad.append(float(vector[account, 0]))
                total.append(float(vector[account, 1]))
        return (times, bad, total) if times else None

    def values(self) -> dict[str, Any]:
        with self._store.read() as connection:
            return {row.name: json.loads(row.body) for row in connection.execute(select(schema.value))}

    def alerts(self) -> Sequence[tuple[str, float, dict[str, Any], bool]]:
        with self._store.read() as connection:
            rows = connection.execute(select(schema.alert)).all()
        return [(row.key, row.since, json.loads(row.body), bool(row.ceased)) for row in rows]

    # -- writing -----------------------------------------------------------------------------------

    def put_counters(self, connection: Connection, now: float, accounts: Accounts, book: Book) -> None:
        """One sample of all counters, the targets' raw values, accounts that are new or newly born."""
        for id_, slo, part in accounts.fresh:
            row = {
                "id": id_,
                "slo": slo,
                "part": part,
                "fingerprint": accounts.fingerprints[slo],
                "born": None,
            }
            connection.execute(insert(schema.account).values(row))
        known = self._born
        for born in np.flatnonzero(~np.isnan(book.born)):
            if int(born) not in known:
                at = float(book.born[born])
                connection.execute(
                    update(schema.account).where(schema.account.c.id == int(born)).values(born=at)
                )
                self._now_born.add(int(born))
        upsert(connection, schema.sample, [{"at": now, "body": pack(book.totals)}], ["at"])
        rows = [
            {
                "name": name, "up": int(state.up), "at": state.at, "started": state.started,
                "error": state.error, "body": pack(state.raw),
            }
            for name, state in book.targets.items()
        ]  # fmt: skip
        if set(book.targets) != self._listed:
            gone = schema.target.c.name.not_in(list(book.targets))
            connection.execute(delete(schema.target).where(gone))
            self._listed = set(book.targets)
        if rows:
            upsert(connection, schema.target, rows, ["name"])

    def confirm(self, accounts: Accounts) -> None:
        """The tick's transaction is durable: what it brought need not be written again."""
        accounts.fresh.clear()
        self._born |= self._now_born
        self._now_born = set()

    def distrust(self) -> None:
        """The tick's transaction is lost: the next one writes everything that may be missing."""
        self._written, self._listed, self._now_born, self._thinned = {}, set(), set(), None

    def put_values(self, connection: Connection, values: Mapping[str, object]) -> None:
        texts = {name: json.dumps(body) for name, body in values.items()}
        rows = [
            {"name": name, "body": text} for name, text in texts.items() if self._written.get(name) != text
        ]
        if rows:
            upsert(connection, schema.value, rows, ["name"])
        self._written |= texts

    def thin(self, connection: Connection, now: float, keep: float) -> None:
        """Once an hour: drop what is older than `keep`, and of what is older than 8 hours all but one in 5
        minutes."""
        if self._thinned is not None and now - self._thinned < _THIN_EVERY:
            return
        since = (self._thinned or now - keep) - RAW_FOR
        self._thinned = now
        table = schema.sample
        # The last one before the cut stays: it is what everything up to the cut had counted.
        cut = connection.execute(select(func.max(table.c.at)).where(table.c.at < now - keep)).scalar()
        if cut is not None:
            connection.execute(delete(table).where(table.c.at < cut))
        connection.execute(delete(schema.point).where(schema.point.c.at < now - keep))
        times = connection.execute(
            select(table.c.at)
            .where(table.c.at >= since - THIN_TO, table.c.at < now - RAW_FOR)
            .order_by(table.c.at)
        ).scalars()
        last: dict[float, float] = {}
        doomed = []
        for at in times:
            bucket = -(-at // THIN_TO)  # a sample on a full five minutes closes its bucket
            if bucket in last:
                doomed.append({"doomed": last[bucket]})
            last[bucket] = at
        if doomed:
            connection.execute(delete(table).where(table.c.at == bindparam("doomed")), doomed)


def upsert(
    connection: Connection, table: Table, rows: Sequence[Mapping[str, object]], key: Sequence[str]
) -> None:
    """Insert or replace by primary key, on SQLite and Postgres."""
    connection.execute(_upsert(connection.dialect.name, table, tuple(key)), list(rows))


@lru_cache(maxsize=32)
def _upsert(dialect: str, table: Table, key: tuple[str, ...]) -> Insert:
    """Building the statement costs more than running it."""
    statement = (postgresql if dialect == "postgresql" else sqlite).insert(table)
    fresh = {c.name: statement.excluded[c.name] for c in table.columns if c.name not in key}
    found: Insert = statement.on_conflict_do_update(index_elements=list(key), set_=fresh)
    return found
