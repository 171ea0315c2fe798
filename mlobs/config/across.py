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
        *_twice(document, _texts(document, "name", "slo", "canaries")),
        *_unknown_models(document, [name for _, name in models]),
        *_routes(document),
        *_lake(document),
        *_aliases(document),
    ]


def _lake(document: YamlText) -> Iterator[Problem]:
    log = _get(document, "feature_log")
    if _get(document, "lake") is not None and (not isinstance(log, str) or "://" in log):
        yield Problem(
            document.where(("lake",)),
            "a `feature_log` that is a directory",
            repr(log) if log else "none",
            "drop `lake`: only a spool is turned into Parquet",
        )


def _aliases(document: YamlText) -> Iterator[Problem]:
    """An old name belongs to one feature, and to none that is in force."""
    models = _get(document, "models")
    for index, model in enumerate(models if isinstance(models, list) else []):
        features = model.get("features") if isinstance(model, dict) else None
        if not isinstance(features, dict):
            continue
        owners: dict[str, str] = {}
        for name, feature in features.items():
            for at, old in _items(feature.get("aliases") if isinstance(feature, dict) else None):
                taken = "a feature itself" if old in features else owners.get(old)
                if taken is not None:
                    place = ("models", index, "features", name, "aliases", at)
                    yield Problem(
                        document.where(place),
                        "an old name of this feature alone",
                        f"{old!r}: {taken}",
                        "drop one",
                    )
                owners.setdefault(old, f"an alias of {name}")


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
    asked = [found for part in ("objectives", "canaries") for found in _texts(document, "model", "slo", part)]
    for place, name in asked:
        if models and name and name not in models:
            yield Problem(document.where(place), "a model of `models`", repr(name), nearest(name, models))


def _routes(document: YamlText) -> Iterator[Problem]:
    """Channels, people and times that `notify` names must stand in it."""
    known = [*_names(document, "channels"), *_names(document, "people")]
    times = _names(document, "times")
    for place, part in _notify_parts(document):
        match = part.get("match")
        for key, value in match.items() if isinstance(match, dict) else ():
            here = document.where((*place, "match", key))
            if key not in MATCHED:
                yield Problem(here, "something to match", repr(key), nearest(key, MATCHED))
            if key == "severity" and value not in SEVERITIES:
                yield Problem(here, "a severity", repr(value), nearest(str(value), SEVERITIES))
        named = part.get("times")
        if isinstance(named, str) and named not in times:
            here = document.where((*place, "times"))
            yield Problem(here, "a name of `notify.times`", repr(named), nearest(named, times))
    for place, name in _wanted(document):
        if name not in known:
            yield Problem(
                document.where(place), "a channel of `notify.channels`", repr(name), nearest(name, known)
            )


def _wanted(document: YamlText) -> Iterator[tuple[Place, str]]:
    """Every place of `notify` that names a channel or a person."""
    for place, part in _notify_parts(document):
        for at, name in _items(part.get("to")):
            yield (*place, "to", at), name
        steps = part.get("escalate")
        for number, step in enumerate(steps if isinstance(steps, list) else []):
            for at, name in _items(step.get("to") if isinstance(step, dict) else None):
                yield (*place, "escalate", number, "to", at), name
    steps = _get(document, "notify", "escalate")
    for number, step in enumerate(steps if isinstance(steps, list) else []):
        for at, name in _items(step.get("to") if isinstance(step, dict) else None):
            yield ("notify", "escalate", number, "to", at), name
    people = _get(document, "notify", "people")
    for person, channels in people.items() if isinstance(people, dict) else ():
        for at, name in _items(channels):
            yield ("notify", "people", person, at), name
    fallback = _get(document, "notify", "fallback")
    if isinstance(fallback, str):
        yield ("notify", "fallback"), fallback


def _notify_parts(document: YamlText) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Routes and maintenance windows."""
    for kind in ("routes", "maintenance"):
        parts = _get(document, "notify", kind)
        for index, part in enumerate(parts if isinstance(parts, list) else []):
            if isinstance(part, dict):
                yield ("notify", kind, index), part


def _names(document: YamlText, kind: str) -> list[str]:
    found = _get(document, "notify", kind)
    return [str(name) for name in found] if isinstance(found, dict) else []


def _items(value: Any) -> list[tuple[int, str]]:
    return [(at, str(one)) for at, one in enumerate(value if isinstance(value, list) else [])]
