"""The house: who may import whom, who may touch the world, what `import mlobs` costs, what it offers.

The tables at the top are the rules as data; the tests below hold the code to them. A new room, or a new file
on the edge, gets its line here with the reason.
"""

import ast
import functools
import inspect
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "mlobs"

# --- who may import whom: room -> what it may import besides itself; bottom to top --------------------------

VOCABULARY = "errors durations slices objectives names records settings secret"
LAYERS: dict[str, str] = {
    **dict.fromkeys(VOCABULARY.split(), VOCABULARY),
    "yamltext": VOCABULARY,
    "config": f"{VOCABULARY} yamltext",
    "stats": VOCABULARY,
    "store": VOCABULARY,
    "featurelog": f"{VOCABULARY} yamltext",
    # Of featurelog the SDK has the writing half, drift the reading half.
    "sdk": f"{VOCABULARY} config featurelog.opening featurelog.freetext",
    # Of frameworks each file imports its own, and nobody imports these but the user.
    "integrations": f"{VOCABULARY} sdk",
    "drift": f"{VOCABULARY} stats store featurelog.reader",
    "slo": f"{VOCABULARY} yamltext stats store",
    "notify": f"{VOCABULARY} store",
    "grafana": f"{VOCABULARY} slo",
    # The page reads what the stages publish for reading.
    "web": f"{VOCABULARY} store drift.read slo.read notify.read",
    "testing": f"{VOCABULARY} sdk",
    "__init__": f"{VOCABULARY} config sdk",
    # Only these wire.
    "service": "*",
    "demo": "*",
    "cli": "*",
    "__main__": "cli",
}
# Even who wires does not reach up.
NEVER: dict[str, str] = {"service": "cli demo", "demo": "cli"}

# --- who touches the world: module -> "kinds: why" ----------------------------------------------------------
# Kinds: clock, randomness, environment, disk, network, threads (processes and signals too). Everything
# that is not here is pure: it gets time, randomness and ids as arguments. A room alone covers its files.

EDGES: dict[str, str] = {
    "cli": "clock randomness environment disk network threads: a command is where the world comes in",
    "demo": "clock randomness environment disk network threads: runs servers and a replay",
    "service": "clock randomness environment disk network threads: wires the stages to the machine",
    "featurelog.compact": "disk: locks the spool, moves its segments into the lake",
    "featurelog.erase": "disk: reads segments, removes half-written ones",
    "featurelog.kafka": "disk network: reads the client's settings, imports the client",
    "featurelog.kafkasource": "clock environment: waits for a broker so long and no longer; sees a fork",
    "featurelog.reader": "environment: hands it to what needs endpoint and credentials",
    "featurelog.ship": "clock environment disk: locks the spool, removes what was shipped, sees a fork",
    "featurelog.lake": "disk: decodes Parquet",
    "featurelog.storage": "randomness environment disk: partial names, S3 endpoint, files of the lake",
    "featurelog.spool": "disk: writes, locks and seals segments",
    "featurelog.opening": "clock environment disk: clock and hash key of a log, whether its folder is one",
    "featurelog.writer": "clock environment disk network threads: commit thread, host name, fork and exit",
    "drift.engines.local": "threads: a pool of processes over files",
    "drift.report.evidently": "threads: evidently runs in a process of its own",
    "drift.mlref": "disk: writes and reads the reference file",
    "drift.objects": "disk: opens files, and objects of a store",
    "drift.readers": "disk: opens Parquet, Arrow and CSV files",
    "featurelog.keys": "randomness environment disk: makes the missing key, keeps it beside the log",
    "integrations.passage": "clock: how long a request took",
    "notify.desk": "randomness: the jitter of retries, where no generator is handed in",
    "notify.channels.mail": "network threads: speaks SMTP, and ends a letter in time",
    "notify.channels.slack": "network: speaks to Slack through slack-sdk",
    "notify.channels.slack_search": "network: reads a Slack channel through slack-sdk",
    "notify.channels.slack_http": "network clock threads: ends slack-sdk's requests in time",
    "notify.emergency": "threads: pages past a store that takes nothing, without waiting for it",
    "notify.enrich": "clock threads: gives enrichers their two seconds, each in a thread that may hang",
    "notify.heartbeat": "threads: calls an outside address and waits for nothing",
    "notify.http": "network threads: POSTs to webhooks, with an alarm against answers that drip",
    "sdk.api": "clock threads: holds the default runtime under a lock; wall time unless told",
    "grafana.remote": "network: speaks to a Grafana",
    "sdk.binding": "clock: times the calls of generators",
    "sdk.settled": "clock threads: gives the wrapper its clock, settles under a lock",
    "sdk.call": "clock randomness: times the stages, makes prediction ids",
    "sdk.cellfile": "disk threads: one process's cells, mapped and locked",
    "sdk.crews": "threads: writes over what is not counted in cells",
    "sdk.genai": "clock: times the tokens",
    "sdk.guard": "clock threads: logs once a minute, counts exactly",
    "sdk.instruments": "clock: how long something waited in a queue",
    "sdk.jobfile": "disk: the file for the textfile collector",
    "sdk.jobpush": "network: the OTLP exporter",
    "sdk.jobs": "clock: how long a run took",
    "sdk.meter": "threads: makes a block of cells under a lock",
    "sdk.options": "disk: makes paths absolute",
    "sdk.otlp": "network: makes the OTLP exporter",
    "sdk.overhead": "disk threads: reads the CPU time of our threads",
    "sdk.price": "clock: measures what observing costs",
    "sdk.rundir": "disk: where workers meet, and who is one",
    "sdk.runtime": "clock randomness: the defaults of its clock and its draws",
    "sdk.spans": "clock threads: the thread that sends spans",
    "sdk.serve": "network threads: serves /metrics",
    "sdk.workers": "environment disk threads: reads and folds the workers' files",
    "notify.turns": "clock threads: a channel that hangs holds neither the others nor the evaluation",
    "secret": "environment disk: reads the variable or file that a secret is kept in",
    "slo.scrape": "disk network threads: reads target lists, asks DNS, waits for targets side by side",
    "store": "disk: state tables, their backup and lock",
    "web.assets": "disk: serves the files of the wheel",
    "web.guard": "randomness: a nonce for each page",
    "yamltext": "disk: reads the file it is given",
}
WIRING = {"cli", "demo", "service"}  # their files are not held to the kinds one by one

IMPORTS = {
    "clock": "time sched",
    "randomness": "secrets",
    "network": "socket socketserver ssl select selectors smtplib http.client http.server urllib.request httpx"
    " requests urllib3 slack_sdk confluent_kafka grafana_client uvicorn opentelemetry.exporter",
    "threads": "threading _thread multiprocessing concurrent subprocess signal atexit",
    "disk": "sqlite3 tempfile shutil fcntl glob mmap logging.handlers",
}
OS_ATTRIBUTES = {
    "environment": "environ getenv putenv getpid cpu_count sched_getaffinity uname",
    "randomness": "urandom getrandom",
    "threads": "fork kill killpg register_at_fork _exit",
    None: "PathLike fspath fsencode fsdecode sep linesep path",  # pure, but for os.path.exists and the like
}
# Calls whose name says enough, whatever they are called on.
METHODS = {
    "randomness": "uuid1 uuid4",
    "disk": "read_text read_bytes write_text write_bytes mkdir rmdir unlink is_file is_dir iterdir rglob"
    " isfile isdir getsize getmtime abspath realpath"
    " touch ParquetFile ParquetWriter write_table read_table create_engine memory_map OSFile",
}

# --- reading the code ---------------------------------------------------------------------------------------


def modules() -> dict[str, Path]:
    """Dotted name below mlobs -> file; a package is its own name, mlobs itself `__init__`."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
        found[name] = path
    return found


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def imported(path: Path) -> Iterator[tuple[int, str, list[str]]]:
    """(line, module, names) of every import statement, inside functions and `if TYPE_CHECKING` too."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:  # relative; ruff refuses them, and this reads them all the same
                package = ["mlobs", *path.relative_to(PACKAGE).parts][: -node.level]
                base = ".".join([*package, base] if base else package)
            yield node.lineno, base, [alias.name for alias in node.names]


def edges_of(name: str, known: dict[str, Path]) -> Iterator[tuple[int, str]]:
    """(line, our module) for every module of ours that `name` imports, as far down as it can be told."""
    for line, base, names in imported(known[name]):
        if base != "mlobs" and not base.startswith("mlobs."):
            continue
        below = base.removeprefix("mlobs").removeprefix(".")
        for item in names or [""]:
            longer = f"{below}.{item}".strip(".")
            yield line, longer if longer in known else below or "__init__"


def allowed(importer: str, target: str) -> bool:
    room, other = importer.partition(".")[0], target.partition(".")[0]
    if room == other:
        return True
    rule, never = LAYERS[room].split(), NEVER.get(room, "").split()
    if rule == ["*"]:
        return other not in never and other != "__main__"
    return any(target == entry or target.startswith(f"{entry}.") for entry in rule)


def upward(known: dict[str, Path]) -> list[str]:
    return [
        f"mlobs/{known[name].relative_to(PACKAGE)}:{line} imports {target}, which {name} may not"
        for name in known
        for line, target in edges_of(name, known)
        if not allowed(name, target)
    ]


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Strongly connected groups of more than one (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for neighbour in sorted(graph.get(node, ())):
            if neighbour not in index:
                visit(neighbour)
                low[node] = min(low[node], low[neighbour])
            elif neighbour in stack:
                low[node] = min(low[node], index[neighbour])
        if low[node] == index[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                found.append(sorted(group))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


def touched(path: Path) -> dict[str, int]:
    """Kind of the world that a file touches -> the first line where it does."""
    found: dict[str, int] = {}

    def add(kind: str | None, line: int) -> None:
        if kind is not None:
            found[kind] = min(line, found.get(kind, line))

    for line, base, names in imported(path):
        for dotted in [base, *(f"{base}.{name}" for name in names)]:
            for kind, entries in IMPORTS.items():
                if any(dotted == entry or dotted.startswith(f"{entry}.") for entry in entries.split()):
                    add(kind, line)
        for name in names:
            add(kind_of(base, name), line)
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            add(kind_of(node.value.id, node.attr), node.lineno)
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            for kind, entries in METHODS.items():
                if name in entries.split():
                    add(kind, node.lineno)
            if isinstance(node.func, ast.Name) and name == "open":
                add("disk", node.lineno)
            if name in ("default_rng", "Random") and not node.args:  # without a seed
                add("randomness", node.lineno)
    return found


def kind_of(owner: str, name: str) -> str | None:
    """What `owner.name` or `from owner import name` touches."""
    if owner == "os":
        return next((kind for kind, names in OS_ATTRIBUTES.items() if name in names.split()), "disk")
    if owner == "random" and name != "Random":  # a Random that is handed in is pure
        return "randomness"
    if owner in ("datetime", "date") and name in ("now", "utcnow", "today"):
        return "clock"
    return "environment" if owner == "Path" and name in ("cwd", "home") else None


def edge_of(name: str) -> set[str]:
    """The kinds that the list grants to a module: its own line, else its nearest room's."""
    while name and name not in EDGES:
        name = name.rpartition(".")[0]
    return set(EDGES[name].partition(":")[0].split()) if name else set()


# --- the rules ----------------------------------------------------------------------------------------------


def test_every_room_has_its_place() -> None:
    rooms = {name.partition(".")[0] for name in modules()}
    assert rooms - LAYERS.keys() == set(), "give the new room a line in LAYERS"


def test_imports_go_down_only() -> None:
    found = upward(modules())
    assert found == [], "\n".join(found)


def test_no_import_cycle() -> None:
    known = modules()
    assert cycles({name: {t for _, t in edges_of(name, known)} - {name} for name in known}) == []


def test_nothing_is_imported_by_its_name_as_text() -> None:
    found = [
        f"mlobs/{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in modules().values()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call)
        and (getattr(node.func, "attr", "") or getattr(node.func, "id", ""))
        in ("import_module", "__import__")
    ]
    assert found == [], "the layer test cannot see such an import"


def test_only_files_on_the_edge_list_touch_the_world() -> None:
    found = [
        f"mlobs/{path.relative_to(PACKAGE)}:{line} touches {kind}: pass it in, or give {name} a line in EDGES"
        for name, path in modules().items()
        for kind, line in touched(path).items()
        if kind not in edge_of(name)
    ]
    assert found == [], "\n".join(found)


def test_the_edge_list_grants_nothing_that_is_not_used() -> None:
    used: dict[str, set[str]] = {entry: set() for entry in EDGES}
    for name, path in modules().items():
        entry = name
        while entry and entry not in EDGES:
            entry = entry.rpartition(".")[0]
        if entry:
            used[entry] |= touched(path).keys()
    stale = {entry: edge_of(entry) - kinds for entry, kinds in used.items() if entry not in WIRING}
    assert {entry: kinds for entry, kinds in stale.items() if kinds} == {}


# --- what `import mlobs` costs ------------------------------------------------------------------------------

MOST_MODULES = 350
HEAVY = (
    "numpy scipy pandas pyarrow pydantic yaml sqlalchemy fastapi starlette httpx plotly typer rich".split()
)
PROBE = """
import sys, threading
did = []
def watch(event, args):
    wrote = event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+")
    if wrote or event.startswith(("socket.", "subprocess.", "os.fork", "os.mkdir", "os.putenv", "signal.")):
        did.append((event, str(args[0]) if args else ""))
sys.addaudithook(watch)
import {module}
print(len(sys.modules), threading.active_count(), did)
print(*sorted({{name.partition(".")[0] for name in sys.modules}}))
"""


def import_cost(module: str) -> tuple[list[str], set[str]]:
    done = subprocess.run(
        [sys.executable, "-B", "-W", "error", "-c", PROBE.format(module=module)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if not k.startswith(("COV_", "PYTHON"))},
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    return first.split(maxsplit=2), set(second.split())


def test_import_mlobs_is_light_and_does_nothing() -> None:
    (count, threads, did), names = import_cost("mlobs")
    assert names & set(HEAVY) == set()
    assert int(count) <= MOST_MODULES
    assert (threads, did) == ("1", "[]")


# --- what it offers -----------------------------------------------------------------------------------------


def described(name: str, value: object) -> str:
    kind = "class " if inspect.isclass(value) else ""
    try:
        # An address in a default's repr would differ each run.
        return f"{kind}{name}{re.sub(r' at 0x[0-9a-f]+', '', str(inspect.signature(value)))}"  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return f"{kind}{name}"


def test_the_public_surface_is_the_one_we_mean(golden: Callable[[str, str], None]) -> None:
    import mlobs

    lines = [described(name, getattr(mlobs, name)) for name in sorted(mlobs.__all__)]
    golden("public_surface.txt", "".join(f"{line}\n" for line in lines))


def test_the_wheel_holds_the_package_whole_and_nothing_else(tmp_path: Path) -> None:
    """A missing template or py.typed shows only where mlobs is not run from its tree."""
    (built,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(built) as wheel:
        held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    files = {path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert held == {path.relative_to(ROOT).as_posix() for path in files}
    assert {"mlobs/py.typed", "mlobs/web/templates/base.html", "mlobs/demo/mlobs.yaml"} <= held


# --- what is checked in -------------------------------------------------------------------------------------

LOCKS = sorted((ROOT / "requirements").glob("*.txt"))


def lock_faults(text: str) -> list[str]:
    """Lines of a lock file that name an index, and requirements without an exact version and a hash."""
    faults = re.findall(r".*(?:://|--index-url|--extra-index-url|--find-links).*", text)
    for requirement in text.replace("\\\n", " ").splitlines():
        if requirement.strip() and not requirement.lstrip().startswith("#"):
            exact = re.match(r"[\w.\[\],-]+==\S+( ;.*?)?( +--hash=sha256:[0-9a-f]{64})+ *$", requirement)
            faults += [] if exact else [requirement]
    return faults


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_a_lock_file_names_no_index_and_hashes_everything(lock: Path) -> None:
    assert lock_faults(lock.read_text()) == []


def test_a_fault_in_a_lock_file_is_seen() -> None:
    good = f"a==1 ; python_version < '4' \\\n    --hash=sha256:{'0' * 64}\n# a comment\n"
    assert lock_faults(good) == []
    bad = ["--index-url x\n", "-f https://x\n", "a==1\n", f"a>=1 --hash=sha256:{'0' * 64}\n"]
    assert [line for line in bad if not lock_faults(good + line)] == []


# In pieces, so that this file does not hold what it looks for. Pattern -> files that may hold it.
FORBIDDEN: dict[str, list[str]] = {
    "py" + r"pi\.(org|io)": [],
    "python" + r"hosted\.org": [],
    r"registry\.npm" + "js": [],
    r"deb\.debian" + r"\.org": [],
    r"proxy\.golang" + r"\.org": [],
    "/opt/" + "(wheels|pypi)": [],
    "/wor" + r"k/": [],
    "/roo" + r"t/": [],
    "/home/" + r"\w": [],
    r"\.pyen" + "v/": [],
    r"\.\./share" + "d/": [".ci/run"],
}


def test_no_file_names_a_registry_or_a_place_on_a_build_machine() -> None:
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("no git checkout: nothing says which files are ours")
    # Also what is new and not yet added.
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found = []
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        text = path.read_bytes().decode(errors="replace") if path.is_file() else ""
        for pattern, exempt in FORBIDDEN.items():
            if name not in exempt and (match := re.search(pattern, text)):
                found.append(f"{name}:{text.count(chr(10), 0, match.start()) + 1} holds {match[0]}")
    assert found == [], "\n".join(found)


def test_the_demo_needs_no_spark_and_no_evidently() -> None:
    locked = (ROOT / "requirements" / "demo.txt").read_text().lower()
    assert not [name for name in ("pyspark", "evidently") if f"\n{name}==" in locked]
