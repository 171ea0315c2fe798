"""Kafka -> parts, for `LogReader`: from the offsets in the cursor, never from those of the group.

The offsets are part of the cursor and so stand in the same transaction as what was made of the records. The
group is told afterwards how far a stored cursor was, for those who watch its lag; nothing is read from there.
So the partitions are all ours, not shared out by the group: who shares them can be handed one whose offset
another is just storing.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from typing import Any, Final

from mlobs.featurelog.cloudevents import Told, block_of, read_event
from mlobs.featurelog.columns import Part
from mlobs.featurelog.cursor import State
from mlobs.featurelog.frames import LABELS
from mlobs.featurelog.kafka import Address, client_settings, library
from mlobs.featurelog.segments import Counts, fresh

PATIENCE: Final = 2.0
"""Seconds that a poll waits for a broker that says nothing."""
_LOOK_AGAIN: Final = 60.0
"""Seconds after which new partitions are looked for."""
_ROWS: Final = 10_000
_OTHERS: Final[list[Any]] = []
"""Consumers that go with the process: of the parent, after a fork, for taking one down waits for threads that
the child has not; and those whose broker is away when they are closed."""


class KafkaSource:
    """One consumer. After a fork the child makes its own."""

    def __init__(self, address: Address, environ: Mapping[str, str], patience: float = PATIENCE) -> None:
        self._kafka = library()
        self._address, self._patience = address, patience
        self._settings = {
            **client_settings(address, environ),
            "group.id": address.group,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
        }
        self._consumer: Any = None
        self._process = 0
        self._looked = float("-inf")
        self._next: dict[int, int] = {}
        """Where the consumer stands, by partition; -2 is the beginning."""
        self._at_end: set[int] = set()
        self._told: dict[str, int] = {}
        """Offsets that the group was told."""

    def poll(self, state: State, counts: Counts, limit: int) -> tuple[list[tuple[str | None, Part]], bool]:
        """Parts by model (None: labels) of what is behind the cursor's offsets, and whether there is more.

        Moves the offsets in `state`. A broker that is away gives nothing, after `patience` seconds.
        """
        self._stand(state)
        told: list[Told] = []
        deadline = time.monotonic() + self._patience
        wait = 0.05  # at the end of all partitions one look is enough
        while len(told) < limit:
            found = self._consumer.consume(min(_ROWS, limit - len(told)), wait)
            for message in found:
                self._take(message, told, state, counts)
            if self._next and self._at_end >= set(self._next):
                break
            if time.monotonic() > deadline:
                break
        return _parts(told, state, counts), len(told) >= limit

    def close(self, state: State) -> None:
        """Tell the group how far `state` is, which is stored, and leave it; the next poll begins anew."""
        if self._consumer is None:
            return
        if self._process == os.getpid() and self._partitions():
            self._tell_group(state)
            with contextlib.suppress(self._kafka.KafkaException):  # nothing depends on it
                self._consumer.close()
        else:  # the parent's; or no broker answers, and closing would wait 45 s for an open commit
            _OTHERS.append(self._consumer)
        self._consumer = None

    def _take(self, message: Any, told: list[Told], state: State, counts: Counts) -> None:
        error = message.error()
        if error is not None:
            if error.code() == self._kafka.KafkaError._PARTITION_EOF:
                self._at_end.add(message.partition())
            return  # others are the connection's: librdkafka tries again
        partition = message.partition()
        self._at_end.discard(partition)
        self._next[partition] = state.offsets[str(partition)] = message.offset() + 1
        value = message.value()
        if value is None:
            return  # a tombstone
        try:
            told.append(read_event(value))
        except ValueError:
            counts.unreadable += 1

    def _stand(self, state: State) -> None:
        """A consumer of this process that stands where the cursor says."""
        now = time.monotonic()
        if self._consumer is None or self._process != os.getpid():
            if self._consumer is not None:
                _OTHERS.append(self._consumer)
            self._consumer, self._process = self._kafka.Consumer(self._settings), os.getpid()
            self._next, self._looked, self._told = {}, float("-inf"), {}
        wanted = {
            partition: state.offsets.get(str(partition), self._kafka.OFFSET_BEGINNING)
            for partition in self._next
        }
        if wanted == self._next and self._next and now - self._looked < _LOOK_AGAIN:
            self._tell_group(state)
            return
        partitions = self._partitions()
        if not partitions:
            return  # away: the next poll looks again
        self._looked = now
        wanted = {
            partition: state.offsets.get(str(partition), self._kafka.OFFSET_BEGINNING)
            for partition in partitions
        }
        if wanted == self._next:
            return
        self._consumer.assign([self._spot(partition, at) for partition, at in wanted.items()])
        self._next, self._at_end = wanted, set()

    def _partitions(self) -> list[int]:
        try:
            topic = self._consumer.list_topics(self._address.topic, self._patience).topics[
                self._address.topic
            ]
        except (self._kafka.KafkaException, KeyError):
            return []
        return [] if topic.error is not None else sorted(topic.partitions)

    def _tell_group(self, state: State) -> None:
        """The cursor that came back was stored: its offsets are the group's now."""
        if not state.offsets or state.offsets == self._told:
            return
        spots = [self._spot(int(name), at) for name, at in state.offsets.items()]
        try:
            self._consumer.commit(offsets=spots, asynchronous=True)
        except self._kafka.KafkaException:
            return  # nothing depends on it
        self._told = dict(state.offsets)

    def _spot(self, partition: int, offset: int) -> Any:
        return self._kafka.TopicPartition(self._address.topic, partition, offset)


def _parts(told: list[Told], state: State, counts: Counts) -> list[tuple[str | None, Part]]:
    groups: dict[tuple[str, str | None], list[Told]] = {}
    lowest: dict[str, int] = {}
    for each in told:
        model = None if each.kind == LABELS else str(each.data["fields"].get("model") or "")
        groups.setdefault((each.writer, model), []).append(each)
        lowest[each.writer] = min(each.number, lowest.get(each.writer, each.number))
    for writer, number in lowest.items():
        account = state.account(writer)
        if not account.seen.starts:
            account.first = number  # what came before has left the topic, or comes from another partition
    found = []
    for (writer, model), own in groups.items():
        own.sort(key=lambda each: each.number)
        try:
            block = block_of(own)
        except TypeError:
            counts.unreadable += 1
            continue
        part = fresh(block, state.account(writer), True, counts)
        if part is not None:
            found.append((model, part))
    return found
