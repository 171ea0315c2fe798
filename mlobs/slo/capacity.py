"""Capacity: service times, traffic and an objective -> cores, replicas, headroom. Pure.

A replica is taken as a queue of `cores` servers (M/G/c): arrivals as they come, each core busy with one
request at a time. Waiting: Erlang C for exponential service times, scaled by (1 + cv^2)/2 for others
(Allen and Cunneen; Kingman 1961), its law exponential beyond zero. That is an approximation; it errs by a few
percent at moderate load, and a load test is the judge.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from mlobs.errors import UsageError

GREATEST: Final = 1_000_000
"""Replicas beyond which a search is given up."""


@dataclass(frozen=True, slots=True)
class Demand:
    """Traffic in requests a second at its peak; `service` is CPU seconds of a request on the mean, `cv` the
    standard deviation over the mean of that time; `threshold` in seconds what `objective` of the requests
    must stay within; `cores` of a replica; `headroom` the share of replicas kept warm on top."""

    rate: float
    service: float
    cv: float = 0.5
    threshold: float | None = None
    objective: float = 0.99
    cores: int = 8
    headroom: float = 0.3


@dataclass(frozen=True, slots=True)
class Plan:
    """What the demand takes. `busy_cores` is the bare quotient; `bare` replicas hold it, `warm` with
    headroom. `queueing` is the fewest replicas that keep the objective, `replicas` those with headroom."""

    busy_cores: float
    bare: int
    warm: int
    queueing: int
    replicas: int
    utilisation: float
    """Share of time that a core works, with `replicas`."""
    wait: float
    """Mean seconds in the queue, with `replicas`."""
    slow: float | None
    """Share of requests beyond the threshold, with `replicas`."""
    concurrency: int
    """Requests in flight on a replica at which another is due: what `queueing` replicas carry at the peak."""


def plan(demand: Demand) -> Plan:
    """Cores, replicas and headroom. Raises UsageError for numbers that cannot be meant, and where a request
    alone takes longer than the objective allows: no number of replicas would help."""
    check(demand)
    busy = demand.rate * demand.service
    bare = max(1, math.ceil(exact(busy / demand.cores)))
    warm = math.ceil(exact(bare * (1.0 + demand.headroom)))
    queueing = _fewest(demand, bare)
    replicas = math.ceil(exact(queueing * (1.0 + demand.headroom)))
    slow = None if demand.threshold is None else slower_than(demand, replicas)
    each = demand.rate / queueing
    in_flight = each * (demand.service + waiting(demand, queueing)[1])
    return Plan(
        busy, bare, warm, queueing, replicas, busy / (replicas * demand.cores), waiting(demand, replicas)[1],
        slow, max(1, round(in_flight)),
    )  # fmt: skip


def exact(value: float) -> float:
    """Without the last bits: 200.00000000000003 cores are 200."""
    return round(value, 9)


def check(demand: Demand) -> None:
    """Raise UsageError for what cannot be meant."""
    for name, value, low, high, text in (
        ("rate", demand.rate, 0.0, 1e9, "requests a second above 0"),
        ("service", demand.service, 0.0, 86400.0, "a service time above 0"),
        ("threshold", 1.0 if demand.threshold is None else demand.threshold, 0.0, 86400.0, "a time above 0"),
        ("cores", demand.cores, 0.0, 4096.0, "1 to 4096 cores"),
    ):
        if not (math.isfinite(value) and low < value <= high):
            raise UsageError.of(f"--{name}", text, str(value), "correct it")
    if not (math.isfinite(demand.cv) and 0 <= demand.cv <= 100):
        raise UsageError.of(
            "--cv", "a ratio from 0 to 100", str(demand.cv), "0: always the same; 1: exponential"
        )
    if not (math.isfinite(demand.headroom) and 0 <= demand.headroom <= 10):
        raise UsageError.of("--headroom", "a share from 0 to 10", str(demand.headroom), "30 % is 0.3")
    if not 0.5 <= demand.objective < 1:
        raise UsageError.of(
            "--objective", "a ratio from 0.5 to below 1", str(demand.objective), "99 % is 0.99"
        )


def _fewest(demand: Demand, bare: int) -> int:
    """The fewest replicas that are stable and keep the objective; found by doubling, then halving."""
    if demand.threshold is not None and own_slow(demand) > 1.0 - demand.objective:
        raise UsageError.of(
            "--threshold", f"one that {demand.objective * 100:g}% of requests can keep without any queue",
            f"{demand.threshold:g} s, while {own_slow(demand):.3%} of requests work longer than that",
            "make the request faster, or the threshold longer",
        )  # fmt: skip

    def good(replicas: int) -> bool:
        if demand.rate * demand.service >= replicas * demand.cores:
            return False
        return demand.threshold is None or slower_than(demand, replicas) <= 1.0 - demand.objective

    low, high = bare - 1, bare
    while not good(high):
        low, high = high, high * 2
        if high > GREATEST:
            raise UsageError.of(
                "capacity", f"an answer below {GREATEST:,} replicas", "none", "see --threshold"
            )
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if good(middle) else (middle, high)
    return high


def waiting(demand: Demand, replicas: int) -> tuple[float, float]:
    """(probability of waiting, mean wait in seconds) at a replica when the rate is spread evenly."""
    servers, load = demand.cores, demand.rate * demand.service / replicas
    chance = erlang_c(servers, load)
    mean = chance * demand.service / (servers - load) * (1.0 + demand.cv**2) / 2.0
    return chance, mean


def erlang_c(servers: int, load: float) -> float:
    """Probability that an arrival waits, with `load` = rate x service time < servers (Erlang 1917)."""
    blocked = 1.0
    for number in range(1, servers + 1):
        blocked = load * blocked / (number + load * blocked)
    used = load / servers
    return blocked / (1.0 - used * (1.0 - blocked))


def own_slow(demand: Demand) -> float:
    """Share of requests that work longer than the threshold: log-normal service times of the given cv."""
    return _longer(demand, demand.threshold or math.inf)


def _longer(demand: Demand, seconds: float) -> float:
    if seconds <= 0:
        return 1.0
    if demand.cv == 0:
        return float(demand.service > seconds)
    if seconds == math.inf:
        return 0.0
    spread = math.sqrt(math.log1p(demand.cv**2))
    middle = math.log(demand.service) - spread * spread / 2.0
    return 0.5 * math.erfc((math.log(seconds) - middle) / spread / math.sqrt(2.0))


def slower_than(demand: Demand, replicas: int) -> float:
    """Share of requests whose wait and work exceed the threshold: work is log-normal; the wait is zero or
    exponential; summed over 400 slices of the wait's law."""
    assert demand.threshold is not None
    chance, mean = waiting(demand, replicas)
    if chance <= 0 or mean <= 0:
        return own_slow(demand)
    typical = mean / chance
    slices = 400
    late = sum(
        _longer(demand, demand.threshold + typical * math.log(1.0 - (place + 0.5) / slices))
        for place in range(slices)
    )
    return (1.0 - chance) * own_slow(demand) + chance * late / slices
