"""No thread to be had, and a fork in the middle of a flush: in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.sdk.receiver import RECEIVERS, attributes, by_http
from tests.servers import eventually

ROOT = Path(__file__).parents[2]

NO_THREAD = """
import json, resource, sys, threading, time, mlobs
import mlobs.sdk.collector
pages = int(open("/proc/self/statm").read().split()[0])
threading.stack_size(1 << 30)
limit = pages * resource.getpagesize() + (256 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    threading.Thread(target=print).start()
    sys.exit("a thread was to be had")
except RuntimeError:
    pass
@mlobs.observe(model="m")
def score(request): return request["n"]
mlobs.init(service="s", otlp=sys.argv[1], sample=1.0, feature_log=sys.argv[2])
answers = [score({"n": n}) for n in range(100)]
began = time.monotonic()
flushed = mlobs.flush(0.5)
from mlobs.sdk.serve import render
page = render("")[0].decode()
print(json.dumps({"sum": sum(answers), "flushed": flushed, "took": time.monotonic() - began, "page": page}))
"""


def run(source: str, *args: object) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", source, *map(str, args)],
        capture_output=True, text=True, cwd=ROOT, timeout=60, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def value(page: str, metric: str, *parts: str) -> float:
    lines = [
        line for line in page.splitlines() if line.startswith(metric + "{") and all(p in line for p in parts)
    ]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the address space as Linux does")
def test_without_a_thread_calls_go_on_and_are_counted_and_what_is_lost_is_told(tmp_path: Path) -> None:
    found = run(NO_THREAD, "http://127.0.0.1:9", tmp_path / "log")
    page = found["page"]
    assert found["sum"] == sum(range(100))
    assert found["flushed"] is False
    assert found["took"] < 2.0
    assert value(page, "mlobs_request_duration_seconds_count", 'model="m"', 'outcome="ok"') == 100
    for pipeline in ("spans", "featurelog"):
        mine = f'pipeline="{pipeline}"'
        offered = value(page, "mlobs_pipeline_offered_total", mine)
        assert offered == 100
        assert offered == (
            value(page, "mlobs_pipeline_delivered_total", mine)
            + value(page, "mlobs_pipeline_dropped_total", mine)
            + value(page, "mlobs_pipeline_queued", mine)
        )


FORK = """
import json, os, sys, threading, time, mlobs
mlobs.init(service="s", otlp=sys.argv[1], sample=1.0, feature_log=sys.argv[2], durability="os")
@mlobs.observe(model="m", prediction_id="id")
def score(request):
    with mlobs.stage("inference"):
        return request["n"]
for n in range(50):
    score({"id": f"parent-{n}", "n": n})
flushing = threading.Thread(target=mlobs.flush, args=(20.0,))
flushing.start()
time.sleep(0.3)                      # the exporter waits for its answer, flush holds on
assert flushing.is_alive()
pid = os.fork()
if pid == 0:
    for n in range(50):
        score({"id": f"child-{n}", "n": n})
    with open(sys.argv[3], "w") as go:
        go.write("x")
    done = mlobs.close(10.0)
    os._exit(0 if done else 3)
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
flushing.join()
print(json.dumps({"child": status, "parent": mlobs.close(10.0)}))
"""


def test_a_fork_in_the_middle_of_a_flush_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    with by_http() as receiver:
        receiver.hold.clear()
        process = subprocess.Popen(
            [sys.executable, "-c", FORK, receiver.url, str(tmp_path / "log"), str(tmp_path / "go")],
            stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        try:
            eventually((tmp_path / "go").exists, "the child has made its calls")
            receiver.hold.set()
            out, _ = process.communicate(timeout=40)
        finally:
            process.kill()
            process.wait()
    assert json.loads(out.splitlines()[-1]) == {"child": 0, "parent": True}
    ids = sorted(str(attributes(span)["ml.prediction.id"]) for span in receiver.named("m"))
    everyone = sorted(f"{who}-{number}" for who in ("child", "parent") for number in range(50))
    assert ids == everyone
    assert len(receiver.named("inference")) == 100


SPY = """
import sys, threading, urllib.request
class Spy:
    found = []
    def find_spec(self, name, path=None, target=None):
        self.found.append((threading.current_thread() is threading.main_thread(), name))
sys.meta_path.insert(0, Spy())
import json, mlobs
mlobs.init(service="s", otlp=sys.argv[1], sample=1.0, feature_log=sys.argv[2], native=True)
server = mlobs.start_metrics_server()
settled = len(Spy.found)
@mlobs.observe(model="m", prediction_id="id")
def score(request): return request["n"]
for n in range(50):
    score({"id": str(n), "n": n, "mail": "a@b.se"})
mlobs.log_label("1", 1)
flushed = mlobs.flush(20.0)
with urllib.request.urlopen(server.url) as answer:
    answer.read()
threads = [name for main, name in Spy.found if not main and name not in ("simplejson", "socks")]
print(json.dumps({"flushed": flushed, "settled": settled, "in_threads": threads}))
"""


@pytest.mark.parametrize("scheme", RECEIVERS)
def test_none_of_our_threads_imports_so_that_no_fork_leaves_a_child_a_locked_module(
    scheme: str, tmp_path: Path
) -> None:
    """A worker forked meanwhile would hang at its own import of the same: `requests`, say."""
    with RECEIVERS[scheme]() as receiver:  # type: ignore[attr-defined]
        found = run(SPY, receiver.url, tmp_path / "log")
    assert found["flushed"] is True
    assert found["settled"] > 100, "the spy sees"
    assert found["in_threads"] == []
