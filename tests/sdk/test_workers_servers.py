"""Real servers with several workers: one truth on `/metrics`, whichever worker answers, whoever dies."""

from __future__ import annotations

import contextlib
import http.client
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from mlobs.featurelog.reader import LogReader
from tests.sdk.receiver import by_http
from tests.servers import Prometheus

ROOT = Path(__file__).resolve().parents[2]
COUNT = "mlobs_request_duration_seconds_count"
IN_FLIGHT = "mlobs_requests_in_flight"


class Server:
    def __init__(self, port: int, folder: Path) -> None:
        self.port, self.folder = port, folder

    def get(self, path: str, accept: str = "") -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path, headers={"Accept": accept})
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def value(self, metric: str, **labels: str) -> float:
        return sum(
            sample.value
            for family in text_string_to_metric_families(self.get("/metrics"))
            for sample in family.samples
            if sample.name == metric and all(sample.labels.get(name) == want for name, want in labels.items())
        )

    def workers(self, many: int) -> set[str]:
        """Pids of the workers, when each of `many` has answered."""
        found: set[str] = set()
        eventually(lambda: found.add(self.get("/pid")) or len(found) >= many)
        return found

    def files(self) -> list[Path]:
        return list(self.folder.glob("mlobs-*/*/*.cells"))


def eventually(is_so: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if is_so():
                return
        except (OSError, http.client.HTTPException):  # a worker that was just killed
            if time.monotonic() > deadline:
                raise
        assert time.monotonic() < deadline, "it never came to be"


@contextmanager
def serving(
    tmp_path: Path, *command: str, python: str = sys.executable, **environment: str
) -> Iterator[Server]:
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port = chosen.getsockname()[1]
    folder = tmp_path / "tmp"
    folder.mkdir(exist_ok=True)
    said = tmp_path / f"log-{port}"
    with open(said, "wb") as log:
        process = subprocess.Popen(
            [python, "-m", *(word.format(port=port) for word in command)],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(folder), "PYTHONPATH": str(ROOT), **environment},
            stdout=log,
            stderr=log,
        )
    server = Server(port, folder)
    try:
        eventually(lambda: server.get("/pid"))
        yield server
    finally:
        process.terminate()
        process.wait(20)
        print(said.read_text())


GUNICORN = (
    "gunicorn", "-b", "127.0.0.1:{port}", "--no-control-socket", "--threads", "2",
    "tests.sdk.worker_app:wsgi", "-w",
)  # fmt: skip
UVICORN = ("uvicorn", "--port", "{port}", "tests.sdk.worker_app:asgi", "--workers")
SERVERS = pytest.mark.parametrize(
    "command",
    [(*GUNICORN, "3"), (*GUNICORN, "3", "--preload"), (*UVICORN, "3")],
    ids=["gunicorn", "preload", "uvicorn"],
)


@SERVERS
def test_any_worker_tells_of_all_and_the_dead_stay_counted(tmp_path: Path, command: tuple[str, ...]) -> None:
    with serving(tmp_path, *command) as server:
        workers = server.workers(3)
        for _ in range(60):
            server.get("/work")
        counted = {server.value(COUNT, model="m", outcome="ok") for _ in range(12)}
        assert counted == {60.0}
        assert server.value("mlobs_stage_duration_seconds_count", model="m") == 60
        assert server.value("mlobs_cache_requests_total", model="m") == 60
        assert server.value("mlobs_internal_errors_total") == 0

        for _ in range(3):
            server.get("/hold")
        eventually(lambda: server.value(IN_FLIGHT, model="held") == 3)
        for victim in workers:
            os.kill(int(victim), signal.SIGKILL)
        eventually(lambda: len(server.workers(3) - workers) == 3)
        assert {server.value(COUNT, model="m", outcome="ok") for _ in range(6)} == {60.0}
        assert server.value(IN_FLIGHT, model="held") == 0, "in flight counts the living"
        server.get("/work")
        assert server.value(COUNT, model="m", outcome="ok") == 61
        assert len(server.files()) <= 4, "those of the dead are gone"
        assert all(path.stat().st_mode & 0o077 == 0 for path in server.folder.iterdir())


def test_counters_never_go_back_over_twenty_restarts(tmp_path: Path) -> None:
    with serving(tmp_path, *GUNICORN, "2") as server:
        server.workers(2)
        before, worked = 0.0, 0
        for _ in range(20):
            for _ in range(3):
                server.get("/work")
                worked += 1
            victim = int(server.get("/pid"))
            os.kill(victim, signal.SIGKILL)
            seen: list[tuple[float, float]] = []
            eventually(
                lambda found=seen: (
                    found.append(
                        (
                            server.value(COUNT, model="m"),
                            server.value("mlobs_request_duration_seconds_sum", model="m"),
                        )
                    )
                    or len(found) >= 3
                )
            )
            for count, total in seen:
                assert count == worked
                assert total >= before
                before = total
        assert len(server.files()) <= 3


def test_two_servers_of_one_name_are_two(tmp_path: Path) -> None:
    with serving(tmp_path, *GUNICORN, "1") as one, serving(tmp_path, *GUNICORN, "1") as other:
        one.get("/work")
        assert one.value(COUNT, model="m") == 1
        assert other.value(COUNT, model="m") == 0


OPENMETRICS = "application/openmetrics-text; version=1.0.0"
BUCKET = "mlobs_request_duration_seconds_bucket"


def exemplars(server: Server) -> dict[str, str]:
    """Trace by bucket of the model `apart`."""
    return {
        sample.labels["le"]: sample.exemplar.labels["trace_id"]
        for family in openmetrics.text_string_to_metric_families(server.get("/metrics", OPENMETRICS))
        for sample in family.samples
        if sample.exemplar is not None and sample.labels.get("model") == "apart"
    }


def test_any_worker_shows_the_exemplars_of_all_and_each_leads_to_its_trace_and_its_record(
    tmp_path: Path, prometheus: Callable[..., Prometheus]
) -> None:
    log = tmp_path / "log"
    with (
        by_http() as receiver,
        serving(tmp_path, *GUNICORN, "2", WORKER_LOG=str(log), WORKER_OTLP=receiver.url) as server,
    ):
        slow, fast = server.workers(2)
        seen = set()
        eventually(lambda: seen.add(server.get(f"/apart/{slow}")) or seen == {slow, fast})
        eventually(lambda: len(exemplars(server)) >= 2)
        shown = [exemplars(server) for _ in range(12)]
        assert all(each == shown[0] for each in shown), "whichever worker answers"
        assert len(shown[0]) >= 2, "of the slow one and of the fast one"
        traces = {span.trace_id.hex() for span in receiver.named("apart")}
        assert set(shown[0].values()) <= traces

        target = f"{{targets: ['127.0.0.1:{server.port}']}}"
        found = prometheus(
            "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
            f"scrape_configs: [{{job_name: a, static_configs: [{target}]}}]\n",
            flags=["--enable-feature=native-histograms,exemplar-storage"],
        )

        def stored() -> set[str]:
            query = f'{BUCKET}{{model="apart"}}'
            series = found.get("query_exemplars", query=query, start="0", end=str(time.time() + 60))
            return {each["labels"]["trace_id"] for one in series for each in one["exemplars"]}

        eventually(lambda: stored() == set(shown[0].values()))

        for victim in (slow, fast):
            os.kill(int(victim), signal.SIGKILL)
        eventually(lambda: not server.workers(2) & {slow, fast})
        assert exemplars(server) == shown[0], "those of the dead stay"
    recorded = LogReader(log).poll().records["apart"]["trace_id"].to_pylist()
    assert set(shown[0].values()) <= set(recorded)


def test_workers_that_are_recycled_stay_counted(tmp_path: Path) -> None:
    with serving(tmp_path, *GUNICORN, "2", "--max-requests", "10", "--max-requests-jitter", "3") as server:
        seen: list[float] = []
        for number in range(1, 37):
            server.get("/work")
            if number % 6 == 0:
                eventually(lambda: seen.append(server.value(COUNT, model="m", outcome="ok")) or True)
                assert seen[-1] == number
        assert len(server.workers(3)) >= 3, "some had ended"
        assert server.value("mlobs_internal_errors_total") == 0
        assert server.value(IN_FLIGHT, model="m") == 0
        assert len(server.files()) <= 3


NOBODY = {"user": "nobody", "group": "nogroup", "extra_groups": []}


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """As the machine's own temporary folder: open to all users, which those of tests are not."""
    folder = Path(tempfile.mkdtemp(prefix="mlobs-open-", dir="/tmp"))
    folder.chmod(0o755)
    (folder / "tmp").mkdir()
    (folder / "tmp").chmod(0o1777)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def everybodys_python() -> tuple[str, str]:
    """An interpreter that another user can run with gunicorn and this tree, and its PYTHONPATH."""
    path = os.pathsep.join([str(ROOT), *(found for found in sys.path if found.endswith("site-packages"))])
    for python in (sys.executable, f"/usr/bin/python{sys.version_info[0]}.{sys.version_info[1]}"):
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            subprocess.run(
                [python, "-c", "import gunicorn, tests.sdk.worker_app"],
                cwd="/",
                env={"PYTHONPATH": path},
                capture_output=True,
                check=True,
                **NOBODY,  # type: ignore[call-overload]
            )
            return python, path
    pytest.skip("no interpreter that another user may run")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize("more", [(), ("--preload",)], ids=["plain", "preload"])
def test_workers_of_another_user_than_root_who_started_them_tell_of_all(
    open_folder: Path, more: tuple[str, ...]
) -> None:
    python, path = everybodys_python()
    command = (*GUNICORN, "3", "-u", "nobody", "-g", "nogroup", *more)
    with serving(open_folder, *command, python=python, PYTHONPATH=path) as server:
        workers = server.workers(3)
        assert {os.stat(f"/proc/{pid}").st_uid for pid in workers} == {pwd.getpwnam("nobody").pw_uid}
        for _ in range(30):
            server.get("/work")
        eventually(lambda: {server.value(COUNT, model="m", outcome="ok") for _ in range(12)} == {30.0})
        os.kill(int(workers.pop()), signal.SIGKILL)
        eventually(lambda: len(server.workers(3) - workers) == 1)
        eventually(lambda: {server.value(COUNT, model="m", outcome="ok") for _ in range(12)} == {30.0})
        assert server.value("mlobs_internal_errors_total") == 0
