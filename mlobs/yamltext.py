"""YAML for configuration: no duplicate keys, no alias bombs; every value is exact and knows its line."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import yaml

from mlobs.errors import ConfigError, Problem, UnreadableError

MAX_BYTES = 1_000_000
MAX_NODES = 100_000
"""Values after aliases are written out: a bomb of 324 bytes has 10**9."""

Place = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class YamlText:
    """A parsed document: plain values, and the line of each place."""

    source: str
    value: Any
    lines: dict[Place, int]

    def where(self, place: Place) -> str:
        """`mlobs.yaml:12: slo.objectives[2].objective`, with the line of the nearest place that has one."""
        known = place
        while known and known not in self.lines:
            known = known[:-1]
        line = self.lines.get(known)
        head = f"{self.source}:{line}" if line is not None else self.source
        return f"{head}: {dotted(place)}" if place else head


def dotted(place: Place) -> str:
    """`("slo", "objectives", 2, "objective")` -> `slo.objectives[2].objective`."""
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def read_yaml(path: str | Path) -> YamlText:
    """Read and parse the file. Raises UnreadableError (missing, not UTF-8) or ConfigError (no such YAML)."""
    name = Path(path).name
    try:
        data = Path(path).read_bytes()
    except OSError as problem:
        raise UnreadableError(
            Problem(
                str(path), "a readable file", problem.strerror or type(problem).__name__, "check the path"
            )
        ) from None
    if len(data) > MAX_BYTES:
        raise ConfigError(Problem(name, f"at most {MAX_BYTES} bytes", f"{len(data)} bytes", "split the file"))
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as problem:
        raise UnreadableError(
            Problem(
                name, "UTF-8 text", f"byte {data[problem.start]:#04x} at {problem.start}", "save it as UTF-8"
            )
        ) from None
    return parse_yaml(text, name)


def parse_yaml(text: str, source: str) -> YamlText:
    """Parse one document from `text`. Every duplicate key is reported, not only the first."""
    problems: list[Problem] = []
    lines: dict[Place, int] = {}
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            value = _value(loader, node, (), lines, problems, source, set()) if node is not None else None
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark
        where = f"{source}:{mark.line + 1}" if mark is not None else source
        raise ConfigError(
            Problem(
                where,
                "YAML",
                str(problem.problem or problem.context or "something else"),
                "mend the syntax there",
            )
        ) from None
    except (yaml.YAMLError, ValueError, RecursionError) as problem:
        raise ConfigError(Problem(source, "YAML", str(problem)[:200], "mend the file")) from None
    if problems:
        raise ConfigError(*problems)
    return YamlText(source, value, lines)


def _value(
    loader: yaml.SafeLoader,
    node: yaml.Node,
    place: Place,
    lines: dict[Place, int],
    problems: list[Problem],
    source: str,
    above: set[int],
) -> Any:
    line = node.start_mark.line + 1
    lines[place] = line
    if len(lines) > MAX_NODES:
        raise ConfigError(
            Problem(
                f"{source}:{line}", f"at most {MAX_NODES} values", "more", "write aliases out, split the file"
            )
        )
    if id(node) in above:
        raise ConfigError(
            Problem(f"{source}:{line}", "a tree", "an anchor that holds itself", "write the value out")
        )
    if isinstance(node, yaml.MappingNode):
        found: dict[Hashable, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.value == "<<":
                problems.append(
                    Problem(
                        f"{source}:{key_node.start_mark.line + 1}",
                        "a plain key",
                        "another",
                        "write a plain name",
                    )
                )
                continue
            key = key_node.value  # names stay text: `on:` and `1:` are keys here, not a boolean and a number
            if key in found:
                first = lines.get((*place, key), line)
                problems.append(
                    Problem(
                        f"{source}:{key_node.start_mark.line + 1}: {dotted((*place, key))}",
                        "each key once",
                        f"a second one (the first is on line {first})",
                        "keep one of them",
                    )
                )
                continue
            found[key] = _value(
                loader, value_node, (*place, key), lines, problems, source, above | {id(node)}
            )
            lines[(*place, key)] = key_node.start_mark.line + 1
        return found
    if isinstance(node, yaml.SequenceNode):
        return [
            _value(loader, child, (*place, index), lines, problems, source, above | {id(node)})
            for index, child in enumerate(node.value)
        ]
    if node.tag == "tag:yaml.org,2002:float":
        try:
            return Decimal(
                node.value.replace("_", "")
            )  # exact: 0.999 must not pass through a binary fraction
        except InvalidOperation:  # .inf and .nan
            return loader.construct_object(node, deep=True)
    return loader.construct_object(node, deep=True)
