"""What a wrapper leaves out as long as nobody can tell, and puts back when somebody asks."""

from __future__ import annotations

import subprocess
import sys

from mlobs.sdk.binding import Binding
from mlobs.sdk.capture import Extractors
from mlobs.sdk.runtime import Runtime
from mlobs.settings import Settings

UNASKED = """
import mlobs
from mlobs.sdk.api import _BINDINGS, default_runtime

def helper():
    return mlobs.__getattr__("current")()

@mlobs.observe(model="m")
def score(ask):
    return helper().binding is not None if ask else None

for _ in range(2000):
    score(False)
(binding,) = _BINDINGS
assert binding._mode.marked is False, "2,000 calls that nobody asked about still carry a marker"
score(True)
assert binding._mode.marked is True, "somebody asked, and calls still go without"
assert score(True) is True
((_, cells, _),) = default_runtime().meter.read()
assert cells[0] == 2002 == sum(cells[2:-1]), cells[0]
"""


def test_calls_that_nobody_asks_about_lose_their_marker_until_somebody_does() -> None:
    done = subprocess.run([sys.executable, "-c", UNASKED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_function_that_mentions_current_keeps_its_marker() -> None:
    def asks(current: object) -> object:
        return current.stage  # type: ignore[attr-defined]

    runtime = Runtime(Settings(service="test"))
    binding = Binding(
        asks, model="m", version="", variant=None, extractors=Extractors(), runtime=lambda: runtime
    )
    assert binding._asks
