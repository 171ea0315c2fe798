"""The writing half, in the serving process: `offer` hands over, a thread masks, encodes and commits.

    offered = delivered + dropped{reason} + queued

`offer` costs less than 2 us, takes no lock, waits for nothing and raises nothing. It numbers what it is
offered, so that what is lost shows as a gap. The thread wakes every `commit_interval` seconds (sooner when
the buffer fills), works in slices of 128 records and lets go of the interpreter between them, so that a
request waits half a millisecond for it and not five. What cannot be written stays in the buffer and is
tried again; a full buffer drops the newest and says why.
"""

from __future__ import annotations

import atexit
import logging
import math
import os
import re
import socket
import sys
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final

from mlobs.featurelog.blocks import pack_end
from mlobs.featurelog.encoding import UNENCODABLE, Numbered, encode
from mlobs.featurelog.frames import END, pack
from mlobs.featurelog.keys import BLAKE2B, KEY_FILE_NAME, Keyring, kept_keys
from mlobs.featurelog.masking import Masker
from mlobs.featurelog.maskschema import MaskSchema
from mlobs.featurelog.spool import ReserveReachedError, SpoolWriter, seal_stale
from mlobs.featurelog.tally import Tally
from mlobs.records import FeatureRecord, LabelRecord, Ledger

PIPELINE: Final = "featurelog"

BUFFER_FULL: Final = "buffer_full"
DISK_FULL: Final = "disk_full"
DISK_ERROR: Final = "disk_error"
CLOSED: Final = "closed"
INTERNAL: Final = "internal_error"

_SLICE = 128
_ROUGH_RECORD = 512
_log = logging.getLogger("mlobs.featurelog")


class FeatureLog:
    """See the module; made by `open_log`. Usable from every thread and, after a fork, in every process."""

    def __init__(
        self,
        folder: Path,
        *,
        service: str,
        schema: MaskSchema | None,
        keys: Keyring | None,
        durability: str,
        clock: Callable[[], float],
        commit_interval: float,
        max_records: int,
        max_bytes: int,
        spool_options: Mapping[str, Any],
    ) -> None:
        self.folder = folder
        self.service = service
        self.durability = durability
        self._schema = schema
        self._configured_keys = keys
        self._algorithm = schema.algorithm if schema else BLAKE2B
        self._clock = clock
        self._interval = commit_interval
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._spool_options = spool_options
        self._closed = False
        self._finished: bool
        self._ended_well: bool
        self._starting = threading.Lock()
        self._begin()
        self._warn_of_random_key()
        _open_logs.add(self)
        self._start()

    # -- the request's side -----------------------------------------------------------------------

    def offer(self, record: FeatureRecord) -> None:
        """Hand a record over. Never blocks, never raises; what cannot be taken is counted in the ledger."""
        try:
            number = self._number()
            if len(self._buffer) < self._limit:
                self._buffer.append((number, record))
                if not number & 15:
                    self._glance(record)
            else:
                self._refuse(number, record)
        except Exception:  # noqa: BLE001 - nothing here may reach the host; the record is lost and shows in the ledger
            self._failed_offers.add()

    def offer_label(self, label: LabelRecord) -> None:
        """Hand a label over; the same promises as `offer`, the same spool."""
        self.offer(label)  # type: ignore[arg-type]  # the buffer takes both, the writer tells them apart

    def flush(self, timeout: float = 2.0) -> bool:
        """True when everything handed over before the call is as durable as asked; waits at most `timeout`
        seconds.

        False after the time is over, and once after records were dropped: those are not durable.
        """
        try:
            return self._flush(timeout)
        except Exception:  # noqa: BLE001 - a flush must not end the host
            _log.exception("the feature log could not be flushed")
            return False

    def close(self, timeout: float = 2.0) -> bool:
        """Write what is queued, seal, let go. True when all of it is durable. Later offers are dropped as
        `closed`.
        """
        if self._finished:
            return self._ended_well
        self._closed, self._limit = True, 0
        _open_logs.discard(self)
        try:
            if self._forked:
                return True
            self._ended_well = self._flush(timeout, closing=True)
            if not self._threadless:
                self._thread.join(0.1 if self._ended_well else 0)
            return self._ended_well
        except Exception:  # noqa: BLE001 - as in flush
            _log.exception("the feature log could not be closed")
            return False

    def ledger(self) -> Ledger:
        """The account of this process's log; exact at every moment."""
        for _attempt in range(100):
            found = self._count()
            if found.balanced:
                return found
        # Threads that are between taking a number and handing over: their records are on the way.
        return _with_queued(found, found.offered - found.delivered - sum(found.dropped.values()))

    def odd(self) -> Mapping[str, int]:
        """How often a value had to be decided about while masking: `nested`, `huge_int`, `masked_out`, ..."""
        return dict(self._masker.odd) if self._masker is not None else {}

    # -- inside -----------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Everything that belongs to one process: at the start, and again in a forked child."""
        self._forked = False
        self._threadless = False
        self._buffer: deque[Numbered] = deque()
        self._limit = self._max_records
        self._wake_at = self._max_records // 2
        self._open_account()
        self._full_reason = BUFFER_FULL
        self._size = float(_ROUGH_RECORD)
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._finished = False
        self._ended_well = False
        self._complained = -60.0
        self._masker: Masker | None = None
        self.writer = writer_id(self._clock)
        self._spool = SpoolWriter(
            self.folder,
            self.writer,
            sync=self.durability == "disk",
            monotonic=time.monotonic,
            **self._spool_options,
        )

    def _open_account(self) -> None:
        """A ledger at zero: each process tells of itself, or eight workers count their parent eight times."""
        numbers = Tally()
        self._numbers, self._number = numbers, numbers.add
        self._refused = {reason: Tally() for reason in (BUFFER_FULL, DISK_FULL, DISK_ERROR, CLOSED)}
        self._failed_offers = Tally()
        self._books = threading.Condition()
        self._delivered = 0
        self._lost: Counter[str] = Counter()
        self._taken: list[Numbered] = []
        self._staged = b""
        self._staged_count = 0
        self._retried = 0
        self._last_success: float | None = None
        self._event_time_in: float | None = None
        self._dropped_at_last_flush = 0

    def _start(self) -> None:
        self._thread = threading.Thread(
            target=_run, args=(weakref.ref(self),), name="mlobs-featurelog", daemon=True
        )
        try:
            self._thread.start()
            self._threadless = False
        except RuntimeError:  # none to be had: records wait in the buffer, and every 16th offer tries again
            if not self._threadless:
                _log.warning("no thread to be had for the feature log; records wait in its buffer")
            self._threadless = True

    def _glance(self, record: Any) -> None:
        """Every 16th offer: is it time to wake the writer, and how large are records by now?"""
        if self._threadless and self._starting.acquire(blocking=False):
            try:
                self._start()
            finally:
                self._starting.release()
        if len(self._buffer) >= self._wake_at:
            self._wake.put(None)
        size = float(_ROUGH_RECORD)
        try:
            if type(record) is FeatureRecord:
                size += sum(map(sys.getsizeof, record.features.values()))
        except Exception:  # noqa: BLE001 - a host's mapping; the record is taken, its size is a guess
            size = self._size
        self._size += (size - self._size) * 0.125 if size < 4 * self._size else (size - self._size) * 0.5
        if self._limit:
            self._limit = max(1, min(self._max_records, int(self._max_bytes / self._size)))
            self._wake_at = self._limit // 2

    def _refuse(self, number: int, record: FeatureRecord | LabelRecord) -> None:
        if self._closed:
            self._refused[CLOSED].add()
        elif self._forked:
            self._reopen(record)
        else:
            self._refused[self._full_reason].add()
            if not number & 255:
                self._wake.put(None)

    def _reopen(self, record: FeatureRecord | LabelRecord) -> None:
        """The first offer after a fork: an own buffer, an own thread, an own segment."""
        if not self._starting.acquire(blocking=False):
            self._failed_offers.add()  # another thread of the child is at it; a lock would block the request
            return
        try:
            if self._forked:
                self._begin()
                self._start()
        finally:
            self._starting.release()
        self.offer(record)  # type: ignore[arg-type]

    def _after_fork(self) -> None:
        """In the child: let go of what is the parent's. Nothing is opened before somebody offers."""
        self._spool.abandon()
        self._buffer = deque()
        self._limit = 0
        self._forked = not self._closed
        self._open_account()
        self._starting = threading.Lock()

    def _count(self) -> Ledger:
        with self._books:
            refused = {reason: tally.value for reason, tally in self._refused.items()}
            refused[INTERNAL] = self._failed_offers.value
            delivered, lost, taken = self._delivered, dict(self._lost), len(self._taken) + self._staged_count
            queued = len(self._buffer) + taken
            offered = self._numbers.value
            oldest = self._oldest()
        dropped = {key: refused.get(key, 0) + lost.get(key, 0) for key in {*refused, *lost}}
        return Ledger(
            PIPELINE,
            offered,
            delivered,
            {key: value for key, value in sorted(dropped.items()) if value},
            queued,
            retried=self._retried,
            oldest_age_s=0.0 if oldest is None else max(0.0, self._clock() - oldest),
            last_success=self._last_success,
            event_time_in=self._event_time_in,
            event_time_out=self._event_time_in if not queued else None,
        )

    def _oldest(self) -> float | None:
        try:
            return _time_of(self._taken[0] if self._taken else self._buffer[0])
        except IndexError:  # an empty buffer
            return None

    def _flush(self, timeout: float, closing: bool = False) -> bool:
        if self._forked:
            return True  # nothing was offered in this process yet
        deadline = time.monotonic() + timeout
        with self._books:
            # The buffer is first in, first out: once so many are settled, all that were queued now are.
            goal = self._settled() + len(self._buffer) + len(self._taken) + self._staged_count
        self._wake.put(None)
        with self._books:
            while self._settled() < goal or (closing and not self._finished):
                rest = deadline - time.monotonic()
                if rest <= 0 or not self._thread.is_alive():
                    return False
                self._books.wait(min(rest, 0.05))
        dropped = sum(self._count_dropped().values())
        lost, self._dropped_at_last_flush = dropped - self._dropped_at_last_flush, dropped
        return lost == 0

    def _settled(self) -> int:
        """Records that the writer is done with, whatever became of them; those refused at the door are not
        in it.
        """
        return self._delivered + sum(self._lost.values())

    def _count_dropped(self) -> dict[str, int]:
        found = {reason: tally.value for reason, tally in self._refused.items()}
        for reason, lost in self._lost.items():
            found[reason] = found.get(reason, 0) + lost
        found[INTERNAL] = found.get(INTERNAL, 0) + self._failed_offers.value
        return found

    # -- the writer thread -------------------------------------------------------------------------

    def _turn(self) -> bool:
        """One wake-up: write what is there. False when the log has ended."""
        closing = self._closed
        try:
            self._drain()
            if self._spool.due() and not self._closed:
                self._spool.seal()
            if closing and not self._buffer and not self._taken and not self._staged:
                self._end()
                return False
        except OSError as problem:
            self._fault(problem)
        except Exception:  # noqa: BLE001 - a bug of ours: what is in hand is given up and counted, the thread lives on
            if self._may_complain():
                _log.exception("the feature log's writer failed; %d records are dropped", len(self._taken))
            with self._books:
                self._lost[INTERNAL] += len(self._taken) + self._staged_count
                self._taken, self._staged, self._staged_count = [], b"", 0
        with self._books:
            self._books.notify_all()
        return True

    def _drain(self) -> None:
        masker = self._masker or self._prepare()
        while True:
            self._write_staged()
            frames: list[bytes] = []
            size = 0
            while size < 1 << 20:
                data = self._encode_slice(masker)
                if not data:
                    break
                frames.append(data)
                size += len(data)
                time.sleep(0)  # lets a waiting request thread have the interpreter
            if not frames:
                return
            with self._books:
                self._staged = b"".join(frames)

    def _encode_slice(self, masker: Masker) -> bytes:
        with self._books:
            self._taken = [self._buffer.popleft() for _ in range(min(_SLICE, len(self._buffer)))]
        if not self._taken:
            return b""
        encoded = encode(self._taken, self.writer, self._numbers.value, masker)
        newest = _time_of(self._taken[-1])
        with self._books:
            self._taken = []
            self._staged_count += encoded.rows
            if encoded.lost:
                self._lost[UNENCODABLE] += encoded.lost
            self._event_time_in = self._event_time_in if newest is None else newest
        return encoded.data or self._encode_slice(masker)

    def _write_staged(self) -> None:
        if not self._staged:
            return
        self._spool.append(self._staged)
        with self._books:
            self._delivered += self._staged_count
            self._staged, self._staged_count = b"", 0
            self._last_success = self._clock()
            self._full_reason = BUFFER_FULL
            self._books.notify_all()

    def _prepare(self) -> Masker:
        """The key and the spool, at the first record; on the writer's thread, since the disk may hang."""
        keys = self._configured_keys or kept_keys(self.folder, self._algorithm)
        seal_stale(self.folder)
        self._masker = Masker(self._schema, keys)
        return self._masker

    def _end(self) -> None:
        found = self._count()
        if found.delivered:
            ledger = {"offered": found.offered, "delivered": found.delivered, "dropped": dict(found.dropped)}
            self._spool.append(pack(END, 0, pack_end(self.writer, self._numbers.value, ledger)))
        self._spool.seal()
        with self._books:
            self._finished = True
            self._books.notify_all()

    def _fault(self, problem: OSError) -> None:
        full = isinstance(problem, ReserveReachedError) or problem.errno in _NO_SPACE
        self._full_reason = DISK_FULL if full else DISK_ERROR
        self._retried += 1
        if self._may_complain():
            _log.warning(
                "the feature log at %s cannot be written (%s); records wait in the buffer and are dropped "
                "when it is full, the service goes on",
                self.folder,
                problem.strerror or type(problem).__name__,
            )

    def _may_complain(self) -> bool:
        """Once a minute: what lasts must not fill the host's log."""
        now = time.monotonic()
        if now - self._complained < 60:
            return False
        self._complained = now
        return True

    def _warn_of_random_key(self) -> None:
        if self._configured_keys is None and not (self.folder / KEY_FILE_NAME).exists():
            _log.warning(
                "no mask.key_file and no MLOBS_HASH_KEY: hashing with a random key kept in %s",
                self.folder / KEY_FILE_NAME,
            )


_NO_SPACE = frozenset({28, 122})  # ENOSPC, EDQUOT
_opened = count()
_open_logs: weakref.WeakSet[FeatureLog] = weakref.WeakSet()


def _run(reference: weakref.ref[FeatureLog]) -> None:
    """The writer's thread. It holds no reference while it waits, so a forgotten log can be collected."""
    log = reference()
    while log is not None:
        wake, interval = log._wake, log._interval
        if log._closed:
            interval = min(interval, 0.05)
        log = None
        try:
            wake.get(timeout=interval)
        except Empty:
            pass  # the interval is over: that is the usual way to wake
        log = reference()
        if log is None or log._wake is not wake or not log._turn():
            return


def writer_id(clock: Callable[[], float]) -> str:
    """`<host>-<boot>-<process start>`: no two writers share one, on one machine or on many."""
    host = re.sub(r"[^A-Za-z0-9.]", "_", socket.gethostname())[:40] or "host"
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")[:8]
    except OSError:
        boot = "0"  # not Linux: the start time alone tells two writers apart
    return f"{host}-{boot}-{int(clock() * 1e6):x}.{os.getpid():x}.{next(_opened):x}"


def _time_of(numbered: Numbered) -> float | None:
    """A record's event time; None for one that is no finite number, which no page of metrics could show."""
    try:
        found = float(numbered[1].event_time)
    except (OverflowError, TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def _with_queued(ledger: Ledger, queued: int) -> Ledger:
    return replace(ledger, queued=queued)


def _forked_child() -> None:
    for log in list(_open_logs):
        log._after_fork()


def _close_all() -> None:
    for log in list(_open_logs):
        log.close(2.0)


os.register_at_fork(after_in_child=_forked_child)
atexit.register(_close_all)
