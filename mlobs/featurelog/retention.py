"""Retention: what is older than asked goes, and never because a clock jumped.

Age is counted from the lesser of the clock and the newest event time in the lake: with no new data nothing
expires. Nothing is removed, and a person looks and says `accept_clock`, where since the run before

- that moment moved by more than `MAX_STEP`: the clock of this machine, or of the one that wrote, has jumped,
  or nobody ran for a week;
- the clock went on by `MAX_AHEAD` more than the machine was up, if it was not restarted;
- there is, if it was, or is another machine, a stretch in which nobody logged anything, of more than `quiet`
  seconds: a day, or a tenth of what is kept. A clock that jumps while the machine is down leaves such a hole,
  and so does a service that was down for so long. What jumps less removes at most that much too early.

A clock that went ahead and is set right again needs nobody. One that was behind at a run looks, when it is
right again, like one that jumped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec

from mlobs.errors import Problem, UnavailableError
from mlobs.featurelog.lake import MANIFEST, Entry, Lake

STATE: Final = "lake/retention.json"
MAX_STEP: Final = 7 * 86400.0
MAX_AHEAD: Final = 3600.0
"""Seconds by which a clock may gain on the uptime between two runs."""
MAX_QUIET: Final = 86400.0
"""Seconds without a record across a restart, at most, however long is kept."""


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
        problem = _unsteady(before, entries, keep, reference, now, uptime)
        if problem:
            raise UnavailableError(
                Problem(
                    f"retention of {lake.storage.where}",
                    *problem,
                    "nothing was removed; check the clocks, then run once with --accept-clock",
                )
            )
    horizon = reference - keep
    gone = tuple(entry for entry in entries if all(file.end < horizon for file in entry.files))
    return Expiry(horizon, gone, now, uptime)


def quiet(keep: float) -> float:
    """Seconds for which nobody may have logged across a restart, where `keep` seconds are kept."""
    return min(MAX_QUIET, max(MAX_AHEAD, keep / 10))


def _unsteady(
    before: _State,
    entries: Sequence[Entry],
    keep: float,
    reference: float,
    now: float,
    uptime: Uptime | None,
) -> tuple[str, str] | None:
    """What was expected of the clock, and what it did; None where nothing speaks of a jump."""
    step = reference - before.reference
    if step > MAX_STEP:
        return (
            f"a clock that went on by at most {MAX_STEP / 86400:g} days since the last run",
            f"{step / 86400:.1f}",
        )
    if uptime is not None and uptime.boot == before.boot:
        ahead = now - before.now - (uptime.seconds - before.uptime)
        most = f"a clock that went on by at most {MAX_AHEAD / 3600:g} h more than the machine was up"
        return (most, f"{ahead / 3600:.1f}") if ahead > MAX_AHEAD else None
    silent = _longest_silence(entries, before.now or before.reference, reference)
    most = f"records in every {quiet(keep) / 3600:g} h since the run before, on a machine that was restarted"
    return (most, f"none for {silent / 3600:.1f} h") if silent > quiet(keep) else None


def _longest_silence(entries: Sequence[Entry], start: float, end: float) -> float:
    """Seconds of the longest stretch between `start` and `end` with no event time in it, to the hour."""
    longest, at = 0.0, start
    for first, last in sorted((file.start, file.end) for entry in entries for file in entry.files):
        longest = max(longest, min(first, end) - at)
        at = max(at, last)
    return max(longest, end - at)


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
