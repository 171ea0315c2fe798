"""What an engine is: files in, states by key out. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol


@dataclass(frozen=True, slots=True)
class FileSlice:
    """One file, the unit of work. `identity` changes when the file does: its size and time of change."""

    path: str
    identity: str


@dataclass(frozen=True, slots=True)
class Keying:
    """The columns that say where a row belongs; None: there is no such column.

    `window` is the length in seconds of the windows that event time `time` is cut into, days in `zone`.
    Without a time column all rows are one window `[0, 0)`.
    """

    time: str | None = None
    window: float = 86400.0
    zone: str = "UTC"
    model: str | None = None
    version: str | None = None
    segment: str | None = None
    weight: str | None = None
    score: str | None = None
    """The model's output; profiled as `prediction`."""

    @property
    def columns(self) -> tuple[str, ...]:
        given = (self.time, self.model, self.version, self.segment, self.weight, self.score)
        return tuple(dict.fromkeys(name for name in given if name))


class Key(NamedTuple):
    """What is profiled on its own; windows in seconds since the epoch."""

    model: str
    version: str
    segment: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Job:
    """What to profile: the reference as the bytes of its file, and how rows are keyed."""

    reference: bytes
    keying: Keying
    aliases: tuple[tuple[str, str], ...] = ()
    """(old name, name in force) of renamed columns."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a slice: the bytes of one state a key, or the problem for which there are none."""

    slice: FileSlice
    states: tuple[tuple[Key, bytes], ...] = ()
    rows: int = 0
    unusable: int = 0
    """Rows without a usable event time; they are in no state."""
    problem: str = ""
    types: tuple[tuple[str, str], ...] = ()
    """(column, Arrow type) of the file under the names in force; what rows are keyed by is not among them."""


class Engine(Protocol):
    """Whatever can profile files. `local` and `spark` are."""

    def slices(self, sources: Sequence[str]) -> list[FileSlice]:
        """The files below `sources`, in order of their path. Raises UnreadableError where there is none."""
        ...

    def profile(self, slices: Sequence[FileSlice], job: Job) -> Iterator[Outcome]:
        """One outcome a slice, as they finish, in any order. A broken file is an outcome and no exception.

        Raises UnavailableError where the engine itself gave up; what was not handed out may be asked for
        again.
        """
        ...

    def close(self) -> None:
        """End what was started; a second time does nothing."""
        ...
