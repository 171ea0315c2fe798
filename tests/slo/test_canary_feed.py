"""The canary's edges: counters of two versions become blocks; the verdict as JSON, metrics and gates."""

import json
import urllib.error
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from mlobs.cli import app
from mlobs.cli.canary import answer, serve
from mlobs.cli.canary import follow as watched_to_the_end
from mlobs.errors import UnavailableError, UnreadableError
from mlobs.slo.canary import Arm, Block, Canary, Rules, observe, verdict
from mlobs.slo.canary_feed import Feed, advance, read
from mlobs.slo.canary_show import as_metrics, block_of
from mlobs.slo.canary_watch import Watch

VERSIONS = ("v2", "v1")


def exposed(counts: dict[str, tuple[int, int]], started: float = 0.0, model: str = "fraud") -> str:
    """/metrics of a target: (fast ones, errors) by version."""
    lines = [f"mlobs_process_start_time_seconds {started}"]
    for version, (fast, errors) in counts.items():
        base = f'model="{model}",model_version="{version}"'
        name = "mlobs_request_duration_seconds"
        lines += [
            f'{name}_count{{{base},outcome="ok"}} {fast}',
            f'{name}_count{{{base},outcome="error"}} {errors}',
            f'{name}_count{{{base},outcome="cancelled"}} 7',
            f'{name}_bucket{{{base},outcome="ok",le="0.1"}} {fast - 1 if fast else 0}',
            f'{name}_bucket{{{base},outcome="ok",le="1.0"}} {fast}',
            f'{name}_bucket{{{base},outcome="ok",le="+Inf"}} {fast}',
            f'mlobs_predictions_total{{{base},decision="block"}} {fast // 10}',
            f'mlobs_predictions_total{{{base},decision="pass"}} {fast - fast // 10}',
        ]
    return "\n".join(lines) + "\n"


def follow(*scrapes: dict[str, str]) -> list[Block | None]:
    feed, found = Feed("fraud", *VERSIONS), []
    for place, texts in enumerate(scrapes):
        readings = {target: read(text, "fraud", VERSIONS) for target, text in texts.items()}
        feed, block = advance(feed, readings, 100.0 + 10 * place)
        found.append(block)
    return found


def test_the_difference_of_two_scrapes_is_a_block() -> None:
    first, second = follow(
        {"a": exposed({"v1": (100, 5), "v2": (50, 1)})}, {"a": exposed({"v1": (300, 6), "v2": (150, 4)})}
    )
    assert first is None
    assert second == Block(
        100.0,
        110.0,
        Arm(103, 3, (100, 0, 0), decisions=(10, 90)),
        Arm(201, 1, (200, 0, 0), decisions=(20, 180)),
    )


def test_a_restarted_target_counts_from_zero_and_another_model_not_at_all() -> None:
    _, block = follow(
        {"a": exposed({"v1": (100, 0), "v2": (50, 0)}, started=1), "b": exposed({"v1": (9, 9)}, model="x")},
        {"a": exposed({"v1": (30, 2), "v2": (20, 0)}, started=105), "b": exposed({"v1": (99, 9)}, model="x")},
    )
    assert block is not None
    assert (block.baseline, block.candidate) == (
        Arm(32, 2, (29, 1, 0), decisions=(3, 27)),
        Arm(20, 0, (19, 1, 0), decisions=(2, 18)),
    )


def test_an_old_process_seen_for_the_first_time_is_no_burst() -> None:
    old, young = (exposed({"v1": (1000, 0), "v2": (1000, 0)}, started) for started in (1.0, 104.0))
    base = exposed({"v1": (1, 0), "v2": (1, 0)})
    _, block = follow({"a": base}, {"a": base, "b": old})
    assert (block and block.candidate) == Arm(0, 0, (0, 0, 0), decisions=(0, 0))
    _, block = follow({"a": base}, {"a": base, "b": young})
    assert (block and block.candidate and block.candidate.requests) == 1000


def test_an_arm_that_nobody_exposes_is_missing() -> None:
    _, block = follow({"a": exposed({"v1": (1, 0)})}, {"a": exposed({"v1": (9, 0)})})
    assert block is not None
    assert block.candidate is None


def test_a_target_that_answers_nonsense_is_named_and_counts_nothing() -> None:
    watch = Watch(Feed("fraud", *VERSIONS), Rules())
    good = exposed({"v1": (1, 0), "v2": (1, 0)})
    watch.take({"a": good, "http://me:PLANTED@b/metrics": good, "c": good}, 100.0)
    found = watch.take(
        {"a": "<html>", "http://me:PLANTED@b/metrics": ValueError("refused"), "c": good}, 110.0
    )
    assert found.verdict == "hold"
    assert set(watch.problems) == {"a", "http://b/metrics"}


def watched(verdict_is: str) -> Watch:
    watch = Watch(Feed('fraud"\n', *VERSIONS), Rules())
    errors = {"rollback": 20, "promote": 0}[verdict_is]
    for place in range(41):
        counts = {"v1": (1000 * place, 0), "v2": (1000 * place, errors * place)}
        text = exposed(counts).replace('model="fraud"', 'model="fraud\\"\\n"')
        watch.take({"a": text}, 100.0 + 10 * place)
    assert watch.verdict.verdict == verdict_is
    return watch


@pytest.mark.parametrize(("verdict_is", "open_gate"), [("rollback", "rollback"), ("promote", "promote")])
def test_gates_open_for_their_verdict_alone(verdict_is: str, open_gate: str) -> None:
    watch = watched(verdict_is)
    statuses = {gate: answer(watch, f"/gate/{gate}")[0] for gate in ("promote", "rollback")}
    assert statuses == {gate: 200 if gate == open_gate else 403 for gate in statuses}


def test_the_verdict_is_served_as_json_and_as_metrics() -> None:
    server = serve(watched("rollback"), "127.0.0.1:0")
    base = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        with urllib.request.urlopen(f"{base}/verdict") as reply:
            found = json.load(reply)
        with urllib.request.urlopen(f"{base}/metrics") as reply:
            families = list(text_string_to_metric_families(reply.read().decode()))
        post = urllib.request.Request(f"{base}/gate/rollback", data=b"{}", method="POST")
        with urllib.request.urlopen(post) as reply:
            assert reply.status == 200
        for odd in ("-1", "many"):
            post = urllib.request.Request(
                f"{base}/gate/rollback", data=b"{}", method="POST", headers={"Content-Length": odd}
            )
            with pytest.raises(urllib.error.HTTPError, match="400") as refused:
                urllib.request.urlopen(post, timeout=10)
            refused.value.close()
        with pytest.raises(urllib.error.HTTPError, match="404") as missing:
            urllib.request.urlopen(f"{base}/nothing")
        missing.value.close()
    finally:
        server.shutdown()
        server.server_close()
    assert found["verdict"] == "rollback"
    assert found["evidence"][0]["metric"] == "errors"
    values = {sample.labels.get("result"): sample.value for sample in families[0].samples}
    assert values == {"promote": 0.0, "hold": 0.0, "rollback": 1.0}
    assert families[0].samples[0].labels["model"] == 'fraud"\n'


class Clock:
    """Time that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize(
    ("errors", "deadline", "told"),
    [(20, 3600.0, ["hold", "rollback"]), (0, 3600.0, ["hold", "promote"]), (0, 100.0, ["hold"])],
)
def test_a_watched_canary_tells_every_change_and_ends(errors: int, deadline: float, told: list[str]) -> None:
    """Without any histogram and with one target that never answers."""
    clock, said = Clock(), list[str]()

    def fetch(url: str) -> str | Exception:
        if url == "dead":
            return OSError("refused")
        age = clock.now - 1000
        lines = exposed({"v1": (int(100 * age), 0), "v2": (int(100 * age), int(errors * age / 10))})
        return "\n".join(line for line in lines.splitlines() if "_bucket" not in line) + "\n"

    watch = Watch(Feed("fraud", *VERSIONS), Rules())
    found = watched_to_the_end(
        watch,
        ["alive", "dead"],
        fetch,
        lambda one: said.append(one.verdict),
        deadline,
        False,
        clock,
        clock.sleep,
    )
    assert said == told
    assert found.verdict == told[-1]
    assert clock.now - 1000 <= deadline


def test_a_decision_that_is_new_does_not_end_the_comparison_of_scores() -> None:
    canary = Canary()
    for place in range(60):
        scores = (800, 200) if place < 20 else (800, 150, 50)
        other = scores if place < 20 else (400, 550, 50)
        canary = observe(
            canary, Block(place, place + 1, Arm(1000, scores=other), Arm(1000, scores=scores)), Rules()
        )
    assert "score" in verdict(canary, Rules(), 60).reason


def test_a_port_that_is_taken_is_a_clear_error() -> None:
    server = serve(watched("promote"), "127.0.0.1:0")
    try:
        with pytest.raises(UnavailableError, match="name another"):
            serve(watched("promote"), f"127.0.0.1:{server.server_address[1]}")
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "[]",
        "{}",
        '{"start": 0, "end": 0, "candidate": null, "baseline": null}',
        '{"start": 0, "end": 10, "candidate": {"requests": 1, "errors": 2}, "baseline": null}',
        '{"start": 0, "end": 10, "candidate": {"requests": -1}, "baseline": null}',
        '{"start": 0, "end": 10, "candidate": {"requests": 1.5}, "baseline": null}',
        '{"start": NaN, "end": 10, "candidate": null, "baseline": null}',
        '{"start": 0, "end": 10, "candidate": null, "baseline": null, "pairs": 1, "flips": 2}',
    ],
)
def test_a_line_that_is_no_block_is_refused_with_its_place(line: str) -> None:
    with pytest.raises(UnreadableError, match="blocks:3"):
        block_of(line, "blocks:3")


def block_lines(errors: int, count: int) -> str:
    return "\n".join(
        json.dumps(
            {
                "start": 10 * place,
                "end": 10 * place + 10,
                "candidate": {"requests": 1000, "errors": errors},
                "baseline": {"requests": 1000, "errors": 0},
            }
        )
        for place in range(count)
    )


@pytest.mark.parametrize(
    ("errors", "count", "code", "word"), [(20, 10, 1, "rollback"), (0, 40, 0, "promote"), (0, 5, 3, "hold")]
)
def test_the_command_replays_blocks_and_its_exit_is_the_verdict(
    errors: int, count: int, code: int, word: str
) -> None:
    done = CliRunner().invoke(
        app, ["slo", "canary", "--blocks", "-", "--json"], input=block_lines(errors, count)
    )
    assert (done.exit_code, json.loads(done.stdout)["verdict"]) == (code, word)


def test_metrics_of_a_canary_that_saw_nothing_are_text_all_the_same() -> None:
    text = as_metrics(verdict(Canary(), Rules(), 0.0), "fraud")
    assert 'mlobs_canary_verdict{model="fraud",result="hold"} 1.0' in text
