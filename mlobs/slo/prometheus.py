"""Questions to a Prometheus: what a backtest, a backfill and `validate --live` need to know. The network is
injected."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import numpy as np

from mlobs.errors import Problem, UnavailableError
from mlobs.secret import without_password
from mlobs.slo import promql
from mlobs.slo.evaluate import Plan
from mlobs.slo.replay import Floats, Past, slices_of

Get = Callable[[str], bytes]
"""Body of a URL; an OSError for anything else."""
DAY = 86400.0
STEPS = (60.0, 300.0)
"""Lengths of a step of the past, seconds: the shortest that holds two samples is taken."""
_LOOK = 600.0
_TWO = 1.9
"""So many spacings hold two samples, whatever the jitter of a scrape."""


@dataclass(frozen=True, slots=True)
class Prometheus:
    """`url` is the server's root, `get` the network."""

    url: str
    get: Get

    def api(self, path: str, **arguments: str) -> Any:
        """`data` of an API answer. Raises UnavailableError when there is none."""
        where = f"{self.url.rstrip('/')}/api/v1/{path}"
        try:
            answer = json.loads(self.get(f"{where}?{urlencode(arguments)}" if arguments else where))
            if answer["status"] != "success":
                raise ValueError(answer.get("error", "no success"))
            return answer["data"]
        except (OSError, ValueError, KeyError, TypeError) as problem:
            raise UnavailableError(
                Problem(
                    f"{without_password(self.url).rstrip('/')}/api/v1/{path}",
                    "an answer of Prometheus",
                    str(problem)[:200],
                    "check the address and the server's log",
                )
            ) from None

    def range(self, query: str, start: float, end: float, step: float) -> tuple[Floats, Floats]:
        """Times and values of a query with one series at most; empty without one."""
        data = self.api("query_range", query=query, start=repr(start), end=repr(end), step=repr(step))
        rows = data["result"][0]["values"] if data["result"] else []
        return np.array([float(t) for t, _ in rows]), np.array([float(value) for _, value in rows])

    def spacing(self, selectors: Iterable[str], start: float, end: float) -> float | None:
        """Seconds between two samples of the densest series that match, in the densest of twenty stretches of
        ten minutes from `start` to `end`; None where no stretch holds two."""
        step, most = max(_LOOK, (end - start) / 20), 0.0
        for selector in selectors:
            counted = self.range(f"max(count_over_time({selector}[{_LOOK:.0f}s]))", start, end, step)[1]
            most = max(most, float(counted.max(initial=0.0)))
        return _LOOK / most if most > 1 else None

    def has(self, selector: str) -> bool:
        """Whether any series matches now."""
        return bool(self.api("query", query=f"count({selector})")["result"])


def pieces(start: float, end: float) -> Iterator[tuple[float, float]]:
    """The days of [start, end]: a query of a day stays below Prometheus' 11,000 points."""
    while start < end:
        yield start, min(start + DAY, end)
        start += DAY


def step_of(plan: Plan, server: Prometheus, start: float, end: float, slice_s: float) -> float:
    """Seconds of a step that holds two samples of what the objective counts; a minute where nothing is known.

    Raises UnavailableError where scrapes are too far apart for it, or for its slices.
    """
    raw = plan.indicator.gauge is None and plan.indicator.queries is None
    selectors = [term.selector.promql() for term in plan.indicator.total] if raw else []
    apart = server.spacing(selectors, start, end)
    steps = (slice_s,) if plan.indicator.sliced else STEPS
    if apart is None:
        return steps[0]
    found = next((step for step in steps if step >= _TWO * apart), None)
    if found is None:
        raise UnavailableError(_too_far_apart(plan, apart, steps[-1], f"the past of {plan.name}"))
    return found


def _too_far_apart(plan: Plan, apart: float, step: float, where: str) -> Problem:
    what = "slice" if plan.indicator.sliced else "window"
    remedy = f"scrape every {promql.window(step / 2)}"
    return Problem(
        where,
        f"two samples in a {what} of {promql.window(step)}",
        f"a sample every {apart:.0f} s",
        f"{remedy}, or set a longer `slo.slice`" if plan.indicator.sliced else remedy,
    )


def past_of(
    plan: Plan, server: Prometheus, start: float, end: float, step: float, slice_s: float,
    progress: Callable[[], None] = lambda: None,
) -> Past:  # fmt: skip
    """What an objective would have counted from `start` to `end`, in steps of `step` seconds, day by day."""
    step = slice_s if plan.indicator.sliced else step
    times = np.arange(start, end + step / 2, step)
    bad, total = np.zeros(len(times)), np.zeros(len(times))
    for day_start, day_end in pieces(start, end):
        for query, array in zip(_queries(plan, step), (bad, total), strict=True):
            # The point at the day's start belongs to the day before.
            at, values = server.range(query, day_start + step, day_end, step)
            places = np.rint((at - start) / step).astype(int)
            inside = (places >= 0) & (places < len(array)) & np.isfinite(values)
            array[places[inside]] = values[inside]
        progress()
    bad, total = np.cumsum(np.maximum(bad, 0.0)), np.cumsum(np.maximum(total, 0.0))
    return slices_of(times, bad, total, slice_s) if plan.indicator.sliced else Past(times, bad, total)


def _queries(plan: Plan, step: float) -> tuple[str, str]:
    """Bad and all events of one step."""
    indicator = plan.indicator
    if indicator.gauge is not None:
        check = promql.check_bad(indicator.gauge)
        return check, f"{check} * 0 + 1"
    if indicator.queries is not None:
        which, part, total = (text.replace("$window", promql.window(step)) for text in indicator.queries)
        return (f"sum({part})" if which == "bad" else f"sum({total}) - sum({part})"), f"sum({total})"
    return promql.increases(indicator.bad, step), promql.increases(indicator.total, step)


def live_problems(plan: Plan, server: Prometheus, where: str, now: float) -> list[Problem]:
    """Series and buckets that the objective needs and the server does not have, and scrapes too far apart."""
    counted = plan.indicator.total
    missing = [
        metric
        for metric in dict.fromkeys(selector.metric for selector in plan.indicator.selectors)
        if not server.has(metric)
    ]
    # Said once, however many of its series are wanted.
    found = [
        Problem(where, f"the metric {metric}", "none of it", "check the name and the targets")
        for metric in missing
    ]
    whole = all(server.has(term.selector.promql()) for term in counted)
    if whole and counted:
        selectors = [term.selector.promql() for term in counted]
        apart, least = server.spacing(selectors, now - _LOOK, now), plan.shortest
        if apart is not None and least < _TWO * apart:
            found.append(_too_far_apart(plan, apart, least, where))
    for selector in dict.fromkeys(plan.indicator.selectors):
        if selector.metric in missing or server.has(selector.promql()):
            continue
        edges = [matcher for matcher in selector.matchers if matcher.label == "le"]
        rest = type(selector)(selector.metric, tuple(m for m in selector.matchers if m.label != "le"))
        if edges and server.has(rest.promql()):
            known = server.api("query", query=f"count by (le) ({rest.promql()})")["result"]
            spelled = ", ".join(sorted((row["metric"].get("le", "") for row in known), key=_edge))
            found.append(
                Problem(where, f"a bucket edge at the threshold ({edges[0].value})", f"edges {spelled}",
                        "add the threshold to `buckets`, or take an edge as the threshold")
            )  # fmt: skip
        elif whole and counted and not edges:
            continue  # nothing has failed, or was left unjudged, yet
        else:
            got = f"none for {selector.promql()}"
            found.append(Problem(where, "series that exist", got, "check names, labels and targets"))
    return found


def retention_problems(server: Prometheus, longest: float, where: str) -> list[Problem]:
    """A retention that is shorter than the longest window."""
    text = str(server.api("status/runtimeinfo").get("storageRetention", ""))
    days = _retention_days(text)
    if days is None or days * DAY >= longest:
        return []
    remedy = f"start it with --storage.tsdb.retention.time={promql.window(longest)}, or shorten the period"
    return [Problem(where, f"a retention of {promql.window(longest)} or more", text, remedy)]


def _retention_days(text: str) -> float | None:
    units = {"y": 365.0, "w": 7.0, "d": 1.0, "h": 1 / 24}
    found = [part for part in text.replace(",", " ").split() if part[-1:] in units and part[:-1].isdigit()]
    return sum(int(part[:-1]) * units[part[-1]] for part in found) if found else None


def _edge(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("inf")
