"""OpenSLO v1 documents -> bundle. Every problem at once, each with its document and field."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

from mlobs import names
from mlobs.durations import parse_duration
from mlobs.errors import ConfigError, Problem, nearest, shown
from mlobs.objectives import parse_objective, quality_better
from mlobs.settings import BurnWindowSettings, ObjectiveSettings, SliSettings, SloSettings
from mlobs.slo.openslo.bundle import NOTE, VERSION, Bundle
from mlobs.slo.openslo.writing import DEFAULT_POLICY
from mlobs.yamltext import YamlText, parse_yaml

KINDS = ("SLO", "SLI", "Service", "DataSource", "AlertPolicy", "AlertCondition", "AlertNotificationTarget")
_CALENDAR = {"1M": "month", "1Q": "quarter", "3M": "quarter"}
_DAYS = {"1M": 30, "1Q": 91, "3M": 91}


def is_openslo(text: str) -> bool:
    """Whether the text speaks OpenSLO rather than mlobs.yaml."""
    return re.search(r"^apiVersion:\s*['\"]?openslo/", text, re.MULTILINE) is not None


def read_openslo(text: str, source: str = "slo.yaml") -> Bundle:
    """The objectives of every document in `text`. Raises ConfigError with every problem."""
    reader = _Reader(source)
    parts = re.split(r"^---\s*$", text, flags=re.MULTILINE)
    for number, part in enumerate(parts, 1):
        if part.strip() and not all(line.startswith("#") for line in part.split("\n") if line.strip()):
            reader.add(parse_yaml(part, f"{source} (document {number})"))
    bundle = reader.bundle()
    if reader.problems:
        raise ConfigError(*reader.problems)
    return bundle


@dataclass(frozen=True, slots=True)
class _Document:
    text: YamlText
    name: str
    spec: Mapping[str, Any]
    notes: Mapping[str, str]

    def where(self, *place: str | int) -> str:
        return self.text.where(("spec", *place))


@dataclass
class _Reader:
    source: str
    problems: list[Problem] = field(default_factory=list)
    found: dict[str, dict[str, _Document]] = field(default_factory=lambda: {kind: {} for kind in KINDS})

    def add(self, text: YamlText) -> None:
        value = text.value
        if not isinstance(value, dict) or value.get("apiVersion") != VERSION:
            got = shown(value.get("apiVersion")) if isinstance(value, dict) else shown(value)
            self._wrong(text.where(("apiVersion",)), VERSION, got, f"write `apiVersion: {VERSION}`")
            return
        kind = str(value.get("kind"))
        if kind not in self.found:
            self._wrong(text.where(("kind",)), "a kind of OpenSLO v1", shown(kind), nearest(kind, KINDS))
            return
        metadata = value.get("metadata") or {}
        name = metadata.get("name") if isinstance(metadata, dict) else None
        if not isinstance(name, str) or not name:
            self._wrong(text.where(("metadata", "name")), "a name", shown(name), "name the document")
            return
        if name in self.found[kind]:
            self._wrong(text.where(("metadata", "name")), f"one {kind} of this name", name, "rename one")
        annotations = metadata.get("annotations") or {}
        notes = {k.removeprefix(NOTE): str(v) for k, v in annotations.items() if str(k).startswith(NOTE)}
        spec = value.get("spec") or {}
        self.found[kind][name] = _Document(text, name, spec if isinstance(spec, dict) else {}, notes)

    def bundle(self) -> Bundle:
        services = self.found["Service"]
        named = [str(d.spec.get("service", "")) for d in self.found["SLO"].values()]
        names = list(dict.fromkeys([*services, *(name for name in named if name)]))
        if len(names) != 1:
            self._wrong(self.source, "one service", ", ".join(names) or "none", "one file for each service")
        service = services.get(names[0]) if names else None
        objectives = tuple(found for d in self.found["SLO"].values() for found in self._objectives(d))
        return Bundle(
            names[0] if names else "",
            self._slo(service, objectives),
            description=str(service.spec.get("description", "")) if service else "",
            sources=tuple(self._sources()),
            targets=tuple(
                (d.name, str(d.spec.get("target", "")))
                for d in self.found["AlertNotificationTarget"].values()
            ),
        )

    def _slo(self, service: _Document | None, objectives: tuple[ObjectiveSettings, ...]) -> SloSettings:
        notes = service.notes if service else {}
        numbers: dict[str, Any] = {
            name: float(notes[name])
            for name in ("slice", "scrape_interval", "evaluation_interval")
            if name in notes
        }
        if "slice" not in numbers and (lengths := set(self._slice_lengths())):
            numbers["slice"] = max(lengths)
        sources = list(self._sources())
        shared = DEFAULT_POLICY in self.found["AlertPolicy"]
        return SloSettings(
            evaluator=notes.get("evaluator", "embedded"),
            prometheus=sources[0][1] if sources else None,
            objectives=objectives,
            zone=notes.get("zone", "UTC"),
            windows=self._windows(self.found["AlertPolicy"][DEFAULT_POLICY], 30 * 86400.0)
            if shared
            else None,
            breach=notes.get("breach", "True") == "True",
            **numbers,
        )

    def _slice_lengths(self) -> Iterable[float]:
        for document in self.found["SLO"].values():
            for objective in document.spec.get("objectives") or ():
                if "timeSliceWindow" in objective:
                    yield float(parse_duration(str(objective["timeSliceWindow"])))

    def _sources(self) -> Iterable[tuple[str, str]]:
        for document in self.found["DataSource"].values():
            details = document.spec.get("connectionDetails") or {}
            yield document.name, str(details.get("url", ""))

    # -- one SLO document -----------------------------------------------------------------------------

    def _objectives(self, document: _Document) -> Iterable[ObjectiveSettings]:
        spec, notes = document.spec, document.notes
        length, calendar, zone = self._period(document)
        listed = spec.get("objectives")
        if not isinstance(listed, list) or not listed:
            self._wrong(
                document.where("objectives"), "at least one objective", shown(listed), "add one with a target"
            )
            return
        for number, each in enumerate(listed):
            target = self._target(document, number, each)
            sli = self._sli(document, each)
            if target is None or sli is None:
                continue
            name = document.name if len(listed) == 1 else f"{document.name}-{number + 1}"
            yield ObjectiveSettings(
                name, sli, target, model=notes.get("model", ""), period=length, calendar=calendar,
                zone=notes.get("zone", zone), description=str(spec.get("description", "")),
                runbook=notes.get("runbook"), windows=self._own_windows(document, length),
                severity=notes.get("severity"),
            )  # fmt: skip

    def _period(self, document: _Document) -> tuple[float, str | None, str]:
        windows = document.spec.get("timeWindow")
        window = windows[0] if isinstance(windows, list) and windows else {}
        text = str(window.get("duration", ""))
        calendar = window.get("calendar") or {}
        zone = str(calendar.get("timeZone", "UTC"))
        if not window.get("isRolling", not calendar):
            if text in _CALENDAR:
                return _DAYS[text] * 86400.0, _CALENDAR[text], zone
            self._wrong(
                document.where("timeWindow", 0, "duration"),
                "1M or 1Q of a calendar",
                shown(text),
                "or isRolling: true",
            )
            return 30 * 86400.0, None, zone
        try:
            return float(parse_duration(text)), None, "UTC"
        except ValueError as problem:
            self._wrong(document.where("timeWindow", 0, "duration"), "a duration", shown(text), str(problem))
            return 30 * 86400.0, None, "UTC"

    def _target(self, document: _Document, number: int, each: Mapping[str, Any]) -> Decimal | None:
        written: Any = each.get("target")
        if written is None and "targetPercent" in each:
            written = f"{each['targetPercent']}%"
        try:
            return parse_objective(written if written is not None else "")
        except ValueError as problem:
            place = document.where("objectives", number, "target")
            self._wrong(place, "a ratio between 0 and 1", shown(written), str(problem))
            return None

    def _sli(self, document: _Document, each: Mapping[str, Any]) -> SliSettings | None:
        spec, notes = self._indicator(document, each)
        if spec is None:
            return None
        if "kind" in notes:
            fields = {
                name: notes[name]
                for name in ("check", "metric", "good", "bad", "total", "better")
                if name in notes
            }
            threshold = Decimal(notes["threshold"]) if "threshold" in notes else None
            of = tuple(notes["of"].split(",")) if "of" in notes else ()
            sli = SliSettings(notes["kind"], threshold=threshold, of=of, **fields)
            return sli if sli.kind != "model_quality" or self._one_way(document, sli, each) else None
        if "ratioMetric" in spec:
            ratio = spec["ratioMetric"]
            which = "good" if "good" in ratio else "bad"
            part, total = _query(ratio.get(which)), _query(ratio.get("total"))
            if part and total:
                good, bad = (part, None) if which == "good" else (None, part)
                return SliSettings("ratio", good=good, bad=bad, total=total)
            self._wrong(
                document.where("indicator"), "queries for total and good or bad", shown(ratio), "add both"
            )
            return None
        return self._threshold(document, spec, each)

    def _one_way(self, document: _Document, sli: SliSettings, each: Mapping[str, Any]) -> bool:
        """Whether `op` says of a model's quality what its measure says."""
        try:
            better = quality_better(sli.metric or "", sli.better, sli.threshold)
        except ValueError as problem:
            where = document.where("indicator")
            self._wrong(where, "a measure and which way it is better", shown(sli.metric), str(problem))
            return False
        wanted = ("lte", "lt") if better == "lower" else ("gte", "gt")
        if "op" in each and each["op"] not in wanted:
            remedy = f"{better} is better of {sli.metric}: write op: {wanted[0]}"
            self._wrong(document.where("objectives"), f"op {wanted[0]}", shown(each["op"]), remedy)
            return False
        return True

    def _threshold(
        self, document: _Document, spec: Mapping[str, Any], each: Mapping[str, Any]
    ) -> SliSettings | None:
        query = _query(spec.get("thresholdMetric"))
        if query and query.startswith(names.MODEL_QUALITY):
            self._wrong(
                document.where("indicator"), "a model's quality annotated as such", shown(query),
                f"annotate the SLI with {NOTE}kind: model_quality, {NOTE}metric and {NOTE}threshold",
            )  # fmt: skip
            return None
        try:
            bound = Decimal(str(each.get("value")))
        except InvalidOperation:
            bound = None
        if query and bound is not None and each.get("op") in ("lte", "lt"):
            return SliSettings("freshness", threshold=bound, metric=query)
        if query and bound == 1 and each.get("op") in ("gte", "gt"):
            return SliSettings("boolean", metric=query)
        self._wrong(
            document.where("indicator"), "a thresholdMetric with op lte and a value, or gte 1",
            shown({key: each.get(key) for key in ("op", "value")}), "or use a ratioMetric",
        )  # fmt: skip
        return None

    def _indicator(
        self, document: _Document, each: Mapping[str, Any]
    ) -> tuple[Mapping[str, Any] | None, Mapping[str, str]]:
        for holder in (each, document.spec):
            reference = holder.get("indicatorRef")
            if reference is not None:
                found = self.found["SLI"].get(str(reference))
                if found is None:
                    known = nearest(str(reference), self.found["SLI"])
                    self._wrong(
                        document.where("indicatorRef"), "an SLI of this file", shown(reference), known
                    )
                    return None, {}
                return found.spec, found.notes
            inline = holder.get("indicator")
            if isinstance(inline, dict):
                return inline.get("spec") or {}, {}
        self._wrong(document.where("indicator"), "an indicator or indicatorRef", "neither", "add one")
        return None, {}

    # -- alerting -------------------------------------------------------------------------------------

    def _own_windows(self, document: _Document, period: float) -> tuple[BurnWindowSettings, ...] | None:
        found: tuple[BurnWindowSettings, ...] = ()
        for named in document.spec.get("alertPolicies") or ():
            reference = named if isinstance(named, str) else named.get("alertPolicyRef", "")
            if reference == DEFAULT_POLICY:
                continue
            policy = self.found["AlertPolicy"].get(str(reference))
            if policy is None:
                known = nearest(str(reference), self.found["AlertPolicy"])
                self._wrong(
                    document.where("alertPolicies"), "an AlertPolicy of this file", shown(reference), known
                )
                continue
            found += self._windows(policy, period)
        return found or None

    def _windows(self, policy: _Document, period: float) -> tuple[BurnWindowSettings, ...]:
        windows = []
        for number, each in enumerate(policy.spec.get("conditions") or ()):
            where = policy.where("conditions", number)
            if "conditionRef" in each:
                found = self.found["AlertCondition"].get(str(each["conditionRef"]))
                if found is None:
                    known = nearest(str(each["conditionRef"]), self.found["AlertCondition"])
                    self._wrong(where, "an AlertCondition of this file", shown(each["conditionRef"]), known)
                    continue
                spec, notes = found.spec, found.notes
            else:
                spec, notes = each.get("spec") or {}, {}
            window = self._window(where, spec, notes, period)
            if window is not None:
                windows.append(window)
        return tuple(windows)

    def _window(
        self, where: str, spec: Mapping[str, Any], notes: Mapping[str, str], period: float
    ) -> BurnWindowSettings | None:
        condition = spec.get("condition") or {}
        try:
            long = parse_duration(str(condition["lookbackWindow"]))
            short = parse_duration(str(condition.get("alertAfter") or condition["lookbackWindow"]))
            factor = Decimal(str(condition["threshold"]))
        except (KeyError, ValueError, InvalidOperation):
            self._wrong(
                where,
                "a burnrate condition",
                shown(condition),
                "write threshold, lookbackWindow and alertAfter",
            )
            return None
        share = Decimal(notes["budget"]) if "budget" in notes else factor * long / Decimal(str(period))
        severity = (
            "page" if str(spec.get("severity", "page")).lower() in ("page", "critical", "high") else "ticket"
        )
        return BurnWindowSettings(severity, float(long), float(short), share)

    def _wrong(self, where: str, expected: str, got: str, remedy: str) -> None:
        self.problems.append(Problem(where, expected, got, remedy))


def _query(metric: object) -> str | None:
    if not isinstance(metric, dict):
        return None
    spec = (metric.get("metricSource") or {}).get("spec") or {}
    query = spec.get("query")
    return str(query) if query else None
