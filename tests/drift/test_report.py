"""The HTML report: self-contained, escaped, the summary first, both distributions on one scale."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from mlobs.cli import app
from mlobs.drift.compare import Comparison, compare
from mlobs.drift.reference import Reference, build_reference
from mlobs.drift.report.drawing import plain
from mlobs.drift.report.page import report_page
from mlobs.drift.report.shapes import BARS, bars_of
from mlobs.drift.state import State
from mlobs.errors import MissingExtraError, UsageError
from tests import servers

EVIL = "<script>alert('x')</script>\"&\x1b[31m\ud800"


def table(rows: int, seed: int, **changed: object) -> pa.Table:
    rng = np.random.default_rng(seed)
    columns: dict[str, object] = {
        "amount": rng.lognormal(3, 1, rows),
        "temp": rng.normal(42, 10, rows).clip(10, 75),
        "country": rng.choice(["de", "fr", "us"], rows, p=[0.5, 0.3, 0.2]),
        "items": rng.poisson(2, rows),
        "gust": np.full(rows, 7.0),
        "empty": pa.nulls(rows, pa.float64()),
    }
    return pa.table(columns | changed)


def compared(reference: pa.Table, current: pa.Table) -> tuple[Comparison, Reference, State]:
    built = build_reference(reference, "reference")
    kept: list[State] = []
    result = compare(built, [current], "current", keep=kept.append)
    return result, built, kept[0]


def page_of(reference: pa.Table, current: pa.Table) -> str:
    result, built, state = compared(reference, current)
    return report_page(result, built.state, state, built.spec)


class Reader(HTMLParser):
    """Tags that are opened and not closed, attributes that could load or run something."""

    VOID = frozenset({"meta", "br", "hr", "img", "link"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.suspicious: list[tuple[str, str | None]] = []
        self.links: set[str] = set()
        self.ids: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name.startswith("on") or name in ("src", "srcset", "style", "xlink:href"):
                self.suspicious.append((name, value))
            if name == "href":
                self.links.add(value or "")
            if name == "id":
                self.ids.add(value or "")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


def test_the_page_loads_and_runs_nothing_and_its_links_lead_somewhere() -> None:
    reader = read(page_of(table(2000, 1), table(2000, 2, temp=np.full(2000, -9.0))))
    assert reader.suspicious == []
    assert not reader.tags & {"script", "link", "img", "iframe", "object", "embed", "form", "base"}
    assert reader.links == {f"#{found}" for found in reader.ids}


def test_the_summary_comes_first_and_drifted_columns_before_the_others() -> None:
    page = page_of(table(2000, 1), table(2000, 2, temp=np.full(2000, -9.0)))
    assert page.index("1 of 6 columns drifted") < page.index("<table>") < page.index("<svg")
    order = re.findall(r"<h2>(\w+)</h2>", page)
    assert order[0] == "temp"
    assert sorted(order) == ["amount", "country", "empty", "gust", "items", "temp"]


def test_names_categories_and_paths_of_others_are_text() -> None:
    reference = pa.table({EVIL[:-1]: ["a", EVIL[:-1]] * 500, "x": np.arange(1000.0)})
    current = pa.table({EVIL[:-1]: ["a", "<img src=x onerror=y>"] * 500, "x": np.arange(1000.0)})
    page = page_of(reference, current)
    reader = read(page)
    assert reader.suspicious == []
    assert not reader.tags & {"script", "img"}
    assert "\x1b" not in page
    assert "&lt;script&gt;" in page


def test_text_is_cut_and_cleaned_before_it_is_escaped() -> None:
    assert plain(EVIL) == "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;&quot;&amp;\ufffd[31m\ufffd"
    assert plain("&" * 300, 10) == "&amp;" * 9 + "…"


@pytest.mark.parametrize("name", ["amount", "temp", "country", "items", "gust"])
def test_bars_hold_all_values_of_both_sides(name: str) -> None:
    _, built, state = compared(table(3000, 1), table(2000, 2))
    bars = bars_of(built.spec.columns[name], built.state, state)
    assert bars is not None
    assert sum(bars.reference) == pytest.approx(1)
    assert sum(bars.current) == pytest.approx(1)


def test_bars_of_numbers_are_their_histogram() -> None:
    rng = np.random.default_rng(5)
    values, others = rng.normal(0, 1, 50_000), rng.normal(-6, 1, 50_000)
    _, built, state = compared(pa.table({"x": values}), pa.table({"x": others}))
    bars = bars_of(built.spec.columns["x"], built.state, state)
    assert bars is not None
    edges = np.linspace(bars.low, bars.high, BARS + 1)
    for shares, exact in ((bars.reference, values), (bars.current, others)):
        inner = np.histogram(np.clip(exact, bars.low, bars.high), edges)[0] / len(exact)
        assert np.abs(np.array(shares) - inner).max() < 0.01
    assert bars.low < -7


def test_categories_beyond_the_first_share_a_bar_and_new_ones_have_their_own() -> None:
    words = [f"c{number:02d}" for number in range(40)]
    reference = pa.table({"x": words * 100})
    current = pa.table({"x": (words + ["new"] * 10) * 100})
    _, built, state = compared(reference, current)
    bars = bars_of(built.spec.columns["x"], built.state, state)
    assert bars is not None
    assert bars.labels[-2:] == ("other (28 more)", "never seen before")
    assert bars.current[-1] == pytest.approx(0.2)
    assert bars.reference[-2] == pytest.approx(28 / 40)


def test_values_below_the_training_range_keep_their_shape() -> None:
    """Fahrenheit and Celsius: between zero and the least value of the reference there is but one bin."""
    rng = np.random.default_rng(4)
    before, after = rng.normal(60, 8, 5000), (rng.normal(60, 8, 5000) - 32) / 1.8
    _, built, state = compared(pa.table({"x": before}), pa.table({"x": after}))
    bars = bars_of(built.spec.columns["x"], built.state, state)
    assert bars is not None
    edges = np.linspace(bars.low, bars.high, BARS + 1)
    expected = np.histogram(after, edges)[0] / 5000
    assert np.abs(np.array(bars.current) - expected)[1:-1].max() < 0.01


def test_new_categories_are_never_seen_before_where_the_reference_had_some_once() -> None:
    reference = [f"id{at % 1500}" for at in range(2000)]
    _, built, state = compared(
        pa.table({"x": reference}), pa.table({"x": [f"new{at}" for at in range(2000)]})
    )
    bars = bars_of(built.spec.columns["x"], built.state, state)
    assert bars is not None
    assert bars.labels[-1] == "never seen before"
    assert bars.current[-1] == pytest.approx(1.0)
    assert sum(bars.reference) == pytest.approx(1.0)


@pytest.mark.parametrize(
    "current",
    [
        table(0, 2),
        table(1, 2),
        table(500, 2).drop_columns(["temp"]),
        table(500, 2, temp=np.full(500, np.nan)),
        table(500, 2, temp=np.r_[np.full(250, np.inf), np.full(250, -1e300)]),
        table(500, 2, country=pa.nulls(500, pa.string())),
        table(500, 2, temp=np.full(500, 1e-320)),
    ],
)
def test_awkward_tables_have_a_page_all_the_same(current: pa.Table) -> None:
    page = page_of(table(2000, 1), current)
    read(page)
    drawn = re.findall(r'(?: [xy12]+| width| height| d)="([^"]*)"', page)
    numbers = re.findall(r'<td class="n">(.*?)</td>', page)
    assert not re.search("nan|inf", " ".join(drawn + numbers))


# --- the command ------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    pq.write_table(table(2000, 1), tmp_path / "reference.parquet")
    pq.write_table(table(2000, 2, temp=np.full(2000, -9.0)), tmp_path / "current.parquet")
    return str(tmp_path / "reference.parquet"), str(tmp_path / "current.parquet")


def test_the_command_writes_the_page_beside_its_json(files: tuple[str, str], tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    command = ["drift", "check", "--reference", files[0], "--current", files[1]]
    done = CliRunner().invoke(app, [*command, "--json", "--html", str(out)])
    assert done.exit_code == 1
    assert json.loads(done.stdout)["verdict"] == "drifted"
    read(out.read_text())
    missing = CliRunner().invoke(app, [*command, "--html", str(tmp_path / "no" / "report.html")])
    assert "a place to write to" in str(missing.exception)


def test_evidently_is_an_extra_and_wants_rows(
    files: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own.html"
    command = ["drift", "check", "--current", files[1], "--evidently", str(tmp_path / "e.html")]
    command += ["--html", str(own)]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    done = CliRunner().invoke(app, [*command, "--reference", files[0]])
    assert isinstance(done.exception, MissingExtraError)
    assert "[evidently]" in str(done.exception)
    built = str(tmp_path / "r.mlref")
    CliRunner().invoke(app, ["drift", "reference", "build", files[0], "-o", built])
    for reference, said in ((built, "has no rows"), ("s3://bucket/a.parquet", "files on this machine")):
        done = CliRunner().invoke(app, [*command, "--reference", reference])
        assert isinstance(done.exception, UsageError)
        assert said in str(done.exception)
    assert not own.exists(), "refused before the work and not after it"


def test_evidently_draws_its_own_report_of_the_chosen_columns(files: tuple[str, str], tmp_path: Path) -> None:
    pytest.importorskip("evidently", reason="needs pandas<3: nox -s evidently")
    out = tmp_path / "e.html"
    command = ["drift", "check", "--reference", files[0], "--current", files[1], "--evidently", str(out)]
    assert CliRunner().invoke(app, [*command, "--columns", "temp,country"]).exit_code == 1
    page = out.read_text()
    assert "country" in page
    assert "amount" not in page


def test_the_page_is_drawn_by_a_browser(
    chromium: servers.Chromium, files: tuple[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "report.html"
    command = ["drift", "check", "--reference", files[0], "--current", files[1]]
    CliRunner().invoke(app, [*command, "--html", str(out)])
    assert chromium.dom(out.as_uri()).count("<svg") == 5
    chromium.screenshot(out.as_uri(), tmp_path / "report.png")
