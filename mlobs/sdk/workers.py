"""Several workers, one `/metrics`: each counts into a file of its own, whoever is scraped adds them up.

The files of those that died (their lock is free) are folded into one accumulator, so that counters never go
back and a scrape does not grow. Nobody waits for anybody: the accumulator is replaced as a whole and names
the files that it holds, so a reader that meets the old or the new one, or files that were not yet taken
away, counts each process once; a folder that is killed half way leaves nothing wrong.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, cast
from weakref import WeakKeyDictionary

from mlobs.sdk import merging, rundir
from mlobs.sdk.buckets import Bounds
from mlobs.sdk.cellfile import MAGIC, SUFFIX, CellFile, encode, is_free, records, records_and_life
from mlobs.sdk.meter import Cells, Key

ACCUMULATOR = "folded"
_LOCK = "lock"
_PRICE = "price"
_SETS = "sets-"
_TRIES = 20

_serial = itertools.count()
Trouble = Callable[[str, Exception], None]


class Crew:
    """This process among the workers of its service. `trouble` counts what fails; nothing raises but the
    constructor (OSError)."""

    def __init__(self, folder: Path, service: str, trouble: Trouble) -> None:
        self.folder = folder
        self.service = service
        self._trouble = trouble
        self.user = os.geteuid()
        self.published: WeakKeyDictionary[object, dict[Key, float]] = WeakKeyDictionary()
        """What each runtime of this process has published of its own accounts."""
        self.publishing = threading.Lock()
        name = f"{rundir.member_name(rundir.process(os.getpid()))}-{next(_serial)}"
        self.file = _file(folder, name)

    def cells(self, key: Key, bounds: Bounds | None, size: int, spare: int = 0) -> Cells | None:
        """The `Store` of a meter: cells in this process's file; None when the disk is full."""
        try:
            found: Cells = cast(Any, self.file.add(merging.text_of(key, bounds), size, spare))
            return found  # a memoryview of float64: not registered as a MutableSequence, and all that is used
        except (OSError, ValueError) as problem:
            self._trouble("workers_cells", problem)
            return None

    def tell(self, trouble: Trouble) -> None:
        """Count from here on what fails with `trouble`."""
        self._trouble = trouble

    # -- reading ----------------------------------------------------------------------------------

    def totals(self, own: Iterable[merging.Block]) -> tuple[merging.Totals, set[Key]]:
        """Everybody's blocks, this process's as `own` gives them; and the keys that the living have.

        Raises OSError when the folder cannot be read.
        """
        self.fold()
        mine = [(key, list(cells), bounds) for key, cells, bounds in own]
        for _ in range(_TRIES):
            before = self._stamp()
            found = self._read()
            if self._stamp() == before:
                break
        totals, living = found
        for block in mine:
            merging.add(totals, block, alive=True)
            living.add(block[0])
            if block[2] is not None:  # this process's settings say which edges there are
                totals[block[0]] = merging.by_edges(block[0].family, totals[block[0]], block[2])
        return merging.capped(totals, self._admitted), living

    def _stamp(self) -> tuple[int, ...]:
        try:
            found = os.stat(self.folder / ACCUMULATOR)
        except FileNotFoundError:
            return ()
        return found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size

    def _read(self) -> tuple[merging.Totals, set[Key]]:
        totals, folded = self._folded()
        living: set[Key] = set()
        for path in self._files():
            if path.name in folded or path == self.file.path:
                continue
            try:
                found, alive = records_and_life(path)
            except FileNotFoundError:  # folded meanwhile: the accumulator is another one, and we read again
                continue
            self._add(totals, found, alive, living)
        return totals, living

    def _add(
        self,
        totals: merging.Totals,
        found: Iterable[tuple[bytes, list[float]]],
        alive: bool,
        living: set[Key] | None = None,
    ) -> None:
        for text, cells in found:
            try:
                merging.add_record(totals, text, cells, alive=alive)
                if alive and living is not None:
                    living.add(merging.key_of(text))
            except (ValueError, KeyError, TypeError, IndexError) as problem:
                self._trouble("workers_record", problem)

    def _files(self) -> list[Path]:
        """Of all members, the oldest first."""
        return sorted(path for path in self.folder.iterdir() if path.name.endswith(SUFFIX))

    def _folded(self) -> tuple[merging.Totals, set[str]]:
        """What the accumulator holds, and of which files."""
        totals: merging.Totals = {}
        try:
            found: Iterator[tuple[bytes, list[float]]] = records(self.folder / ACCUMULATOR)
            first = next(found, None)
        except FileNotFoundError:
            return totals, set()
        if first is None:
            return totals, set()
        self._add(totals, found, True)
        return totals, set(json.loads(first[0])["files"])

    # -- folding ----------------------------------------------------------------------------------

    def fold(self) -> int:
        """Add the files of the dead to the accumulator and take them away; how many they were.

        One process at a time; whoever comes second does without.
        """
        try:
            with open(self.folder / _LOCK, "ab") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return 0
                return self._fold()
        except OSError as problem:
            self._trouble("workers_fold", problem)
            return 0

    def _fold(self) -> int:
        totals, known = self._folded()
        files = self._files()
        self._sweep(known, files)
        dead: list[str] = []
        for path in files:
            if path.name in known or path == self.file.path or rundir.is_held(path):
                continue
            with contextlib.suppress(FileNotFoundError):  # it just left
                self._add(totals, records(path), False)
                dead.append(path.name)
        if dead:
            self._write(merging.capped(totals, self._admitted), dead)
            for name in dead:
                os.unlink(self.folder / name)
        return len(dead)

    def _sweep(self, known: set[str], files: list[Path]) -> None:
        """Take away what a folder that was killed half way left."""
        for path in files:
            if path.name in known:
                path.unlink(missing_ok=True)
        (self.folder / f"{ACCUMULATOR}-new").unlink(missing_ok=True)
        for path in self.folder.glob("new-*"):  # if its maker lives after all, it makes another
            with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
                if is_free(file.fileno()):
                    path.unlink()

    def _write(self, totals: merging.Totals, files: list[str]) -> None:
        beside = self.folder / f"{ACCUMULATOR}-new"
        with open(beside, "wb") as file:
            file.write(MAGIC)
            file.write(encode(json.dumps({"files": files}).encode(), []))
            file.writelines(
                encode(merging.text_of(key, total.bounds, total.exact), total.rounded())
                for key, total in totals.items()
            )
        os.rename(beside, self.folder / ACCUMULATOR)

    # -- what all agree on ------------------------------------------------------------------------

    def price(self, own: Callable[[], float]) -> float:
        """Seconds that a call costs, as the first worker that was asked measured it: were it another in each,
        the cost of the same calls would go back and forth.
        """
        return float(json.loads(self._agreed(_PRICE, lambda: json.dumps(own()))))

    def _admitted(self, family: str, first: merging.Sets) -> merging.Sets:
        """The label sets that are shown of a family that has too many: those that the first one saw that
        had to choose.
        """
        text = self._agreed(f"{_SETS}{family}", lambda: json.dumps(sorted(first)))
        return frozenset(map(tuple, json.loads(text)))

    def _agreed(self, name: str, make: Callable[[], str]) -> str:
        """What the first worker wrote that was asked; one's own, counted, where nothing can be written."""
        place = self.folder / name
        with contextlib.suppress(OSError):
            return place.read_text()
        found = make()
        beside = self.folder / f"{name}-{os.getpid()}-{next(_serial)}"
        try:
            beside.write_text(found)
            with contextlib.suppress(FileExistsError):
                os.link(beside, place)
            beside.unlink()
            return place.read_text()
        except OSError as problem:
            self._trouble("workers_agree", problem)
            return found

    # -- coming and going -------------------------------------------------------------------------

    def forked(self) -> Crew | None:
        """In a forked child: a file of its own in the same folder; None, counted, when there can be none."""
        try:
            self.file.let_go()
        except (OSError, AttributeError, ValueError) as problem:
            self._trouble("workers_fork", problem)
        try:
            found = Crew(self.folder, self.service, self._trouble)
        except OSError as problem:
            self._trouble("workers_join", problem)
            return None
        if found.user == 0:  # its siblings may have become another user's, and cannot tidy here
            found.fold()
        return found

    def is_anothers(self) -> bool:
        """Whether the process became another user's, who has a folder elsewhere and may not look here."""
        return self.user != os.geteuid()

    def leave(self) -> None:
        """Take this process's counts out of the sum: they went elsewhere."""
        try:
            self.file.remove()
        except OSError as problem:
            self._trouble("workers_leave", problem)


def _file(folder: Path, name: str, tries: int = 5) -> CellFile:
    """The member's file; made again where one who tidies had the new one, or the folder was cleared away."""
    for _ in range(tries - 1):
        with contextlib.suppress(FileNotFoundError, BlockingIOError):
            return CellFile(folder, name)
        folder.mkdir(mode=0o700, exist_ok=True)
    return CellFile(folder, name)


def crew_of(service: str, trouble: Trouble, *, late: bool = False) -> Crew | None:
    """The crew of this process: it is a worker, or workers of its own met already; else None, and no file.

    `late`: of the two the second alone is looked at, two system calls.
    """
    try:
        parent = None if late else rundir.parent_of_worker()
        if parent is not None:
            return Crew(rundir.find_folder(service, parent), service, trouble)
        own = rundir.base_folder_if_there()
        if own is not None:
            folder = own / rundir.folder_name(service, rundir.process(os.getpid()))
            if folder.exists():
                return Crew(folder, service, trouble)
    except OSError as problem:
        trouble("workers_join", problem)
    return None


def crew_to_fork(service: str, trouble: Trouble) -> Crew | None:
    """The crew that a process founds which is about to fork."""
    try:
        return Crew(rundir.make_folder(service, rundir.process(os.getpid())), service, trouble)
    except OSError as problem:
        trouble("workers_join", problem)
        return None
