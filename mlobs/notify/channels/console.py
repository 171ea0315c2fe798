"""Pages printed for a person at a terminal: the default of a first minute, and what the demo shows."""

from __future__ import annotations

import sys
from collections.abc import Callable

from mlobs.notify.channels.base import Message
from mlobs.notify.drawing import plain
from mlobs.notify.page import FIRING, TEST
from mlobs.notify.retry import Outcome, Reason, sent


def to_stdout(text: str) -> None:
    """One page, whole, and flushed: somebody is waiting for it."""
    sys.stdout.write(text)
    sys.stdout.flush()


def to_stderr(text: str) -> None:
    """Where the log of a service goes."""
    sys.stderr.write(text)
    sys.stderr.flush()


class ConsoleChannel:
    """Prints each page between two rules; resolved ones with their first lines alone."""

    kind = "console"
    updates = False
    update_every = 0.0
    digests = True
    rate: float | None = None

    def __init__(self, name: str, write: Callable[[str], None] = to_stdout) -> None:
        self.name = name
        self._write = write

    def send(self, message: Message) -> Outcome:
        lines = plain(message.page)
        if message.kind not in (FIRING, TEST):
            lines = lines[:2]
        rule = "=" * 78 if message.kind == FIRING else "-" * 78
        text = "\n".join((rule, *lines, rule, ""))
        try:
            try:
                self._write(text)
            except UnicodeEncodeError:  # a terminal that knows ASCII alone
                self._write(text.encode("ascii", "replace").decode())
        except (OSError, ValueError):  # a closed terminal or pipe
            return Outcome(False, Reason.CONNECTION, retry=True, whole_channel=True, detail="cannot print")
        return sent()
