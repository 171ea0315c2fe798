"""Which calls are kept. Without an id: the next one drawn ahead. With an id: the same in every process."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from functools import cache

from mlobs.records import draw_of

NEVER = 2.0**62
"""A number that no call reaches; a float, for it is compared with the calls counted in cells."""
_CRC_RANGE = 1 << 32


def geometric(rate: float, random: Callable[[], float]) -> float:
    """How many calls from now the next kept one is (1 is the very next), each call being kept with `rate`.

    Inverse of the geometric distribution: 1 + floor(ln(1 - u) / ln(1 - rate)), u uniform in [0, 1).
    The wrapper then compares one number a call instead of drawing a random number.
    """
    if rate >= 1.0:
        return 1.0
    if rate <= 0.0:
        return NEVER
    ahead = math.log1p(-random()) / math.log1p(-rate)
    return 1.0 + int(ahead) if ahead < NEVER else NEVER


def crc_limit(rate: float) -> int:
    """The `draw_of` under which an id is kept at `rate`: all ids for 1, none for 0."""
    return min(_CRC_RANGE, max(0, round(rate * _CRC_RANGE)))


def kept_by_id(prediction_id: str, limit: int) -> bool:
    """True for the same ids in every process and language; the wrapper of a call has it written out."""
    return draw_of(prediction_id) < limit


@cache
def say_that_no_entity_is_named(model: str) -> None:
    """Once a process and model: it is sampled otherwise than somebody asked for."""
    logging.getLogger("mlobs").warning(
        "sample_by: entity, but observe() of %r names no entity=: sampled by prediction", model
    )
