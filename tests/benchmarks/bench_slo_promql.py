"""Samples that a real Prometheus reads for one objective and evaluation: our rules beside Sloth's and
Pyrra's.

The peers' rules are written out here for the same objective (availability 99.9 %, 30 days, scraped every 15
s, one series per outcome), as their generators print them. Counted by `stats=all`, so the numbers do not
depend on time.

python tests/benchmarks/bench_slo_promql.py
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mlobs.slo.rules import rule_groups
from tests import servers
from tests.slo.world import objective, settings

START = 1_700_000_000 // 86400 * 86400
END = START + 31 * 86400
NAME = "mlobs_request_duration_seconds_count"
BASE = '{model="fraud",outcome="error"}'
TOTAL = '{model="fraud",outcome!="cancelled"}'


def raw(folder: Path) -> None:
    """31 days of two counters at 15 s, and the recorded series that long windows read, day by day."""
    for day in range(31):
        lines = []
        for outcome, pace in (("ok", 1500), ("error", 1)):
            lines += [
                f'{NAME}{{model="fraud",outcome="{outcome}"}} {pace * (t - START) // 15} {t}'
                for t in range(START + day * 86400, START + (day + 1) * 86400, 15)
            ]
        own = (
            'sloth_id="fraud-api-up",sloth_service="fraud-api",sloth_slo="up",slo="up",service="fraud-api",'
            'model="fraud",cause="availability",mlobs_table="t1"'
        )
        texts = {NAME: lines}
        for window in ("5m", "1h"):
            texts.setdefault("mlobs:slo_events:increase", []).extend(
                f'mlobs:slo_events:increase{{{own},events="{kind}",sloth_window="{window}"}} 5 {t}'
                for kind in ("bad", "total")
                for t in range(START + day * 86400, START + (day + 1) * 86400, 30)
            )
        texts["slo:sli_error:ratio_rate5m"] = [
            f'slo:sli_error:ratio_rate5m{{{own},sloth_window="5m"}} 0.001 {t}'
            for t in range(START + day * 86400, START + (day + 1) * 86400, 30)
        ]
        body = [line for name in sorted(texts) for line in (f"# TYPE {name} gauge", *texts[name])]
        path = folder / f"{day}.om"
        path.write_text("\n".join(body) + "\n# EOF\n")
        command = [str(servers.need("promtool")), "tsdb", "create-blocks-from", "openmetrics"]
        subprocess.run([*command, str(path), str(folder / "p" / "data")], check=True, capture_output=True)
        path.unlink()


def sloth() -> list[str]:
    """Sloth 0.11: eight ratios over raw samples, the 30-day one over recorded 5-minute ratios."""
    ratio = f"(sum(rate({NAME}{BASE}[{{w}}])))\n/\n(sum(rate({NAME}{TOTAL}[{{w}}])))"
    found = [ratio.replace("{w}", w) for w in ("5m", "30m", "1h", "2h", "6h", "1d", "3d")]
    five = 'slo:sli_error:ratio_rate5m{sloth_id="fraud-api-up"}'
    return [*found, f"sum_over_time({five}[30d]) / ignoring (sloth_window) count_over_time({five}[30d])"]


def pyrra() -> list[str]:
    """Pyrra 0.8: two increases over 30 days, burn rates over raw samples of seven windows."""
    burn = f"sum(rate({NAME}{BASE}[{{w}}])) / sum(rate({NAME}{TOTAL}[{{w}}]))"
    found = [burn.replace("{w}", w) for w in ("5m", "30m", "1h", "2h", "6h", "1d", "4d")]
    return [*found, f"sum by (outcome) (increase({NAME}{TOTAL}[30d]))"]


def raw_windows() -> list[str]:
    """Every window over raw samples, the period too: exact, and dear."""
    ratio = f"sum(increase({NAME}{BASE}[{{w}}])) / sum(increase({NAME}{TOTAL}[{{w}}]))"
    return [ratio.replace("{w}", w) for w in ("5m", "30m", "1h", "2h", "6h", "1d", "3d", "30d")]


def main() -> None:
    ours = [
        rule["expr"]
        for group in rule_groups(settings(objective("up", "availability")))
        for rule in group["rules"]
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "p" / "data").mkdir(parents=True)
        raw(folder)
        flags = ["--storage.tsdb.retention.time=100y", "--query.lookback-delta=5m"]
        with servers.prometheus(folder / "p", flags=flags) as server:

            def read(expressions: list[str]) -> int:
                total = 0
                for expression in expressions:
                    answer = server.get("query", query=expression, time=str(END - 15), stats="all")
                    total += answer["stats"]["samples"]["totalQueryableSamples"]
                return total

            rows = [
                ("mlobs", len(ours), read(ours)),
                ("Sloth 0.11, written out", 17, read(sloth())),
                ("Pyrra 0.8, written out", 14, read(pyrra())),
                ("raw windows", 10, read(raw_windows())),
            ]
    base = rows[0][2]
    print(
        f"{'rules for one objective':28} {'rules':>6} {'samples':>9} {'ratio':>7}   goal: <= 13,000 samples"
    )
    for what, rules, samples in rows:
        print(f"{what:28} {rules:6} {samples:9,} {samples / base:6.1f}x")
    hundred = settings(*(objective(f"up{n}", "availability") for n in range(100)))
    count = sum(len(group["rules"]) for group in rule_groups(hundred))
    print(f"rules for each of 100 objectives: {count / 100:.2f} (Sloth: 17; goal <= 10)")


if __name__ == "__main__":
    main()
