"""What a channel is: a name, and `send`, which answers what became of it and whether to try again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from mlobs.notify.page import Page
from mlobs.notify.retry import Outcome

ACKNOWLEDGE = "mlobs_acknowledge"
"""What a button that acknowledges calls itself where a channel has buttons."""


@dataclass(frozen=True, slots=True)
class Message:
    """One thing to say on one channel."""

    kind: str
    """`firing`, `update`, `resolved` or `test`."""
    page: Page
    dedup_key: str
    """The same for every message of an incident."""
    number: int
    """Of the message in the outbox: the same when it is tried again."""
    at: float
    ref: str | None = None
    """What the channel answered to the incident's first message: where to update in place."""
    uncertain: bool = False
    """An earlier attempt may have arrived: look before you repeat."""
    wanted_at: float = 0.0
    """When it was intended: no attempt of it is older."""


class Channel(Protocol):
    """One way to reach people. `send` blocks for its time-out at the most and does not raise for what the
    other side does; what it raises all the same is caught, counted as `internal` and tried again.
    """

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> str: ...

    @property
    def updates(self) -> bool:
        """Whether an update is worth a message here; firing and resolved always are."""
        ...

    @property
    def update_every(self) -> float:
        """Seconds at least between two updates of one incident: what comes meanwhile is one message."""
        ...

    @property
    def rate(self) -> float | None:
        """Most messages a second; None for no limit."""
        ...

    @property
    def digests(self) -> bool:
        """Whether people read it, so that a storm of incidents is one message more and not hundreds."""
        ...

    def send(self, message: Message) -> Outcome: ...
