"""Two `mlobs serve` processes on one store: on Postgres they share the work, on SQLite there is only one."""

from __future__ import annotations

import json
import multiprocessing
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from mlobs.service import serve as serving_process
from mlobs.service.serve import serve
from tests.notify.stubs import Stub, receiver, serving
from tests.service.test_serve_killed import Target

CHANNELS = 10
"""A webhook takes a message a second: so many take ten."""
YAML = """
service: fraud-api
listen: 127.0.0.1:0
store: {store}
targets: ["{target}"]
slo: {{scrape_interval: 1s, evaluation_interval: 1s}}
"""


def write_config(folder: Path, store: str, target: str, hooks: list[Stub], models: list[str]) -> Path:
    """Every model has its channel."""
    notify = {
        "channels": {
            f"h{number}": {"webhook": {"url": hook.url, "allow_http": True, "allow_private": True}}
            for number, hook in enumerate(hooks)
        },
        "routes": [
            {"match": {"model": model}, "to": [f"h{number % len(hooks)}"]}
            for number, model in enumerate(models)
        ],
        "fallback_after": "1h",
    }
    config = folder / "mlobs.yaml"
    config.write_text(YAML.format(store=store, target=target) + f"notify: {json.dumps(notify)}\n")
    return config


def wait_for(check: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not check() and time.monotonic() < deadline:
        time.sleep(0.01)
    return check()


def heeds(process: BaseProcess, number: signal.Signals) -> bool:
    """Has it a handler for the signal? The kernel knows (proc(5), SigCgt)."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:  # it is no more
        return False
    return bool(int(status.split("SigCgt:")[1].split()[0], 16) >> (number - 1) & 1)


def start(config: Path, target: Callable[[Path], None] = serve) -> BaseProcess:
    """A `serve` from whose first line on SIGTERM is an orderly end, or that is over already."""
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(["mlobs.service.serve", "tests.service.test_two_serves"])
    process = forks.Process(target=target, args=(config,), daemon=True)
    process.start()
    assert wait_for(lambda: heeds(process, signal.SIGTERM) or not process.is_alive(), 60)
    return process


def paged(hooks: list[Stub]) -> Counter[str]:
    told = [one.fields for hook in hooks for one in list(hook.requests)]
    return Counter(one["page"]["model"] for one in told if one["kind"] == "firing")


def share(folder: Path, store: str, incidents: int, restarts: int, seed: int) -> None:
    """Two processes page `incidents` models; every so often one is ended by SIGTERM while it sends, and begun
    again."""
    rng = random.Random(seed)
    models = [f"m{number}" for number in range(incidents)]
    hooks = [receiver() for _ in range(CHANNELS)]
    target = Target()
    with ExitStack() as stack:
        for hook in hooks:
            stack.enter_context(serving(hook))
        config = write_config(folder, store, target.url, hooks, models)
        running = [start(config), start(config)]
        for number in range(restarts):
            told = sum(paged(hooks).values())
            target.models = models[: incidents * (number + 1) // restarts]
            assert wait_for(lambda told=told: sum(paged(hooks).values()) > told, 60)
            time.sleep(rng.uniform(0, 0.3))  # the moment is the experiment
            ended = running.pop(0)
            ended.terminate()
            ended.join(30)
            assert ended.exitcode == 0, "SIGTERM is an orderly end"
            running.append(start(config))
        assert wait_for(lambda: len(paged(hooks)) == incidents, 60 + incidents)
        time.sleep(2)  # two more evaluations of each
        for one in running:
            one.terminate()
            one.join(30)
            assert one.exitcode == 0
    target.server.shutdown()
    target.server.server_close()
    pages = paged(hooks)
    assert set(pages) == set(models)
    assert [name for name, number in pages.items() if number > 1] == [], "told twice"
    print(f"{incidents} incidents, {restarts} clean restarts, none told twice")


def test_two_serves_on_one_postgres_that_restart_cleanly_repeat_nothing(tmp_path: Path, postgres_url: str):
    share(tmp_path, postgres_url, incidents=40, restarts=4, seed=1)


@pytest.mark.nightly
def test_two_serves_on_one_postgres_repeat_nothing_in_500(tmp_path: Path, postgres_url: str):
    share(tmp_path, postgres_url, incidents=500, restarts=50, seed=2)


def stuck(config: Path) -> None:
    """A start that takes its time with the port."""
    serving_process.bind = lambda _settings: time.sleep(60)
    serve(config)


def test_sigterm_during_the_start_is_an_orderly_end_too(tmp_path: Path):
    config = write_config(tmp_path, f"sqlite:///{tmp_path / 'state.db'}", "http://127.0.0.1:1", [], [])
    process = start(config, stuck)
    process.terminate()
    process.join(30)
    assert process.exitcode == 0


def test_the_second_serve_on_one_sqlite_file_says_so_and_exits_3(tmp_path: Path):
    target, hook = Target(), receiver()
    with serving(hook):
        config = write_config(tmp_path, f"sqlite:///{tmp_path / 'state.db'}", target.url, [hook], ["m0"])
        first = start(config)
        target.models = ["m0"]
        assert wait_for(lambda: bool(paged([hook])), 60)
        second = subprocess.run(
            [sys.executable, "-m", "mlobs", "serve", "-c", str(config)],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        first.terminate()
        first.join(30)
    target.server.shutdown()
    target.server.server_close()
    assert second.returncode == 3
    assert second.stderr.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in second.stderr
    assert (first.exitcode, paged([hook])) == (0, Counter({"m0": 1}))
