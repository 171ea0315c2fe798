"""The demo's service with and without instrumentation: a request's latency and the process's CPU.

Two processes of the same service, one bare, both on this machine, asked in alternating blocks by one client
with one request in flight, so that a noisy moment hits both. Every call is logged (`sample: 1.0`) and masked,
with four stages: the dearest setting there is.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from mlobs.demo.flights import load_flights
from mlobs.demo.plan import make_plan
from mlobs.demo.replay import Connections, Departure, departures
from mlobs.demo.run import prepare
from mlobs.demo.stage_set import Running, free_port, lay_out, listening_socket, service_process

BLOCKS = 30
REQUESTS = 300


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def block(connections: Connections, server: str, rows: list[Departure]) -> list[float]:
    """Latencies in seconds, sorted."""
    found = []
    for row in rows:
        began = time.perf_counter()
        status, _ = connections.post(server, "/score", row.body)
        found.append(time.perf_counter() - began)
        assert status == 200
    return sorted(found)


def main() -> int:
    plan = make_plan(faults=False)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        flights = load_flights()
        trained = prepare(folder, flights)
        live = flights.days(plan.first, plan.last)
        rows = departures(live)[: BLOCKS * REQUESTS]
        sockets = [stack.enter_context(listening_socket()) for _ in range(2)]
        ports = {"port": free_port(), "service_port": sockets[0].getsockname()[1], "hook_port": free_port()}
        lay_out(folder, trained.coefficients, live, plan, ports, ())
        ours = stack.enter_context(service_process(folder, sockets[0]))
        bare = stack.enter_context(service_process(folder, sockets[1], bare=True))
        connections = stack.enter_context(Connections())
        measure(connections, ours, bare, rows)
    return 0


def measure(connections: Connections, ours: Running, bare: Running, rows: list[Departure]) -> None:
    for running in (ours, bare):
        block(connections, running.server, rows[:REQUESTS])  # warm both
    ratios: dict[str, list[float]] = {"p50": [], "p99": []}
    seconds = {ours.pid: 0.0, bare.pid: 0.0}
    for number in range(BLOCKS):
        part = rows[number * REQUESTS : (number + 1) * REQUESTS]
        found = {}
        for running in (ours, bare) if number % 2 else (bare, ours):
            before = cpu_seconds(running.pid)
            found[running.pid] = block(connections, running.server, part)
            seconds[running.pid] += cpu_seconds(running.pid) - before
        for name, rank in (("p50", 0.5), ("p99", 0.99)):
            at = int(rank * REQUESTS)
            ratios[name].append(found[ours.pid][at] / found[bare.pid][at])
    total = BLOCKS * REQUESTS
    print(
        f"{total} requests each, in {BLOCKS} alternating blocks; instrumented over bare, median of the blocks"
    )
    for name, values in ratios.items():
        low, high = statistics.quantiles(values, n=10)[0], statistics.quantiles(values, n=10)[-1]
        spread = f"80 % of the blocks: {low:.2f} to {high:.2f}"
        print(f"latency {name}   {statistics.median(values):5.2f}x   ({spread})")
    own, peer = seconds[ours.pid], seconds[bare.pid]
    each = f"{own / total * 1e6:.0f} us over {peer / total * 1e6:.0f} us a request"
    print(f"server CPU    {own / peer:5.2f}x   ({each})")


if __name__ == "__main__":
    sys.exit(main())
