"""A canary that is being watched: texts of /metrics and blocks of rows in, a verdict at any time. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from mlobs.secret import without_password
from mlobs.slo.canary import OF_ROWS, Block, Canary, Gaps, Rules, Verdict, observe, observe_rows, verdict
from mlobs.slo.canary_feed import Feed, Reading, advance, read

_NO_LOG = Gaps(dict.fromkeys(OF_ROWS, "only `mlobs serve` reads a feature log"))


def no_log(_canary: Canary, _now: float) -> Gaps:
    """Of whoever sees the counters alone."""
    return _NO_LOG


class Watch:
    """The canary of two versions behind /metrics; `verdict` may be asked from other threads."""

    def __init__(
        self, feed: Feed, rules: Rules, canary: Canary | None = None,
        gaps: Callable[[Canary, float], Gaps] = no_log,
    ) -> None:  # fmt: skip
        """`canary`: what is known already, from before a restart; `gaps`: what is not compared, and why."""
        self._feed, self._rules, self.canary, self._gaps = feed, rules, canary or Canary(), gaps
        self.model = feed.model
        self.problems: dict[str, str] = {}
        """Targets that did not answer at the last scrape, and why."""
        # Until the first look what is known already is old: a rollback stands, a promotion does not.
        old = self.canary.last + (rules.stale + 1) * rules.block if self.canary.blocks else 0.0
        self.verdict = verdict(self.canary, rules, old, gaps(self.canary, old))

    def add_rows(self, blocks: Iterable[Block]) -> None:
        """Blocks of the feature log; the verdict follows with the next `take`."""
        for block in blocks:
            self.canary = observe_rows(self.canary, block, self._rules)

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
                self.problems[without_password(target)] = f"{type(problem).__name__}: {problem}"[:200]
        self._feed, block = advance(self._feed, readings, now)
        if block is not None:
            self.canary = observe(self.canary, block, self._rules)
        self.verdict = verdict(self.canary, self._rules, now, self._gaps(self.canary, now))
        return self.verdict
