"""What the drift stage keeps of arrivals: each model's newest row, verdicts on volume and freshness, their
breaches. See `arrivals` for how they are judged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select

from mlobs.drift import arrivals, keep, tables
from mlobs.drift.persistence import Finding
from mlobs.drift.reference import Reference
from mlobs.drift.spec import ROWS, VOLUME
from mlobs.drift.state import State
from mlobs.drift.verdicts import EVERY, Stream
from mlobs.drift.watch import Watched, severity_of
from mlobs.records import Verdict
from mlobs.settings import ModelSettings, Settings
from mlobs.store import Store


@dataclass(frozen=True, slots=True, eq=False)
class Expected:
    """What is asked of a model's arrivals."""

    model: ModelSettings
    reference: Reference | None
    rate: float
    """Rows of traffic that a kept one stands for, where no row says."""


class ArrivalBook:
    """One per drift stage. `seen`, `save` and `closed` belong into its transactions, `settle` after them."""

    def __init__(self, settings: Settings, watched: Mapping[str, Watched], connection: Connection) -> None:
        self._persistence = settings.drift.persistence
        self._expected = {
            model.name: Expected(
                model,
                watched[model.name].reference if model.name in watched else None,
                1.0 / ((settings.sample if model.sample is None else model.sample) or 1.0),
            )
            for model in settings.models
        }
        self._newest = {row.model: row.newest for row in connection.execute(select(tables.arrivals))}
        self._unsaved: set[str] = set()
        self._volume = {model: self._broken(connection, model) for model in self._expected}
        # A breach that was open before the restart may be one no more.
        self._unsettled = set(self._expected)

    def seen(self, model: str, moment: float, now: float) -> None:
        """A row of the model with that event time was read."""
        newest = arrivals.newer(self._newest, model, moment, now)
        if newest != self._newest.get(model):
            self._newest[model] = newest
            self._unsaved.add(model)

    def save(self, connection: Connection) -> None:
        """In the transaction of the rows that were seen."""
        table = tables.arrivals
        for model in self._unsaved:
            connection.execute(delete(table).where(table.c.model == model))
            connection.execute(insert(table).values(model=model, newest=self._newest[model]))
        self._unsaved.clear()

    def closed(
        self, connection: Connection, model: str, start: float, end: float, states: Iterable[State]
    ) -> None:
        """A window of the model was closed, with these states of its versions and segments."""
        expected = self._expected.get(model)
        if expected is None:
            return
        seen = arrivals.traffic(states, expected.rate)
        failed = arrivals.judge_volume(model, start, end, seen, expected.model.rows, expected.reference)
        if failed is not None:
            _write(connection, failed)
        self._volume[model] = self._broken(connection, model)
        self._unsettled.add(model)

    def settle(self, store: Store, now: float) -> tuple[int, int]:
        """Open and close breaches as of `now`: (opened, closed)."""
        opened = closed = 0
        for name, expected in self._expected.items():
            silent = None
            if name in self._newest:
                silent = arrivals.judge_freshness(
                    name, now, self._newest[name], expected.model.rows, expected.reference
                )
            if silent is None and name not in self._unsettled:
                continue
            findings = [*self._volume[name], *([arrivals.as_finding(silent)] if silent is not None else [])]
            severity = severity_of(expected.model, ROWS)
            with store.write() as connection:
                if silent is not None:
                    _write(connection, silent)
                more, fewer = keep.sync_breaches(
                    connection, Stream(name, EVERY, ""), [(one, severity) for one in findings], now
                )
            opened, closed = opened + more, closed + fewer
            self._unsettled.discard(name)
            if silent is not None:
                self._unsettled.add(name)  # the tick after the silence closes it
        return opened, closed

    def _broken(self, connection: Connection, model: str) -> list[Finding]:
        k, n = self._persistence
        return arrivals.of_windows(_history(connection, model, n), k)


def _history(connection: Connection, model: str, last: int) -> list[tuple[float, Verdict | None]]:
    """(start, failed volume or None) of the model's last windows, oldest first; empty ones too."""
    closed, said = tables.windows, tables.verdicts
    starts = sorted(
        connection.execute(
            select(closed.c.start)
            .where(closed.c.model == model, closed.c.segment == "")
            .distinct()
            .order_by(closed.c.start.desc())
            .limit(last)
        ).scalars()
    )
    if not starts:
        return []
    failed = {
        row.start: keep.verdict_of(row)
        for row in connection.execute(
            select(said).where(
                said.c.model == model, said.c.model_version == EVERY, said.c.feature == ROWS,
                said.c.status == VOLUME, said.c.start >= starts[0],
            )
        )
    }  # fmt: skip
    return [(start, failed.get(start)) for start in starts]


def _write(connection: Connection, verdict: Verdict) -> None:
    """In the place of what was said of the same window or silence before."""
    table = tables.verdicts
    connection.execute(
        delete(table).where(
            table.c.model == verdict.model, table.c.model_version == verdict.model_version,
            table.c.segment == "", table.c.start == verdict.window_start,
            table.c.feature == verdict.feature, table.c.statistic == verdict.statistic,
        )
    )  # fmt: skip
    keep.save_verdicts(connection, [verdict])
