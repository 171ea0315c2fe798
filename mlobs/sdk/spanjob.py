"""A kept call on its way to the collector. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from mlobs.sdk.trace import TraceContext


class SpanJob(NamedTuple):
    """A kept call's spans before they are built: the call and its stages, times in ns since the epoch."""

    name: str
    context: TraceContext
    parent: TraceContext | None
    start: int
    end: int
    attributes: Mapping[str, Any]
    outcome: str
    error: str | None
    """Type of the exception; its text may hold what masking keeps out of the feature log."""
    stages: Sequence[tuple[str, int, int]]
    arrived: Callable[[], object] | None = None
    """Called once the collector has taken them, by the thread that sends."""

    @property
    def spans(self) -> int:
        return 1 + len(self.stages)
