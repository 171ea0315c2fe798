"""The pages in a real browser: charts are drawn, the policy is kept, what changes comes by itself."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import uvicorn
from prometheus_client import CollectorRegistry

from mlobs.settings import Settings
from mlobs.store import Store
from mlobs.web.app import create_app
from tests.servers import Chromium, eventually
from tests.web.figures import Figures, empty


@dataclass
class Served:
    """The app with an ear for what a browser has against it."""

    views: Figures
    url: str = ""
    asked: list[str] = field(default_factory=list)
    violations: list[bytes] = field(default_factory=list)
    on_status: int = 0

    def app(self) -> Any:
        store: Store = None  # type: ignore[assignment] # the views here are plain values
        inner = create_app(
            Settings("x", clock="driven"), store, CollectorRegistry(), lambda now: {}, views=self.views
        )

        async def outer(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http":
                await inner(scope, receive, send)
                return
            self.asked.append(scope["path"])
            if scope["path"] == "/violation":
                self.violations.append((await receive())["body"])
            if scope["path"] == "/api/status":
                self.on_status += 1
                if self.on_status == 2:
                    self.views.slo_views[0] = replace(self.views.slo_views[0], bad=4321)

            async def reporting(message: Any) -> None:
                if message["type"] == "http.response.start":
                    message["headers"] = [
                        (
                            name,
                            value + b"; report-uri /violation"
                            if name == b"content-security-policy"
                            else value,
                        )
                        for name, value in message["headers"]
                    ]
                await send(message)

            await inner(scope, receive, reporting)

        return outer


@contextmanager
def served(views: Figures) -> Iterator[Served]:
    made = Served(views)
    listener = socket.create_server(("127.0.0.1", 0))
    made.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    server = uvicorn.Server(uvicorn.Config(made.app(), log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        eventually(lambda: server.started, "the page's server")
        yield made
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def test_charts_are_drawn_within_the_policy_and_changes_come_by_themselves(chromium: Chromium) -> None:
    with served(Figures()) as page:
        dom = chromium.dom(page.url, wait_ms=8000)
    charts = re.findall(r'<div class="chart small[^"]*" id="chart-[^"]*"', dom)
    assert len(charts) == 4
    assert dom.count('class="plot-container') >= 2, "those in view"
    assert "4\u2009321 of 21\u2009340 requests failed" in dom, "the second look found another figure"
    assert page.violations == []
    strangers = [path for path in page.asked if not re.match(r"/($|api/|static/)", path)]
    assert strangers == []
    assert "Refreshes by itself." in dom


def test_the_first_minute_and_every_other_page_keep_to_the_policy(chromium: Chromium) -> None:
    with served(empty()) as page:
        assert "Nothing evaluated yet" in chromium.dom(page.url)
        assert page.violations == []
    with served(Figures()) as page:
        dom = chromium.dom(f"{page.url}/slos/late-p99")
        assert 'class="plot-container' in dom
        assert "Mar" in dom
        assert "no data yet" in chromium.dom(f"{page.url}/slos/late-drift")
        assert page.violations == []


def test_a_page_says_when_mlobs_no_longer_answers(chromium: Chromium, tmp_path: Path) -> None:
    with served(Figures()) as page:
        inner = page.views.status

        def failing() -> Any:
            if page.on_status:
                raise RuntimeError("the store is gone")
            return inner()

        page.views.status = failing  # type: ignore[method-assign]
        dom = chromium.dom(page.url)
    assert "mlobs has not answered since" in dom
    assert 'class="clock stale"' in dom
