"""The page: the verdict first, then a table of all columns, then each column with its distributions. Pure."""

from __future__ import annotations

from mlobs.drift.checks import CheckResult
from mlobs.drift.compare import ColumnReport, Comparison
from mlobs.drift.report.drawing import draw, plain
from mlobs.drift.report.shapes import bars_of
from mlobs.drift.score import Score
from mlobs.drift.spec import Spec
from mlobs.drift.state import State
from mlobs.drift.verdicts import ABSENT, DRIFTED

_ORDER = {DRIFTED: 0, ABSENT: 1, "insufficient": 1, "ok": 2}
_NAMES = {
    "psi": "PSI",
    "js": "Jensen-Shannon",
    "ks": "Kolmogorov-Smirnov",
    "hellinger": "Hellinger",
    "tv": "total variation",
    "wasserstein": "Wasserstein-1",
    "chi_square": "chi-square (contingency)",
}
_STYLE = """
:root { color-scheme: light dark; --ground: #f4f5f7; --card: #fff; --edge: #dfe3e8; --ink: #1b2128;
  --soft: #5b6673; --link: #2f4fc4; --bad: #b3261e; --bad-tint: #f9dedc; --warn: #8a4a05;
  --warn-tint: #fbe8cf; --good: #1c7a4c; --good-tint: #d8eee2; --reference: #8b97a8; --current: #3557c9;
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", sans-serif; }
@media (prefers-color-scheme: dark) { :root { --ground: #101317; --card: #181c22; --edge: #2a3038;
  --ink: #dfe4ea; --soft: #93a0ae; --link: #8fa8ff; --bad: #ff8a80; --bad-tint: #4a1c1a; --warn: #e8a04c;
  --warn-tint: #3d2a12; --good: #5ec492; --good-tint: #173527; --reference: #78859a; --current: #7f9bff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); }
main { max-width: 1040px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 1.5rem; margin: 0 0 .3rem; }
h2 { font-size: 1.05rem; margin: 0; overflow-wrap: anywhere; }
a { color: var(--link); text-decoration: none; } a:hover { text-decoration: underline; }
.quiet { color: var(--soft); }
.banner, section { background: var(--card); border: 1px solid var(--edge); border-radius: 10px;
  padding: 18px 20px; margin: 0 0 16px; }
.banner { border-left: 6px solid var(--good); }
.banner.drifted { border-left-color: var(--bad); } .banner.insufficient { border-left-color: var(--warn); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th { text-align: left; font-weight: 600; color: var(--soft); }
th, td { padding: 4px 12px 4px 0; border-bottom: 1px solid var(--edge); vertical-align: top; }
td.name { overflow-wrap: anywhere; min-width: 8em; } td.why { overflow-wrap: anywhere; min-width: 20em; }
th.n, td.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.tag { display: inline-block; border-radius: 5px; padding: 0 7px; font-size: .85rem; font-weight: 600; }
.tag.drifted { color: var(--bad); background: var(--bad-tint); }
.tag.ok { color: var(--good); background: var(--good-tint); }
.tag.absent, .tag.insufficient { color: var(--warn); background: var(--warn-tint); }
.head { display: flex; gap: 10px; align-items: baseline; flex-wrap: wrap; }
.banner p { margin: .3rem 0 0; } .why p { margin: .3rem 0 .8rem; overflow-wrap: anywhere; }
.tables { display: grid; grid-template-columns: repeat(auto-fit, minmax(300px, 1fr)); gap: 4px 36px;
  align-items: start; }
section { overflow-x: auto; }
svg { width: 100%; min-width: 560px; max-width: 900px; height: auto; margin: 10px 0 12px; display: block; }
svg text { font-size: 11px; fill: var(--soft); } svg text.side { font-size: 12px; fill: var(--ink); }
rect.reference { fill: var(--reference); } rect.current { fill: var(--current); }
.ghost { fill: none; stroke: var(--ink); stroke-width: 1.2; stroke-dasharray: 3 2; opacity: .75; }
.axis { stroke: var(--edge); }
@media print { section { break-inside: avoid; } }
"""


def report_page(comparison: Comparison, reference: State, current: State, spec: Spec) -> str:
    """HTML of a comparison, one self-contained file: no script, nothing loaded. Some 5 kB a column."""
    columns = sorted(enumerate(comparison.columns), key=lambda pair: (_ORDER[pair[1].verdict], pair[0]))
    body = [_banner(comparison), _summary(columns)]
    for place, column in columns:
        known = spec.columns.get(column.name)
        bars = None if known is None else bars_of(known, reference, current)
        body.append(_section(place, column, "" if bars is None else draw(bars, column.name)))
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    title = f"Drift of {plain(comparison.current)}"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head>\n<body><main>\n"
        + "\n".join(body)
        + "\n</main></body></html>\n"
    )


def _banner(comparison: Comparison) -> str:
    drifted, unjudged = len(comparison.drifted), len(comparison.unjudged)
    of = len(comparison.columns)
    head = {
        DRIFTED: f"{drifted} of {of} columns drifted",
        "ok": f"No drift in {of - unjudged} of {of} columns" if unjudged else f"No drift in {of} columns",
    }.get(comparison.verdict, "Nothing could be judged")
    more = [f"{unjudged} not judged"] if unjudged and comparison.verdict == DRIFTED else []
    if comparison.extra:
        more.append(f"unknown to the reference: {plain(', '.join(comparison.extra))}")
    if comparison.rows_detail:
        more.insert(0, f"rows: {plain(comparison.rows_detail, 1000)}")
    rest = f'<p class="quiet">{"; ".join(more)}</p>' if more else ""
    return (
        f'<div class="banner {comparison.verdict}"><h1>{head}</h1>'
        f"<div>current <b>{plain(comparison.current)}</b>, {comparison.rows_current:,} rows, beside "
        f"reference <b>{plain(comparison.reference)}</b>, {comparison.rows_reference:,} rows</div>"
        f"{rest}</div>"
    )


def _summary(columns: list[tuple[int, ColumnReport]]) -> str:
    rows = "".join(
        f'<tr><td class="name"><a href="#c{place}">{plain(column.name)}</a></td><td>{_tag(column)}</td>'
        + "".join(f'<td class="n">{_value(column.scores.get(name))}</td>' for name in ("psi", "js", "ks"))
        + f'<td class="why">{plain(_why(column), 160)}</td></tr>'
        for place, column in columns
    )
    return (
        '<section><div class="scroll"><table><tr><th>column</th><th>verdict</th><th class="n">PSI</th>'
        f'<th class="n">JS</th><th class="n">KS</th><th>why</th></tr>{rows}</table></div></section>'
    )


def _section(place: int, column: ColumnReport, figure: str) -> str:
    why = _why(column)
    said = f"<p>{plain(why, 1000)}</p>" if why else ""
    tables = [_scores(column), _checks(column.checks)]
    inner = f'<div class="tables">{"".join(tables)}</div>' if any(tables) else ""
    return (
        f'<section id="c{place}"><div class="head"><h2>{plain(column.name)}</h2>{_tag(column)}'
        f'<span class="quiet">{plain(column.kind)}</span></div><div class="why">{said}</div>'
        f"{figure}{inner}</section>"
    )


def _scores(column: ColumnReport) -> str:
    rows = "".join(
        f"<tr><td>{_NAMES.get(name, plain(name))}</td>"
        f'<td class="n">{_value(one)}</td><td class="n">{_p(one.p_value)}</td></tr>'
        for name, one in column.scores.items()
    )
    if not rows:
        return ""
    head = '<tr><th>distance, less chance</th><th class="n">value</th><th class="n">p</th></tr>'
    return f"<table>{head}{rows}</table>"


def _checks(checks: tuple[CheckResult, ...]) -> str:
    rows = "".join(
        f'<tr><td>{plain(one.check)}</td><td class="n">{one.share:.2%}</td>'
        f'<td class="n">{_bound(one)}</td>'
        f"<td>{'<b>broken</b>' if one.failed else ''}</td></tr>"
        for one in checks
    )
    if not rows:
        return ""
    numbers = "".join(f'<th class="n">{text}</th>' for text in ("rows failing", "worst reference day"))
    head = f"<tr><th>check</th>{numbers}<th></th></tr>"
    return f"<table>{head}{rows}</table>"


def _bound(one: CheckResult) -> str:
    return "off" if one.off else f"{'declared ' if one.declared else ''}{one.worst:.2%}"


def _tag(column: ColumnReport) -> str:
    return f'<span class="tag {plain(column.verdict)}">{plain(column.verdict)}</span>'


def _why(column: ColumnReport) -> str:
    return column.detail or ("" if column.status == "ok" else column.status)


def _value(one: Score | None) -> str:
    return "" if one is None or one.value is None else f"{one.value:.4g}"


def _p(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}" if value >= 1e-300 else "0"
