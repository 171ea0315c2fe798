"""Spool -> Kafka, in a process of its own: `mlobs log ship`. The serving process knows nothing of Kafka.

The spool holds while the broker is away. A batch of blocks is handed to an idempotent producer; only when the
broker has answered for every event of it is the position written, to `spool/ship.json`. Whoever dies in
between sends the batch again, and readers drop duplicates by event id. The same is done when the producer
gave itself up, as idempotent ones do when a broker comes back without its memory of them. An event that the
broker will never take goes to `spool/dead/letters.jsonl` with the reason; other troubles stop the shipping.

    offered = delivered + dropped{dead_letter} + queued
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn

import msgspec

from mlobs.errors import Problem, UnavailableError
from mlobs.featurelog.cloudevents import CONTENT_TYPE, TYPES, Event, events
from mlobs.featurelog.cursor import Position
from mlobs.featurelog.kafka import Address, client_settings, library
from mlobs.featurelog.segments import Counts, spool_blocks
from mlobs.featurelog.spool import SPOOL, list_segments, seal_stale
from mlobs.featurelog.storage import DiskStorage
from mlobs.records import Ledger

POSITION: Final = "ship.json"
LOCK: Final = "ship.lock"
DEAD: Final = "dead"
LETTERS: Final = "letters.jsonl"
DEAD_LETTER: Final = "dead_letter"
_HEADERS: Final = [("content-type", CONTENT_TYPE.encode())]
_OWN_FAULT: Final = (
    "MSG_SIZE_TOO_LARGE", "INVALID_MSG", "INVALID_MSG_SIZE", "INVALID_RECORD", "POLICY_VIOLATION",
    "INVALID_TIMESTAMP",
)  # fmt: skip
"""Errors of an event that it keeps, however often it is sent."""
_GIVING_UP: Final = 5
"""Producers in a row that gave themselves up before they delivered a batch."""
_OTHERS: Final[list[Any]] = []
"""Producers of the parent, after a fork: taking one down waits for threads that the child has not."""


class Shipped(msgspec.Struct):
    """`ship.json`: how far each writer is shipped, and the account since the beginning."""

    at: dict[str, tuple[int, int]] = {}
    """Segment number and offset by writer: what is before is done with."""
    delivered: int = 0
    dead: int = 0
    unreadable: int = 0


@dataclass(slots=True)
class _Batch:
    """Events in the producer's hands."""

    waiting: int = 0
    delivered: int = 0
    dead: list[tuple[bytes, str]] = field(default_factory=list)
    trouble: str = ""


class Shipper:
    """Ships the spool in `folder`. One per spool and process; `close` it, or use it in a `with`."""

    def __init__(
        self,
        folder: Path,
        address: Address,
        environ: Mapping[str, str],
        *,
        batch_rows: int = 20_000,
        remove: bool = True,
        overrides: Mapping[str, Any] | None = None,
    ) -> None:
        """`remove`: take sealed segments away once they are shipped; else compaction does. `overrides` go
        over the producer's settings. Raises UnavailableError where another process ships this spool."""
        self._kafka = library()
        self._folder, self._address = folder, address
        self._batch_rows, self._remove = batch_rows, remove
        self._settings = {
            **client_settings(address, environ),
            "enable.idempotence": True,
            "message.timeout.ms": 0,  # the spool holds: nothing is given up because a broker is away
            "linger.ms": 20,
            "batch.num.messages": 10_000,
            "queue.buffering.max.messages": 4 * batch_rows,
            "compression.type": "lz4",
            **(overrides or {}),
        }
        self._lock = lock(folder)
        self._disk = DiskStorage(folder / SPOOL)
        self._state = load_position(folder) or Shipped()
        self._queued = 0
        self._producer: Any = None
        self._process = os.getpid()
        self._fatal = ""
        """Why the producer in use has given itself up; it takes nothing any more."""
        self._given_up = 0

    def ship(self, stop: Callable[[], bool] = lambda: False) -> int:
        """Ship what is in the spool by now; how many events were settled. Returns early once `stop()`.

        Waits for a broker that is away. Raises UnavailableError for trouble that waiting does not mend, and
        in a forked child, whose parent ships; the position then stays where all before it is settled.
        """
        if os.getpid() != self._process:
            wanted, remedy = "the process that began to ship", "leave it to that one"
            raise UnavailableError(Problem(str(self._folder), wanted, "a child of it", remedy))
        settled = 0
        while not stop():
            before = self._state.delivered + self._state.dead
            more = self._one_batch(stop)
            settled += self._state.delivered + self._state.dead - before
            if not more:
                break
        return settled

    def ledger(self) -> Ledger:
        """The account since shipping began; balanced at every moment."""
        state = self._state
        offered = state.delivered + state.dead + self._queued
        dropped = {DEAD_LETTER: state.dead} if state.dead else {}
        return Ledger("kafka", offered, state.delivered, dropped, self._queued)

    def close(self) -> None:
        """Let go of the producer, with what it has not delivered, and of the spool."""
        self._forget_producer()
        os.close(self._lock)

    def __enter__(self) -> Shipper:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def _one_batch(self, stop: Callable[[], bool]) -> bool:
        """Send about `batch_rows` events and wait for every answer. False at the end of the spool."""
        seal_stale(self._folder)
        segments = list_segments(self._folder)
        positions = {writer: Position(*at) for writer, at in self._state.at.items()}
        counts, batch, rows, more = Counts(), _Batch(), 0, False

        def answered(error: Any, message: Any) -> None:
            batch.waiting -= 1
            if error is None:
                batch.delivered += 1
            elif self._own_fault(error):
                batch.dead.append((message.value(), f"{error.name()}: {error.str()}"))
            else:
                batch.trouble = f"{error.name()}: {error.str()}"

        for read in spool_blocks(segments, positions, counts):
            at = positions[read.segment.writer]
            at.number, at.offset = read.segment.number, read.end
            if read.kind not in TYPES or not read.block["n"]:
                continue
            try:
                sending = list(events(read.kind, read.block))
            except (ValueError, TypeError, KeyError, IndexError):
                counts.unreadable += 1
                continue
            rows += len(sending)
            self._queued = rows
            for event in sending:
                self._send(event, batch, answered)
            if rows >= self._batch_rows:
                more = True
                break
        if not self._await(batch, stop):
            return False
        if self._fatal and (batch.waiting or batch.trouble):
            self._give_up_producer()
            return True  # the same batch again
        self._given_up = 0
        self._settle(positions, batch, counts)
        if self._remove:
            self._take_away()
        return more

    def _send(self, event: Event, batch: _Batch, answered: Callable[[Any, Any], None]) -> None:
        if self._producer is None:
            self._producer = self._kafka.Producer(self._settings)

        while not self._fatal:
            try:
                self._producer.produce(
                    self._address.topic, event.value, event.key, headers=_HEADERS, on_delivery=answered
                )
            except BufferError:  # its queue is full
                self._poll(0.1)
                continue
            except self._kafka.KafkaException as problem:
                error = problem.args[0]
                if error.fatal():
                    self._fatal = f"{error.name()}: {error.str()}"
                    break
                if self._own_fault(error):
                    batch.dead.append((event.value, f"{error.name()}: {error.str()}"))
                else:
                    batch.trouble = f"{error.name()}: {error.str()}"
                return
            batch.waiting += 1
            return
        batch.trouble = self._fatal

    def _own_fault(self, error: Any) -> bool:
        return any(error.code() == getattr(self._kafka.KafkaError, name, None) for name in _OWN_FAULT)

    def _poll(self, seconds: float) -> None:
        """Take answers. A producer that gave itself up says so here, by raising."""
        try:
            self._producer.poll(seconds)
        except self._kafka.KafkaException as problem:
            error = problem.args[0]
            if not error.fatal():
                raise
            self._fatal = f"{error.name()}: {error.str()}"

    def _give_up_producer(self) -> None:
        """Go on with a new one, unless that has not helped for a while. Raises UnavailableError."""
        why = self._fatal
        self._forget_producer()
        self._given_up += 1
        if self._given_up >= _GIVING_UP:
            self._given_up = 0
            self._complain(why)

    def _await(self, batch: _Batch, stop: Callable[[], bool]) -> bool:
        """Until every event has its answer, or the producer gave itself up; False when stopped before. Raises
        UnavailableError.
        """
        while batch.waiting and not self._fatal:
            if stop():
                self._forget_producer()
                return False
            self._poll(0.1)
        if batch.trouble and not self._fatal:
            self._forget_producer()
            self._complain(batch.trouble)
        return True

    def _complain(self, trouble: str) -> NoReturn:
        raise UnavailableError(
            Problem(
                f"topic {self._address.topic} at {self._address.brokers}",
                "a broker that takes events",
                trouble[:200],
                "mend it; the spool holds what was not delivered",
            )
        )

    def _forget_producer(self) -> None:
        """Drop it with what it holds: the next batch begins at the stored position, with a new one."""
        if self._producer is not None and os.getpid() != self._process:
            _OTHERS.append(self._producer)
        elif self._producer is not None:
            self._producer.purge()
            self._poll(0)
        self._producer, self._fatal = None, ""

    def _settle(self, positions: dict[str, Position], batch: _Batch, counts: Counts) -> None:
        """Dead letters first, then the position: dying in between writes a letter twice and loses none."""
        if batch.dead:
            _append_letters(self._folder / SPOOL / DEAD, batch.dead)
        state = self._state
        at = {writer: (each.number, each.offset) for writer, each in positions.items()}
        fresh = Shipped(
            at,
            state.delivered + batch.delivered,
            state.dead + len(batch.dead),
            state.unreadable + counts.unreadable,
        )
        if fresh != state:
            self._disk.write(POSITION, msgspec.json.encode(fresh))
        self._state, self._queued = fresh, 0
        if self._fatal:
            self._forget_producer()

    def _take_away(self) -> None:
        for segment in list_segments(self._folder):
            if segment.sealed and segment.number < self._state.at.get(segment.writer, (0, 0))[0]:
                segment.path.unlink(missing_ok=True)


def load_position(folder: Path) -> Shipped | None:
    """How far the spool is shipped; None where nobody ships it. Raises UnavailableError for a broken file."""
    path = folder / SPOOL / POSITION
    try:
        return msgspec.json.decode(path.read_bytes(), type=Shipped)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError:
        raise UnavailableError(
            Problem(str(path), "a position", "something else", "remove it: everything is shipped again")
        ) from None


def lock(folder: Path) -> int:
    """The handle that makes this process the one that ships; closing it lets go. Raises UnavailableError."""
    (folder / SPOOL).mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / SPOOL / LOCK, os.O_RDWR | os.O_CREAT, 0o640)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise UnavailableError(
            Problem(str(folder), "one `mlobs log ship`", "another that runs", "leave it to that one")
        ) from None
    return handle


def _append_letters(folder: Path, dead: list[tuple[bytes, str]]) -> None:
    folder.mkdir(exist_ok=True)
    lines = [
        msgspec.json.encode({"at": time.time(), "reason": reason, "event": msgspec.Raw(value)}) + b"\n"
        for value, reason in dead
    ]
    handle = os.open(folder / LETTERS, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
    try:
        with os.fdopen(os.dup(handle), "wb") as file:
            file.write(b"".join(lines))
        os.fsync(handle)
    finally:
        os.close(handle)
