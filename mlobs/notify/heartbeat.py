"""The dead man's handle: while mlobs evaluates and can write, it calls an address outside, which raises the
alarm when the calls stop. Each call goes in a thread of its own and nobody waits for it."""

from __future__ import annotations

import logging
import threading

from mlobs.errors import MlobsError
from mlobs.notify.http import Addresses, NotSentError, parse_target, post
from mlobs.settings import HeartbeatSettings

_log = logging.getLogger("mlobs.notify")


class Heartbeat:
    """Beats at most every `settings.every` seconds. `allowed` says where to: https and public, unless
    told.
    """

    def __init__(self, settings: HeartbeatSettings, allowed: Addresses) -> None:
        self._settings = settings
        self._allowed = allowed
        self._next = 0.0
        self._thread: threading.Thread | None = None
        self.failures = 0
        """In a row."""

    def beat(self, now: float) -> bool:
        """Call if it is time and the last call is over; whether one was begun."""
        if now < self._next or (self._thread is not None and self._thread.is_alive()):
            return False
        self._next = now + self._settings.every
        self._thread = threading.Thread(target=self._call, name="mlobs-heartbeat", daemon=True)
        self._thread.start()
        return True

    def wait(self, seconds: float) -> None:
        if self._thread is not None:
            self._thread.join(seconds)

    def _call(self) -> None:
        try:
            secret = self._settings.secret
            url = secret.reveal() if secret is not None else self._settings.url or ""
            target = parse_target(url, "notify.heartbeat.url", self._allowed)
            reply = post(target, b"", {"User-Agent": "mlobs"}, allowed=self._allowed, timeout=10.0)
            fine = 200 <= reply.status < 300
            reason = f"HTTP {reply.status}"
        except (MlobsError, NotSentError) as problem:
            fine, reason = False, str(problem)
        self.failures = 0 if fine else self.failures + 1
        if self.failures in (1, 10):
            _log.warning("the heartbeat is not taken: %s", reason)
