"""One observed function: its cells, its draws, and what happens to its kept calls.

In layers: `settled` (labels, buckets, mode), `beginning` and `ending` of a call, and here what the calls of a
generator need.
"""

from __future__ import annotations

from contextvars import Token
from time import perf_counter
from typing import Any

from mlobs.records import BY_ENTITY, BY_RATE
from mlobs.sdk.call import CURRENT, Marker, call_of
from mlobs.sdk.ending import Ending
from mlobs.sdk.sampling import kept_by_id
from mlobs.sdk.settled import Args, Kwargs
from mlobs.sdk.trace import INCOMING


class Binding(Ending):
    """An observed function, as its wrapper and the runtime see it. For generators, what the wrapper calls."""

    def begin(self, args: Args, kwargs: Kwargs) -> Marker | None:
        """Start of a generator's call; None when we failed, and the generator runs bare."""
        try:
            runtime = self._settled()
            marker: Marker = [self, None, self.stages]
            call = call_of(marker)
            own = self._own()
            own[0] += 1
            parent = INCOMING.get() if runtime.spans is not None else None
            if parent is not None and parent.sampled:
                self._kept(runtime, marker, None, "trace", args, kwargs)
            call._id = self.identified(args, kwargs)
            entity = None
            if self._by_entity and self.extractors.entity is not None:
                entity = self._guarded("entity", self._entity, self.extractors.entity, args, kwargs)
            decides, reason = (call._id, BY_RATE) if entity is None else (entity, BY_ENTITY)
            if runtime.random() < self._rate if decides is None else kept_by_id(decides, self._crc_limit):
                self._kept(runtime, marker, call._id, reason, args, kwargs)
            call.start = perf_counter()
            return marker
        except Exception as problem:  # noqa: BLE001 - the guard's
            self.guard.swallow("begin", problem)
            return None

    def enter(self, marker: Marker | None) -> Token[Marker | None] | None:
        """Make a generator's call the running one while its own code runs."""
        if marker is None:
            return None
        try:
            return CURRENT.set(marker)
        except Exception as problem:  # noqa: BLE001 - the guard's
            self.guard.swallow("enter", problem)
            return None

    def leave(self, token: Token[Marker | None] | None) -> None:
        """Leave it again; closed from another context, there is nothing to restore there."""
        if token is not None:
            try:
                CURRENT.reset(token)
            except Exception as problem:  # noqa: BLE001 - the guard's
                self.guard.swallow("leave", problem)

    def gave(self, marker: Marker | None) -> None:
        """A generator gave a value."""
        if marker is not None:
            try:
                call = marker[0]
                call.items += 1
                if call.first_item is None:
                    call.first_item = perf_counter()
            except Exception as problem:  # noqa: BLE001 - the guard's
                self.guard.swallow("gave", problem)

    def stopped(self, marker: Marker | None, error: BaseException, args: Args, kwargs: Kwargs) -> None:
        """A generator's call that raised or was closed before its end."""
        if marker is not None:
            try:
                start = marker[0].start
                self.failed(marker, start, perf_counter() - start, error, args, kwargs)
            except Exception as problem:  # noqa: BLE001 - the guard's
                self.guard.swallow("stopped", problem)

    def ended(self, marker: Marker | None, result: Any, args: Args, kwargs: Kwargs) -> None:
        """A generator's call that ran to its end."""
        if marker is not None:
            try:
                start = marker[0].start
                self.finished(marker, start, perf_counter() - start, result, args, kwargs)
            except Exception as problem:  # noqa: BLE001 - the guard's
                self.guard.swallow("ended", problem)
