"""The one tree of errors.

    MlobsError                    exit 1..3, carries one or more `Problem`s
    ├── UsageError           (2)  a call or a command line that cannot be meant
    │   └── ConfigError      (2)  mlobs.yaml, an SLO file, a mask schema
    ├── UnreadableError      (2)  a file that is broken or of another kind
    ├── NothingJudgedError   (3)  every column or window was insufficient or absent
    └── UnavailableError     (3)  something needed is not there: an extra, a server, a newer schema
        └── MissingExtraError(3)  names the `pip install` line

A problem has four parts: where, what was expected, what came, what to do. Values are cut, and a
secret is named by its field instead of being shown.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

EXIT_FINE = 0
EXIT_FINDING = 1
EXIT_USAGE = 2
EXIT_UNAVAILABLE = 3

_SHOWN = 80


def shown(value: object) -> str:
    """`value` for an error message: its repr cut to 80 characters; survives a broken `__repr__`."""
    try:
        text = repr(value)
    except Exception as problem:  # noqa: BLE001 - a user's object may refuse to be shown
        text = f"<{type(value).__name__}, repr raised {type(problem).__name__}>"
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def nearest(word: str, known: Iterable[str]) -> str:
    """`did you mean 'x'?` for a typo, or the known names where nothing is near."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"known names: {', '.join(names)}" if names else "no names are known here"


def install_line(extra: str) -> str:
    """How to add an extra: from the checkout, as the public index has another package of this name."""
    return f"from the checkout: pip install '.[{extra}]'"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, in the four parts that a reader needs to mend it."""

    where: str
    expected: str
    got: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: expected {self.expected}, got {self.got}; {self.remedy}"


class MlobsError(Exception):
    """Root of the tree. `problems` holds every finding at once; `exit_code` is the command's status."""

    exit_code = EXIT_FINDING

    def __init__(self, *problems: Problem) -> None:
        if not problems:
            raise TypeError("an mlobs error carries at least one Problem")
        self.problems: tuple[Problem, ...] = problems
        super().__init__("\n".join(str(problem) for problem in problems))

    @classmethod
    def of(cls, where: str, expected: str, got: str, remedy: str) -> MlobsError:
        """The error with a single problem."""
        return cls(Problem(where, expected, got, remedy))


class UsageError(MlobsError):
    """A call or a command line that cannot be meant."""

    exit_code = EXIT_USAGE


class ConfigError(UsageError):
    """A configuration file is refused as a whole; what runs keeps its old good state."""


class UnreadableError(MlobsError):
    """A file is missing, broken, or not of the kind that its name says."""

    exit_code = EXIT_USAGE


class NothingJudgedError(MlobsError):
    """There was input, but too little of it to judge anything."""

    exit_code = EXIT_UNAVAILABLE


class UnavailableError(MlobsError):
    """Something needed is not there: a server, a port, a schema version we know."""

    exit_code = EXIT_UNAVAILABLE


class MissingExtraError(UnavailableError):
    """An optional dependency is not installed."""

    @classmethod
    def for_extra(cls, what: str, extra: str) -> MissingExtraError:
        return cls(Problem(what, f"the extra [{extra}]", "not installed", install_line(extra)))
