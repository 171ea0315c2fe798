"""Ports, targets and the clock of `mlobs serve`."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mlobs.errors import ConfigError, UnavailableError
from mlobs.service.listening import Fetcher, Ticker, bind
from mlobs.settings import Settings
from tests.notify.stubs import Stub, serving


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as handle:
        handle.bind(("127.0.0.1", 0))
        handle.listen()
        yield handle.getsockname()[1]


def test_a_taken_port_is_an_error_where_it_was_asked_for(taken: int) -> None:
    with pytest.raises(UnavailableError, match="to be free") as caught:
        bind(Settings("s", listen=f"127.0.0.1:{taken}", listen_asked=True))
    assert caught.value.exit_code == 3


def test_a_taken_port_that_nobody_asked_for_is_reported_and_another_is_tried(
    taken: int, caplog: pytest.LogCaptureFixture
) -> None:
    with bind(Settings("s", listen=f"127.0.0.1:{taken}")) as handle:
        assert handle.getsockname()[1] != taken
    assert f"port {taken} is taken" in caplog.text


@pytest.mark.parametrize("listen", ["203.0.113.7:80", "127.0.0.1:99999", "no host at all:80"])
def test_an_address_that_is_not_ours_is_a_configuration_error(listen: str) -> None:
    with pytest.raises(ConfigError, match="an address of this machine"):
        bind(Settings("s", listen=listen, listen_asked=True))


class Target(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/metrics":
            self._redirect("/metrics/")
        elif self.path == "/elsewhere":
            self._redirect("http://localhost:1/metrics")
        elif self.path == "/round":
            self._redirect("/round")
        elif self.path == "/broken":
            self.send_error(500)
        else:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"up 1\n")

    def _redirect(self, where: str) -> None:
        self.send_response(307)
        self.send_header("Location", where)
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """Quiet."""


@pytest.fixture
def target() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Target)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def fetch() -> Iterator[Fetcher]:
    fetcher = Fetcher()
    yield fetcher
    fetcher.close()


def test_a_mounted_metrics_app_is_followed_to_its_slash(target: str, fetch: Fetcher) -> None:
    assert fetch(f"{target}/metrics") == b"up 1\n"


@pytest.mark.parametrize(
    ("path", "why"), [("elsewhere", "another host"), ("round", "more than 3"), ("broken", "HTTP status 500")]
)
def test_a_target_that_misbehaves_is_a_failed_scrape(
    target: str, fetch: Fetcher, path: str, why: str
) -> None:
    with pytest.raises(ValueError, match=why):
        fetch(f"{target}/{path}")


def test_the_ticker_ticks_at_once_pumps_between_and_ends_after_the_work_in_hand() -> None:
    ticked, pumped = threading.Event(), threading.Event()
    ticks: list[float] = []

    def tick(now: float) -> None:
        ticks.append(now)
        ticked.set()

    def pump(_now: float) -> None:
        pumped.set()

    ticker = Ticker(tick, pump, interval=3600.0)
    ticker.start()
    assert ticked.wait(10)
    assert pumped.wait(10)
    ticker.stop()
    assert len(ticks) == 1


def test_a_ticker_that_was_never_started_stops_all_the_same() -> None:
    Ticker(lambda _: None, lambda _: None, 1.0).stop()


def test_a_login_in_a_targets_address_is_used_and_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    fetch = Fetcher()
    with caplog.at_level("DEBUG"), serving(Stub(lambda asked: (200, dict(asked.headers)))) as stub:
        answer = json.loads(fetch(stub.url.replace("//", "//me:s%40cret@") + "/metrics"))
    fetch.close()
    assert answer["authorization"] == "Basic " + base64.b64encode(b"me:s@cret").decode()
    assert "/metrics" in caplog.text
    assert "cret" not in caplog.text
