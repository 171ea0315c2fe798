"""`mlobs slo canary`: watch two versions, or replay blocks; say promote, hold or rollback."""

from __future__ import annotations

import json
import math
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated

import typer

from mlobs.errors import (
    EXIT_FINDING,
    EXIT_FINE,
    EXIT_UNAVAILABLE,
    UnavailableError,
    UnreadableError,
    UsageError,
)
from mlobs.slo.canary import HOLD, PROMOTE, ROLLBACK, Canary, Rules, Verdict, observe, verdict
from mlobs.slo.canary_feed import Feed
from mlobs.slo.canary_show import as_json, as_metrics, block_of
from mlobs.slo.canary_watch import Watch

EXITS = {PROMOTE: EXIT_FINE, ROLLBACK: EXIT_FINDING, HOLD: EXIT_UNAVAILABLE}


def canary(
    blocks: Annotated[
        Path | None, typer.Option("--blocks", help="Judge blocks from a file, one JSON a line; - for stdin.")
    ] = None,
    model: Annotated[str, typer.Option(help="The model, as in its metrics.")] = "",
    baseline: Annotated[str, typer.Option(help="Version that serves.")] = "",
    candidate: Annotated[str, typer.Option(help="Version on trial.")] = "",
    target: Annotated[
        list[str] | None, typer.Option("--target", metavar="URL", help="/metrics of a replica; repeat it.")
    ] = None,
    listen: Annotated[
        str,
        typer.Option(metavar="HOST:PORT", help="Serve the verdict: Argo Rollouts, Flagger, Prometheus."),
    ] = "",
    webhook: Annotated[str, typer.Option(metavar="URL", help="POST every new verdict there.")] = "",
    deadline: Annotated[str, typer.Option(help="Give up with the verdict of then.")] = "1h",
    json_: Annotated[bool, typer.Option("--json", help="Strict JSON.")] = False,
) -> None:
    """Compare a candidate with the baseline. Exit 0 promote, 1 rollback, 3 hold; 2 for wrong use.

    Scrapes the targets every 10 s until the verdict is promote or rollback; with --listen it stays.

    Example: mlobs slo canary --blocks blocks.jsonl
    """
    rules = Rules()
    if blocks is not None:
        found = _replay(blocks, rules)
    else:
        given = {"--model": model, "--baseline": baseline, "--candidate": candidate, "--target": target}
        missing = [option for option, value in given.items() if not value]
        if missing or target is None:
            raise UsageError.of(
                "mlobs slo canary", "--blocks FILE, or --model, --baseline, --candidate and --target",
                f"no {', '.join(missing)}", "see mlobs slo canary --help",
            )  # fmt: skip
        watch = Watch(Feed(model, candidate, baseline), rules)
        found = _watch(watch, target, listen, webhook, _seconds(deadline))
    if json_:
        typer.echo(json.dumps(as_json(found), allow_nan=False))
    else:
        typer.echo(f"{found.verdict}: {found.reason}")
        for one in found.evidence:
            typer.echo(f"  {one.text} (e-value {one.e_value:.3g}, rollback at {one.needed:.0f})")
        for metric, why in found.not_compared.items():
            typer.echo(f"  {metric}: not compared: {why}")
    raise typer.Exit(EXITS[found.verdict])


def _replay(path: Path, rules: Rules) -> Verdict:
    try:
        lines = (sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")).splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise UnreadableError.of(str(path), "a text file of blocks", str(problem), "check the path") from None
    known = Canary()
    last = 0.0
    for number, line in enumerate(lines, 1):
        if line.strip():
            block = block_of(line, f"{path}:{number}")
            known, last = observe(known, block, rules), max(last, block.end)
    return verdict(known, rules, last)


def _watch(watch: Watch, targets: list[str], listen: str, webhook: str, deadline: float) -> Verdict:
    import httpx

    server = serve(watch, listen) if listen else None
    try:
        with httpx.Client(timeout=5.0) as client:

            def fetch(url: str) -> str | Exception:
                try:
                    return client.get(url).raise_for_status().text
                except (httpx.HTTPError, httpx.InvalidURL) as problem:
                    return problem

            def post(found: Verdict) -> None:
                if not webhook:
                    return
                try:
                    client.post(webhook, json={"model": watch.model, **as_json(found)}).raise_for_status()
                except (httpx.HTTPError, httpx.InvalidURL) as problem:
                    text = f"warning: the webhook did not take the verdict: {type(problem).__name__}"
                    typer.echo(text, err=True)

            return follow(watch, targets, fetch, post, math.inf if listen else deadline, bool(listen))
    finally:
        if server is not None:
            server.shutdown()
            server.server_close()


def follow(
    watch: Watch,
    targets: list[str],
    fetch: Callable[[str], str | Exception],
    tell: Callable[[Verdict], None],
    deadline: float,
    stay: bool,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> Verdict:
    """Scrape at every block, tell of every change of the verdict; ends with the first that is no hold (unless
    told to `stay`), at the deadline (seconds from now), or with Ctrl-C."""
    began = due = clock()
    said = ""
    try:
        while True:
            found = watch.take({one: fetch(one) for one in targets}, clock())
            if found.verdict != said:
                said = found.verdict
                _say(watch, found)
                tell(found)
            if clock() - began >= deadline or (found.verdict != HOLD and not stay):
                return found
            due += Rules().block
            sleep(max(0.0, due - clock()))
    except KeyboardInterrupt:
        return watch.verdict


def _say(watch: Watch, found: Verdict) -> None:
    typer.echo(f"{found.verdict}: {found.reason}", err=True)
    for target, problem in watch.problems.items():
        typer.echo(f"warning: {target}: {problem}", err=True)


def serve(watch: Watch, listen: str) -> ThreadingHTTPServer:
    """The verdict over HTTP: /verdict (JSON), /metrics, /gate/promote and /gate/rollback (200 or 403)."""
    host, _, port = listen.rpartition(":")
    if not (port.isascii() and port.isdigit()):
        raise UsageError.of("--listen", "HOST:PORT", listen[:80], "write 127.0.0.1:9500")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, kind, body = answer(watch, self.path)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:  # Flagger's webhooks
            length = self.headers.get("Content-Length") or "0"
            if not (
                length.isascii() and length.isdigit()
            ):  # a negative one would read until the other end closes
                self.send_error(400, "Content-Length is no number")
                return
            self.rfile.read(min(int(length), 1 << 20))
            self.do_GET()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002, ARG002 - the base class's name
            return

    try:
        server = ThreadingHTTPServer((host.strip("[]") or "127.0.0.1", int(port)), Handler)
    except (OSError, ValueError, OverflowError) as problem:
        raise UnavailableError.of(
            f"--listen {listen}", "HOST:PORT that is free", str(problem), "name another"
        ) from None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def answer(watch: Watch, path: str) -> tuple[int, str, bytes]:
    """(status, content type, body) of a request."""
    found = watch.verdict
    gates: dict[str, Callable[[], bool]] = {
        "/gate/promote": lambda: found.verdict == PROMOTE,
        "/gate/rollback": lambda: found.verdict == ROLLBACK,
    }
    path = path.partition("?")[0]
    if path == "/metrics":
        return 200, "text/plain; version=0.0.4; charset=utf-8", as_metrics(found, watch.model).encode()
    if path == "/verdict":
        return 200, "application/json", json.dumps(as_json(found), allow_nan=False).encode()
    if path in gates:
        return (200 if gates[path]() else 403), "application/json", json.dumps(as_json(found)).encode()
    return 404, "text/plain", b"try /verdict, /metrics, /gate/promote, /gate/rollback\n"


def _seconds(text: str) -> float:
    from mlobs.durations import parse_duration

    try:
        return float(parse_duration(text))
    except ValueError as problem:
        raise UsageError.of("--deadline", "a duration like 30m", text, str(problem)) from None
