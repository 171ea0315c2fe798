"""Rules as text. The same objectives give the same bytes."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import yaml

HEADER = "# Written by `mlobs slo rules`; edit the objectives, not this file.\n"


class _Dumper(yaml.SafeDumper):
    """SafeDumper that writes expressions of several lines as blocks."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text and not text.startswith(" ") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def _number(dumper: yaml.SafeDumper, number: Decimal) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:float", format(number.normalize(), "f"))


_Dumper.add_representer(Decimal, _number)


def to_yaml(document: Any, header: str = HEADER) -> str:
    """YAML with keys in the order of the document, no aliases, no wrapped lines."""
    dumper = _Dumper
    dumper.ignore_aliases = lambda *_: True  # type: ignore[method-assign]
    return header + yaml.dump(document, Dumper=dumper, sort_keys=False, width=10**9, allow_unicode=True)
