"""The masking schema: which fields may leave, and how. An allow-list; what it does not name is dropped.

    version: 1
    hash: blake2b-128                # or hmac-sha-256
    fields:
      amount: clear
      card: hash                     # keyed; equal values stay equal
      zip: {truncate: 3}             # the first 3 characters
      age: {bucket: [18, 30, 65]}    # "<18", "18..30", "30..65", ">=65"
      plate: tokenise                # another plate-like text: letters for letters, digits for digits
      note: scan                     # e-mail, phone, card, IBAN and keys replaced
      birthday: drop
    models:
      fraud:
        fields: {device: hash}       # beside or instead of the ones above
    prediction: clear

Reading it needs PyYAML, imported only when a schema is named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from math import isfinite
from types import MappingProxyType
from typing import Any, Final

from mlobs.errors import ConfigError, Problem, UnreadableError, nearest, shown
from mlobs.featurelog.keys import ALGORITHMS, BLAKE2B
from mlobs.names import FEATURE_PREDICTION, PREDICTION

SCHEMA_VERSION: Final = 1
PLAIN_ACTIONS: Final = ("clear", "drop", "hash", "scan", "tokenise")
ACTIONS: Final = (*PLAIN_ACTIONS, "truncate", "bucket")


@dataclass(frozen=True, slots=True)
class Action:
    """What happens to one field: `kind` out of ACTIONS."""

    kind: str
    length: int = 0
    """Of `truncate`: characters that stay."""
    edges: tuple[float, ...] = ()
    """Of `bucket`: ascending."""


_KEYS: Final = ("version", "hash", "fields", "models", "prediction")
_NO_FIELDS: Mapping[str, Action] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class MaskSchema:
    fields: Mapping[str, Action] = field(default_factory=dict)
    models: Mapping[str, Mapping[str, Action]] = field(default_factory=dict)
    prediction: Action | None = None
    """None: numbers pass and text leaves hashed, as without a schema."""
    algorithm: str = BLAKE2B

    def action(self, model: str, name: str) -> Action | None:
        """What the schema says of a feature, the model's own word first; None is not listed: drop."""
        return self.models.get(model, _NO_FIELDS).get(name) or self.fields.get(name)


def logged_as(path: str | None) -> Callable[[str, str], tuple[str, int]]:
    """How a feature of a model leaves by the schema at `path`: kind of action, and the length that `truncate`
    leaves. Without a schema `clear`: what becomes of text is seen in the values. Raises ConfigError.
    """
    if path is None:
        return lambda _model, _feature: ("clear", 0)
    schema = load_schema(path)

    def find(model: str, feature: str) -> tuple[str, int]:
        if feature == PREDICTION:
            action = schema.prediction or Action("clear")
        else:
            name = PREDICTION if feature == FEATURE_PREDICTION else feature
            action = schema.action(model, name) or Action("drop")
        return action.kind, action.length

    return find


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
            if key not in _KEYS:
                self.complain(str(key), "a known key", shown(key), nearest(str(key), _KEYS))
        if data.get("version", SCHEMA_VERSION) != SCHEMA_VERSION:
            self.complain("version", str(SCHEMA_VERSION), shown(data["version"]), "write version: 1")
        fields = self.fields("fields", data.get("fields", {}))
        models = {
            str(model): self.model(f"models.{model}", spec)
            for model, spec in self.mapping("models", data.get("models", {})).items()
        }
        prediction = self.action("prediction", data["prediction"]) if "prediction" in data else None
        algorithm = data.get("hash", BLAKE2B)
        if algorithm not in ALGORITHMS:
            advice = nearest(str(algorithm), ALGORITHMS)
            self.complain("hash", " or ".join(ALGORITHMS), shown(algorithm), advice)
        if self.problems:
            raise ConfigError(*self.problems)
        return MaskSchema(fields, models, prediction, algorithm)

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
        if isinstance(spec, str) and spec in PLAIN_ACTIONS:
            return Action(spec)
        if isinstance(spec, dict) and len(spec) == 1:
            ((kind, value),) = spec.items()
            if kind == "truncate":
                return self.truncate(place, value)
            if kind == "bucket":
                return self.bucket(place, value)
            spec = kind
        if spec in ("truncate", "bucket"):
            advice = f"write {{{spec}: {3 if spec == 'truncate' else '[18, 30, 65]'}}}"
        else:
            advice = nearest(spec, ACTIONS) if isinstance(spec, str) else f"write one of {', '.join(ACTIONS)}"
        self.complain(place, "an action", shown(spec), advice)
        return Action("drop")

    def truncate(self, place: str, value: Any) -> Action:
        if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 1000:
            return Action("truncate", length=value)
        self.complain(f"{place}.truncate", "how many characters stay, 1 to 1000", shown(value), "write 3")
        return Action("drop")

    def bucket(self, place: str, value: Any) -> Action:
        try:
            edges = tuple(float(edge) for edge in value)
        except (TypeError, ValueError):
            edges = ()
        if edges and all(low < high for low, high in pairwise(edges)) and all(map(isfinite, edges)):
            return Action("bucket", edges=edges)
        self.complain(f"{place}.bucket", "ascending edges", shown(value), "write [18, 30, 65]")
        return Action("drop")

    def mapping(self, place: str, data: Any) -> dict[Any, Any]:
        if isinstance(data, dict):
            return data
        self.complain(place, "a mapping", shown(data), "write name: value lines")
        return {}

    def complain(self, place: str, expected: str, got: str, remedy: str) -> None:
        where = f"{self.where}: {place}" if place else self.where
        self.problems.append(Problem(where, expected, got, remedy))
