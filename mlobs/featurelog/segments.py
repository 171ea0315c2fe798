"""Reading the spool: blocks of segments in order, what is torn or broken passed over and counted."""

from __future__ import annotations

import heapq
import sys
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from mlobs.featurelog.blocks import Block, block_numbers, gone_numbers, unpack_block, unpack_column
from mlobs.featurelog.columns import Part, table
from mlobs.featurelog.cursor import Account, Position
from mlobs.featurelog.frames import END, LABELS, RECORDS, Damage, unpack
from mlobs.featurelog.spool import OPEN, SEALED, Segment

KNOWN_KINDS: Final = frozenset({RECORDS, LABELS, END})
_BROKEN: Final = (ValueError, TypeError, KeyError, IndexError, pa.ArrowException)


@dataclass(slots=True)
class Counts:
    """What went wrong while reading."""

    duplicates: int = 0
    unreadable: int = 0
    torn: int = 0


class Read(NamedTuple):
    kind: int
    block: Block
    segment: Segment
    end: int
    """Offset just behind the block in its segment."""


class GoneError(Exception):
    """The segment was there when it was listed; what it held is in the lake by now, or expired."""


def spool_blocks(
    segments: Sequence[Segment],
    positions: dict[str, Position],
    counts: Counts,
    moved: Container[str] = frozenset(),
) -> Iterator[Read]:
    """All that is new, the writer that is furthest back in event time first, without the segments `moved`
    (names). Moves positions past whole segments.
    """
    by_writer: dict[str, list[Segment]] = {}
    for segment in segments:
        if segment.name in moved:
            continue
        by_writer.setdefault(segment.writer, []).append(segment)
    heap: list[tuple[float, str, Iterator[Read]]] = []
    for writer, own in by_writer.items():
        positions.setdefault(writer, Position())
        heap.append((float("-inf"), writer, _writer_blocks(own, positions, counts, moved)))
    heapq.heapify(heap)
    while heap:
        time, writer, stream = heapq.heappop(heap)
        following = next(stream, None)
        if following is not None:
            yield following
            heapq.heappush(heap, (_last_time(following.block, time), writer, stream))


def _writer_blocks(
    segments: list[Segment], positions: dict[str, Position], counts: Counts, moved: Container[str]
) -> Iterator[Read]:
    writer = segments[0].writer
    number, offset = positions[writer].number, positions[writer].offset
    for place, segment in enumerate(segments):
        if segment.number < number:
            continue
        if segment.number > number and _missed(segment, number, moved):
            return  # the next poll lists it
        start = offset if segment.number == number else 0
        grows = not segment.sealed and place == len(segments) - 1
        try:
            yield from segment_blocks(segment, start, counts, grows)
        except GoneError:
            return
        except OSError:
            counts.unreadable += 1
            return  # the next poll tries it again
        if not grows:
            number, offset = segment.number + 1, 0
            positions[writer] = Position(number, 0)


def _missed(later: Segment, number: int, moved: Container[str]) -> bool:
    """Segment `number` of the same writer is there, and was not listed: a listing of a large folder may miss
    a file that is renamed meanwhile. Going on behind it would lose it.
    """
    name = f"{later.writer}-{number:08d}"
    return name not in moved and any(
        later.path.with_name(name + suffix).exists() for suffix in (OPEN, SEALED)
    )


def segment_blocks(segment: Segment, start: int, counts: Counts, grows: bool) -> Iterator[Read]:
    """The blocks of one segment from byte `start` on. Raises GoneError, OSError."""
    for frame in unpack(read_from(segment.path, start)):
        if isinstance(frame, Damage):
            if not frame.torn:
                counts.unreadable += 1
            elif not grows:  # else it is looked at again when more has come
                counts.unreadable += frame.complete
                counts.torn += not frame.complete
            continue
        try:
            block = unpack_block(frame.payload)
        except ValueError:
            counts.unreadable += 1
            continue
        yield Read(frame.kind, block, segment, start + frame.end)


def read_from(path: Path, start: int = 0) -> bytes:
    """The file from byte `start` on, by its name of before or after sealing. Raises GoneError, OSError."""
    for candidate in (path, path.with_suffix(SEALED), path.with_suffix(OPEN)):
        try:
            with candidate.open("rb") as handle:
                handle.seek(start)
                return handle.read()
        except FileNotFoundError:
            continue
    raise GoneError


def fresh(block: Block, account: Account, first_segment: bool, counts: Counts) -> Part | None:
    """The rows of `block` that were not seen before; marks them as seen."""
    account.offered = max(account.offered, int(block.get("offered", 0)))
    rows = block["n"]
    numbers, gone = block_numbers(block) if rows else [], gone_numbers(block)
    if not first_segment and not account.seen.starts and (rows or gone):
        account.first = min(*numbers[:1], *gone[:1], sys.maxsize)
    for number in gone:
        account.seen.add(number)
    if not rows:
        return None
    low, high = numbers[0], numbers[-1] + 1
    if high - low == rows and account.seen.overlaps(low, high) == 0:
        account.seen.add_range(low, high)
        return Part(block, None)
    keep = np.fromiter((account.seen.add(number) for number in numbers), bool, rows)
    new = int(np.count_nonzero(keep))
    counts.duplicates += rows - new
    if not new:
        return None
    return Part(block, None if new == rows else keep)


def built(
    parts: list[Part], columns: Mapping[str, str | None], types: dict[str, str], counts: Counts
) -> pa.Table:
    """The table of the parts; where a broken block spoils it, that block is left out and counted."""
    try:
        return table(parts, columns, types)
    except _BROKEN:
        good = []
        for part in parts:
            try:
                table([part], columns, {})
                good.append(part)
            except _BROKEN:
                counts.unreadable += 1
        return table(good, columns, types)


def model_of(block: Block) -> str:
    try:
        return str(unpack_column(block["fields"]["model"], block["n"])[0] or "")
    except (KeyError, IndexError, TypeError, ValueError):  # a broken block; building its table counts it
        return ""


def times_of(block: Block) -> Any:
    """Event times in seconds; NaN where there is none."""
    try:
        values = unpack_column(block["fields"]["event_time"], block["n"])
        return np.array([np.nan if value is None else value for value in values], float)
    except (KeyError, IndexError, TypeError, ValueError):  # as above
        return np.full(block["n"], np.nan)


def _last_time(block: Block, before: float) -> float:
    times = times_of(block)
    return float(times[-1]) if len(times) and times[-1] == times[-1] else before
