"""The arguments of `init` -> `Settings`, every problem at once. Pure but for reading the file named."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from mlobs.errors import ConfigError, Problem, nearest, shown
from mlobs.settings import MaskSettings, Settings

# Keys of mlobs.yaml that need its reader; they are given to `init` in the same shape as in the file.
_NESTED = ("models", "slo", "drift", "notify", "targets", "store", "listen", "public_url")
_KNOWN = (
    "service", "environment", "feature_log", "sample", "sample_by", "trace_sample", "otlp", "durability",
    "buckets", "mask", "native", *_NESTED,
)  # fmt: skip


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _is_edges(value: object) -> bool:
    return (
        isinstance(value, list | tuple)
        and bool(value)
        and all(isinstance(edge, int | float) and 0 < edge < float("inf") for edge in value)
    )


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


_CHECKS: Mapping[str, tuple[Callable[[object], bool], str, str]] = {
    "service": (_is_text, "a name", "name the service, for example service='fraud-api'"),
    "environment": (lambda value: isinstance(value, str), "a text", "for example environment='production'"),
    "feature_log": (
        _is_text,
        "a directory, s3://bucket/prefix or kafka://broker/topic",
        "for example feature_log='./featurelog'",
    ),
    "sample": (_is_share, "a share in [0, 1]", "write 0.01 for one call in a hundred"),
    "sample_by": (
        lambda value: value in ("prediction", "entity"),
        "'prediction' or 'entity'",
        "'entity' keeps all calls of an entity or none",
    ),
    "trace_sample": (_is_share, "a share in [0, 1]", "write 0.01, or leave it out to follow sample"),
    "otlp": (
        lambda value: (
            isinstance(value, str) and value.startswith(("http://", "https://", "grpc://", "grpcs://"))
        ),
        "the collector's URL",
        "for example otlp='http://127.0.0.1:4318'",
    ),
    "durability": (
        lambda value: value in ("memory", "os", "disk"),
        "'memory', 'os' or 'disk'",
        "choose what flush() waits for",
    ),
    "native": (
        lambda value: isinstance(value, bool),
        "True or False",
        "native=True for a Prometheus with --enable-feature=native-histograms",
    ),
    "buckets": (_is_edges, "upper edges in seconds, positive", "for example buckets=(0.01, 0.1, 1.0)"),
}


def make_settings(config: str | os.PathLike[str] | Settings | None, given: Mapping[str, Any]) -> Settings:
    """Settings from a file's path, from keywords, or from a file with keywords over it.

    Raises ConfigError that names each keyword, what was expected, what came and what to do.
    """
    given = {name: value for name, value in given.items() if value is not None}
    problems = [
        Problem(f"init({name}=)", "a known keyword", shown(value), nearest(name, _KNOWN))
        for name, value in given.items()
        if name not in _KNOWN
    ]
    for name, (fits, expected, remedy) in _CHECKS.items():
        if name in given and not fits(given[name]):
            problems.append(Problem(f"init({name}=)", expected, shown(given[name]), remedy))
    mask, mask_problems = _mask(given.get("mask"))
    problems += mask_problems
    if config is None and "service" not in given:
        problems.append(
            Problem(
                "init()", "a service name or the path of a mlobs.yaml", "neither", "init(service='fraud-api')"
            )
        )
    nested = {name: given[name] for name in _NESTED if name in given}
    if config is not None and nested:
        problems += [
            Problem(f"init({name}=)", "either a file or this keyword", "both", f"write {name} into the file")
            for name in nested
        ]
    if problems:
        raise ConfigError(*problems)
    base = _base(config, given, nested)
    plain = {
        name: value
        for name, value in given.items()
        if name not in _NESTED and name not in ("mask", "service")
    }
    if "service" in given:
        plain["service"] = given["service"]
    if "buckets" in plain:
        plain["buckets"] = tuple(float(edge) for edge in plain["buckets"])
    if mask is not None:
        plain["mask"] = mask
    return replace(base, **plain)


def _base(
    config: str | os.PathLike[str] | Settings | None, given: Mapping[str, Any], nested: Mapping[str, Any]
) -> Settings:
    if isinstance(config, Settings):
        return config
    if config is None and not nested:
        return Settings(service=str(given["service"]))
    from mlobs import config as reader  # pydantic and PyYAML: only when there is something to read

    if config is not None:
        return reader.load_settings(config)
    document = json.dumps({"service": given["service"], **nested}, default=str)  # JSON is YAML
    return reader.parse_settings(document, base=".", source="init()")


def _mask(value: object) -> tuple[MaskSettings | None, list[Problem]]:
    if value is None or isinstance(value, MaskSettings):
        return value, []
    if (
        isinstance(value, Mapping)
        and set(value) <= {"schema", "key_file"}
        and all(isinstance(path, str) for path in value.values())
    ):
        return MaskSettings(**{name: os.path.abspath(path) for name, path in value.items()}), []
    return None, [
        Problem(
            "init(mask=)", "{'schema': path, 'key_file': path}", shown(value), "give paths, as in mlobs.yaml"
        )
    ]
