"""What Prometheus 3 changed, held against every expression that is written. Prometheus 3 is not run here.

https://prometheus.io/docs/prometheus/3.0/migration/
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from mlobs.durations import parse_duration
from mlobs.slo.extrapolate import CLOSED, LEFT_OPEN, increase
from mlobs.slo.policy import WORKBOOK
from mlobs.slo.rules import rule_groups
from mlobs.slo.sli import edge_pattern
from mlobs.yamltext import read_yaml
from tests.slo.reference import CASES, STEP, Case
from tests.slo.test_sli import KINDS
from tests.slo.world import objective, settings

ROOT = Path(__file__).resolve().parents[2]
SCRAPE = 15
KNOWN = frozenset(
    "and bool by clamp_max count count_over_time group_left histogram_count histogram_fraction "
    "increase label_replace max min_over_time on or sqrt sum sum_over_time time timestamp unless vector "
    "without".split()
)
"""Words of PromQL that mean the same in 2.42 and 3; not among them: holt_winters, which 3 renamed."""
RANGE = re.compile(r"\[(\w+)(?::(\w*))?\]")
STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')


def written() -> Iterator[tuple[str, str]]:
    """(where, expression) of the committed files and of one objective of every kind."""
    groups = [
        rule_groups(settings(*KINDS, objective("p99", "p99", "0.99"), objective("drift", "drift", "0.95")))
    ]
    paths = ("alerts/example.rules.yaml", "examples/slo/rules/fraud-api.rules.yaml")
    groups += [read_yaml(ROOT / path).value["groups"] for path in paths]
    for rule in (rule for each in groups for group in each for rule in group["rules"]):
        yield rule.get("record") or rule["alert"], rule["expr"]


EXPRESSIONS = list(dict.fromkeys(written()))


def test_every_word_means_the_same_in_both() -> None:
    for where, expression in EXPRESSIONS:
        bare = re.sub(r"\{[^{}]*\}|\[[^\]]*\]", "", STRING.sub('""', expression))
        called = set(re.findall(r"([A-Za-z_][\w:]*)\s*\(", bare))
        assert called <= KNOWN, (where, called - KNOWN)
        assert "@" not in bare, where
        assert not re.search(r"\boffset\s+-", bare), where


def test_names_are_those_that_both_accept_without_quotes() -> None:
    for where, expression in EXPRESSIONS:
        for selector in re.findall(r"([A-Za-z_:][\w:]*)?\{([^{}]*)\}", expression):
            inside = STRING.sub('""', selector[1])
            assert re.fullmatch(r'([A-Za-z_]\w*(=~|!~|!=|=)"",?)*', inside), (where, inside)


def test_no_dot_of_a_pattern_can_meet_a_line_break() -> None:
    """In 3 a dot matches a line break too; ours are all escaped."""
    for where, expression in EXPRESSIONS:
        for pattern in re.findall(r'(?:=~|!~)"((?:[^"\\]|\\.)*)"', expression):
            assert "." not in re.sub(r"\\\\.", "", pattern), (where, pattern)


@pytest.mark.parametrize(
    ("edge", "spellings"), [("1", ("1", "1.0")), ("0.1", ("0.1",)), ("60", ("60", "60.0"))]
)
def test_an_edge_is_found_in_the_spelling_of_2_and_of_3(edge: str, spellings: tuple[str, ...]) -> None:
    for spelling in spellings:
        assert re.fullmatch(edge_pattern(Decimal(edge)), spelling)


def test_every_matcher_of_a_bucket_is_a_pattern_of_both_spellings() -> None:
    for where, expression in EXPRESSIONS:
        for op, pattern in re.findall(r'\ble(=~|=|!=|!~)"((?:[^"\\]|\\.)*)"', expression):
            assert op == "=~", where
            edges = [text.replace("\\\\", "") for text in pattern.split("|")]
            assert all(re.fullmatch(r"\d+\.\d+", edge) or f"{edge}.0" in edges for edge in edges), (
                where,
                edges,
            )


def test_a_window_that_is_open_on_the_left_still_holds_two_samples() -> None:
    """(t - 1m, t] has four samples at a scrape every 15 s, and two every 30 s."""
    for where, expression in EXPRESSIONS:
        for length, step in RANGE.findall(expression):
            if not step:
                assert parse_duration(length) >= 4 * SCRAPE, (where, length)


def test_coverage_divides_by_the_tiles_of_a_window_that_is_open_on_the_left() -> None:
    counted = re.compile(r"count_over_time\([^\[]*\[(\w+):(\w+)\]\)\) / (\d+)")
    found = [one for _, expression in EXPRESSIONS for one in counted.findall(expression)]
    assert found
    for length, step, tiles in found:
        assert parse_duration(length) / parse_duration(step) == int(tiles)


def detected(case: Case, edition: str) -> int | None:
    """Seconds from the step change until the quick tier holds, by raw windows of this edition."""
    share = 1 - float(case.objective)
    tier = WORKBOOK[0]
    threshold = 14.4 * share
    mature, pace = 2 * 3600, 5000.0 * SCRAPE
    times = [float(t) for t in range(0, mature + 3000, SCRAPE)]
    total = [pace * t / SCRAPE for t in times]
    bad = [max(0.0, t - mature) / SCRAPE * pace * case.share for t in times]
    for after in range(STEP, 3000, STEP):
        now, ratios = float(mature + after), []
        for length in (tier.long, tier.short):
            events = [increase(times, counts, now, length, edition) or 0.0 for counts in (bad, total)]
            ratios.append(events[0] / events[1])
        if min(ratios) > threshold:
            return after
    return None


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if case.kind != "drift"],
    ids=lambda case: f"{case.objective} {case.share:.1%}",
)
def test_the_reference_values_are_the_same_with_either_windows(case: Case) -> None:
    two, three = detected(case, CLOSED), detected(case, LEFT_OPEN)
    if case.fast is None:
        assert (two, three) == (None, None)
        return
    assert two == pytest.approx(case.fast, abs=STEP)
    assert three == pytest.approx(case.fast, abs=STEP)
