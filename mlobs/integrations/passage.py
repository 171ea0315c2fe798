"""A request's way through a server: its trace context in, its duration out. What all integrations share.

The context that a request brings becomes the parent of every observed call inside. Nothing here raises into
the host: what fails is swallowed and counted by the runtime's guard.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from contextvars import Token
from functools import lru_cache
from time import perf_counter
from typing import Any

from mlobs import names
from mlobs.sdk.api import default_runtime
from mlobs.sdk.buckets import Bounds, plain_bounds
from mlobs.sdk.instruments import observe_value
from mlobs.sdk.meter import HISTOGRAM, Family, clean_label
from mlobs.sdk.trace import INCOMING, TraceContext, parse_traceparent

# The last label is the one that gives way to `__other__` beyond the cap.
HTTP = Family(
    names.HTTP_REQUEST_DURATION,
    HISTOGRAM,
    (names.HTTP_METHOD, names.HTTP_STATUS, names.HTTP_ROUTE),
    "Duration of a whole request, by the template of its route.",
)
RPC = Family(
    names.RPC_CALL_DURATION,
    HISTOGRAM,
    (names.RPC_STATUS, names.RPC_METHOD),
    "Duration of a whole call of a gRPC method.",
)
BOUNDS: Bounds = plain_bounds(
    (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
)  # OpenTelemetry's advice for http.server.request.duration
_METHODS = frozenset("CONNECT DELETE GET HEAD OPTIONS PATCH POST PUT QUERY TRACE".split())


def method_label(method: str) -> str:
    """The HTTP method; `_OTHER` for what is none, as the conventions have it."""
    return method if method in _METHODS else "_OTHER"


@lru_cache(maxsize=1024)
def _clean(*labels: object) -> tuple[str, ...]:
    return tuple(map(clean_label, labels))


class Passage:
    """One request under way, from construction to `end`."""

    __slots__ = ("_attached", "_token", "start")

    def __init__(self, headers: Callable[[], tuple[str | None, str]]) -> None:
        """`headers` gives `traceparent` and `tracestate`; it may fail."""
        self._token: Token[TraceContext | None] | None = None
        self._attached: Any = None
        try:
            parent, state = headers()
            found = parse_traceparent(parent, state) if parent else None
            self._token = INCOMING.set(found)
            if found is not None and default_runtime().spans is not None:
                self._attached = _attach(found)
        except Exception as problem:  # noqa: BLE001 - the guard's
            default_runtime().guard.swallow("incoming", problem)
        self.start = perf_counter()

    @staticmethod
    def guarded(site: str, find: Callable[[], str]) -> str | None:
        """What `find()` gives, None when it raises."""
        try:
            return find()
        except Exception as problem:  # noqa: BLE001 - the guard's
            default_runtime().guard.swallow(site, problem)
            return None

    def end(self, family: Family, labels: Callable[[], Iterable[Hashable]]) -> None:
        """Count the duration until now under `labels()`, and let go of the incoming context."""
        took = perf_counter() - self.start
        self.release()
        runtime = default_runtime()
        try:
            observe_value(runtime, family, _clean(*labels()), BOUNDS, took)
        except Exception as problem:  # noqa: BLE001 - the guard's
            runtime.guard.swallow("request", problem)

    def release(self) -> None:
        """Restore what was incoming before; idempotent."""
        token, self._token = self._token, None
        if token is not None:
            try:
                INCOMING.reset(token)
                if self._attached is not None:
                    _detach(self._attached)
            except ValueError:  # ended in another context: there is nothing to restore there
                default_runtime().guard.count("incoming_elsewhere")


def _attach(context: TraceContext) -> Any:
    """Let what the request calls continue its trace, kept or not; a span that is active already does so."""
    from mlobs.sdk import otel  # weight: only while tracing

    return otel.attach(context, remote=True) if otel.active() is None else None


def _detach(token: Any) -> None:
    from mlobs.sdk import otel

    otel.detach(token)
