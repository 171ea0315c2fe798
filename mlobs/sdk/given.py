"""What users hand to decorators and calls, checked when it is handed over. Pure."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from numbers import Number
from typing import Any
from urllib.parse import urlsplit

from mlobs.errors import Problem, UsageError, nearest, shown
from mlobs.sdk.meter import clean_label

_SCHEMES = ("http", "https", "grpc", "grpcs")
_LONGEST_S = 1e9
"""Locks refuse to wait for longer than about 300 years."""

ADDRESS = "the collector's URL"
ADDRESS_EXAMPLE = "for example otlp='http://127.0.0.1:4318'"


def fits(check: Callable[[Any], object], value: object) -> bool:
    """Whether `check(value)`; a value that refuses to be compared does not fit."""
    try:
        return bool(check(value))
    except Exception:  # noqa: BLE001 - the answer: it is told as a problem by the caller
        return False


def is_text(value: object) -> bool:
    """A text that says something and can be written as UTF-8: one lone surrogate would fail every scrape."""
    return isinstance(value, str) and bool(value.strip()) and bool(value.encode())


def is_path(value: object) -> bool:
    """The text of a path, or an object that has one (`pathlib.Path`)."""
    return is_text(os.fspath(value) if isinstance(value, os.PathLike) else value)


def is_address(value: object) -> bool:
    """`http(s)://host[:port]` or `grpc(s)://host[:port]`, as it stands there: `urlsplit` mends capitals and
    blanks, who sends does not."""
    if not isinstance(value, str) or value.split() != [value] or value.partition("://")[0] not in _SCHEMES:
        return False
    parts = urlsplit(value)
    return bool(parts.hostname) and (parts.port is None or parts.port > 0)


def without_login(value: object) -> object:
    """An address as it may be shown: one that is refused may have a login in it all the same."""
    return f"...@{value.rpartition('@')[2]}" if isinstance(value, str) and "@" in value else value


def refuse(where: str, expected: str, value: object, remedy: str) -> UsageError:
    """The error for one argument."""
    return UsageError(Problem(where, expected, shown(value), remedy))


def refuse_in_call(where: str, expected: str, value: object, remedy: str) -> UsageError:
    """The same within the serving path, where the guard takes it to the log: the value is named by its type
    alone, for it may be what the call was about.
    """
    return UsageError(Problem(where, expected, f"a value of type {type(value).__name__}", remedy))


def refuse_unknown(of: str, unknown: dict[str, Any], known: tuple[str, ...]) -> None:
    """Raises UsageError that names every keyword which `of` does not have."""
    if unknown:
        raise UsageError(
            *(
                Problem(f"{of}({name}=)", "a known keyword", shown(value), nearest(name, known))
                for name, value in unknown.items()
            )
        )


def check_function(decorator: str, value: object) -> None:
    """Raises UsageError for what cannot be called: `@mlobs.observe("fraud")`."""
    if not callable(value):
        name = "name" if decorator == "job" else "model"
        raise refuse(
            f"@mlobs.{decorator}",
            "a function",
            value,
            f"write @mlobs.{decorator}({name}=...) for a name, directly above the function",
        )


def label_given(where: str, value: object) -> str:
    """A text or number as a label value; None is the empty one. Raises UsageError for anything else."""
    if value is None:
        return ""
    if not isinstance(value, str | Number):
        raise refuse(where, "a text", value, "name it, for example '2026-11-01'")
    return clean_label(value)


def seconds_given(where: str, value: object) -> float:
    """A timeout. Raises UsageError for what is no number, or not a finite one."""
    if not fits(lambda given: isinstance(given, int | float) and math.isfinite(given), value):
        raise refuse(f"{where}(timeout=)", "seconds", value, f"for example {where}(2.0)")
    return min(float(value), _LONGEST_S)  # type: ignore[arg-type]  # a number, as was just seen
