"""The functions that the SDK's benchmarks observe: one that does nothing, and one with four empty stages."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from mlobs.sdk.call import Lap

STAGES = ("feature_read", "preprocess", "inference", "postprocess")


def bare(request):  # type: ignore[no-untyped-def]
    return 0.5


async def bare_async(request):  # type: ignore[no-untyped-def]
    return 0.5


def four_stages(stage: Callable[[str], Lap | AbstractContextManager[object]]):  # type: ignore[no-untyped-def]
    """A function of four stages. `mlobs.stage` is handed in: taking it makes calls carry their context."""

    def score(request):  # type: ignore[no-untyped-def]
        with stage("feature_read"):
            pass
        with stage("preprocess"):
            pass
        with stage("inference"):
            pass
        with stage("postprocess"):
            pass
        return 0.5

    return score
