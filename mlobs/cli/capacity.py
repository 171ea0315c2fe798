"""`mlobs slo capacity`: how many replicas an objective takes, and the objects that scale them."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Annotated

import typer

from mlobs import names
from mlobs.errors import NothingJudgedError, UnavailableError, UnreadableError, UsageError
from mlobs.slo.capacity import Demand, Plan, plan


def capacity(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="mlobs.yaml: takes threshold and objective from there."),
    ] = None,
    rate: Annotated[float, typer.Option(help="Requests a second at the peak.")] = 0.0,
    service: Annotated[str, typer.Option(help="CPU time of a request: 40ms. Else from --metrics.")] = "",
    metrics: Annotated[
        str, typer.Option(metavar="URL|FILE", help="A /metrics to measure the service time from.")
    ] = "",
    model: Annotated[str, typer.Option(help="The model; needed where there are several.")] = "",
    cores: Annotated[int, typer.Option(help="Cores of a replica.")] = 8,
    headroom: Annotated[float, typer.Option(help="Share of replicas kept warm on top.")] = 0.3,
    cv: Annotated[
        float | None, typer.Option(help="Deviation over mean of the service time; default: measured, or 0.5.")
    ] = None,
    threshold: Annotated[str, typer.Option(help="Latency that the objective allows: 100ms.")] = "",
    objective: Annotated[str, typer.Option(help="Share of requests within it: 99%.")] = "",
    kubernetes: Annotated[
        bool, typer.Option("--kubernetes", help="Print HPA, KEDA ScaledObject and PrometheusRule as YAML.")
    ] = False,
    name: Annotated[str, typer.Option(help="Name of the Deployment; default: the service.")] = "",
    prometheus: Annotated[str, typer.Option(help="Address of Prometheus within the cluster.")] = (
        "http://prometheus.monitoring:9090"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Strict JSON.")] = False,
) -> None:
    """Say how many cores and replicas the peak takes, with queueing and headroom.

    Example: mlobs slo capacity --rate 5000 --service 40ms --cores 8
    """
    limit, share, found_model, found_name = _objective(file, model)
    model, name = model or found_model, name or found_name or "model"
    if threshold:
        limit = _seconds("--threshold", threshold)
    if objective:
        share = _ratio(objective)
    if service:
        mean, spread = _seconds("--service", service), 0.5
    elif metrics:
        mean, spread = measured(_text(metrics), model, metrics)
    else:
        raise UsageError.of(
            "mlobs slo capacity", "--service or --metrics", "neither", "write for example --service 40ms"
        )
    if kubernetes and not model:
        raise UsageError.of("--model", "the model whose load scales", "none", "name it, or give FILE")
    demand = Demand(rate, mean, spread if cv is None else cv, limit, share, cores, headroom)
    found = plan(demand)
    if kubernetes:
        typer.echo(_objects(name, found, model, prometheus, demand), nl=False)
    elif as_json:
        typer.echo(
            json.dumps(
                {"demand": dataclasses.asdict(demand), "plan": dataclasses.asdict(found)}, allow_nan=False
            )
        )
    else:
        for line in sentences(demand, found):
            typer.echo(line)


def sentences(demand: Demand, found: Plan) -> list[str]:
    """The plan in words."""
    busy = f"{demand.rate:g} requests/s x {demand.service * 1000:g} ms = {found.busy_cores:g} cores busy"
    bare = f"{found.bare} replicas of {demand.cores} cores hold that"
    lines = [
        f"{busy} at the peak",
        f"{bare}; {found.warm} with {demand.headroom:.0%} headroom, before queueing",
    ]
    if demand.threshold is None:
        lines.append(f"{found.queueing} replicas are stable (no threshold given: their queue may be long)")
    else:
        lines.append(
            f"{found.queueing} replicas keep {demand.objective * 100:g}% of requests within "
            f"{demand.threshold * 1000:g} ms, queueing counted"
        )
    late = "" if found.slow is None else f", {found.slow:.4%} of requests beyond the threshold"
    wait = f"mean wait {found.wait * 1000:.3g} ms"
    lines.append(f"{found.replicas} replicas with headroom: cores {found.utilisation:.0%} busy, {wait}{late}")
    lines.append(f"scale out at {found.concurrency} requests in flight a replica")
    return lines


def measured(text: str, model: str, where: str) -> tuple[float, float]:
    """(mean seconds, deviation over mean) of the requests in a /metrics text. The deviation comes from the
    middle of the buckets. Raises NothingJudgedError without requests, UnreadableError for other text."""
    from mlobs.slo.exposition import samples, series

    total = count = 0.0
    upto: dict[float, float] = {}
    seen: set[str] = set()
    try:
        for key, value in samples(text):
            if not key.startswith(names.REQUEST_DURATION):
                continue
            kind, labels = series(key)
            if model and labels.get(names.MODEL) != model:
                continue
            seen.add(labels.get(names.MODEL, ""))
            if kind.endswith("_sum"):
                total += value
            elif kind.endswith("_count"):
                count += value
            elif kind.endswith("_bucket"):
                edge = float(labels.get("le", "inf"))
                upto[edge] = upto.get(edge, 0.0) + value
    except ValueError as problem:
        raise UnreadableError.of(where, "the text of /metrics", str(problem), "check the address") from None
    if not count or not math.isfinite(total):
        raise NothingJudgedError.of(
            where, f"requests in {names.REQUEST_DURATION}", "none", "send it some, or give --service"
        )
    if len(seen) > 1:
        raise UsageError.of("--model", f"one of {', '.join(sorted(seen))}"[:200], "several", "name one")
    return total / count, _deviation(upto, total / count)


def _deviation(upto: dict[float, float], mean: float) -> float:
    squares = counted = below = before = 0.0
    for edge in sorted(upto):
        inside = upto[edge] - before
        middle = (below + edge) / 2 if math.isfinite(edge) else below * 1.5
        squares, counted = squares + inside * middle * middle, counted + inside
        below, before = edge, upto[edge]
    if not counted or mean <= 0:
        return 0.5
    return math.sqrt(max(squares / counted - mean * mean, 0.0)) / mean


def _objects(name: str, found: Plan, model: str, prometheus: str, demand: Demand) -> str:
    from mlobs.slo.capacity_objects import guard_query, guard_rule, hpa, keda
    from mlobs.slo.write import to_yaml

    guard = None
    if demand.threshold is not None:
        guard = guard_query(model, demand.threshold, round(1 - demand.objective, 12))
    documents = [hpa(name, found, model, guard is not None), keda(name, found, model, prometheus, guard)]
    if guard is not None:
        documents.append(guard_rule(name, model, guard))
    header = (
        "# Written by `mlobs slo capacity`. HPA and ScaledObject are alternatives: apply one of them,\n"
        "# never both to one Deployment.\n"
    )
    return header + "---\n".join(to_yaml(document, "") for document in documents)


def _objective(file: Path | None, model: str) -> tuple[float | None, float, str, str]:
    """(threshold, objective, model, service) of the first latency objective of the file."""
    if file is None:
        return None, 0.99, "", ""
    from mlobs.config import load_settings

    settings = load_settings(file)
    for each in settings.slo.objectives:
        if (
            each.sli.kind in ("p99", "latency")
            and each.sli.threshold is not None
            and model in ("", each.model)
        ):
            # p99 is a statement on requests by itself; its objective counts slices of time.
            share = 0.99 if each.sli.kind == "p99" else float(each.objective)
            return float(each.sli.threshold), share, each.model, settings.service
    return None, 0.99, model, settings.service


def _seconds(where: str, text: str) -> float:
    from mlobs.durations import parse_duration

    try:
        return float(parse_duration(text))
    except ValueError as problem:
        raise UsageError.of(where, "a duration like 40ms", text, str(problem)) from None


def _ratio(text: str) -> float:
    from mlobs.objectives import parse_objective

    try:
        return float(parse_objective(text))
    except ValueError as problem:
        raise UsageError.of("--objective", "99% or 0.99", text, str(problem)) from None


def _text(source: str) -> str:
    if "://" not in source:
        try:
            return Path(source).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as problem:
            raise UnreadableError.of(source, "the text of /metrics", str(problem), "check the path") from None
    import httpx

    try:
        answer = httpx.get(source, timeout=5.0)
        answer.raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as problem:
        got = f"{type(problem).__name__}"
        raise UnavailableError.of(source, "/metrics that answers", got, "check the address") from None
    return answer.text
