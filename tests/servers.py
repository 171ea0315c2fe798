"""Real servers for tests: each on loopback, on a port that the kernel chose, gone when its fixture ends.

`conftest.py` turns these into fixtures; no test stands here. Readiness is awaited by `eventually`, the one
place in the tests that sleeps.
"""

import contextlib
import dataclasses
import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sysconfig
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import pytest

ROOT = Path(__file__).resolve().parent.parent
FETCHED = ROOT / ".cache" / "servers"
T = TypeVar("T")
Command = Sequence[str | Path]

# name -> where it may lie (a glob below / or the fetched tree), the names it has in PATH, and how to get it.
FETCH = "run tools/fetch-servers (Debian, no root), or put it into PATH"
KNOWN: dict[str, tuple[list[str], list[str], str]] = {
    "prometheus": (["usr/bin/prometheus"], ["prometheus"], FETCH),
    "promtool": (["usr/bin/promtool"], ["promtool"], FETCH),
    "alertmanager": (["usr/bin/prometheus-alertmanager"], ["prometheus-alertmanager", "alertmanager"], FETCH),
    "amtool": (["usr/bin/amtool"], ["amtool"], FETCH),
    "redis": (["usr/bin/redis-server"], ["redis-server"], FETCH),
    "postgres": (["usr/lib/postgresql/*/bin/initdb"], ["initdb"], FETCH),
    # Not the script in bin: that ends at once with a signal, and leaves the broker to end in its own time.
    "kafka": ([], [str(Path(sysconfig.get_path("platlib"), "noida_db", "noida-db"))], "pip install noida-db"),
    "chromium": (
        [],
        ["chromium", "chromium-browser", "google-chrome"],
        "apt install chromium, or put it into PATH",
    ),
}


def find(name: str) -> Path | None:
    """The program, from the fetched tree before the machine's own: what CI runs is what a desk runs."""
    places, names, _ = KNOWN[name]
    for top in (FETCHED, Path("/")):
        for place in places:
            if found := sorted(top.glob(place)):
                return found[-1]
    for program in names:
        if which := shutil.which(program):
            return Path(which)
    return None


def need(name: str) -> Path:
    """The program; without it the test skips at a desk and fails in CI."""
    return find(name) or lacking(name, KNOWN[name][2])


def lacking(name: str, remedy: str) -> NoReturn:
    reason = f"needs {name}: {remedy}"
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def eventually(check: Callable[[], T], what: str, *, timeout: float = 20) -> T:
    """Polls until `check` returns something true; an exception counts as "not yet"."""
    deadline = time.monotonic() + timeout
    while True:
        last: object
        try:
            if result := check():
                return result
            last = result
        except Exception as problem:
            last = problem
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {timeout:g} s; last: {last!r}")
        time.sleep(0.02)


def free_port() -> int:
    """For servers that cannot take port 0. Another may take it first: start those by `on_free_port`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def http(url: str, method: str = "GET", data: bytes | None = None, **headers: str) -> bytes:
    """The answer's body; raises HTTPError from status 400 on. No proxy stands between a test and loopback."""
    request = urllib.request.Request(url, data=data, method=method, headers=headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=10) as answer:
        return bytes(answer.read())


class Process:
    """A server in a process group of its own, its output in a file; stopped with everything it started."""

    def __init__(
        self, command: Command, folder: Path, *, user: str | None = None, tree: Path = FETCHED
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name = Path(command[0]).name
        self.log = folder / f"{self.name}.log"
        identity: dict[str, Any] = {}
        if user:
            entry = pwd.getpwnam(user)
            identity = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        with self.log.open("wb") as out:
            self.popen = subprocess.Popen(
                [str(part) for part in command],
                # The fetched Alertmanager looks for its templates there; another user may not go there.
                cwd=tree / "usr" if tree.exists() and not user else folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=environment(tree),
                start_new_session=True,
                **identity,
            )

    def logged(self, pattern: str) -> str:
        """Waits for a line of the log and returns the pattern's first group; a server that ended says why."""

        def look() -> str | None:
            text = self.log.read_text(errors="replace")
            if match := re.search(pattern, text):
                return match[1]
            if self.popen.poll() is not None:
                pytest.fail(f"{self.name} ended with {self.popen.returncode}:\n{text[-3000:]}", pytrace=False)
            return None

        return str(eventually(look, f"{self.name} logs {pattern!r}"))

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, how)

    def stop(self) -> None:
        self.kill(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.popen.wait(5)
        self.kill()  # what did not heed the first, and whatever it left in its group
        self.popen.wait()


def environment(tree: Path = FETCHED) -> dict[str, str]:
    """The machine's environment, with the libraries that were fetched because the machine lacks them."""
    libraries = ":".join(str(p) for p in sorted((tree / "usr" / "lib").glob("*-linux-gnu*")))
    env = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    return {**env, "LD_LIBRARY_PATH": libraries} if libraries else env


def run_tool(name: str, *args: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """promtool or amtool, to its end."""
    command = [str(need(name)), *map(str, args)]
    return subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=120)


# --- Prometheus and Alertmanager ---------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Prometheus:
    url: str
    process: Process

    def query(self, expression: str, at: float | None = None) -> list[dict[str, Any]]:
        """An instant query's result: [{"metric": {...}, "value": [time, "text"]}, ...]."""
        arguments = {"query": expression} | ({} if at is None else {"time": str(at)})
        return list(self.get("query", **arguments)["result"])

    def get(self, path: str, **arguments: str) -> Any:
        return json.loads(http(f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(arguments)}"))["data"]

    def reload(self) -> None:
        """Reads its files again; raises HTTPError when it refuses them."""
        http(f"{self.url}/-/reload", "POST")


@contextlib.contextmanager
def prometheus(
    folder: Path, config: str = "", rules: str = "", flags: Sequence[str] = ()
) -> Iterator[Prometheus]:
    """`config` is prometheus.yml's text (default: scrapes and evaluates each second, no targets), `rules` the
    text of one rules file, which is added to it."""
    binary = need("prometheus")
    folder.mkdir(parents=True, exist_ok=True)
    config = config or "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
    if rules:
        (folder / "rules.yml").write_text(rules)
        config += f"\nrule_files: [{json.dumps(str(folder / 'rules.yml'))}]\n"
    (folder / "prometheus.yml").write_text(config)
    files = [f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
    listen = ["--web.listen-address=127.0.0.1:0", "--web.enable-lifecycle"]
    process = Process([binary, *files, *listen, *flags], folder)
    try:
        url = "http://" + process.logged(r'msg="Listening on" address=(\S+)')
        process.logged(r'msg="(Server is ready to receive web requests)')
        yield Prometheus(url, process)
    finally:
        process.stop()


@dataclasses.dataclass(frozen=True, slots=True)
class Alertmanager:
    url: str
    process: Process

    def alerts(self) -> list[dict[str, Any]]:
        return list(json.loads(http(f"{self.url}/api/v2/alerts")))


@contextlib.contextmanager
def alertmanager(folder: Path, config: str = "", flags: Sequence[str] = ()) -> Iterator[Alertmanager]:
    """`config` is alertmanager.yml's text (default: one receiver that does nothing)."""
    binary = need("alertmanager")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "alertmanager.yml").write_text(config or "route: {receiver: none}\nreceivers: [{name: none}]\n")
    files = [f"--config.file={folder / 'alertmanager.yml'}", f"--storage.path={folder / 'data'}"]
    # No cluster: its gossip would listen beyond loopback.
    listen = ["--web.listen-address=127.0.0.1:0", "--cluster.listen-address="]
    process = Process([binary, *files, *listen, *flags], folder)
    try:
        yield Alertmanager("http://" + process.logged(r'msg="Listening on" address=(\S+)'), process)
    finally:
        process.stop()


# --- Redis, Kafka, PostgreSQL, S3 --------------------------------------------------------------------------


def on_free_port(start: Callable[[int], Process], ready: str) -> tuple[int, Process]:
    """Starts a server that cannot take port 0; once more when somebody else took the port in between."""
    for _ in range(5):
        port = free_port()
        process = start(port)
        outcome = process.logged(f"(?i)({ready}|address already in use)")
        if "already in use" not in outcome.lower():
            return port, process
        process.stop()
    raise AssertionError("no free port in 5 attempts")


@contextlib.contextmanager
def redis(folder: Path) -> Iterator[str]:
    """Yields redis://127.0.0.1:PORT."""
    binary = need("redis")
    options = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(folder)]
    folder.mkdir(parents=True, exist_ok=True)
    port, process = on_free_port(
        lambda port: Process([binary, "--port", str(port), *options], folder), "Ready to accept connections"
    )
    try:
        yield f"redis://127.0.0.1:{port}"
    finally:
        process.stop()


@contextlib.contextmanager
def kafka(folder: Path) -> Iterator[str]:
    """Yields HOST:PORT of a broker (noida-db: groups, commits, transactions and lag behave as Kafka's)."""
    options = "start --only kafka --kafka-port 0 --data-dir".split()
    command: Command = [need("kafka"), *options, folder / "data"]
    process = Process(command, folder)
    try:
        yield process.logged(r"kafka\s+(127\.0\.0\.1:\d+)")
    finally:
        process.stop()


@dataclasses.dataclass(frozen=True, slots=True)
class Postgres:
    """A cluster; `database()` makes an empty database and returns its SQLAlchemy URL."""

    port: int
    process: Process

    def dsn(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def database(self, name: str) -> str:
        import psycopg

        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return self.dsn(name).replace("postgresql://", "postgresql+psycopg://")

    def make_role(self, name: str) -> None:
        import psycopg

        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            connection.execute(f'CREATE ROLE "{name}"')

    def database_of(self, role: str, password: str) -> str:
        """A database of the same name that `role` owns, who logs in with a password (SCRAM); its URL without
        it."""
        import psycopg

        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            connection.execute(f"CREATE ROLE \"{role}\" LOGIN PASSWORD '{password}' IN ROLE {ASKED}")
            connection.execute(f'CREATE DATABASE "{role}" OWNER "{role}"')
        return f"postgresql://{role}@127.0.0.1:{self.port}/{role}"


ASKED = "asked_for_a_password"
"""Members of this role are; everybody else is trusted."""


@contextlib.contextmanager
def postgres() -> Iterator[Postgres]:
    programs, tree = need("postgres").parent, FETCHED
    # PostgreSQL refuses to run as root and runs as nobody, whom pytest's folder is closed to.
    folder = Path(tempfile.mkdtemp(prefix="mlobs-postgres-"))
    user = "nobody" if os.geteuid() == 0 else None
    try:
        if user:
            os.chown(folder, pwd.getpwnam(user).pw_uid, pwd.getpwnam(user).pw_gid)
            if not runs_as(user, programs / "postgres"):
                # A checkout in root's home is closed to others.
                tree = folder / "tree"
                copy_postgres(programs, tree)
                programs = tree / programs.relative_to(FETCHED)
        data = folder / "data"
        options = f"-U postgres --auth=trust --no-sync --encoding=UTF8 --locale=C.UTF-8 -D {data}".split()
        initdb = Process([programs / "initdb", *options], folder / "log", user=user, tree=tree)
        if initdb.popen.wait(120):
            pytest.fail(f"initdb: {initdb.log.read_text()}", pytrace=False)
        hba = data / "pg_hba.conf"
        hba.write_text(f"host all +{ASKED} 127.0.0.1/32 scram-sha-256\n{hba.read_text()}")
        # Only loopback, no socket file; no fsync, the cluster is thrown away.
        command: Command = [programs / "postgres", "-D", data, "-h", "127.0.0.1", "-k", "", "-F"]
        port, process = on_free_port(
            lambda port: Process([*command, "-p", str(port)], folder / "log", user=user, tree=tree),
            "ready to accept connections",
        )
        try:
            cluster = Postgres(port, process)
            cluster.make_role(ASKED)
            yield cluster
        finally:
            process.kill(signal.SIGINT)  # "fast": ends the sessions; SIGTERM waits for them
            process.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def runs_as(user: str, program: Path) -> bool:
    entry = pwd.getpwnam(user)
    identity: dict[str, Any] = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    try:
        subprocess.run(
            [program, "--version"], env=environment(), cwd="/", capture_output=True, check=True, **identity
        )
    except (PermissionError, subprocess.CalledProcessError):
        return False
    return True


def copy_postgres(programs: Path, tree: Path) -> None:
    version = programs.parent.name
    parts = [FETCHED / f"usr/lib/postgresql/{version}", FETCHED / f"usr/share/postgresql/{version}"]
    for part in [*parts, *FETCHED.glob("usr/lib/*-linux-gnu*")]:
        shutil.copytree(part, tree / part.relative_to(FETCHED), symlinks=True)


@dataclasses.dataclass(frozen=True, slots=True)
class S3:
    """One empty bucket; the keys are any, the server does not check them."""

    endpoint: str  # http://127.0.0.1:PORT
    bucket: str
    access_key: str = "testing"
    secret_key: str = "testing"
    region: str = "us-east-1"


@contextlib.contextmanager
def s3_server() -> Iterator[str]:
    """Yields the endpoint of moto's S3, in a thread of this process."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def new_bucket(endpoint: str, name: str) -> S3:
    signed = "AWS4-HMAC-SHA256 Credential=testing/20200101/us-east-1/s3/aws4_request"
    http(f"{endpoint}/{name}", "PUT", b"", Authorization=signed)
    return S3(endpoint, name)


# --- Chromium -----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Chromium:
    binary: Path

    def screenshot(
        self, url: str, png: Path, width: int = 1280, height: int = 900, *, wait_ms: int = 4000
    ) -> Path:
        """Draws the page after `wait_ms` of its own (virtual) time."""
        shot = [f"--screenshot={png}", f"--window-size={width},{height}", "--hide-scrollbars"]
        self._run(url, wait_ms, *shot)
        assert png.exists(), f"chromium drew nothing of {url}"
        return png

    def dom(self, url: str, *, wait_ms: int = 4000) -> str:
        """The page's HTML after its scripts ran."""
        return self._run(url, wait_ms, "--dump-dom")

    def _run(self, url: str, wait_ms: int, *options: str) -> str:
        flags = "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking"
        flags += " disable-component-update disable-sync disable-dev-shm-usage"
        with tempfile.TemporaryDirectory(prefix="mlobs-chromium-", ignore_cleanup_errors=True) as profile:
            command = [str(self.binary), *(f"--{flag}" for flag in flags.split())]
            command = [
                *command,
                f"--user-data-dir={profile}",
                f"--virtual-time-budget={wait_ms}",
                *options,
                url,
            ]
            with subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                start_new_session=True,
            ) as process:
                try:
                    out, _ = process.communicate(timeout=90)
                finally:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
        assert process.returncode == 0, f"chromium ended with {process.returncode}"
        return out
