"""mlobs.yaml: what is right becomes plain values, what is wrong is told whole and refused whole."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pytest

from mlobs.config import load_settings, parse_settings
from mlobs.errors import ConfigError, MlobsError, UnreadableError

GOOD = """
service: fraud-api
feature_log: ./featurelog
mask: {schema: mask.yaml, key_file: /run/secrets/mlobs}
targets: [http://127.0.0.1:8000/metrics]
models:
  - name: fraud
    reference: reference/fraud.mlref
    features: {amount: {type: number, range: [0, 100000]}, country: {type: category, critical: true}}
drift: {window: 1m, min_rows: 1000, persistence: 3 of 5}
slo:
  windows:
    - {severity: ticket, long: 3d, short: 6h, budget: 10%}
    - {severity: page, long: 1h, short: 5m, budget: 2%}
  objectives:
    - {name: fraud-p99, model: fraud, sli: {p99: {threshold: 100ms}}, objective: 99%, period: 30d}
    - {name: fraud-available, model: fraud, sli: availability, objective: 99.9%, period: month}
notify:
  channels: {oncall: {slack: {channel: "#oncall", token_file: slack.txt}}, print: {console: }}
  routes: [{match: {severity: page}, to: [oncall]}]
"""

BAD = """
service: fraud-api
sample: 12
models:
  - name: fraud
    features: {country: {categories: [NO, SE], crit: 1}, amount: {range: [9, 1]}}
  - name: fraud
drift: {min_row: 5, window: 7m, persistence: 6 of 5, timezone: Mars/Olympus}
slo:
  windows: [{severity: page, long: 5m, short: 1h, budget: 2%}]
  objectives:
    - {name: a, model: frod, sli: {p99: {treshold: 100ms}}, objective: 99.9}
    - {name: a, sli: latencyy, objective: 100%, period: 30}
notify:
  channels: {oncall: {slack: {channel: "#oncall", token: xoxb-1234567890}}, pager: {pagerduti: {}}}
  routes: [{match: {severty: page}, to: [oncal]}]
listen: 127.0.0.1:80800
"""


def problems_of(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_settings(text)
    assert caught.value.exit_code == 2
    return [str(problem) for problem in caught.value.problems]


def test_a_good_file_becomes_exact_plain_values(tmp_path: Path) -> None:
    (tmp_path / "mlobs.yaml").write_text(GOOD)
    settings = load_settings(tmp_path / "mlobs.yaml")
    p99, available = settings.slo.objectives
    assert (p99.objective, available.objective) == (Decimal("0.99"), Decimal("0.999"))
    assert p99.sli.threshold == Decimal("0.1")
    assert settings.latency_thresholds("fraud") == (0.1,)
    assert (p99.period, available.calendar) == (30 * 86400, "month")
    assert settings.feature_log == str(tmp_path / "featurelog")
    assert settings.store == f"sqlite:///{tmp_path / 'mlobs.db'}"
    assert [window.severity for window in settings.slo.windows or ()] == ["page", "ticket"]
    assert settings.model("fraud").features["country"].critical
    assert settings.model("unknown").reference is None
    assert settings.notify.channels["oncall"].secrets["token"].file == str(tmp_path / "slack.txt")


def test_every_problem_of_a_file_is_reported_at_once_with_line_and_remedy() -> None:
    found = problems_of(BAD)
    for expected in (
        "mlobs.yaml:3: sample: expected less than or equal to 1, got 12",
        "mlobs.yaml:6: models[0].features.country.categories[0]",
        "mlobs.yaml:6: models[0].features.country.crit: expected a known name, got 'crit'; did you mean",
        "mlobs.yaml:6: models[0].features.amount.range: expected [low, high]",
        "mlobs.yaml:7: models[1].name: expected a name of its own",
        "mlobs.yaml:8: drift.min_row: expected a known name, got 'min_row'; did you mean 'min_rows'?",
        "mlobs.yaml:8: drift.window: expected a slice that divides a day",
        "mlobs.yaml:8: drift.persistence: expected `k of n` windows",
        "mlobs.yaml:8: drift.timezone: expected an IANA time zone",
        "mlobs.yaml:10: slo.windows[0]: expected a short window within the long one",
        "mlobs.yaml:12: slo.objectives[0].model: expected a model of `models`, got 'frod'",
        "mlobs.yaml:12: slo.objectives[0].sli.p99.treshold: expected a known name, got 'treshold'",
        "mlobs.yaml:12: slo.objectives[0].objective: expected an objective between 0 and 1, got 99.9",
        "mlobs.yaml:13: slo.objectives[1].name: expected a name of its own",
        "mlobs.yaml:13: slo.objectives[1].sli: expected a kind of indicator",
        "mlobs.yaml:13: slo.objectives[1].objective",
        "mlobs.yaml:13: slo.objectives[1].period",
        "mlobs.yaml:15: notify.channels.oncall.slack.token: expected a secret by its source, got <hidden>",
        "mlobs.yaml:15: notify.channels.pager.pagerduti: expected a kind of channel, got 'pagerduti'",
        "mlobs.yaml:16: notify.routes[0].match.severty",
        "mlobs.yaml:17: listen: expected an address and a port up to 65535",
        "mlobs.yaml:16: notify.routes[0].to[0]: expected a channel of `notify.channels`, got 'oncal'",
    ):
        assert any(line.startswith(expected) for line in found), (expected, found)


def test_a_secret_written_into_the_file_is_not_repeated_in_the_error() -> None:
    assert "xoxb" not in "\n".join(problems_of(BAD))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "service"),
        ("[1, 2]", "a mapping"),
        ("service: a\nservice: b", "each key once"),
        ("service: [", "YAML"),
        ("service: !!python/object:os.system x", "YAML"),
        ("service: &a [*a]", "a tree"),
        ("service: a\nsolo: 1", "did you mean"),
        ("service: a\notlp: collector:4318", "otlp: expected the collector's URL"),
        ("service: a\notlp: http://collector:port", "otlp: expected the collector's URL"),
        ("service: a\notlp: http://", "otlp: expected the collector's URL"),
    ],
)
def test_a_file_of_another_form_is_a_clear_error(text: str, expected: str) -> None:
    assert expected in "\n".join(problems_of(text))


def test_an_alias_bomb_is_refused_before_it_fills_the_memory() -> None:
    levels = "".join(f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in pairwise("abcdefghi"))
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + levels
    assert "at most 100000 values" in "\n".join(problems_of(bomb))


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_a_missing_or_binary_file_is_unreadable(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "mlobs.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UnreadableError) as caught:
        load_settings(path)
    assert isinstance(caught.value, MlobsError)
    assert caught.value.exit_code == 2
