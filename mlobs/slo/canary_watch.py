"""A canary that is being watched: texts of /metrics come in, the verdict of now can be asked. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from mlobs.slo.canary import Canary, Rules, Verdict, observe, verdict
from mlobs.slo.canary_feed import Feed, Reading, advance, read


class Watch:
    """The canary of two versions behind /metrics; `verdict` may be asked from other threads."""

    def __init__(self, feed: Feed, rules: Rules, canary: Canary | None = None) -> None:
        """`canary`: what is known already, from before a restart."""
        self._feed, self._rules, self.canary = feed, rules, canary or Canary()
        self.model = feed.model
        self.problems: dict[str, str] = {}
        """Targets that did not answer at the last scrape, and why."""
        # Until the first look what is known already is old: a rollback stands, a promotion does not.
        old = self.canary.last + (rules.stale + 1) * rules.block if self.canary.blocks else 0.0
        self.verdict = verdict(self.canary, rules, old)

    def take(self, texts: Mapping[str, str | bytes | Exception], now: float) -> Verdict:
        """The verdict after a scrape: text, or what went wrong, by target."""
        versions = (self._feed.candidate, self._feed.baseline)
        readings: dict[str, Reading] = {}
        self.problems = {}
        for target, text in texts.items():
            try:
                if isinstance(text, Exception):
                    raise text
                words = text.decode("utf-8") if isinstance(text, bytes) else text
                readings[target] = read(words, self.model, versions)
            except Exception as problem:  # noqa: BLE001 - a replica that answers nonsense is a missing one
                self.problems[target] = f"{type(problem).__name__}: {problem}"[:200]
        self._feed, block = advance(self._feed, readings, now)
        if block is not None:
            self.canary = observe(self.canary, block, self._rules)
        self.verdict = verdict(self.canary, self._rules, now)
        return self.verdict
