"""`notify.channels`: what each kind of paging channel may be told, as data, and how it is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlobs.errors import Problem, nearest, shown
from mlobs.secret import Secret
from mlobs.settings import ChannelSettings
from mlobs.yamltext import Place, YamlText


@dataclass(frozen=True, slots=True)
class ChannelOptions:
    """`secrets` are given as `<name>_file` or `<name>_env`, never as values."""

    options: Mapping[str, type] = field(default_factory=dict)
    secrets: frozenset[str] = frozenset()
    required: tuple[tuple[str, ...], ...] = ()
    """Each entry: one of these must be given."""


CHANNEL_OPTIONS: Mapping[str, ChannelOptions] = {
    "console": ChannelOptions(),
    "webhook": ChannelOptions(
        {
            "url": str,
            "allow_http": bool,
            "allow_private": bool,
            "allow_hosts": str,
            "ca_file": str,
            "timeout": int,
        },
        frozenset({"url", "signing_key"}),
        (("url",),),
    ),
    "slack": ChannelOptions(
        {"channel": str, "base_url": str}, frozenset({"token", "signing_secret"}), (("channel",), ("token",))
    ),
    "pagerduty": ChannelOptions(
        {"base_url": str, "allow_http": bool, "allow_private": bool, "timeout": int},
        frozenset({"routing_key"}),
        (("routing_key",),),
    ),
    "email": ChannelOptions(
        {"to": str, "sender": str, "host": str, "port": int, "tls": str, "user": str, "ca_file": str},
        frozenset({"password"}),
        (("to",), ("host",)),
    ),
}


def channels(document: YamlText, base: Path) -> tuple[dict[str, ChannelSettings], list[Problem]]:
    """The channels of the raw document; wrong ones are left out and reported."""
    notify = document.value.get("notify")
    given = notify.get("channels") if isinstance(notify, dict) else None
    found: dict[str, ChannelSettings] = {}
    problems: list[Problem] = []
    for name, kinds in given.items() if isinstance(given, dict) else ():
        place: Place = ("notify", "channels", name)
        kind = next(iter(kinds)) if isinstance(kinds, dict) and len(kinds) == 1 else None
        if kind is None:
            remedy = "write for example {slack: {channel: '#oncall', token_file: /run/secrets/slack}}"
            problems.append(Problem(document.where(place), "one kind of channel", shown(kinds), remedy))
            continue
        if kind not in CHANNEL_OPTIONS:
            where = document.where((*place, kind))
            problems.append(Problem(where, "a kind of channel", repr(kind), nearest(kind, CHANNEL_OPTIONS)))
            continue
        options = kinds[kind] if isinstance(kinds[kind], dict) else {}
        found[name], wrong = _channel(document, (*place, kind), name, kind, options, base)
        problems += wrong
    return found, problems


def _channel(
    document: YamlText, place: Place, name: str, kind: str, given: Mapping[str, Any], base: Path
) -> tuple[ChannelSettings, list[Problem]]:
    known = CHANNEL_OPTIONS[kind]
    options: dict[str, str | int | float | bool] = {}
    secrets: dict[str, Secret] = {}
    problems: list[Problem] = []
    for key, value in given.items():
        where = document.where((*place, key))
        field = f"notify.channels.{name}.{kind}.{key}"
        stem = key.removesuffix("_file").removesuffix("_env")
        if key != stem and stem in known.secrets:
            source = str(value)
            secrets[stem] = (
                Secret(field, file=str(base / source)) if key.endswith("_file") else Secret(field, env=source)
            )
        elif key in known.secrets and key not in known.options:
            problems.append(
                Problem(
                    where, "a secret by its source", "<hidden>", f"write {key}_file: or {key}_env: instead"
                )
            )
        elif key not in known.options:
            names = [*known.options, *(f"{secret}_file" for secret in known.secrets)]
            problems.append(Problem(where, f"an option of {kind}", repr(key), nearest(key, names)))
        elif not isinstance(value, str | int | float | bool) or not isinstance(value, known.options[key]):
            expected = known.options[key].__name__
            problems.append(Problem(where, f"a value of type {expected}", shown(value), "mend the value"))
        else:
            options[key] = value
    present = set(options) | set(secrets)
    for alternatives in known.required:
        if not present & set(alternatives):
            wanted = " or ".join(f"{one}_file" if one in known.secrets else one for one in alternatives)
            problems.append(Problem(document.where(place), wanted, "nothing", f"add `{wanted}:`"))
    return ChannelSettings(name, kind, options, secrets), problems
