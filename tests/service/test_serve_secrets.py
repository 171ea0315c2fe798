"""`mlobs serve` as a process with a secret of every kind: none shows on its `ps` line, in its log with every
library at DEBUG and the standard library printing, on its pages, in its API, its metrics, its files, or in
what the commands print."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiosmtpd.smtp import AuthResult

from tests.notify.stubs import Fault, PagerDuty, Slack, Stub, receiver, serving, too_many
from tests.notify.test_mail import Mailbox, OnKernelPort
from tests.notify.test_secrets import decoded
from tests.servers import eventually

SECRETS = {
    "slack": "xoxb-right",
    "signing": "PLANTED-slack-signing",
    "pager": "r" * 32,
    "smtp": "PLANTED-smtp-password",
    "hook": "PLANTED-hook-path",  # as in https://hooks.slack.com/services/T0/B0/<this>
    "hookkey": "PLANTED-hook-key",
    "beat": "PLANTED-heartbeat-path",
    "api": "PLANTED-api-bearer",
    "am": "PLANTED-alertmanager-bearer",
    "login": "PLANTED-login-of-an-address",
}
MAIN = (
    "import http.client, logging, smtplib; logging.basicConfig(level=logging.DEBUG);"
    " http.client.HTTPConnection.debuglevel = smtplib.SMTP.debuglevel = 1;"
    " [logging.getLogger(name).setLevel(10) for name in ('httpx', 'httpcore', 'slack_sdk', 'urllib3')];"
    " from mlobs.cli import main; main()"
)
COMMANDS = MAIN.replace(
    "main()",
    """
import json, sys
for words in json.loads(sys.argv[1]):
    sys.argv[1:] = words
    try:
        main()
    except SystemExit as end:
        print("exit", end.code)
""",
)
YAML = """
service: fraud-api
listen: 127.0.0.1:0
store: sqlite:///{folder}/state.db
targets: ["{upstream}/metrics", "http://me:PLANTED-login-of-an-address@127.0.0.1:9/metrics"]
slo:
  evaluator: prometheus
  prometheus: "{upstream}"
  scrape_interval: 1s
  evaluation_interval: 1s
notify:
  channels:
    chat:
      slack: {{channel: "#oncall", token_file: slack, signing_secret_file: signing, base_url: "{slack}"}}
    phone: {{pagerduty: {{routing_key_env: PAGER, base_url: "{pager}", {here}, timeout: 1}}}}
    mail:
      email: {{to: a@b.example, host: 127.0.0.1, port: {smtp}, tls: none, user: u, password_file: smtp}}
    hook: {{webhook: {{url_file: hook, signing_key_file: hookkey, {here}, timeout: 1}}}}
  fallback: chat
  token_file: api
  heartbeat: {{url_file: beat, every: 1s, {here}}}
  alertmanager: {{url: "{upstream}", token_file: am}}
"""
ALERT = {
    "status": "firing",
    "labels": {
        "alertname": "Burn",
        "severity": "page",
        "service": "fraud-api",
        "model": "fraud",
        "cause": "latency",
    },
    "annotations": {},
    "startsAt": "2026-01-01T00:00:00Z",
    "endsAt": "0001-01-01T00:00:00Z",
}


@dataclass
class World:
    folder: Path
    config: Path
    slack: Slack
    pager: PagerDuty
    hook: Stub
    beats: Stub
    logins: list[bytes]
    shown: dict[str, str] = field(default_factory=dict)
    """What can be seen from outside, by where."""
    url: str = ""
    more: dict[str, str] = field(default_factory=dict)
    """Of the processes' environment."""

    @property
    def environment(self) -> dict[str, str]:
        ours = {"PAGER": SECRETS["pager"], "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        return os.environ | ours | self.more

    def ask(self, path: str, body: object = None, token: str | None = None) -> int:
        """The status; the answer goes to what is shown."""
        headers = {"Content-Type": "application/json"} | (
            {"Authorization": f"Bearer {token}"} if token else {}
        )
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(self.url + path, data, headers)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                status, text, head = answer.status, answer.read().decode(), str(answer.headers)
        except urllib.error.HTTPError as problem:
            with problem:
                status, text, head = problem.code, problem.read().decode(), str(problem.headers)
        self.shown[f"{path} {status}"] = head + text
        return int(status)

    def commands(self, *lines: str) -> None:
        """One process for all of them: what they print goes to what is shown."""
        words = [[*line.split(), "-c", str(self.config)] for line in lines]
        done = subprocess.run(
            [sys.executable, "-c", COMMANDS, json.dumps(words)],
            capture_output=True, text=True, timeout=120, check=False, env=self.environment,
        )  # fmt: skip
        assert done.stdout.count("exit ") == len(lines), done.stderr
        self.shown["commands"] = done.stdout + done.stderr


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    seen: list[bytes] = []

    def login(server, session, envelope, mechanism, data):
        seen.append(data.password)
        return AuthResult(success=True)

    slack, pager, hook, beats = Slack(), PagerDuty(), receiver(), receiver()
    upstream = Stub(
        lambda request: (200, [] if "/v2/" in request.path else {"data": {"alerts": [], "result": []}})  # type: ignore[return-value,dict-item]
    )
    mail = OnKernelPort(Mailbox(), hostname="127.0.0.1", port=0, authenticator=login, auth_require_tls=False)
    with ExitStack() as stack:
        for one in (slack.stub, pager.stub, hook, beats, upstream):
            stack.enter_context(serving(one))
        mail.start()
        stack.callback(mail.stop)
        written = SECRETS | {
            "hook": f"{hook.url}/services/{SECRETS['hook']}",
            "beat": f"{beats.url}/ping/{SECRETS['beat']}",
        }
        for name, value in written.items():
            (tmp_path / name).write_text(value)
        config = tmp_path / "mlobs.yaml"
        text = YAML.format(
            folder=tmp_path,
            upstream=upstream.url.replace("//", f"//me:{SECRETS['login']}@"),
            slack=slack.stub.url,
            pager=pager.stub.url,
            smtp=mail.port,
            here="allow_http: true, allow_private: true",
        )
        config.write_text(text)
        yield World(tmp_path, config, slack, pager, hook, beats, seen)


@contextlib.contextmanager
def served(world: World) -> Iterator[subprocess.Popen[bytes]]:
    log = world.folder / "serve.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", MAIN, "serve", "-c", str(world.config)],
            stdout=out, stderr=out, env=world.environment,
        )  # fmt: skip
    try:
        world.url = eventually(lambda: address_in(log), "serve listens", timeout=60)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        world.shown["log"] = log.read_text(errors="replace")


def address_in(log: Path) -> str:
    found = re.search(r"mlobs serve: (http://\S+)", log.read_text(errors="replace"))
    return found[1] if found else ""


def ps_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def crawl(world: World) -> None:
    """Every page and every answer of the API that a link or a list leads to."""
    for path in ("/", "/drift", "/incidents", "/metrics"):
        assert world.ask(path) == 200, path
    for name in ("incidents", "status", "slos", "targets", "pipelines", "drift"):
        assert world.ask(f"/api/{name}") == 200, name
    for number in set(re.findall(r"/incidents/([0-9a-f]{12})", world.shown["/incidents 200"])):
        assert world.ask(f"/incidents/{number}") == 200
        assert world.ask(f"/api/incidents/{number}") == 200
        assert world.ask(f"/api/incidents/{number}/ack", {"by": "ada"}, "wrong") == 401
        assert world.ask(f"/api/incidents/{number}/ack", {"by": "ada"}, SECRETS["api"]) == 200


def test_a_whole_serve_with_every_kind_of_secret_shows_none_anywhere(world: World) -> None:
    faults = [too_many("1"), Fault(500), Fault(reset=True)]
    for stub in (world.slack.stub, world.pager.stub, world.hook, world.beats):
        stub.fail(*faults)
    with served(world) as process:
        world.shown["ps"] = ps_line(process.pid)
        assert world.ask("/api/alertmanager", {"alerts": [ALERT]}, "wrong") == 401
        assert world.ask("/api/alertmanager", {"alerts": [ALERT]}, SECRETS["am"]) == 200
        assert world.ask("/api/slack", {"payload": {}}) == 401
        eventually(lambda: everybody_told(world), "every channel is told in the end", timeout=90)
        eventually(lambda: bool(world.beats.requests), "the heart beats", timeout=60)
        (world.folder / "hook").unlink()  # and what is missing is said by its place
        second = ALERT | {"labels": ALERT["labels"] | {"model": "other"}}  # type: ignore[operator]
        assert world.ask("/api/alertmanager", {"alerts": [second]}, SECRETS["am"]) == 200
        eventually(lambda: len(world.slack.shown) > 1, "the second is told", timeout=60)
        crawl(world)
        world.shown["ps later"] = ps_line(process.pid)
    world.commands(
        "doctor",
        "doctor --json",
        "notify test",
        "notify test --json",
        "notify routes test --json",
        "notify alertmanager",
        "incidents list --json",
    )
    for path in world.folder.glob("state.db*"):
        world.shown[path.name] = path.read_bytes().decode("latin-1")
    check(world)
    used = b"".join(
        [b"".join(world.logins), *(one.path.encode() for one in world.hook.requests + world.beats.requests)]
    )
    for name in ("smtp", "hook", "beat"):
        assert SECRETS[name].encode() in used, f"{name} was used"


def everybody_told(world: World) -> bool:
    return bool(world.slack.shown and world.pager.triggered and world.hook.requests[3:] and world.logins)


def check(world: World) -> None:
    for where, text in world.shown.items():
        for name, secret in SECRETS.items():
            assert secret not in text, f"{name} shows in {where}"
            assert secret not in decoded(text), f"{name} shows in base64 in {where}"


ALL = pytest.mark.parametrize("command", ["serve", "doctor", "incidents list"])


def run_beside(store: str, command: str, folder: Path, **more: str) -> str:
    """What a command shows that does not come to run, every library at DEBUG."""
    (folder / "mlobs.yaml").write_text(f"service: s\nlisten: 127.0.0.1:0\nstore: {store}\n")
    done = subprocess.run(
        [sys.executable, "-c", MAIN, *command.split()],
        capture_output=True, text=True, timeout=60, check=False, cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))} | more,
    )  # fmt: skip
    shown = done.stdout + done.stderr
    assert done.returncode != 0
    assert "PLANTED" not in shown + decoded(shown)
    return shown


@ALL
def test_a_database_that_does_not_answer_is_named_without_its_password(command: str, tmp_path: Path) -> None:
    shown = run_beside("postgresql://ada@127.0.0.1:1/mlobs", command, tmp_path, PGPASSWORD="PLANTED-password")
    assert "127.0.0.1:1/mlobs" in shown


@ALL
@pytest.mark.parametrize(
    "store",
    [
        "postgresql://ada:PLANTED-password@127.0.0.1:1/mlobs",
        "postgresql://ada@127.0.0.1:1/mlobs?password=PLANTED-password",
    ],
)
def test_a_password_in_the_file_is_refused_and_not_shown(command: str, store: str, tmp_path: Path) -> None:
    shown = run_beside(store, command, tmp_path)
    assert "expected a database URL without a password, got <hidden>" in shown
    assert "PGPASSWORD" in shown


def test_a_fault_of_ours_in_a_command_prints_no_local_that_holds_a_secret(tmp_path: Path) -> None:
    """An unforeseen exception is a traceback; it must not print values of variables."""
    code = (
        "from mlobs.notify import trial\n"
        "def broken(channel, settings, now, by):\n"
        "    token = open('secret').read()\n"
        "    raise RuntimeError('a fault of ours')\n"
        "trial.try_channel = broken\n"
        "from mlobs.cli import main\n"
        "main()\n"
    )
    (tmp_path / "secret").write_text("PLANTED-token")
    (tmp_path / "mlobs.yaml").write_text("service: s\nnotify: {channels: {it: {console: }}}\n")
    done = subprocess.run(
        [sys.executable, "-c", code, "notify", "test"],
        capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    assert "a fault of ours" in done.stdout + done.stderr
    assert "PLANTED" not in done.stdout + done.stderr
