"""Each channel sends in a thread of its own, so that one that hangs holds neither the others nor the
evaluation.

A turn that is not over when the pump must return goes on; what it sent is told by the next pump. On a
driven clock, and for a store in memory (which belongs to one thread), turns run one after the other in the
caller's thread.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping

from mlobs.notify.channels.base import Channel
from mlobs.notify.outbox import LEASE_S
from mlobs.notify.sender import Sender, Sent

_log = logging.getLogger("mlobs.notify")

WAIT_S = 1.0
"""How long a pump waits for the turns."""


class Turns:
    """The channels' turns of one desk."""

    def __init__(self, sender: Sender, channels: Mapping[str, Channel], *, inline: bool) -> None:
        self._sender = sender
        self._channels = channels
        self._inline = inline
        self._running: dict[str, _Turn] = {}

    def run(self, due: set[str], now: float) -> list[Sent]:
        """Give every channel in `due` its turn; what was sent since the last call. Raises what a turn
        raised.
        """
        mine = [self._channels[name] for name in sorted(due) if name in self._channels]
        if self._inline:
            return self._one_by_one(mine, now)
        for channel in mine:
            turn = self._running.get(channel.name)
            if turn is None or turn.age() > LEASE_S:  # what hangs beyond its lease is anybody's again
                self._running[channel.name] = _Turn(self._sender, channel, now)
        return self._gather(time.monotonic() + WAIT_S)

    def close(self, timeout: float) -> bool:
        """Wait for what is on its way, at most `timeout` seconds; whether all of it was written down."""
        until = time.monotonic() + timeout
        over = [turn.join(until - time.monotonic()) for turn in self._running.values()]
        return all(over)

    def _one_by_one(self, channels: list[Channel], now: float) -> list[Sent]:
        done: list[Sent] = []
        problems: list[Exception] = []
        for channel in channels:
            try:
                done.extend(self._sender.run(channel, lambda: now))
            except Exception as problem:  # noqa: BLE001 - raised below: the other channels go first
                problems.append(problem)
        return _told(done, problems)

    def _gather(self, until: float) -> list[Sent]:
        done: list[Sent] = []
        problems: list[Exception] = []
        for name, turn in list(self._running.items()):
            if turn.join(until - time.monotonic()):
                del self._running[name]
                done.extend(turn.sent)
                if turn.problem is not None:
                    problems.append(turn.problem)
        return _told(done, problems)


def _told(done: list[Sent], problems: list[Exception]) -> list[Sent]:
    if problems:
        _log.warning("%d channels failed in their turn", len(problems))
        raise problems[0]
    return done


class _Turn:
    """One channel's turn in its thread."""

    def __init__(self, sender: Sender, channel: Channel, now: float) -> None:
        self.sent: list[Sent] = []
        self.problem: Exception | None = None
        self._began = time.monotonic()
        clock: Callable[[], float] = lambda: now + self.age()  # noqa: E731 - the event clock, running on
        self._thread = threading.Thread(
            target=self._run, args=(sender, channel, clock), name=f"mlobs-send-{channel.name}", daemon=True
        )
        self._thread.start()

    def age(self) -> float:
        return time.monotonic() - self._began

    def join(self, seconds: float) -> bool:
        """Wait at most `seconds`; whether it is over."""
        self._thread.join(max(0.0, seconds))
        return not self._thread.is_alive()

    def _run(self, sender: Sender, channel: Channel, clock: Callable[[], float]) -> None:
        try:
            self.sent = sender.run(channel, clock)
        except Exception as problem:  # noqa: BLE001 - raised by the pump that gathers it
            self.problem = problem
