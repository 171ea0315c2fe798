"""What observing adds to a call, measured on a function that does nothing: what `overhead` counts with."""

from __future__ import annotations

from collections.abc import Callable
from time import thread_time

from mlobs.sdk.binding import Binding
from mlobs.sdk.capture import Extractors
from mlobs.sdk.runtime import Runtime
from mlobs.settings import Settings

_CALLS = 2_000
_ROUNDS = 3


def calibrate() -> float:
    """CPU seconds that observing adds to a call, the least of a few rounds of 2,000; takes about 10 ms."""
    runtime = Runtime(Settings(service="calibration"))
    binding = Binding(
        _nothing, model="nothing", version="", variant=None, extractors=Extractors(), runtime=lambda: runtime
    )
    bare = _cost(_nothing)
    return max(0.0, _cost(binding.wrapper) - bare)


def _nothing(value: object) -> object:
    return value


def _cost(fn: Callable[[object], object]) -> float:
    best = float("inf")
    for _ in range(_ROUNDS):
        began = thread_time()
        for _ in range(_CALLS):
            fn(None)
        best = min(best, (thread_time() - began) / _CALLS)
    return best
