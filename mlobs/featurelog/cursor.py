"""What a reader has to remember, as the opaque bytes that its user stores."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from mlobs.errors import Problem, UnreadableError
from mlobs.featurelog.sequences import Ranges, Seen

CURSOR_VERSION: Final = 1


@dataclass(slots=True)
class Position:
    """How far a writer was read: everything before byte `offset` of segment `number`."""

    number: int = 0
    offset: int = 0


@dataclass(slots=True)
class Account:
    """Which numbers of a writer were seen, wherever they were read."""

    seen: Seen = field(default_factory=Seen)
    first: int = 0
    """Numbers below it are not missed: what held them was gone before this reader came."""
    offered: int = 0
    """Numbers that the writer is known to have given out."""
    laid: Seen = field(default_factory=Seen)
    """Those of the seen ones that were met in the lake: there they are to stand once."""

    @property
    def gaps(self) -> int:
        return self.seen.gaps(self.first, self.offered)


@dataclass(slots=True)
class State:
    """All that a cursor says."""

    positions: dict[str, Position] = field(default_factory=dict)
    accounts: dict[str, Account] = field(default_factory=dict)
    types: dict[str, dict[str, str]] = field(default_factory=dict)
    entries: set[str] = field(default_factory=set)
    """Lake entries that were read, of those not older than `entries_from`."""
    entries_from: str = ""
    """Every lake entry with a smaller name is done with."""
    offsets: dict[str, int] = field(default_factory=dict)
    """Next Kafka offset by partition."""
    last: dict[str, str] = field(default_factory=dict)
    """The newest lake entry that told of a writer."""
    past_gaps: int = 0
    """Numbers missing of writers that were forgotten."""
    begun: dict[str, int] = field(default_factory=dict)
    """The lake entry in which a limit ended the poll, and how many of its files are done with."""

    def account(self, writer: str) -> Account:
        return self.accounts.setdefault(writer, Account())

    def types_of(self, name: str) -> dict[str, str]:
        return self.types.setdefault(name, {})

    @property
    def gaps(self) -> int:
        return self.past_gaps + sum(account.gaps for account in self.accounts.values())

    def has(self, numbers: Ranges) -> bool:
        """All of `numbers` were seen."""
        return all(self.account(writer).seen.covers(*each) for writer, own in numbers.items() for each in own)

    def is_new(self, numbers: Ranges, rows: int) -> bool:
        """None of `numbers` was seen, and `rows` is how many they are."""
        return rows == sum(end - start for own in numbers.values() for start, end in own) and not any(
            self.account(writer).seen.overlaps(*each) for writer, own in numbers.items() for each in own
        )

    def meet(self, numbers: Ranges, rows: int, moved: bool) -> int:
        """`rows` of `numbers` stand in a lake file: mark them as seen; how many of them are duplicates.

        What another lake file had is one, and so is what was read from the spool, unless it has `moved`: the
        segments of this file were read before they became it.
        """
        again = 0
        for writer, own in numbers.items():
            account = self.account(writer)
            for start, end in own:
                again += account.laid.overlaps(start, end) if moved else account.seen.overlaps(start, end)
                account.laid.add_range(start, end)
                account.seen.add_range(start, end)
        return min(again, rows)

    def forget(self, before: str, living: Container[str]) -> None:
        """Drop writers of whom no lake entry told since the one named `before`, but their gaps: each process
        is a writer, and a year of them would be a megabyte to store with every poll. `living` stay.
        """
        for writer in [writer for writer, name in self.last.items() if name < before]:
            if writer not in living:
                self.past_gaps += self.account(writer).gaps
                del self.last[writer]
                self.accounts.pop(writer, None)
                self.positions.pop(writer, None)

    def dump(self) -> bytes:
        return msgspec.msgpack.encode(
            {
                "v": CURSOR_VERSION,
                "at": {writer: [each.number, each.offset] for writer, each in self.positions.items()},
                "seen": {
                    writer: [each.first, each.offered, each.seen.ranges()]
                    for writer, each in self.accounts.items()
                },
                "laid": {writer: each.laid.ranges() for writer, each in self.accounts.items()},
                "types": self.types,
                "entries": [self.entries_from, sorted(self.entries)],
                "offsets": self.offsets,
                "last": self.last,
                "past": self.past_gaps,
                "begun": self.begun,
            }
        )


def load_cursor(cursor: bytes | None) -> State:
    """The state of `cursor`; None and b"" are the beginning. Raises UnreadableError for what is no cursor."""
    if not cursor:
        return State()
    try:
        data: dict[str, Any] = msgspec.msgpack.decode(cursor)
        if data["v"] != CURSOR_VERSION:
            raise ValueError("version")
        laid = data.get("laid", {})
        return State(
            {writer: Position(*at) for writer, at in data["at"].items()},
            {
                writer: Account(Seen(ranges), first, offered, Seen(laid.get(writer, ())))
                for writer, (first, offered, ranges) in data["seen"].items()
            },
            {name: dict(types) for name, types in data["types"].items()},
            set(data["entries"][1]),
            data["entries"][0],
            dict(data["offsets"]),
            dict(data.get("last", {})),
            data.get("past", 0),
            dict(data.get("begun", {})),
        )
    except (msgspec.DecodeError, KeyError, TypeError, ValueError, IndexError):
        raise UnreadableError(
            Problem(
                "feature log cursor",
                f"a cursor of version {CURSOR_VERSION}",
                "something else",
                "start without a cursor: every record that is still there is read again",
            )
        ) from None
