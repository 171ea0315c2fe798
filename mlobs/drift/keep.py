"""What the drift stage keeps in the state store: reading and writing its tables inside a given
transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice

from sqlalchemy import Connection, and_, delete, func, insert, select, update

from mlobs.drift import tables
from mlobs.drift.codec import dump_state, load_state
from mlobs.drift.export import Gains
from mlobs.drift.persistence import Finding
from mlobs.drift.state import State
from mlobs.drift.verdicts import DRIFTED, EVERY, Stream, WindowVerdict
from mlobs.records import Verdict

KEPT_WINDOWS = 50_000
"""Windows of a model that stay in the store: five weeks of minutes."""


@dataclass(frozen=True, slots=True)
class OpenKey:
    """An open window of one stream."""

    stream: Stream
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Account:
    """The rows so far, over all starts of the stage: offered = delivered + late + unusable + those in open
    windows.
    """

    cursor: bytes | None = None
    offered: int = 0
    delivered: int = 0
    late: int = 0
    unusable: int = 0
    event_time: float | None = None


def load_account(connection: Connection, source: str) -> Account:
    row = connection.execute(select(tables.cursors).where(tables.cursors.c.source == source)).first()
    if row is None:
        return Account()
    return Account(row.cursor or None, row.offered, row.delivered, row.late, row.unusable, row.event_time)


def save_account(connection: Connection, source: str, account: Account) -> None:
    values = asdict(account) | {"cursor": account.cursor or b""}
    done = connection.execute(
        update(tables.cursors).where(tables.cursors.c.source == source).values(**values)
    )
    if not done.rowcount:
        connection.execute(insert(tables.cursors).values(source=source, **values))


def load_open(connection: Connection) -> dict[OpenKey, State]:
    found = {}
    for row in connection.execute(select(tables.open_windows)):
        key = OpenKey(Stream(row.model, row.model_version, row.segment), row.start, row.end)
        found[key] = load_state(row.state, f"store: open window of {row.model}")
    return found


def save_open(connection: Connection, states: Mapping[OpenKey, State]) -> None:
    for key, state in states.items():
        delete_open(connection, [key])
        connection.execute(
            insert(tables.open_windows).values(
                model=key.stream.model,
                model_version=key.stream.version,
                segment=key.stream.segment,
                start=key.start,
                end=key.end,
                rows=state.rows,
                state=dump_state(state),
            )
        )


def delete_open(connection: Connection, keys: Iterable[OpenKey]) -> None:
    table = tables.open_windows
    for key in keys:
        connection.execute(
            delete(table).where(
                table.c.model == key.stream.model,
                table.c.model_version == key.stream.version,
                table.c.segment == key.stream.segment,
                table.c.start == key.start,
            )
        )


def closed_until(connection: Connection) -> dict[str, float]:
    """For each model the end of its last closed window."""
    table = tables.windows
    rows = connection.execute(select(table.c.model, func.max(table.c.end)).group_by(table.c.model))
    return {row[0]: row[1] for row in rows}


def load_totals(connection: Connection) -> Gains:
    """What the counters had counted when the last window was committed."""
    return {
        (row.metric, row.model, row.part, row.result): row.value
        for row in connection.execute(select(tables.totals))
    }


def add_totals(connection: Connection, gains: Gains) -> None:
    """Add to the kept counters, in the transaction of the windows that they count."""
    table = tables.totals
    for (metric, model, part, result), value in gains.items():
        key = {"metric": metric, "model": model, "part": part, "result": result}
        mine = and_(*(table.c[name] == text for name, text in key.items()))
        done = connection.execute(update(table).where(mine).values(value=table.c.value + value))
        if not done.rowcount:
            connection.execute(insert(table).values(**key, value=value))


def retired(connection: Connection, model: str, windows: int) -> list[Stream]:
    """Streams with an open breach of which none of the model's last `windows` judged windows is one.

    A version that was rolled back, or a segment that has dried up, is judged no more: nothing would ever
    close its breach.
    """
    table = tables.windows
    judged = (table.c.model == model, table.c.verdict.in_(("ok", DRIFTED)))
    starts = connection.execute(
        select(table.c.start).where(*judged, table.c.segment == "").distinct().order_by(table.c.start.desc())
    ).scalars()
    recent = list(islice(starts, windows))
    if len(recent) < windows:
        return []
    alive = {
        (row.model_version, row.segment)
        for row in connection.execute(
            select(table.c.model_version, table.c.segment)
            .where(*judged, table.c.start >= recent[-1])
            .distinct()
        )
    }
    broken = tables.breaches
    rows = connection.execute(
        select(broken.c.model_version, broken.c.segment)
        .where(broken.c.model == model, broken.c.closed_at.is_(None))
        .distinct()
    ).all()
    return [
        Stream(model, row.model_version, row.segment)
        for row in rows
        if row.model_version != EVERY and (row.model_version, row.segment) not in alive
    ]


def save_window(connection: Connection, window: WindowVerdict) -> None:
    stream = window.stream
    connection.execute(
        insert(tables.windows).values(
            model=stream.model,
            model_version=stream.version,
            segment=stream.segment,
            start=window.start,
            end=window.end,
            rows=window.rows,
            verdict=window.verdict,
            status=window.status,
            reference=window.reference,
            detail=window.detail,
        )
    )
    save_verdicts(connection, window.verdicts)


def save_verdicts(connection: Connection, verdicts: Sequence[Verdict]) -> None:
    if verdicts:
        connection.execute(insert(tables.verdicts), [_verdict_row(found) for found in verdicts])


def history(connection: Connection, stream: Stream, last: int) -> list[WindowVerdict]:
    """The last judged windows of a stream, oldest first, with the checks that failed in them."""
    table = tables.windows
    rows = connection.execute(
        select(table)
        .where(
            table.c.model == stream.model,
            table.c.model_version == stream.version,
            table.c.segment == stream.segment,
            table.c.verdict.in_(("ok", DRIFTED)),
        )
        .order_by(table.c.start.desc())
        .limit(last)
    ).all()
    if not rows:
        return []
    failed: dict[float, list[Verdict]] = {}
    own = tables.verdicts
    for row in connection.execute(
        select(own).where(
            own.c.model == stream.model,
            own.c.model_version == stream.version,
            own.c.segment == stream.segment,
            own.c.start >= rows[-1].start,
            own.c.verdict == DRIFTED,
        )
    ):
        failed.setdefault(row.start, []).append(verdict_of(row))
    return [
        WindowVerdict(
            stream, row.start, row.end, row.rows, row.verdict, row.status, row.reference, row.detail,
            tuple(failed.get(row.start, ())),
        )
        for row in reversed(rows)
    ]  # fmt: skip


def verdict_of(row: object) -> Verdict:
    """A row of the verdicts table as the record."""
    get = row._mapping  # type: ignore[attr-defined]
    return Verdict(
        get["model"], get["model_version"], get["feature"], get["start"], get["end"], get["verdict"],
        get["status"], get["statistic"], get["value"], get["threshold"], get["rows"], get["reference"],
        get["segment"], get["p_value"], get["detail"],
    )  # fmt: skip


def sync_breaches(
    connection: Connection, stream: Stream, findings: Iterable[tuple[Finding, str]], now: float
) -> tuple[int, int]:
    """Open, update and close the breaches of one stream so that exactly `findings` (with severities) are
    open.

    Returns how many were opened and closed. The run of windows that broke it names a breach (`since`).
    """
    table = tables.breaches
    mine = (
        table.c.model == stream.model,
        table.c.model_version == stream.version,
        table.c.segment == stream.segment,
        table.c.closed_at.is_(None),
    )
    open_now = {(row.feature, row.status): row for row in connection.execute(select(table).where(*mine))}
    opened = closed = 0
    wanted = {(finding.feature, finding.check): (finding, severity) for finding, severity in findings}
    for key in open_now.keys() - wanted.keys():
        connection.execute(
            update(table)
            .where(*mine, table.c.feature == key[0], table.c.status == key[1])
            .values(closed_at=now)
        )
        closed += 1
    for key, (finding, severity) in wanted.items():
        detail = f"{finding.feature}: {finding.last.detail}"
        if key in open_now:
            connection.execute(
                update(table)
                .where(*mine, table.c.feature == key[0], table.c.status == key[1])
                .values(windows=finding.windows, detail=detail, severity=severity)
            )
            continue
        identity = {
            "model": stream.model, "feature": finding.feature, "segment": stream.segment,
            "status": finding.check, "since": finding.since,
        }  # fmt: skip
        connection.execute(delete(table).where(*(table.c[name] == value for name, value in identity.items())))
        connection.execute(
            insert(table).values(
                **identity, model_version=stream.version, severity=severity, opened_at=now,
                windows=finding.windows, detail=detail,
            )
        )  # fmt: skip
        opened += 1
    return opened, closed


def save_notes(
    connection: Connection, model: str, reference: str, notes: Mapping[tuple[str, str], str]
) -> None:
    """What is off, and why, by (feature, check)."""
    connection.execute(delete(tables.notes).where(tables.notes.c.model == model))
    if notes:
        connection.execute(
            insert(tables.notes),
            [
                {"model": model, "feature": feature, "check": check, "reference": reference, "text": text}
                for (feature, check), text in sorted(notes.items())
            ],
        )


def prune(connection: Connection, model: str, kept: int = KEPT_WINDOWS) -> None:
    """Forget the windows of a model beyond the last `kept` unsegmented ones, and their verdicts."""
    table = tables.windows
    edge = connection.execute(
        select(table.c.start)
        .where(table.c.model == model, table.c.segment == "")
        .order_by(table.c.start.desc())
        .offset(kept)
        .limit(1)
    ).scalar()
    if edge is not None:
        for old in (tables.windows, tables.verdicts):
            connection.execute(delete(old).where(old.c.model == model, old.c.start <= edge))


def _verdict_row(found: Verdict) -> dict[str, object]:
    return {
        "model": found.model, "model_version": found.model_version, "segment": found.segment,
        "start": found.window_start, "end": found.window_end, "feature": found.feature,
        "statistic": found.statistic, "verdict": found.verdict, "status": found.status, "value": found.value,
        "threshold": found.threshold, "p_value": found.p_value, "rows": found.rows,
        "reference": found.reference, "detail": found.detail,
    }  # fmt: skip
