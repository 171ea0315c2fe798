"""Retention: what is older than asked goes, and never because a clock jumped.

Age is counted from the lesser of the clock and the newest event time in the lake: with no new data nothing
expires. And where that moment lies more than `MAX_STEP` after the one of the run before, nothing is
removed: the clock of this machine, or of the one that wrote, has jumped, or nobody ran for a week. A person
then looks and says `accept_clock`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from mlobs.errors import Problem, UnavailableError
from mlobs.featurelog.lake import MANIFEST, Entry, Lake

STATE: Final = "lake/retention.json"
MAX_STEP: Final = 7 * 86400.0


class _State(msgspec.Struct, frozen=True):
    reference: float


@dataclass(frozen=True, slots=True)
class Expiry:
    """What is to go: entries whose newest record is older than `horizon` (seconds)."""

    horizon: float
    entries: tuple[Entry, ...]

    @property
    def rows(self) -> int:
        return sum(file.rows for entry in self.entries for file in entry.files)


def plan_expiry(lake: Lake, keep: float, now: float, accept_clock: bool = False) -> Expiry:
    """The entries more than `keep` seconds old. Raises UnavailableError where the clock has jumped."""
    entries = lake.entries()
    newest = max((file.end for entry in entries for file in entry.files), default=0.0)
    reference = min(now, newest)
    before = _last_reference(lake)
    if before is not None and reference - before > MAX_STEP and not accept_clock:
        raise UnavailableError(
            Problem(
                f"retention of {lake.storage.where}",
                f"a clock that went on by at most {MAX_STEP / 86400:g} days since the last run",
                f"{(reference - before) / 86400:.1f} days",
                "nothing was removed; check the clocks, then run once with --accept-clock",
            )
        )
    horizon = reference - keep
    gone = tuple(entry for entry in entries if all(file.end < horizon for file in entry.files))
    return Expiry(horizon, gone)


def expire(lake: Lake, plan: Expiry, keep: float) -> None:
    """Remove what `plan` names: files before their entry, so that a run that dies is finished by the next."""
    lake.storage.write(STATE, msgspec.json.encode(_State(plan.horizon + keep)))
    for entry in plan.entries:
        for file in entry.files:
            lake.storage.delete(file.name)
        lake.storage.delete(f"{MANIFEST}/{entry.name}")
        lake.forget(entry.name)


def _last_reference(lake: Lake) -> float | None:
    try:
        return msgspec.json.decode(lake.storage.read(STATE), type=_State).reference
    except (FileNotFoundError, msgspec.MsgspecError):
        return None
