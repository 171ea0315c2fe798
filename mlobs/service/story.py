"""What drift's windows say, as lines of an incident's timeline: one when a verdict changes. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from mlobs import names
from mlobs.drift.verdicts import WindowVerdict
from mlobs.durations import speak_duration
from mlobs.records import TimelineEvent

KIND = "verdict"
SOURCE = "drift"


class Story:
    """Remembers what was said last of each model version. A restart may say it once more."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._last: dict[tuple[str, str], tuple[object, ...]] = {}

    def of(self, windows: Iterable[WindowVerdict]) -> list[TimelineEvent]:
        """Lines for the windows that were closed, segments left out: a verdict that is another one than the
        window before had, or the same one for other failed checks. What is well from the first window on is
        not mentioned."""
        found = []
        for window in windows:
            if window.stream.segment:
                continue
            model, version = window.stream.model, window.stream.version
            if version:  # an absence is of no version: it is over when any is heard of
                self._last.pop((model, ""), None)
            said = (window.verdict, window.status, *sorted(window.failed))
            if said != self._last.get((model, version), (names.OK, names.OK)):
                found.append(self._event(window))
            self._last[model, version] = said
        return found

    def _event(self, window: WindowVerdict) -> TimelineEvent:
        version = f" of version {window.stream.version}" if window.stream.version else ""
        why = f": {window.detail}" if window.detail else ""
        text = f"{speak_duration(window.end - window.start)} window{version} {window.verdict}{why}"
        return TimelineEvent(window.end, KIND, self._service, window.stream.model, text, SOURCE)
