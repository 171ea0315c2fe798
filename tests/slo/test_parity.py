"""`increase` and `rate` as the real Prometheus computes them."""

from __future__ import annotations

import itertools
import math
import random
import subprocess

import pytest

from mlobs.slo.extrapolate import CLOSED, LEFT_OPEN, increase, rate
from tests import servers

START = 1_700_000_000


def counters(seed: int, count: int) -> list[list[tuple[int, float]]]:
    """Counters with jitter, gaps, resets, births and fractions; times are whole milliseconds."""
    draw, found = random.Random(seed), []
    for number in range(count):
        t, value, series = START * 1000 + draw.randrange(60_000), float(draw.randrange(100)), []
        while t < (START + 5400) * 1000:
            series.append((t, value))
            t += 15_000 + draw.randrange(-400, 400) if number % 3 else 15_000
            if draw.random() < 0.02:
                t += draw.randrange(400_000)
            value = (
                draw.random() * 3
                if draw.random() < 0.03
                else value + draw.choice([0, 0, 1, 2.5, 1000 * draw.random()])
            )
        found.append(series)
    return found


def test_seven_thousand_comparisons_with_the_real_prometheus(prometheus, tmp_path) -> None:
    series = counters(1, 30)
    text = ["# TYPE c counter"]
    for number, samples in enumerate(series):
        text += [f'c_total{{n="{number}"}} {value!r} {t / 1000:.3f}' for t, value in samples]
    (tmp_path / "in.om").write_text("\n".join(text) + "\n# EOF\n")
    data = tmp_path / "prometheus0" / "data"
    data.mkdir(parents=True)
    command = [str(servers.need("promtool")), "tsdb", "create-blocks-from", "openmetrics"]
    subprocess.run([*command, str(tmp_path / "in.om"), str(data)], check=True, capture_output=True)
    server = prometheus(flags=["--storage.tsdb.retention.time=100y"])
    compared = worst = 0
    for function, length in itertools.product(("increase", "rate"), (60, 300, 1800, 3600)):
        answer = server.get(
            "query_range",
            query=f"{function}(c_total[{length}s])",
            start=str(START + 60),
            end=str(START + 5400),
            step="120",
        )
        asked = [START + 60 + 120 * n for n in range(45)]
        got = {r["metric"]["n"]: {float(t): float(v) for t, v in r["values"]} for r in answer["result"]}
        ours = increase if function == "increase" else rate
        for number, samples in enumerate(series):
            times, values = [t / 1000 for t, _ in samples], [v for _, v in samples]
            for t in asked:
                expected = got.get(str(number), {}).get(t)
                found = ours(times, values, t, length)
                assert (expected is None) == (found is None), (function, length, number, t)
                compared += 1
                if expected:
                    worst = max(worst, abs(found / expected - 1))
                elif expected is not None:
                    assert found == 0
    assert compared >= 7000
    assert worst <= 1e-12


@pytest.mark.parametrize(("edition", "expected"), [(CLOSED, 60.0), (LEFT_OPEN, 60.0)])
def test_both_editions_agree_on_an_even_counter(edition: str, expected: float) -> None:
    times = [float(15 * n) for n in range(20)]
    assert increase(times, times, 120, 60, edition) == pytest.approx(expected)


def test_the_editions_differ_on_a_sample_that_lies_on_the_edge() -> None:
    times, values = [0.0, 60.0], [0.0, 6.0]
    assert increase(times, values, 60, 60, CLOSED) == 6
    assert increase(times, values, 60, 60, LEFT_OPEN) is None


def test_a_reset_adds_the_value_before_it_and_nothing_is_nan() -> None:
    assert increase([0, 15, 30, 45, 60], [10, 20, 3, 4, 5], 60, 60) == 15.0
    assert increase([0.0], [1.0], 0, 60) is None
    assert not math.isnan(increase([0, 15], [0, 0], 15, 15) or 0.0)
