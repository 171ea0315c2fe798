"""The folder of a demo run and the two processes beside it: the service, and `mlobs serve`."""

from __future__ import annotations

import ctypes
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from string import Template

import httpx

from mlobs.demo.flights import Flights, weather_by_hour
from mlobs.demo.plan import Plan
from mlobs.demo.scoring import Coefficients
from mlobs.errors import Problem, UnavailableError

HERE = Path(__file__).parent
READY_SECONDS = 60.0
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Running:
    """A process that answers at `url`."""

    url: str
    pid: int

    @property
    def server(self) -> str:
        """`host:port`."""
        return self.url.removeprefix("http://")


def lay_out(
    folder: Path,
    model: Coefficients,
    live: Flights,
    plan: Plan,
    ports: dict[str, int],
    channels: tuple[str, ...],
) -> None:
    """Write what the service reads at start: model, weather feed, plan of causes, settings, mask."""
    (folder / "model.json").write_text(json.dumps(model.as_json()))
    (folder / "weather.json").write_text(json.dumps(weather_by_hour(live)))
    (folder / "plan.json").write_text(json.dumps({"days": plan.days, "faults": bool(plan.faults)}))
    (folder / "mask.yaml").write_text((HERE / "mask.yaml").read_text())
    (folder / "mask.key").touch(mode=0o600)
    (folder / "mask.key").write_text(secrets.token_hex(32))
    values = {name: str(port) for name, port in ports.items()} | {"channels": ", ".join(channels)}
    text = Template((HERE / "mlobs.yaml").read_text()).substitute(values)
    if not channels:
        text = text[: text.index("\nnotify:")] + "\n"
    (folder / "mlobs.yaml").write_text(text)


def listening_socket() -> socket.socket:
    """A loopback socket on a port that the kernel chose, to be handed to a child."""
    # asyncio switches Nagle off where it knows that the protocol is TCP; else answers may wait 40 ms
    handle = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    handle.bind(("127.0.0.1", 0))
    handle.listen(128)
    return handle


def free_port() -> int:
    with socket.socket() as handle:
        handle.bind(("127.0.0.1", 0))
        port: int = handle.getsockname()[1]
        return port


@contextmanager
def service_process(folder: Path, listening: socket.socket, bare: bool = False) -> Iterator[Running]:
    """The serving process on `listening`, once it answers; `bare` is without instrumentation."""
    command = [sys.executable, "-m", "mlobs.demo.serving", str(folder), "--fd", str(listening.fileno())]
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    ready = "/openapi.json" if bare else "/metrics/"
    with _child(command + ["--bare"] * bare, folder / "service.log", (listening.fileno(),)) as process:
        _await(f"{url}{ready}", process, folder / "service.log")
        yield Running(url, process.pid)


@contextmanager
def monitor_process(folder: Path, port: int) -> Iterator[Running]:
    """`mlobs serve` on the folder's settings, once it answers."""
    command = [sys.executable, "-m", "mlobs", "serve", "-c", str(folder / "mlobs.yaml")]
    url = f"http://127.0.0.1:{port}"
    with _child(command, folder / "serve.log", ()) as process:
        _await(f"{url}/healthz", process, folder / "serve.log")
        yield Running(url, process.pid)


@contextmanager
def _child(command: list[str], log: Path, fds: tuple[int, ...]) -> Iterator[subprocess.Popen[bytes]]:
    """A child that ends with this block, with Ctrl-C, and (on Linux) with this process however it dies."""
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - our own modules
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            pass_fds=fds,
            start_new_session=True,
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - no threads run yet when the children start
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _await(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(url, timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    tail = log.read_text(errors="replace").strip().splitlines()[-3:]
    state = "no answer" if process.poll() is None else f"exit {process.returncode}"
    raise UnavailableError(
        Problem(
            f"the demo's process behind {url}", "an answer", state, f"its last words: {os.linesep.join(tail)}"
        )
    )
