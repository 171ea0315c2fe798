"""Sockets, clocks and threads of `mlobs serve`."""

from __future__ import annotations

import errno
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable

import httpx
import uvicorn
from starlette.applications import Starlette

from mlobs.errors import ConfigError, Problem, UnavailableError
from mlobs.settings import Settings

_log = logging.getLogger("mlobs.service")

LARGEST_EXPOSITION = 64 << 20
FETCH_SECONDS = 5.0
ACCEPT = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
REDIRECTS = 3
PUMP_EVERY = 1.0


def bind(settings: Settings) -> socket.socket:
    """The listening socket. A taken port is an error where it was asked for; else another one is taken.

    Raises UnavailableError (exit 3) or, for an address that is none, ConfigError.
    """
    host, _, port = settings.listen.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    handle = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    handle.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        handle.bind((host, int(port)))
    except (OSError, OverflowError) as problem:
        taken = isinstance(problem, OSError) and problem.errno == errno.EADDRINUSE
        if taken and not settings.listen_asked:
            handle.bind((host, 0))
            _log.warning("port %s is taken; listening on %d instead", port, handle.getsockname()[1])
        elif taken:
            handle.close()
            raise UnavailableError(
                Problem(
                    "listen",
                    f"port {port} to be free",
                    "it is taken",
                    "stop what holds it or name another port",
                )
            ) from None
        else:
            handle.close()
            raise ConfigError(
                Problem(
                    "listen", "an address of this machine and a port", settings.listen, "write 127.0.0.1:9464"
                )
            ) from None
    handle.listen(128)
    return handle


class Fetcher:
    """`fetch(url)` of a target's exposition: 5 s, at most 64 MiB, redirects within the same host and port.

    Mounted apps answer `/metrics` with a redirect to `/metrics/`, so redirects are followed; one that leads
    to another host is refused: a target must not send the monitor elsewhere.
    """

    def __init__(self) -> None:
        self._client = httpx.Client(timeout=FETCH_SECONDS, headers={"Accept": ACCEPT}, follow_redirects=False)

    def __call__(self, url: str) -> bytes:
        """Raises OSError where nobody answers and ValueError for an answer that is none."""
        try:
            return self._get(httpx.URL(url))
        except httpx.HTTPError as problem:  # none of the standard library's: our readers know OSError
            raise ConnectionError(f"{type(problem).__name__}: {problem}") from None

    def _get(self, here: httpx.URL) -> bytes:
        login = httpx.BasicAuth(here.username, here.password) if here.userinfo else None
        here = here.copy_with(userinfo=b"")  # httpx writes the whole address into its log
        for _ in range(1 + REDIRECTS):
            with self._client.stream("GET", here, auth=login) as answer:
                if answer.next_request is None:
                    return _body(answer)
                there = answer.next_request.url
            if (there.host, there.port) != (here.host, here.port):
                raise ValueError(f"redirected to another host: {there.host}")
            here = there
        raise ValueError(f"more than {REDIRECTS} redirects")

    def close(self) -> None:
        self._client.close()


def _body(answer: httpx.Response) -> bytes:
    if answer.status_code != 200:
        raise ValueError(f"HTTP status {answer.status_code}")
    body = bytearray()
    for part in answer.iter_bytes():
        body += part
        if len(body) > LARGEST_EXPOSITION:
            raise ValueError(f"more than {LARGEST_EXPOSITION} bytes")
    return bytes(body)


class Ticker:
    """Calls `tick(now)` every `interval` seconds by the wall clock, and `pump(now)` every second between."""

    def __init__(
        self, tick: Callable[[float], object], pump: Callable[[float], object], interval: float
    ) -> None:
        self._tick = tick
        self._pump = pump
        self._interval = interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mlobs-ticker", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends after the work in hand; one that was never started (a driven clock) has none."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(30)

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stop.is_set():
            if time.monotonic() >= due:
                self._tick(time.time())
                due = max(due + self._interval, time.monotonic())
            else:
                self._pump(time.time())
            self._stop.wait(min(PUMP_EVERY, max(0.0, due - time.monotonic())))


def end_in_order() -> None:
    """From here on SIGTERM unwinds, as SIGINT does: a start that is broken off closes what it opened, and a
    page that the ticker has in hand leaves once. For the main thread; `listen` takes over while it runs."""
    signal.signal(signal.SIGTERM, _broken_off)


def _broken_off(number: int, _frame: object) -> None:
    _heard(number, None)
    raise SystemExit(0)


def listen(app: Starlette, handle: socket.socket) -> None:
    """Serve `app` on `handle` until SIGINT or SIGTERM; returns then, for the caller has an orderly end to
    make: uvicorn raises the signal once more when it is done, and the default would end the process there.
    """
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=5)
    ends = (signal.SIGINT, signal.SIGTERM)
    before = {one: signal.signal(one, _heard) for one in ends}
    try:
        uvicorn.Server(config).run(sockets=[handle])
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _heard(number: int, _frame: object) -> None:
    _log.info("%s: ending", signal.Signals(number).name)
