"""What observing adds to a call, beside prometheus-client doing the same: CPU time, net of the bare function.

Both sides in one process, their rounds interleaved, the least of many rounds each. The first rows run while
nobody in the process uses `stage` or `current`; then `current`, then the stages. Async calls are driven by
`send`, so that no event loop is measured; their peer is the same `@Histogram.time()` on a sync function,
since on a coroutine function it times nothing.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from timeit import Timer

from prometheus_client import CollectorRegistry, Histogram

import mlobs
from mlobs.sdk.api import installed
from mlobs.sdk.runtime import Runtime
from mlobs.settings import Settings
from mlobs.testing import MemoryLog
from tests.benchmarks.figures import Row, show
from tests.benchmarks.stages import STAGES, bare, bare_async, four_stages

REGISTRY = CollectorRegistry()
CALL = Histogram("call_seconds", "A call.", ["model", "version"], registry=REGISTRY).labels("m", "1")
STAGE = Histogram("stage_seconds", "A stage.", ["model", "version", "stage"], registry=REGISTRY)
RESOLVED = [STAGE.labels("m", "1", name) for name in STAGES]


def drive(fn: Callable[[object], object]) -> Callable[[object], None]:
    def run(request: object) -> None:
        try:
            fn(request).send(None)  # type: ignore[attr-defined]
        except StopIteration:
            pass

    return run


def costs(sides: dict[str, Callable[[object], object]], rounds: int, calls: int) -> dict[str, float]:
    """Least CPU seconds a call of each, the rounds of all interleaved."""
    request = {"id": "4f1c9a02", "amount": 1.0}
    timers = {
        name: Timer("fn(request)", timer=time.process_time, globals={"fn": fn, "request": request})
        for name, fn in sides.items()
    }
    best = dict.fromkeys(sides, float("inf"))
    for _ in range(rounds):
        for name, timer in timers.items():
            best[name] = min(best[name], timer.timeit(calls) / calls)
    return best


def four_stages_of_prometheus(request):  # type: ignore[no-untyped-def]
    with RESOLVED[0].time():
        pass
    with RESOLVED[1].time():
        pass
    with RESOLVED[2].time():
        pass
    with RESOLVED[3].time():
        pass
    return 0.5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--calls", type=int, default=5_000)
    given = parser.parse_args()
    rows: list[Row] = []

    def ratio(what: str, ours: float, peer: float, goal: float) -> None:
        rows.append(Row(what, ours * 1e6, peer * 1e6, goal))

    # A sampling decision is part of every call: something is kept, only at a rate that meets none of these.
    runtime = Runtime(Settings(service="bench", sample=1e-12), log=MemoryLog())
    with installed(runtime):
        peer = CALL.time()(bare)
        plain = mlobs.observe(model="plain")(bare)
        with_id = mlobs.observe(model="id", prediction_id=lambda request: request["id"])(bare)
        unkept_async = mlobs.observe(model="async")(bare_async)
        for fn in (plain, with_id):
            for _ in range(2_000):
                fn({"id": "4f1c9a02"})
        sides = {"bare": bare, "peer": peer, "plain": plain, "id": with_id}
        sides |= {"bare async": drive(bare_async), "async": drive(unkept_async)}
        for _ in range(2_000):
            sides["async"]({})
        got = costs(sides, given.rounds, given.calls)
        beside = got["peer"] - got["bare"]
        ratio("unsampled call", got["plain"] - got["bare"], beside, 0.30)
        ratio("unsampled async call", got["async"] - got["bare async"], beside, 0.35)
        ratio("unsampled call with an id", got["id"] - got["bare"], beside, 0.45)

        # from here on every call carries its context
        ours = mlobs.observe(model="stages")(four_stages(mlobs.stage))
        theirs = CALL.time()(four_stages_of_prometheus)
        got = costs(
            {"bare": bare, "peer": peer, "in use": plain, "ours": ours, "theirs": theirs},
            given.rounds,
            given.calls,
        )
        beside = got["peer"] - got["bare"]
        ratio("unsampled call, current() in use", got["in use"] - got["bare"], beside, 0.45)
        ratio("call and four stages", got["ours"] - got["bare"], got["theirs"] - got["bare"], 0.30)
    return show("us a call", rows)


if __name__ == "__main__":
    sys.exit(main())
