"""The text that a target exposes -> samples. Prometheus text 0.0.4 and OpenMetrics 1.0; timestamps and
exemplars are skipped, since a scrape is dated by its tick."""

from __future__ import annotations

import re
from collections.abc import Iterator

_LINE = re.compile(
    r'([a-zA-Z_:][a-zA-Z0-9_:]*[ \t]*(?:\{(?:[^"{}]|"(?:[^"\\]|\\.)*")*\})?)[ \t]*(\S+)', re.DOTALL
)
_LABEL = re.compile(r'[ \t]*([a-zA-Z_][a-zA-Z0-9_]*)[ \t]*=[ \t]*"((?:[^"\\]|\\.)*)"[ \t]*,?')
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_ESCAPES = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}


def samples(text: str) -> Iterator[tuple[str, float]]:
    """Each sample's series as written, `name{labels}`, and its value.

    Raises ValueError with the line's number for text that is no exposition: a page of HTML is no scrape.
    """
    for number, line in enumerate(text.split("\n"), 1):
        if not line or line[0] == "#" or line.isspace():
            continue
        if "#" not in line:  # the plain case, at a third of the cost: nothing stands behind the value
            key, _, value = line.rpartition(" ")
            if key[-1:] == "}" or (key and " " not in key and "{" not in key):
                try:
                    yield key, float(value)
                    continue
                except ValueError:
                    pass  # said below, with the line's number
        found = _LINE.match(line)
        if found is None:
            raise ValueError(f"line {number} is no sample: {line[:60]!r}")
        try:
            yield found[1], float(found[2])
        except ValueError:
            raise ValueError(f"line {number} has no number: {line[:60]!r}") from None


def series(key: str) -> tuple[str, dict[str, str]]:
    """Name and labels of a series as written."""
    name = _NAME.match(key)
    if name is None:
        raise ValueError(f"{key[:60]!r} has no metric name")
    labels = {}
    start = key.find("{")
    if start >= 0:
        for label in _LABEL.finditer(key, start + 1):
            labels[label[1]] = re.sub(r'\\[\\"n]', lambda escape: _ESCAPES[escape[0]], label[2])
    return name[0], labels
