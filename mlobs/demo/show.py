"""What the demo prints: progress, the live state, pages as they leave, and the summary."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from mlobs.demo.plan import Plan
from mlobs.demo.replay import Progress as ReplayProgress
from mlobs.demo.summary import Judgement, Outcome, local
from mlobs.durations import speak_duration
from mlobs.slo.read import SloStatus

STATE_STYLE = {"ok": "green", "burning": "red", "exhausted": "bold red", "absent": "magenta"}


class Screen:
    """The terminal while the replay runs; on a pipe, a line a simulated day."""

    def __init__(self, console: Console, plan: Plan, requests: int) -> None:
        self._console = console
        self._plan = plan
        self._lock = threading.Lock()
        self._pages: list[dict[str, Any]] = []
        self._day = -1
        self._state = Text("")
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("requests"),
            TimeElapsedColumn(),
            console=console,
        )
        self._task = self._bar.add_task("replay", total=requests)

    @contextmanager
    def live(self) -> Iterator[None]:
        if not self._console.is_terminal:
            yield
            return
        with Live(console=self._console, refresh_per_second=8, get_renderable=self._draw):
            yield

    def hour(self, progress: ReplayProgress) -> None:
        """After each hour of the replay."""
        day = int((progress.now - self._plan.start + 7200) // 86400)
        tick = progress.last_tick or {}
        with self._lock:
            self._bar.update(self._task, completed=progress.requests, description=local(progress.now))
            self._state = _state_line(tick)
            new_day, self._day = day != self._day, day
        if new_day and not self._console.is_terminal:
            self._console.print(
                f"{local(progress.now)}: {progress.requests} requests, {progress.labels} labels, "
                f"{self._state.plain}",
                highlight=False,
                soft_wrap=True,
            )

    def page(self, body: dict[str, Any]) -> None:
        """A page has arrived at the webhook."""
        with self._lock:
            self._pages.append(body)
        self._console.print(draw_page(body))

    def _draw(self) -> Group:
        with self._lock:
            return Group(self._bar, self._state)


def _state_line(tick: Mapping[str, Any]) -> Text:
    line = Text()
    for name, slo in (tick.get("slos") or {}).items():
        remaining = slo["remaining"]
        left = "absent" if remaining is None else f"{remaining:.0%} left"
        line.append("● ", style=STATE_STYLE.get(slo["state"], "yellow"))
        line.append(f"{name} {slo['state']}, {left}   ")
    for stage, problem in (tick.get("failed") or {}).items():
        line.append(f"{stage} fails: {problem}", style="bold red")
    return line


def draw_page(body: Mapping[str, Any]) -> Panel:
    """A page as the webhook received it."""
    lines = body.get("lines") or [str(body.get("title", ""))]
    style = {"firing": "red", "resolved": "green"}.get(str(body.get("state")), "yellow")
    at = body.get("at")
    head = f"{body.get('state', 'page')} · {local(float(at))}" if isinstance(at, int | float) else "page"
    return Panel(Text("\n".join(str(line) for line in lines)), title=escape(head), border_style=style)


def draw_summary(
    console: Console,
    judgement: Judgement,
    slos: Sequence[SloStatus],
    facts: Mapping[str, str],
    plan: Plan,
) -> None:
    """The verdict: facts, budgets, causes beside pages, false pages."""
    table = Table(title=None, show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in facts.items():
        table.add_row(name, value)
    console.rule("summary")
    console.print(table)
    console.print(_budgets(slos))
    if plan.faults:
        console.print(_faults(judgement.outcomes))
    for page in judgement.false:
        names = ", ".join(page.names) or "nothing"
        console.print(
            f"[red]false page[/red] at {local(page.paged_at)}: {escape(page.incident.title)} "
            f"naming {escape(names)}"
        )
    verdict = "[bold green]passed[/bold green]" if judgement.passed else "[bold red]failed[/bold red]"
    console.print(f"{verdict}: {_words(judgement, plan)}")


def _budgets(slos: Sequence[SloStatus]) -> Table:
    table = Table(title="error budgets", title_justify="left")
    for column in ("objective", "target", "state", "bad", "of", "budget left"):
        table.add_column(column, justify="right" if column in ("bad", "of", "budget left") else "left")
    for slo in slos:
        left = "absent" if slo.remaining is None else f"{slo.remaining:.0%}"
        state = Text(slo.state, style=STATE_STYLE.get(slo.state, "yellow"))
        table.add_row(slo.name, slo.objective, state, f"{slo.bad:g}", f"{slo.total:g} {slo.unit}", left)
    return table


def _faults(outcomes: Sequence[Outcome]) -> Table:
    table = Table(title="causes and pages (the schedule is read only now)", title_justify="left")
    for column in ("cause", "began", "healed", "page left", "delay", "the page names"):
        table.add_column(column)
    for outcome in outcomes:
        page, delay = outcome.page, outcome.delay
        names = ", ".join(page.names) if page is not None else ""
        table.add_row(
            outcome.fault.what,
            local(outcome.fault.start),
            local(outcome.fault.end),
            local(page.paged_at) if page is not None else Text("never", style="bold red"),
            speak_duration(delay) if delay is not None else "",
            Text(names, style="green" if outcome.named else "bold red"),
        )
    return table


def _words(judgement: Judgement, plan: Plan) -> str:
    paged = sum(outcome.page is not None for outcome in judgement.outcomes)
    named = sum(outcome.named for outcome in judgement.outcomes)
    if not plan.faults:
        return f"no cause, {len(judgement.false)} pages"
    return (
        f"{paged} of {len(judgement.outcomes)} causes paged, {named} named rightly, "
        f"{len(judgement.false)} false pages"
    )


def terminal() -> Console:
    """The terminal; on a pipe without colours, at a width that a log can show."""
    return Console() if sys.stdout.isatty() else Console(width=120, no_color=True)
