"""kill -9 at any point of evaluate, commit, send, record: nothing missed, at most one repetition a kill."""

from __future__ import annotations

import multiprocessing
import random
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from tests.notify import victim
from tests.notify.stubs import PagerDuty, Slack, receiver, serving


@pytest.fixture(scope="module")
def forks() -> ForkServerContext:
    """Processes that start in milliseconds: forked from a server that has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.notify.victim"])
    return context


def wait_until(check: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not check() and time.monotonic() < deadline:
        time.sleep(0.001)


def kill_at_random(forks: ForkServerContext, folder: Path, kills: int, seed: int) -> None:
    rng = random.Random(seed)
    slack, hook, pager = Slack(), receiver(), PagerDuty()
    (folder / "key").write_text("r" * 32)
    (folder / "token").write_text("xoxb-right")
    (folder / "truth").write_text("")
    models = [f"m{number}" for number in range(3 * kills)]
    with serving(slack.stub), serving(hook), serving(pager.stub):
        urls = (slack.stub.url, hook.url, pager.stub.url)
        for number in range(kills):
            (folder / "truth.new").write_text(" ".join(models[: 3 * number + 3]))
            (folder / "truth.new").replace(folder / "truth")
            process = forks.Process(target=victim.page, args=(str(folder), *urls, number, False), daemon=True)
            seen = len(slack.stub.requests) + len(hook.requests)
            process.start()
            if number % 3:  # while it sends; every third one at whatever it does after its start
                wait_until(lambda seen=seen: len(slack.stub.requests) + len(hook.requests) > seen, 20)
            time.sleep(
                rng.uniform(0, 0.05 if number % 3 else 0.2)
            )  # the moment of the kill is the experiment
            process.kill()
            process.join(20)
        last = forks.Process(target=victim.page, args=(str(folder), *urls, 1, True), daemon=True)
        last.start()
        last.join(330)  # hundreds of pages in one turn, on a machine that may have others to serve
        assert last.exitcode == 0
    pages = Counter(one.fields["page"]["model"] for one in hook.requests if one.fields["kind"] == "firing")
    assert set(pages) == set(models), "a page was missed"
    keys = {(one.fields["page"]["model"], one.fields["dedup_key"]) for one in hook.requests}
    assert len(keys) == len(models), "a repetition had another key"
    repeated = sum(pages.values()) - len(models)
    assert repeated <= kills
    shown = Counter(one["metadata"]["event_payload"]["dedup_key"] for one in slack.shown)
    assert len(shown) == len(models)
    assert set(shown.values()) == {1}, "Slack shows one message an incident"
    assert len(slack.told) == len(models), "and no line of a thread beside it"
    assert pager.triggered == len(models), "PagerDuty notifies once an incident"
    print(f"{kills} kills, {len(models)} incidents, {repeated} repeated to the webhook, none elsewhere")


def test_sixty_kills_miss_no_page(forks: ForkServerContext, tmp_path: Path):
    kill_at_random(forks, tmp_path, 60, seed=1)


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(20))
def test_two_thousand_kills_miss_no_page(forks: ForkServerContext, tmp_path: Path, seed: int):
    kill_at_random(forks, tmp_path, 100, seed=100 + seed)
