"""Page -> plain text of at most 40 lines: the console and e-mail print it, Slack falls back to it."""

from __future__ import annotations

from mlobs.durations import speak_duration
from mlobs.notify.page import FIRING, RESOLVED, UPDATE, Burn, FeatureFinding, Page, TraceFinding
from mlobs.notify.text import clean, count, moment, percent, wrapped

MOST_LINES = 40
MOST_CHANGES = 4
WIDTH = 160
FOLDED = 110
"""Characters after which a line is folded."""


def headline(page: Page) -> str:
    """`PAGE fraud: latency burns ...`, one line."""
    if page.test:
        return page.title
    word = {FIRING: page.severity.upper(), RESOLVED: "RESOLVED"}.get(page.state, page.state.upper())
    return f"{word} {page.title}"


def announcement(kind: str, page: Page) -> str:
    """What a message of `kind` says first: an update what is new, anything else its headline."""
    if kind == UPDATE and page.changed:
        return clean(f"UPDATE {page.model or page.service}: {news(page)}")
    if kind == FIRING and page.changed:
        return clean(f"{headline(page)} ({news(page)})")
    return headline(page)


def news(page: Page) -> str:
    """`drift fires; temp: values below the training minimum`, of the first few changes."""
    more = len(page.changed) - MOST_CHANGES
    shown = page.changed[:MOST_CHANGES]
    return "; ".join(shown) + (f"; and {more} more" if more > 0 else "")


def plain(page: Page) -> list[str]:
    """The whole page, `MOST_LINES` lines of at most `WIDTH` characters. Sections that are empty are left out.

    Long lines go over up to three; where that makes too many, each is cut instead.
    """
    fresh = [f"New: {news(page)}"] if page.changed and page.state != RESOLVED else []
    lines = [*fresh, headline(page), where_and_when(page)]
    for title, body in sections(page):
        lines.append(title)
        lines.extend(f"  {one}" for one in body)
    lines = [clean_line(one, 3 * FOLDED) for one in lines]
    folded = [part for one in lines for part in wrapped(one, FOLDED, 3)]
    if len(folded) <= MOST_LINES:
        return folded
    return [clean_line(one, WIDTH) for one in lines[:MOST_LINES]]


def clean_line(line: str, width: int) -> str:
    """Cut to the width; the indentation stays."""
    stripped = line.lstrip(" ")
    return line[: len(line) - len(stripped)] + clean(stripped, width)


def where_and_when(page: Page) -> str:
    """Key, since when, and until when if it has healed."""
    text = f"{page.key} since {moment(page.since, page.zone)}"
    if page.resolved_at is not None:
        healed = moment(page.resolved_at, page.zone)
        text += f", healed {healed} after {speak_duration(page.resolved_at - page.since)}"
    elif page.at > page.since:
        text += f", for {speak_duration(page.at - page.since)}"
    if page.acknowledged_by:
        text += f", acknowledged by {page.acknowledged_by}"
    return text


def sections(page: Page) -> list[tuple[str, list[str]]]:
    """(title, lines) in the order of the on-call engineer's questions. At most 36 lines with the titles."""
    found = [
        ("Incidents", list(page.others)),
        ("What burns", [burn_line(one, page) for one in page.burns]),
        ("Whom it hits", hits(page)),
        ("Features", [line for one in page.features for line in feature_lines(one)]),
        ("Slowest stage", [stage_line(page)] if page.stage else []),
        ("Traces", [trace_line(one) for one in page.traces]),
        ("Suspected change", [change_line(page)] if page.change else []),
        ("Notes", list(page.notes[:1] if page.changed else page.notes)),  # the line that says what is new
        ("Links", [f"{name}: {link}" for name, link in links(page)]),
    ]
    return [(title, lines) for title, lines in found if lines]


def burn_line(one: Burn, page: Page) -> str:
    parts = [f"{one.name} ({one.cause.replace('_', ' ')}, {one.severity})"]
    if not one.firing:
        parts.append("has ceased")
    if one.burn_rate is not None:
        window = f" over {speak_duration(one.window_s)}" if one.window_s is not None else ""
        parts.append(f"{one.burn_rate:.3g} times too fast{window}")
    if one.bad is not None and one.total is not None:
        parts.append(f"{count(one.bad)} bad of {count(one.total)}")
    if one.budget_remaining is not None and one.budget_remaining <= 0:
        over = f", {percent(-one.budget_remaining)} over" if one.budget_remaining < 0 else ""
        parts.append(f"budget spent{over}")
    elif one.exhausted_at is not None and one.exhausted_at <= page.at:
        parts.append("budget spent")
    else:
        if one.budget_remaining is not None:
            parts.append(f"budget left {percent(one.budget_remaining)}")
        if one.exhausted_at is not None:
            parts.append(f"spent by {moment(one.exhausted_at, page.zone)}")
    return ", ".join(parts) + (f": {one.summary}" if one.summary else "")


def hits(page: Page) -> list[str]:
    lines = [f"version {', '.join(page.versions)}"] if page.versions else []
    for one in page.segments:
        share = f": {count(one.bad)} bad of {count(one.total)}" if one.bad is not None else ""
        lines.append(f"segment {one.segment}{share}")
    return lines


def feature_lines(one: FeatureFinding) -> list[str]:
    """The finding, and below it the repair."""
    text = one.feature + (f" in {one.segment}" if one.segment else "")
    if one.statistic:
        text += f", {one.statistic}"
    if one.value is not None:
        text += f" {one.value:.3g}" + (f" over {one.threshold:.3g}" if one.threshold is not None else "")
    if one.cause:
        text += f": {one.cause}"
    return [text, f"repair: {one.repair}"] if one.repair else [text]


def stage_line(page: Page) -> str:
    stage = page.stage
    if stage is None:
        return ""
    text = stage.stage
    if stage.p99_s is not None:
        text += f", {stage.measure} {short(stage.p99_s)}"
        text += f" where {short(stage.usual_s)} is usual" if stage.usual_s is not None else ""
    if stage.share is not None:
        text += f", {percent(stage.share)} of the time"
    return text


def short(seconds: float) -> str:
    """`0.4 ms`, `702 ms`, `1.2 s`: two or three digits below a second, where stages live."""
    if 0 <= seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    return speak_duration(seconds)


def trace_line(one: TraceFinding) -> str:
    text = one.trace_id or one.prediction_id
    if one.duration_s is not None:
        text += f", {short(one.duration_s)}"
    slow = sorted(one.stages.items(), key=lambda item: -item[1])[:3]
    if slow:
        text += ": " + ", ".join(f"{name} {short(seconds)}" for name, seconds in slow)
    if one.shows:
        text += f"; {one.shows}"
    return f"{text} {one.url}" if one.url else text


def change_line(page: Page) -> str:
    change = page.change
    if change is None:
        return ""
    before = page.since - change.at
    when = f"{speak_duration(before)} before" if before >= 0 else f"{speak_duration(-before)} after it began"
    return f"{moment(change.at, page.zone)} {change.kind}: {change.text} ({when})"


def links(page: Page) -> list[tuple[str, str]]:
    found = [("runbook", page.runbook), ("dashboard", page.dashboard), ("incident", page.link)]
    return [(name, link) for name, link in found if link]
