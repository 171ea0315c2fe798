"""What differs between a dashboard that we want and the one that Grafana has. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

CREATE: Final = "create"
UPDATE: Final = "update"
UNCHANGED: Final = "unchanged"

_SERVERS_OWN: Final = frozenset({"id", "version", "schemaVersion"})
"""Grafana counts these itself, and migrates a schema when it loads it."""
_SHOWN: Final = 100
_MISSING: Final = object()


@dataclass(frozen=True, slots=True)
class Difference:
    """One place where the two differ; texts are JSON, cut, and empty where there is nothing."""

    where: str
    have: str
    want: str

    def __str__(self) -> str:
        if not self.have:
            return f"+ {self.where}: {self.want}"
        if not self.want:
            return f"- {self.where}: {self.have}"
        return f"~ {self.where}: {self.have} -> {self.want}"


@dataclass(frozen=True, slots=True)
class Change:
    """What it takes to bring Grafana in step: `create`, `update` or `unchanged`."""

    uid: str
    title: str
    kind: str
    differences: tuple[Difference, ...] = ()


def change(wanted: Mapping[str, Any], existing: Mapping[str, Any] | None) -> Change:
    """Keys that only the server has are its defaults; what we set must be there with our value."""
    uid, title = str(wanted["uid"]), str(wanted["title"])
    if existing is None:
        return Change(uid, title, CREATE)
    found = tuple(_differences(wanted, existing, ""))
    return Change(uid, title, UPDATE if found else UNCHANGED, found)


def _differences(want: Any, have: Any, where: str) -> Iterator[Difference]:
    if isinstance(want, Mapping) and isinstance(have, Mapping):
        for key, value in want.items():
            if where or key not in _SERVERS_OWN:
                yield from _differences(value, have.get(key, _MISSING), f"{where}.{key}".lstrip("."))
    elif isinstance(want, list) and isinstance(have, list):
        for place in range(max(len(want), len(have))):
            ours = want[place] if place < len(want) else _MISSING
            theirs = have[place] if place < len(have) else _MISSING
            yield from _differences(ours, theirs, f"{where}[{place}]")
    elif (type(want) is not type(have) and not _both_numbers(want, have)) or want != have:
        yield Difference(where, _text(have), _text(want))


def _both_numbers(want: Any, have: Any) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in (want, have))


def _text(value: Any) -> str:
    if value is _MISSING:
        return ""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
