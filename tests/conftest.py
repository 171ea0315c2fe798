"""Fixtures for every test: real servers (tests/servers.py), golden files, the settings of the test tools."""

import itertools
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import hypothesis
import pytest

from tests import servers

GOLDEN = Path(__file__).parent / "golden"
SERVER_FIXTURES = frozenset(
    "prometheus alertmanager promtool amtool redis kafka postgres postgres_url moto_s3 chromium".split()
)

# Seeded, and no deadline: two cores shared with servers say nothing about one example's time.
hypothesis.settings.register_profile("mlobs", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.register_profile("nightly", deadline=None, max_examples=5000, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("MLOBS_HYPOTHESIS", "mlobs"))


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background job ignores Ctrl-C, and so would every process that a test starts and ends by it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--write-golden", action="store_true", help="rewrite the golden files instead of comparing"
    )
    parser.addoption("--soak-seconds", type=float, help="how long tests/sdk/test_soak.py lasts (5)")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if SERVER_FIXTURES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.server)


@pytest.fixture
def anyio_backend() -> str:
    """`@pytest.mark.anyio` runs an async test on asyncio."""
    return "asyncio"


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[Path | str, str], None]:
    """golden("name.txt", text) compares with tests/golden/name.txt, or with the file of a full path."""

    def compare(name: Path | str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--write-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        assert path.exists(), f"{path} is missing: run pytest --write-golden and read what it wrote"
        assert text == path.read_text(), f"{path.name} differs: if meant, run pytest --write-golden"

    return compare


# --- servers: a factory may be called more than once; everything ends with the test ----------------------


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Callable[..., servers.Prometheus]]:
    """prometheus(config="", rules="", flags=()) -> .url, .query(expression), .get(path), .reload()."""
    count = itertools.count()
    with ExitStack() as stack:
        yield lambda *args, **kwargs: stack.enter_context(
            servers.prometheus(tmp_path / f"prometheus{next(count)}", *args, **kwargs)
        )


@pytest.fixture
def alertmanager(tmp_path: Path) -> Iterator[Callable[..., servers.Alertmanager]]:
    """alertmanager(config="", flags=()) -> .url, .alerts()."""
    count = itertools.count()
    with ExitStack() as stack:
        yield lambda *args, **kwargs: stack.enter_context(
            servers.alertmanager(tmp_path / f"alertmanager{next(count)}", *args, **kwargs)
        )


@pytest.fixture
def promtool() -> Callable[..., subprocess.CompletedProcess[str]]:
    """promtool("check", "rules", path) -> CompletedProcess with text output."""
    servers.need("promtool")
    return lambda *args, **kwargs: servers.run_tool("promtool", *args, **kwargs)


@pytest.fixture
def amtool() -> Callable[..., subprocess.CompletedProcess[str]]:
    """amtool("check-config", path) -> CompletedProcess with text output."""
    servers.need("amtool")
    return lambda *args, **kwargs: servers.run_tool("amtool", *args, **kwargs)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[str]:
    """redis://127.0.0.1:PORT, empty."""
    with servers.redis(tmp_path / "redis") as url:
        yield url


@pytest.fixture
def kafka(tmp_path: Path) -> Iterator[str]:
    """127.0.0.1:PORT of a broker without topics."""
    with servers.kafka(tmp_path / "kafka") as address:
        yield address


@pytest.fixture(scope="session")
def postgres() -> Iterator[servers.Postgres]:
    """The session's cluster; tests take `postgres_url`."""
    with servers.postgres() as cluster:
        yield cluster


@pytest.fixture
def postgres_url(postgres: servers.Postgres, _database_names: Iterator[str]) -> str:
    """postgresql+psycopg://... of an empty database of this test's own."""
    return postgres.database(next(_database_names))


@pytest.fixture(scope="session")
def _database_names() -> Iterator[str]:
    return (f"test{n}" for n in itertools.count())


@pytest.fixture(scope="session")
def _s3_endpoint() -> Iterator[str]:
    with servers.s3_server() as endpoint:
        yield endpoint


@pytest.fixture
def moto_s3(_s3_endpoint: str, _database_names: Iterator[str]) -> servers.S3:
    """An empty bucket of this test's own: .endpoint, .bucket, .access_key, .secret_key, .region."""
    return servers.new_bucket(_s3_endpoint, f"bucket-{next(_database_names)}")


@pytest.fixture
def chromium() -> servers.Chromium:
    """.screenshot(url, png, width, height) and .dom(url)."""
    return servers.Chromium(servers.need("chromium"))
