"""`mlobs demo`: lay out, start, replay, judge, tell; the whole way once."""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pyarrow as pa
from rich.console import Console

import mlobs
from mlobs.config import load_settings
from mlobs.demo.facts import gather
from mlobs.demo.flights import FEATURES, Flights, load_flights
from mlobs.demo.hook import receiver
from mlobs.demo.plan import make_plan
from mlobs.demo.replay import Replay, departures, label_time
from mlobs.demo.scoring import encode, probability
from mlobs.demo.serving import MODEL
from mlobs.demo.show import Screen, draw_summary
from mlobs.demo.stage_set import free_port, lay_out, listening_socket, monitor_process, service_process
from mlobs.demo.summary import Judgement, PagedIncident, judge, paged_incidents
from mlobs.demo.training import Trained, train
from mlobs.drift.mlref import dump_reference
from mlobs.drift.reference import Slicing, build_reference
from mlobs.errors import EXIT_FINDING, EXIT_FINE, UsageError
from mlobs.notify import read as notify_read
from mlobs.settings import Settings
from mlobs.slo import read as slo_read
from mlobs.store import Store, open_store

TRAINED_FROM, TRAINED_TO = date(2013, 1, 1), date(2013, 2, 28)


@dataclass(frozen=True, slots=True)
class Options:
    days: int
    faults: bool = True
    notify: bool = True
    folder: Path | None = None
    stay: bool = False
    """Leave the web page up until Ctrl-C."""


def run_demo(options: Options, console: Console) -> int:
    """Run it; the exit code. Writes into `options.folder`, or a temporary folder that goes with the demo."""
    plan = make_plan(options.days, options.faults)
    with _sigterm_as_interrupt(), ExitStack() as stack:
        folder = _folder(options, stack)
        began = time.monotonic()
        with console.status("reading the flights of 2013 and training on January and February"):
            flights = load_flights()
            trained = prepare(folder, flights)
        console.print(
            f"trained on {trained.rows} flights of January and February, AUC {trained.auc:.2f}; "
            f"replaying {plan.days} days of March"
        )
        live = flights.days(plan.first, plan.last)
        rows = departures(live)
        screen = Screen(console, plan, len(rows))
        listening = stack.enter_context(listening_socket())
        ports = {
            "port": free_port(),
            "service_port": listening.getsockname()[1],
            "hook_port": stack.enter_context(receiver(screen.page)),
        }
        channels = ("console", "hook") if options.notify else ()
        lay_out(folder, trained.coefficients, live, plan, ports, channels)
        service = stack.enter_context(service_process(folder, listening))
        monitor = stack.enter_context(monitor_process(folder, ports["port"]))
        console.print(f"web page: {monitor.url}   everything is in {folder}", soft_wrap=True)
        mlobs.init(folder / "mlobs.yaml", clock=label_time)
        stack.callback(mlobs.close)
        replay = Replay(service.server, monitor.server, rows, plan.start, plan.end)
        with screen.live():
            replay.run(screen.hour)
        store = open_store(load_settings(folder / "mlobs.yaml").store, ())
        stack.callback(store.close)
        settings = load_settings(folder / "mlobs.yaml")
        judgement = judge(plan, _paged(store, settings))
        facts = gather(store, replay.progress, service.url, plan, settings) | {
            "took": f"{time.monotonic() - began:.0f} s"
        }
        draw_summary(console, judgement, slo_read.statuses(store), facts, plan)
        code = _exit_code(judgement, options)
        if options.stay:
            _stay(console, monitor.url)
        return code


def _exit_code(judgement: Judgement, options: Options) -> int:
    """0 only if what had to be paged was, rightly, and nothing else; without paging nothing can have been."""
    return EXIT_FINE if judgement.passed and options.notify else EXIT_FINDING


def _folder(options: Options, stack: ExitStack) -> Path:
    if options.folder is not None:
        try:
            options.folder.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            why = problem.strerror or type(problem).__name__
            raise UsageError.of("--dir", "a folder", f"{options.folder}: {why}", "name another") from None
        if any(options.folder.iterdir()):  # pages of an earlier run would be judged as those of this one
            raise UsageError.of("--dir", "an empty folder", str(options.folder), "name another, or empty it")
        return options.folder.absolute()
    folder = Path(tempfile.mkdtemp(prefix="mlobs-demo-"))
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    return folder


def prepare(folder: Path, flights: Flights) -> Trained:
    """Train, and build the reference of what the service will see from the same rows."""
    training = flights.days(TRAINED_FROM, TRAINED_TO)
    trained = train(training)
    features = training.table.select([*FEATURES, "day"])
    scores = [probability(encode(trained.coefficients, row)) for row in features.to_pylist()]
    reference = build_reference(
        features.append_column("prediction", pa.array(scores)),
        MODEL,
        features=FEATURES,
        score_column="prediction",
        slicing=Slicing(day="day", segment="origin"),
        source="flights of January and February 2013",
    )
    (folder / "reference.mlref").write_bytes(dump_reference(reference))
    return trained


def _paged(store: Store, settings: Settings) -> list[PagedIncident]:
    return paged_incidents(notify_read.incidents(store, settings), notify_read.pages(store))


def _stay(console: Console, monitor: str) -> None:
    console.print(f"the web page stays up at {monitor} until Ctrl-C", soft_wrap=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        console.print("ending")


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """SIGTERM ends the demo as Ctrl-C does: with no process left behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def interactive() -> bool:
    return sys.stdout.isatty() and sys.stdin.isatty()
