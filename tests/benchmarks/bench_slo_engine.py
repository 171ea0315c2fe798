"""The embedded evaluator: an ingest tick, window look-ups, the size of a month, a thousand objectives.

python tests/benchmarks/bench_slo_engine.py
"""

from __future__ import annotations

import sys
import tempfile
import time
from decimal import Decimal
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mlobs.settings import ObjectiveSettings, Settings, SliSettings, SloSettings
from mlobs.slo import schema
from mlobs.slo.engine import SloEngine
from mlobs.slo.history import pack, upsert
from mlobs.store import open_store

START = 1_700_000_000.0 // 86400 * 86400
DAY = 86400.0


def config(count: int) -> Settings:
    objectives = tuple(
        ObjectiveSettings(f"up{n}", SliSettings("availability"), Decimal("0.999"), model=f"m{n}")
        for n in range(count)
    )
    return Settings(service="s", targets=("http://t",), slo=SloSettings(objectives=objectives))


def text(count: int, level: float) -> str:
    name = "mlobs_request_duration_seconds_count"
    lines = []
    for n in range(count):
        lines.append(f'{name}{{model="m{n}",model_version="1",outcome="ok"}} {level * 1000 + n}')
        lines.append(f'{name}{{model="m{n}",model_version="1",outcome="error"}} {level}')
        lines.append(f'{name}{{model="m{n}",model_version="1",outcome="cancelled"}} 0')
    return "\n".join(lines) + "\n"


def cpu(function) -> float:  # type: ignore[no-untyped-def]
    start = time.process_time()
    function()
    return time.process_time() - start


def month(folder: Path, count: int) -> tuple[SloEngine, float, int]:
    """An engine whose store holds a month, thinned as it is in service; bytes of the file."""
    store = open_store(f"sqlite:///{folder / 'slo.db'}", [schema.SCHEMA])
    level = [0.0]
    engine = SloEngine(config(count), store, None, lambda url: text(count, level[0]))
    engine.tick(START)
    now = START + 30 * DAY
    coarse = np.arange(START + 300, now - 8 * 3600, 300.0)
    fine = np.arange(now - 8 * 3600, now, 15.0)
    accounts = len(engine._accounts)
    draw = np.random.default_rng(1)
    totals = np.zeros((accounts, 2))
    rows = []
    for at in [*coarse, *fine]:
        totals = totals + draw.poisson([2.0, 2000.0], (accounts, 2))
        rows.append({"at": float(at), "body": pack(totals)})
    with store.write() as connection:
        for chunk in range(0, len(rows), 500):
            upsert(connection, schema.sample, rows[chunk : chunk + 500], ["at"])
    engine._book.totals = totals
    level[0] = 1.0
    return engine, now, level  # type: ignore[return-value]


def main() -> None:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        engine, now, level = month(Path(folder), 100)
        size = sum(path.stat().st_size for path in Path(folder).iterdir()) / 1e6
        engine.tick(now)
        spent = []
        for n in range(1, 41):
            level[0] += 1  # type: ignore[index]
            body = text(100, level[0])
            engine._scraper._fetch = lambda url, body=body: body
            start, wall = time.process_time(), time.perf_counter()
            engine.tick(now + 15 * n)
            spent.append((n % 2 == 0, time.process_time() - start, time.perf_counter() - wall))
        ingest = np.median([c for even, c, _ in spent if not even]) * 1e3
        assess = np.median([c for even, c, _ in spent if even]) * 1e3
        windows = sorted({now - w for w in (300, 1800, 3600, 7200, 21600, DAY, 3 * DAY, 30 * DAY)})
        look = []
        for _ in range(20):
            engine._history.forget()
            look.append(cpu(lambda: engine._history.fetch(windows)))
        rows.append(
            ("one ingest tick, 100 objectives (scrape, count, commit)", f"{ingest:.2f} ms", "<= 2 ms")
        )
        rows.append(("100 objectives x 8 windows looked up", f"{np.median(look) * 1e3:.2f} ms", "<= 50 ms"))
        rows.append(("one tick with evaluation, 100 objectives", f"{assess:.1f} ms", ""))
        rows.append(("store of 100 objectives and 30 days", f"{size:.1f} MB", "<= 25 MB"))
        samples = 1 + len({w for plan in engine._plans[:1] for w in (*plan.windows, plan.period)})
        rows.append(("samples read for each objective and evaluation", str(samples), "<= 30"))
    with tempfile.TemporaryDirectory() as folder:
        engine, now, level = month(Path(folder), 1000)
        engine.tick(now)
        spent = []
        for n in range(1, 7):
            level[0] += 1  # type: ignore[index]
            spent.append(cpu(lambda n=n: engine.tick(now + 30 * n)))  # type: ignore[misc]
        share = np.median(spent) / 30
        rows.append(("1000 objectives, share of a 30 s interval", f"{share:.1%}", "<= 20 %"))
    for what, value, goal in rows:
        print(f"{what:60} {value:>12}   {goal}")


if __name__ == "__main__":
    main()
