"""`mlobs serve`, the whole process, killed at random points: every page leaves, none with another key."""

from __future__ import annotations

import http.server
import json
import multiprocessing
import random
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from mlobs.service.serve import serve
from tests.notify.stubs import receiver, serving

YAML = """
service: fraud-api
listen: 127.0.0.1:0
store: sqlite:///{folder}/state.db
targets: ["{target}"]
slo: {{scrape_interval: 1s, evaluation_interval: 1s}}
notify:
  channels: {{hook: {{webhook: {{url: "{hook}", allow_http: true, allow_private: true}}}}}}
  together: 1s
"""
BREACH = 'mlobs_drift_breach{{model="{}",feature="temp",segment="",severity="page"}} 1\n'


class Target:
    """What is scraped: a breach of every model in trouble, and what else is said."""

    def __init__(self) -> None:
        self.models: list[str] = []
        self.more = ""
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = (outer.more + "".join(BREACH.format(model) for model in outer.models)).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/metrics"


def kill_at_random(folder: Path, kills: int, seed: int) -> None:
    rng = random.Random(seed)
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(["mlobs.service.serve", "tests.service.test_serve_killed"])
    target, hook = Target(), receiver()
    with serving(hook):
        config = folder / "mlobs.yaml"
        config.write_text(YAML.format(folder=folder, target=target.url, hook=hook.url))
        for number in range(kills):
            target.models.append(f"m{number}")
            seen = len(hook.requests)
            process = forks.Process(target=serve, args=(config,), daemon=True)
            process.start()
            deadline = time.monotonic() + 30
            if number % 3:  # while it sends; every third one at whatever it does after its start
                while len(hook.requests) == seen and process.is_alive() and time.monotonic() < deadline:
                    time.sleep(0.001)
            time.sleep(rng.uniform(0, 0.1 if number % 3 else 1.2))  # the moment is the experiment
            process.kill()
            process.join(20)
        process = forks.Process(target=serve, args=(config,), daemon=True)
        process.start()
        deadline = time.monotonic() + 60 + kills
        while len(paged(hook)) < len(target.models) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.terminate()
        process.join(20)
        assert process.exitcode == 0, "SIGTERM is an orderly end"
    target.server.shutdown()
    target.server.server_close()
    pages = paged(hook)
    assert set(pages) == set(target.models), "a page was missed"
    keys = {(page["page"]["model"], page["dedup_key"]) for page in told(hook)}
    assert len(keys) == len(target.models), "a repetition had another key"
    repeated = sum(pages.values()) - len(pages)
    assert repeated <= kills
    print(f"{kills} kills of serve, {len(pages)} incidents, {repeated} repeated")


def told(hook) -> list[dict]:  # type: ignore[no-untyped-def, type-arg]
    return [json.loads(one.body) for one in list(hook.requests) if json.loads(one.body)["kind"] == "firing"]


def paged(hook) -> Counter[str]:  # type: ignore[no-untyped-def]
    return Counter(page["page"]["model"] for page in told(hook))


def test_ten_kills_of_serve_miss_no_page_and_sigterm_ends_it_in_order(tmp_path: Path):
    kill_at_random(tmp_path, 10, seed=5)


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(5))
def test_two_hundred_and_fifty_kills_of_serve_miss_no_page(tmp_path: Path, seed: int):
    kill_at_random(tmp_path, 50, seed=500 + seed)
