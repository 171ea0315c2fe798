"""A service that is called at a steady rate for a while and says what became of every call. Not a test.

    python tests/sdk/soak_app.py --seconds 1800 --rate 5000

Four threads make the calls, one in a thousand fails, 1 % are kept; somebody scrapes all the while. Prints one
JSON object: what was called, what was counted, logged and exported, and the memory as it went.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.request import urlopen

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

import mlobs
from mlobs.featurelog.reader import LogReader
from mlobs.sdk.api import default_runtime
from mlobs.sdk.meter import REQUEST, STAGE
from mlobs.sdk.sampling import crc_limit, kept_by_id

THREADS = 4
STAGES = ("feature_read", "preprocess", "inference", "postprocess")
FAILS = 1000
LOOKS = (0.25, 0.9)
"""When live objects are counted, in shares of the run."""
REQUEST_FIELDS = {f"feature_{place}": place * 0.37 for place in range(27)} | {
    "email": "user17@example.org",
    "phone": "+491701234567",
    "device": "d4711",
}


class Counting(SpanExporter):
    """Takes spans and counts them."""

    def __init__(self) -> None:
        self.taken = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.taken += len(spans)
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None: ...


@mlobs.observe(model="soak", version="1", prediction_id="id")
def score(request: dict[str, object], number: int) -> float:
    for name in STAGES:
        with mlobs.stage(name):
            pass
    if number % FAILS == 0:
        raise ValueError("now and then")
    mlobs.current().set_decision("fine")
    return 0.5


def call(worker: int, count: int, rate: float) -> None:
    """`count` calls, `rate` a second; one that falls behind catches up."""
    began = time.monotonic()
    for number in range(count):
        try:
            score({**REQUEST_FIELDS, "id": f"{worker}-{number}"}, number)
        except ValueError:
            pass  # the service's own, one in FAILS
        if number % 16 == 0:
            ahead = began + number / rate - time.monotonic()
            if ahead > 0:
                time.sleep(ahead)  # the pace is what is asked for


def memory_kib() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() // 1024


def live_blocks() -> int:
    """Blocks of memory that objects in use take: no garbage, none of CPython's free lists.

    The least of a few, for there are always records and spans on their way.
    """
    found = []
    for _ in range(5):
        gc.collect()
        found.append(sys.getallocatedblocks())
        time.sleep(0.05)  # not all of them with the same record under way
    return min(found)


def run(seconds: float, rate: float, folder: str) -> dict[str, object]:
    exporter = Counting()
    mlobs.init(service="soak", feature_log=folder, sample=0.01, exporter=exporter)
    server = mlobs.start_metrics_server()
    each = int(seconds * rate / THREADS)
    workers = [threading.Thread(target=call, args=(one, each, rate / THREADS)) for one in range(THREADS)]
    began, cpu = time.monotonic(), time.process_time()
    for worker in workers:
        worker.start()
    memory: list[int] = []
    live: list[int] = []
    looks = [began + share * seconds for share in LOOKS]
    scrapes = 0
    while any(worker.is_alive() for worker in workers):
        with urlopen(server.url) as answer:
            scrapes += len(answer.read()) > 0
        memory.append(memory_kib())
        if looks and time.monotonic() >= looks[0]:
            looks.pop(0)
            live.append(live_blocks())
        workers[0].join(max(0.1, seconds / 200))
    live += [live_blocks() for _ in looks]
    took, spent = time.monotonic() - began, time.process_time() - cpu
    flushed = mlobs.flush(30)
    runtime = default_runtime()
    blocks = {key: list(cells) for key, cells, _ in runtime.meter.read()}
    ledgers = {ledger.pipeline: ledger for ledger in runtime.ledgers()}
    found = {
        "called": each * THREADS,
        "failed": sum(1 for number in range(each) if number % FAILS == 0) * THREADS,
        "took_s": took,
        "rate": each * THREADS / took,
        "cpu_share": spent / took,
        "scrapes": scrapes,
        "memory_kib": memory,
        "live_blocks": live,
        "flushed": flushed,
        "counted": next(_requests(cells) for key, cells in blocks.items() if key.family == REQUEST),
        "stages": {key.values[-1]: sum(cells[1:]) for key, cells in blocks.items() if key.family == STAGE},
        "errors": dict(runtime.guard.counts),
        "ledgers": {
            name: [one.offered, one.delivered, one.queued, dict(one.dropped)] for name, one in ledgers.items()
        },
        "exported": exporter.taken,
    }
    found["closed"] = mlobs.close(30)
    limit = crc_limit(0.01)
    found["kept"] = sum(
        number % FAILS == 0 or kept_by_id(f"{worker}-{number}", limit)
        for worker in range(THREADS)
        for number in range(each)
    )
    return found | logged(folder)


def logged(folder: str) -> dict[str, object]:
    """What a reader of the feature log finds in it."""
    reader, cursor, found = LogReader(folder), None, {"logged": 0, "duplicates": 0, "gaps": 0}
    while True:
        chunk = reader.poll(cursor)
        cursor = chunk.cursor
        found["logged"] += chunk.stats.records
        found["duplicates"] += chunk.stats.duplicates
        found["gaps"] = chunk.stats.gaps
        if not chunk.more:
            return dict(found)


def _requests(cells: list[float]) -> dict[str, float]:
    """Calls begun, and ended well and in error."""
    each = (len(cells) - 1) // 3
    parts = [sum(cells[2 + place * each : 1 + (place + 1) * each]) for place in range(3)]
    return {"begun": cells[0], "ok": parts[0], "error": parts[1], "cancelled": parts[2]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1800.0)
    parser.add_argument("--rate", type=float, default=5000.0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        print(json.dumps(run(given.seconds, given.rate, name)))
