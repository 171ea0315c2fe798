"""The masking schema: which fields may leave, and how. An allow-list; what it does not name is dropped.

    version: 1
    fields:
      amount: clear
      carrier: clear
      card: hash
      note: drop
    models:
      fraud:
        fields: {device: hash}       # beside or instead of the ones above
    prediction: clear

Reading it needs PyYAML, imported only when a schema is named.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from mlobs.errors import ConfigError, Problem, UnreadableError, nearest, shown

SCHEMA_VERSION: Final = 1
ACTIONS: Final = ("clear", "drop", "hash")


@dataclass(frozen=True, slots=True)
class Action:
    """What happens to one field: `kind` out of ACTIONS."""

    kind: str


_NO_FIELDS: Mapping[str, Action] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class MaskSchema:
    fields: Mapping[str, Action] = field(default_factory=dict)
    models: Mapping[str, Mapping[str, Action]] = field(default_factory=dict)
    prediction: Action = Action("clear")

    def action(self, model: str, name: str) -> Action | None:
        """What the schema says of a feature, the model's own word first; None is not listed: drop."""
        return self.models.get(model, _NO_FIELDS).get(name) or self.fields.get(name)


def load_schema(path: str) -> MaskSchema:
    """The schema in the YAML file at `path`. Raises ConfigError with every problem at once."""
    from mlobs.yamltext import read_yaml  # PyYAML: only where a schema is named

    try:
        return _Reader(path).schema(read_yaml(path).value)
    except UnreadableError as problem:
        raise ConfigError(*problem.problems) from None


def parse_schema(text: str, where: str) -> MaskSchema:
    """The schema in YAML `text`; `where` names it in problems."""
    from mlobs.yamltext import parse_yaml  # as above

    return _Reader(where).schema(parse_yaml(text, where).value)


class _Reader:
    """Collects problems while it walks, so that all of them are shown at once."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.problems: list[Problem] = []

    def schema(self, data: Any) -> MaskSchema:
        data = self.mapping("", data)
        for key in data:
            if key not in ("version", "fields", "models", "prediction"):
                known = ("version", "fields", "models", "prediction")
                self.complain(str(key), "a known key", shown(key), nearest(str(key), known))
        if data.get("version", SCHEMA_VERSION) != SCHEMA_VERSION:
            self.complain("version", str(SCHEMA_VERSION), shown(data["version"]), "write version: 1")
        fields = self.fields("fields", data.get("fields", {}))
        models = {
            str(model): self.model(f"models.{model}", spec)
            for model, spec in self.mapping("models", data.get("models", {})).items()
        }
        prediction = self.action("prediction", data.get("prediction", "clear"))
        if self.problems:
            raise ConfigError(*self.problems)
        return MaskSchema(fields, models, prediction)

    def model(self, place: str, spec: Any) -> dict[str, Action]:
        spec = self.mapping(place, spec)
        for key in spec:
            if key != "fields":
                self.complain(f"{place}.{key}", "fields", shown(key), nearest(str(key), ("fields",)))
        return self.fields(f"{place}.fields", spec.get("fields", {}))

    def fields(self, place: str, data: Any) -> dict[str, Action]:
        return {
            str(name): self.action(f"{place}.{name}", spec)
            for name, spec in self.mapping(place, data).items()
        }

    def action(self, place: str, spec: Any) -> Action:
        if isinstance(spec, str) and spec in ACTIONS:
            return Action(spec)
        advice = nearest(spec, ACTIONS) if isinstance(spec, str) else f"write one of {', '.join(ACTIONS)}"
        self.complain(place, "an action", shown(spec), advice)
        return Action("drop")

    def mapping(self, place: str, data: Any) -> dict[Any, Any]:
        if isinstance(data, dict):
            return data
        self.complain(place, "a mapping", shown(data), "write name: value lines")
        return {}

    def complain(self, place: str, expected: str, got: str, remedy: str) -> None:
        where = f"{self.where}: {place}" if place else self.where
        self.problems.append(Problem(where, expected, got, remedy))
