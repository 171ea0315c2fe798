"""The pages and the JSON, asked for as a browser or a script would."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from prometheus_client import CollectorRegistry, Gauge
from starlette.testclient import TestClient

from mlobs.records import Ledger
from mlobs.settings import Settings
from mlobs.store import Store, open_store
from mlobs.web.app import create_app
from mlobs.web.model import CallLink, Detail, DriftRow, TargetView, Views
from tests.web.figures import CALL, DAY, START, Figures, empty

PAGES = [
    "/",
    "/drift",
    "/incidents",
    "/incidents/7f3a",
    "/incidents/1c09",
    "/slos/late-p99",
    "/slos/late-drift",
]
PAGES.append("/calls/4bf92f3577b34da6a3ce929d0e0e4736")
HOSTILE = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>&{{7*7}}"


@pytest.fixture
def store() -> Iterator[Store]:
    opened = open_store("sqlite://", [])
    yield opened
    opened.close()


@contextmanager
def client(store: Store, views: Views, settings: Settings | None = None) -> Iterator[TestClient]:
    registry = CollectorRegistry()
    Gauge("mlobs_test", "a figure", registry=registry).set(7)
    app = create_app(settings or Settings("flights-api"), store, registry, lambda now: {}, views=views)
    with TestClient(app, base_url="http://127.0.0.1:9464") as made:
        yield made


class Addresses(HTMLParser):
    """Every address and every inline script, handler and style of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.links: list[str] = []
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = dict(attrs)
        for name, value in attrs:
            if name in ("href", "src", "action", "data", "srcset", "poster", "data-plotly"):
                (self.links if tag == "a" else self.addresses).append(value or "")
            if name.startswith("on") or name == "style":
                self.inline.append(f"{tag} {name}")
        if tag == "script" and "src" not in names:
            self.inline.append("script")


def addresses_of(html: str) -> Addresses:
    parser = Addresses()
    parser.feed(html)
    return parser


@pytest.mark.parametrize("views", [Figures(), empty()], ids=["a month", "the first minute"])
def test_no_page_fetches_anything_from_elsewhere(store: Store, views: Figures) -> None:
    with client(store, views) as ask:
        for path in PAGES:
            found = addresses_of(ask.get(path).text)
            outside = [a for a in found.addresses if not a.startswith(("/static/", "data:image/svg+xml,"))]
            assert outside == [], path
            assert found.inline == [], path
            links = [a for a in found.links if not a.startswith(("/", "#")) and "runbooks.example" not in a]
            assert links == [], path
            for address in found.addresses:
                if address.startswith("/static/"):
                    assert ask.get(address).status_code == 200


def test_our_own_script_and_style_name_no_host(store: Store) -> None:
    with client(store, Figures()) as ask:
        for address in re.findall(r'"(/static/mlobs[^"]+)"', ask.get("/").text):
            assert "//" not in re.sub(r"^\s*//.*$", "", ask.get(address).text, flags=re.MULTILINE)


def test_the_policy_lets_a_browser_load_from_us_alone(store: Store) -> None:
    with client(store, Figures()) as ask:
        answers = [ask.get(path) for path in ("/", "/api/status", "/nowhere", "/static/nothing", "/metrics")]
        policies = [answer.headers["content-security-policy"] for answer in answers]
        for policy in policies:
            rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
            assert rules["default-src"] == rules["frame-ancestors"] == rules["form-action"] == "'none'"
            assert rules["script-src"] == rules["connect-src"] == "'self'"
            assert not re.search(r"https?:|\*|unsafe-eval", policy)
        assert len(set(policies)) == len(policies), "a nonce is used once"
        assert answers[0].headers["x-content-type-options"] == "nosniff"


def test_hostile_names_stay_text_on_every_page(store: Store) -> None:
    views = Figures()
    views.head = replace(views.head, service=HOSTILE, environment=HOSTILE)
    views.slo_views = [
        replace(slo, name=HOSTILE, description=HOSTILE, model=HOSTILE) for slo in views.slo_views
    ]
    view = views.drift_views[0]
    rows = (DriftRow(HOSTILE, view.rows[5].cells, view.rows[5].scores, HOSTILE),)
    views.drift_views = [
        replace(view, model=HOSTILE, version=HOSTILE, reference=HOSTILE, note=HOSTILE, rows=rows)
    ]
    views.target_views = [TargetView(HOSTILE, False, None, HOSTILE)]
    views.ledgers = [Ledger(HOSTILE, 1, 0, {HOSTILE: 1}, 0)]
    incident = views.incident_views[0]
    fields = ("id", "title", "cause", "service", "model", "summary", "severity")
    pages = tuple(replace(page, channel=HOSTILE, text=HOSTILE, problem=HOSTILE) for page in incident.pages)
    entries = tuple(replace(entry, kind=HOSTILE, text=HOSTILE, source=HOSTILE) for entry in incident.timeline)
    many = (HOSTILE,)
    views.incident_views = [
        replace(
            incident,
            **dict.fromkeys(fields, HOSTILE),
            slos=many,
            features=many,
            segments=many,
            details=(Detail(HOSTILE, 1.0, HOSTILE),),
            calls=(CallLink(HOSTILE, HOSTILE),),
            pages=pages,
            timeline=entries,
            runbook=f"javascript:{HOSTILE}",
        )
    ]
    views.calls = {
        HOSTILE: CALL._replace(
            prediction_id=HOSTILE,
            features={HOSTILE: HOSTILE},
            stage_durations_s={HOSTILE: 0.1},
            prediction=HOSTILE,
            segment=HOSTILE,
            trace_id=HOSTILE,
            decision=HOSTILE,
            outcome=HOSTILE,
            sampling_reason=HOSTILE,
        )
    }
    with client(store, views) as ask:
        start = ask.get("/").text
        links = {a for a in addresses_of(start).links if a.startswith(("/slos/", "/incidents/"))}
        incident_page = next(link for link in links if link.startswith("/incidents/"))
        links |= {a for a in addresses_of(ask.get(incident_page).text).links if a.startswith("/calls/")}
        assert len(links) == 3
        for path in [*PAGES[:3], *links, f"/slos/{HOSTILE}".replace("{", "%7B"), "/nowhere" + "/<b>"]:
            answer = ask.get(path)
            if path in links:
                assert answer.status_code == 200, "a hostile name is still found by its link"
            found = addresses_of(answer.text)
            assert found.inline == [], path
            assert "<img" not in answer.text
            assert "&amp;49" not in answer.text
            assert not [a for a in found.links if a.startswith("javascript:")]


def test_absent_figures_are_said_to_be_absent(store: Store) -> None:
    with client(store, Figures()) as ask:
        page = ask.get("/slos/late-drift").text
        assert page.count("no data") >= 3
        assert 'class="chip ok"' not in page
    with client(store, empty()) as ask:
        page = ask.get("/").text
        assert "Nothing evaluated yet" in page
        assert "No objectives are configured." in page
        assert "No window judged yet." in page
        assert "good" not in page
        assert ask.get("/api/status").json()["now"] is None


def test_the_page_says_which_clock_and_which_zone(store: Store) -> None:
    with client(store, Figures()) as ask:
        page = ask.get("/").text
    assert "Mon 25 Mar 2013, 05:00 EDT" in page
    assert "event clock, driven by a replay" in page
    assert "Times are America/New_York time." in page


def test_the_json_says_the_same_as_the_page(store: Store) -> None:
    with client(store, Figures()) as ask:
        status = ask.get("/api/status").json()
        assert (status["headline"], status["incidents_open"]) == ("1 incident open", 1)
        assert status["time"] == "2013-03-25T09:00:00Z"
        slos = ask.get("/api/slos").json()["slos"]
        assert [(slo["name"], slo["objective"]) for slo in slos][:2] == [
            ("late-available", "0.999"),
            ("late-p99", "0.9"),
        ]
        assert slos[1] == ask.get("/api/slos/late-p99").json()
        assert {point["remaining"] for point in slos[1]["history"]} >= {None, 1.0}
        assert slos[3]["remaining"] is None
        drift = ask.get("/api/drift?windows=5&model=late").json()["drift"]
        assert [len(drift[0]["windows"]), len(drift[0]["rows"][0]["cells"])] == [5, 5]
        assert ask.get("/api/drift?model=other").json() == {"drift": []}
        assert [i["id"] for i in ask.get("/api/incidents?state=open").json()["incidents"]] == ["7f3a"]
        assert ask.get("/api/incidents/1c09").json()["ended"] is not None
        assert ask.get("/api/calls/4bf92f3577b34da6a3ce929d0e0e4736").json()["outcome"] == "ok"
        assert [target["up"] for target in ask.get("/api/targets").json()["targets"]] == [True, False]
        pipelines = ask.get("/api/pipelines").json()["pipelines"]
        assert {pipeline["pipeline"]: pipeline["balanced"] for pipeline in pipelines} == {
            "pages": True,
            "feature_log": True,
        }


@pytest.mark.parametrize(
    "path",
    [
        "/api/slos/x",
        "/api/incidents/x",
        "/api/calls/x",
        "/slos/x",
        "/incidents/x",
        "/calls/x",
        "/nowhere",
        "/api/nowhere",
    ],
)
def test_what_is_not_there_is_a_clear_404(store: Store, path: str) -> None:
    with client(store, Figures()) as ask:
        answer = ask.get(path)
    assert answer.status_code == 404
    if path.startswith("/api/"):
        assert answer.json()["error"]
    else:
        assert "Not here" in answer.text


@pytest.mark.parametrize("asked", ["0", "-1", "x", "401", "1e9", "9" * 5000, "١٢", ""])
def test_an_odd_number_of_windows_is_refused_with_what_is_expected(store: Store, asked: str) -> None:
    with client(store, Figures()) as ask:
        answer = ask.get("/api/drift", params={"windows": asked})
    assert answer.status_code == 400
    assert "from 1 to 400" in answer.json()["error"]


def test_a_link_to_a_time_shows_its_windows_and_five_before(store: Store) -> None:
    with client(store, Figures()) as ask:
        page = ask.get(f"/drift?from={START + 14 * DAY}&to={START + 16 * DAY}").text
        assert re.findall(r'<th scope="col" title="[^"]*">(\d+)</th>', page)[:8] == [
            "10", "11", "12", "13", "14", "15", "16", "17",
        ]  # fmt: skip
        for odd in (
            "from=x&to=1",
            "from=2&to=1",
            "from=nan&to=1",
            "from=inf&to=inf",
            "from=1",
            "from=1&to=2",
        ):
            assert ask.get(f"/drift?{odd}").status_code == 200


def test_the_revision_changes_when_a_figure_does_and_only_then(store: Store) -> None:
    views = Figures()
    with client(store, views) as ask:
        first = ask.get("/api/status").json()["revision"]
        assert ask.get("/api/status").json()["revision"] == first
        views.slo_views[0] = replace(views.slo_views[0], bad=4)
        assert ask.get("/api/status").json()["revision"] != first


def test_numbers_that_json_does_not_know_leave_as_null(store: Store) -> None:
    views = Figures()
    views.slo_views[0] = replace(views.slo_views[0], remaining=float("nan"), bad=float("inf"))
    with client(store, views) as ask:

        def refuse(name: str) -> None:
            raise AssertionError(name)

        found = json.loads(ask.get("/api/slos/late-available").text, parse_constant=refuse)
        assert found["remaining"] is found["bad"] is None
        assert "nan" not in ask.get("/").text.lower().replace("finance", "")


@pytest.mark.parametrize("path", ["/", "/api/status"])
def test_a_failure_of_ours_says_what_it_was_and_shows_no_traceback(store: Store, path: str) -> None:
    views = Figures()
    views.slos = lambda: 1 // 0  # type: ignore[method-assign]
    app = create_app(Settings("x"), store, CollectorRegistry(), lambda now: {}, views=views)
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as ask:
        answer = ask.get(path)
    assert answer.status_code == 500
    assert "ZeroDivisionError" in answer.text
    assert "Traceback" not in answer.text


def test_metrics_and_health_answer(store: Store) -> None:
    with client(store, Figures()) as ask:
        assert "mlobs_test 7.0" in ask.get("/metrics").text
        opened = ask.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
        assert opened.headers["content-type"].startswith("application/openmetrics-text")
        assert opened.text.endswith("# EOF\n")
        assert ask.get("/healthz").text == "ok\n"


def test_the_chart_library_comes_compressed_and_is_kept_for_good(store: Store) -> None:
    with client(store, Figures()) as ask:
        address = re.search(r'data-plotly="([^"]+)"', ask.get("/").text)
        assert address is not None
        packed = ask.get(address[1])
        assert packed.headers["content-encoding"] == "gzip"
        assert "immutable" in packed.headers["cache-control"]
        assert "Plotly" in packed.text[:5000] or "plotly.js" in packed.text[:200]
        bare = ask.get(address[1], headers={"Accept-Encoding": "identity"})
        assert "content-encoding" not in bare.headers
        assert bare.text == packed.text
        assert ask.get("/static/../app.py").status_code == 404
        assert ask.get("/static/mlobs.css").status_code == 404
