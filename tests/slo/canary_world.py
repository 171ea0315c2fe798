"""Made-up traffic of a canary: load that both arms share, pods that differ, seeded."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from mlobs.names import DEFAULT_BUCKETS
from mlobs.slo.canary import Arm, Block, Canary, Rules, observe, verdict

BLOCK = 10.0


@dataclass(frozen=True)
class World:
    """Rates of the baseline, and what the candidate multiplies them by."""

    per_block: int = 1000
    """Requests of an arm in ten seconds."""
    errors: float = 0.001
    errors_times: float = 1.0
    median: float = 0.05
    sigma: float = 0.5
    slower: float = 1.0
    """Factor on all durations of the candidate."""
    score_shift: float = 0.0
    """In standard deviations."""
    denied: float = 0.1
    """Share of one of two decisions; it moves with the scores."""
    flips: float = 0.01
    quality: float = 0.005
    quality_times: float = 1.0
    pods: int = 4
    pod_latency: float = 0.02
    pod_errors: float = 0.05
    """Standard deviation of the log of a pod's own factor, for as long as it lives."""
    load_latency: float = 0.1
    load_errors: float = 0.3
    """Standard deviation of the log of what both arms share within a block."""


def blocks(world: World, count: int, rng: np.random.Generator) -> Iterator[Block]:
    deciding = rng.spawn(1)[0]  # leaves what `rng` itself draws as it was
    slow = np.exp(world.pod_latency * rng.standard_normal((2, world.pods)))
    faulty = np.exp(world.pod_errors * rng.standard_normal((2, world.pods)))
    for place in range(count):
        heat = math.exp(world.load_latency * rng.standard_normal())
        trouble = math.exp(world.load_errors * rng.standard_normal())
        arms = []
        for arm, (times, slower, shift, bad) in enumerate(
            (
                (world.errors_times, world.slower, world.score_shift, world.quality_times),
                (1.0, 1.0, 0.0, 1.0),
            )
        ):
            split = rng.multinomial(world.per_block, [1 / world.pods] * world.pods)
            failed = rng.binomial(split, np.minimum(world.errors * times * trouble * faulty[arm], 1)).sum()
            durations = sum(
                rng.multinomial(n, _latency(world, slower * heat * own))
                for n, own in zip(split, slow[arm], strict=True)
            )
            scores = rng.multinomial(world.per_block, _scores(shift))
            denied = int(deciding.binomial(world.per_block, min(world.denied * float(np.exp(shift)), 1.0)))
            spoilt = rng.binomial(world.per_block, min(world.quality * bad * faulty[arm].mean(), 1))
            arms.append(
                Arm(
                    world.per_block, int(failed), tuple(map(int, durations)), tuple(map(int, scores)),
                    world.per_block, int(spoilt), (denied, world.per_block - denied),
                )
            )  # fmt: skip
        pairs = world.per_block // 10
        start = BLOCK * place
        yield Block(start, start + BLOCK, arms[0], arms[1], pairs, int(rng.binomial(pairs, world.flips)))


def _latency(world: World, factor: float) -> npt.NDArray[np.float64]:
    upto = ndtr(np.log(np.array(DEFAULT_BUCKETS) / (world.median * factor)) / world.sigma)
    return np.diff(np.concatenate([[0.0], upto, [1.0]]))


def _scores(shift: float) -> npt.NDArray[np.float64]:
    upto = ndtr(np.linspace(-2, 2, 19) - shift)
    return np.diff(np.concatenate([[0.0], upto, [1.0]]))


def ends(world: World, count: int, runs: int, seed: int, rules: Rules | None = None) -> list[Canary]:
    """The canary of each of `runs` worlds after `count` blocks."""
    rules = rules or Rules()
    found = []
    for run in range(runs):
        canary = Canary()
        for block in blocks(world, count, np.random.default_rng([seed, run])):
            canary = observe(canary, block, rules)
        found.append(canary)
    return found


def share_of(what: str, canaries: list[Canary], rules: Rules | None = None) -> float:
    rules = rules or Rules()
    return sum(verdict(one, rules, one.last).verdict == what for one in canaries) / len(canaries)


def share_found(canaries: list[Canary], rules: Rules | None = None) -> float:
    """Of canaries in which any metric was found harmful, also one that only holds."""
    rules = rules or Rules()
    found = [verdict(one, rules, one.last).evidence for one in canaries]
    return sum(any(metric.harmful for metric in evidence) for evidence in found) / len(canaries)
