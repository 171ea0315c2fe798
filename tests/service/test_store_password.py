"""A store on a Postgres that asks for a password (SCRAM): it comes from where libpq looks, works, and shows
nowhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mlobs.notify.tables import SCHEMA
from mlobs.store import open_store
from tests.notify.stubs import PagerDuty, Slack, receiver, serving
from tests.servers import Postgres, eventually
from tests.service.test_serve_killed import Target
from tests.service.test_serve_secrets import World, crawl, decoded, ps_line, run_beside, served

PASSWORD = "PLANTED-database-password"
YAML = """
service: fraud-api
listen: 127.0.0.1:0
store: {store}
targets: ["{target}", "http://me:PLANTED-database-password@127.0.0.1:9/metrics"]
slo: {{scrape_interval: 1s, evaluation_interval: 1s}}
notify:
  channels: {{hook: {{webhook: {{url: "{hook}", allow_http: true, allow_private: true}}}}}}
  token_file: api
"""


@pytest.fixture
def url(postgres: Postgres, _database_names: Iterator[str]) -> str:
    return postgres.database_of(f"asked_{next(_database_names)}", PASSWORD)


def test_a_serve_pages_from_a_store_that_asks_for_a_password_and_shows_it_nowhere(
    tmp_path: Path, url: str
) -> None:
    target, hook = Target(), receiver()
    (tmp_path / "api").write_text("PLANTED-api-bearer")
    config = tmp_path / "mlobs.yaml"
    with serving(hook):
        config.write_text(YAML.format(store=url, target=target.url, hook=hook.url))
        world = World(
            tmp_path, config, Slack(), PagerDuty(), hook, receiver(), [], more={"PGPASSWORD": PASSWORD}
        )
        with served(world) as process:
            world.shown["ps"] = ps_line(process.pid)
            target.models.append("fraud")
            eventually(lambda: hook.requests, "a page leaves", timeout=60)
            crawl(world)
        world.commands("doctor", "doctor --json", "incidents list --json")
    target.server.shutdown()
    target.server.server_close()
    assert "fraud" in world.shown["commands"], "the commands read the store too"
    for where, text in world.shown.items():
        assert PASSWORD not in text, f"it shows in {where}"
        assert PASSWORD not in decoded(text), f"it shows in base64 in {where}"


@pytest.mark.parametrize("place", ["PGPASSWORD", "PGPASSFILE", "~/.pgpass", "?passfile="])
def test_every_place_that_libpq_knows_will_do(
    tmp_path: Path, url: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in nothing(tmp_path).items():
        monkeypatch.setenv(name, value)
    file = tmp_path / ".pgpass"
    file.write_text(f"127.0.0.1:*:*:*:{PASSWORD}\n")
    file.chmod(0o600)
    if place == "PGPASSWORD":
        monkeypatch.setenv("PGPASSWORD", PASSWORD)
    elif place == "PGPASSFILE":
        monkeypatch.setenv("PGPASSFILE", str(file))
    elif place == "~/.pgpass":
        monkeypatch.delenv("PGPASSFILE")
    else:
        url = f"{url}?passfile={file}"
    store = open_store(url, [SCHEMA])
    assert PASSWORD not in f"{store.url} {store.engine!r} {store.engine.url!r} {vars(store)}"
    store.close()


@pytest.mark.parametrize("password", ["", "PLANTED-wrong-one"])
def test_a_password_that_is_missing_or_wrong_is_said_and_not_shown(
    tmp_path: Path, url: str, password: str
) -> None:
    environment = nothing(tmp_path) | {"PGPASSWORD": password}
    shown = run_beside(url, "incidents list", tmp_path, **environment)
    assert "a password that is missing or wrong" in shown
    assert "PGPASSFILE (mode 0600)" in shown


def nothing(folder: Path) -> dict[str, str]:
    """An environment in which there is no password, and none of who runs the tests."""
    return {"HOME": str(folder), "PGPASSFILE": str(folder / "none"), "PGPASSWORD": ""}
