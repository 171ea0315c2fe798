"""Retention: what is older than asked goes, and never because a clock jumped.

Age is counted from the lesser of the clock and the newest event time in the lake: with no new data nothing
expires. And where that moment lies more than `MAX_STEP` after the one of the run before, nothing is
removed: the clock of this machine, or of the one that wrote, has jumped, or nobody ran for a week. Smaller
jumps show on a machine that has not restarted since: its clock went on by more than its uptime did. A person
then looks and says `accept_clock`; a clock that is set right again needs nobody.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec

from mlobs.errors import Problem, UnavailableError
from mlobs.featurelog.lake import MANIFEST, Entry, Lake

STATE: Final = "lake/retention.json"
MAX_STEP: Final = 7 * 86400.0
MAX_AHEAD: Final = 3600.0
"""Seconds by which a clock may gain on the uptime between two runs."""


class Uptime(NamedTuple):
    """Seconds since the machine's start `boot`: a clock that nobody sets."""

    boot: str
    seconds: float


class _State(msgspec.Struct, frozen=True):
    reference: float
    now: float = 0.0
    boot: str = ""
    uptime: float = 0.0


@dataclass(frozen=True, slots=True)
class Expiry:
    """What is to go: entries whose newest record is older than `horizon` (seconds)."""

    horizon: float
    entries: tuple[Entry, ...]
    now: float = 0.0
    uptime: Uptime | None = None

    @property
    def rows(self) -> int:
        return sum(file.rows for entry in self.entries for file in entry.files)


def plan_expiry(
    lake: Lake, keep: float, now: float, accept_clock: bool = False, uptime: Uptime | None = None
) -> Expiry:
    """The entries more than `keep` seconds old. Raises UnavailableError where the clock has jumped."""
    entries = lake.entries()
    newest = max((file.end for entry in entries for file in entry.files), default=0.0)
    reference = min(now, newest)
    before = _last_run(lake)
    if before is not None and not accept_clock:
        _must_be_steady(lake, before, reference, now, uptime)
    horizon = reference - keep
    gone = tuple(entry for entry in entries if all(file.end < horizon for file in entry.files))
    return Expiry(horizon, gone, now, uptime)


def _must_be_steady(lake: Lake, before: _State, reference: float, now: float, uptime: Uptime | None) -> None:
    step, most, unit = reference - before.reference, MAX_STEP, 86400.0
    if step <= most and uptime is not None and uptime.boot == before.boot:
        step, most, unit = now - before.now - (uptime.seconds - before.uptime), MAX_AHEAD, 3600.0
    if step <= most:
        return
    words = "days since the last run" if unit > 3600 else "h more than the machine was up"
    raise UnavailableError(
        Problem(
            f"retention of {lake.storage.where}",
            f"a clock that went on by at most {most / unit:g} {words}",
            f"{step / unit:.1f}",
            "nothing was removed; check the clocks, then run once with --accept-clock",
        )
    )


def expire(lake: Lake, plan: Expiry, keep: float) -> None:
    """Remove what `plan` names: files before their entry, so that a run that dies is finished by the next."""
    boot, seconds = plan.uptime or ("", 0.0)
    lake.storage.write(STATE, msgspec.json.encode(_State(plan.horizon + keep, plan.now, boot, seconds)))
    for entry in plan.entries:
        for file in entry.files:
            lake.storage.delete(file.name)
        lake.storage.delete(f"{MANIFEST}/{entry.name}")
        lake.forget(entry.name)


def _last_run(lake: Lake) -> _State | None:
    try:
        return msgspec.json.decode(lake.storage.read(STATE), type=_State)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None
