"""What no single value can be blamed for: names that must meet, or must not meet twice.

Works on the raw document and steps over what is of the wrong type, so that these problems are reported
together with those of single values.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mlobs.errors import Problem, nearest
from mlobs.names import SEVERITIES
from mlobs.yamltext import Place, YamlText

MATCHED = ("severity", "service", "model", "environment", "segment", "cause")
"""What a route can match."""


def across(document: YamlText) -> list[Problem]:
    """Every problem of that kind; empty where all is well."""
    models = _texts(document, "name", "models")
    objectives = _texts(document, "name", "slo", "objectives")
    return [
        *_twice(document, models),
        *_twice(document, objectives),
        *_unknown_models(document, [name for _, name in models]),
        *_routes(document),
    ]


def _get(document: YamlText, *place: str) -> Any:
    value = document.value
    for part in place:
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _texts(document: YamlText, field: str, *place: str) -> list[tuple[Place, str]]:
    """`field` of every item of the list at `place`, each with where it stands."""
    items = _get(document, *place)
    return [
        ((*place, index, field), item[field])
        for index, item in enumerate(items if isinstance(items, list) else [])
        if isinstance(item, dict) and isinstance(item.get(field), str)
    ]


def _twice(document: YamlText, names: list[tuple[Place, str]]) -> Iterator[Problem]:
    seen: dict[str, Place] = {}
    for place, name in names:
        if name in seen:
            first = document.where(seen[name])
            yield Problem(
                document.where(place), "a name of its own", repr(name), f"{first} has it; rename one"
            )
        seen.setdefault(name, place)


def _unknown_models(document: YamlText, models: list[str]) -> Iterator[Problem]:
    for place, name in _texts(document, "model", "slo", "objectives"):
        if models and name and name not in models:
            yield Problem(document.where(place), "a model of `models`", repr(name), nearest(name, models))


def _routes(document: YamlText) -> Iterator[Problem]:
    channels = _get(document, "notify", "channels")
    known = list(channels) if isinstance(channels, dict) else []
    wanted: list[tuple[Place, str]] = []
    routes = _get(document, "notify", "routes")
    for index, route in enumerate(routes if isinstance(routes, list) else []):
        place: Place = ("notify", "routes", index)
        if not isinstance(route, dict):
            continue
        to, match = route.get("to"), route.get("match")
        wanted += (
            ((*place, "to", at), str(name)) for at, name in enumerate(to if isinstance(to, list) else [])
        )
        for key, value in match.items() if isinstance(match, dict) else ():
            here = document.where((*place, "match", key))
            if key not in MATCHED:
                yield Problem(here, "something to match", repr(key), nearest(key, MATCHED))
            if key == "severity" and value not in SEVERITIES:
                yield Problem(here, "a severity", repr(value), nearest(str(value), SEVERITIES))
    fallback = _get(document, "notify", "fallback")
    if isinstance(fallback, str):
        wanted.append((("notify", "fallback"), fallback))
    for place, name in wanted:
        if name not in known:
            yield Problem(
                document.where(place), "a channel of `notify.channels`", repr(name), nearest(name, known)
            )
