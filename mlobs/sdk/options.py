"""The arguments of `init` -> `Settings`, every problem at once. Pure but for reading the file named."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from mlobs.errors import ConfigError, Problem, nearest, shown
from mlobs.sdk.given import ADDRESS, ADDRESS_EXAMPLE, fits, is_address, is_path, is_text, without_login
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
        and all(
            isinstance(edge, int | float) and not isinstance(edge, bool) and 0 < float(edge) < float("inf")
            for edge in value
        )
    )


def _is_clock(value: object) -> bool:
    """Not asked for the time here: a clock may know it only within a call."""
    if not callable(value):
        return False
    try:
        signature = inspect.signature(value)
    except ValueError:  # `time.time`: it does not say
        return True
    try:
        signature.bind()
    except TypeError:
        return False
    return True


def _has(*methods: str) -> Callable[[Any], object]:
    return lambda value: all(callable(getattr(value, name, None)) for name in methods)


_Check = tuple[Callable[[Any], object], str, str]
"""Whether a value fits, what is expected, what to do."""

_CHECKS: Mapping[str, _Check] = {
    "service": (is_text, "a name", "name the service, for example service='fraud-api'"),
    "environment": (
        lambda value: value == "" or is_text(value),
        "a text",
        "for example environment='production'",
    ),
    "feature_log": (is_path, "a directory", "for example feature_log='./featurelog'"),
    "sample": (_is_share, "a share in [0, 1]", "write 0.01 for one call in a hundred"),
    "sample_by": (
        lambda value: isinstance(value, str) and value in ("prediction", "entity"),
        "'prediction' or 'entity'",
        "'entity' keeps all calls of an entity or none",
    ),
    "trace_sample": (_is_share, "a share in [0, 1]", "write 0.01, or leave it out to follow sample"),
    "otlp": (is_address, ADDRESS, ADDRESS_EXAMPLE),
    "durability": (
        lambda value: isinstance(value, str) and value in ("memory", "os", "disk"),
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

_PARTS: Mapping[str, _Check] = {
    "clock": (_is_clock, "a function of nothing that gives seconds since the epoch", "for example time.time"),
    "registry": (
        _has("register"),
        "a prometheus-client registry",
        "for example registry=prometheus_client.REGISTRY",
    ),
    "exporter": (
        _has("export", "shutdown"),
        "an OpenTelemetry span exporter",
        "an address is given as otlp='http://127.0.0.1:4318'",
    ),
    "strict": (lambda value: isinstance(value, bool), "True or False", "strict=True lets our failures raise"),
}
"""What `init` takes that is no setting: objects of this process."""


def make_settings(
    config: str | os.PathLike[str] | Settings | None,
    given: Mapping[str, Any],
    parts: Mapping[str, Any] | None = None,
) -> Settings:
    """Settings from a file's path, from keywords, or from a file with keywords over it; `parts` are looked
    at, too.

    Raises ConfigError that names each keyword, what was expected, what came and what to do.
    """
    given = {name: value for name, value in given.items() if value is not None}
    everything = {**given, **{name: value for name, value in (parts or {}).items() if value is not None}}
    problems = [
        Problem(f"init({name}=)", "a known keyword", shown(value), nearest(name, [*_KNOWN, *_PARTS]))
        for name, value in given.items()
        if name not in _KNOWN
    ]
    for name, (check, expected, remedy) in {**_CHECKS, **_PARTS}.items():
        if name in everything and not fits(check, everything[name]):
            got = without_login(everything[name]) if name == "otlp" else everything[name]
            problems.append(Problem(f"init({name}=)", expected, shown(got), remedy))
    if config is not None and not isinstance(config, Settings) and not fits(is_path, config):
        problems.append(
            Problem(
                "init()", "the path of a mlobs.yaml", shown(config), "or keywords: init(service='fraud-api')"
            )
        )
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
    if "feature_log" in plain:
        plain["feature_log"] = os.fspath(plain["feature_log"])
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
        and all(fits(is_path, path) for path in value.values())
    ):
        return MaskSettings(**{name: os.path.abspath(path) for name, path in value.items()}), []
    return None, [
        Problem(
            "init(mask=)", "{'schema': path, 'key_file': path}", shown(value), "give paths, as in mlobs.yaml"
        )
    ]
