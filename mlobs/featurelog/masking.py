"""Masking by column, on the writer thread, before anything is encoded.

With a schema a feature leaves only if it is listed. Without one numbers and booleans pass, integers that
look like card numbers and all text leave as keyed hashes: the first minute shows something and leaks
nothing. `entity_key` is hashed always; a prediction id, a decision or another label that is a card number
is hashed too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

from mlobs.featurelog.keys import Keyring
from mlobs.featurelog.maskschema import Action, MaskSchema
from mlobs.featurelog.scalars import plain, text

_NONE = type(None)
_PLAIN_NUMBERS: Final = (frozenset({float}), frozenset({float, _NONE}))
_CARD_LOW: Final = 10**12
_CARD_HIGH: Final = 10**19
_DOUBLED: Final = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)

Values = Sequence[Any]
Mask = Callable[[Values], list[Any]]


def luhn(digits: str) -> bool:
    """The check digit of card numbers (ISO/IEC 7812) is right; one number in ten passes by chance."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        number = ord(digit) - 48
        total += _DOUBLED[number] if place % 2 else number
    return total % 10 == 0


def card_number(value: int | float) -> bool:
    """A whole number of 13 to 19 digits that passes Luhn."""
    if not _CARD_LOW <= abs(value) < _CARD_HIGH or value != value // 1:
        return False
    return luhn(str(abs(int(value))))


def card_text(value: str) -> bool:
    """A text that is a card number as a whole, with or without blanks and hyphens."""
    if not 13 <= len(value) <= 31:
        return False
    digits = value.replace(" ", "").replace("-", "")
    return digits.isascii() and digits.isdigit() and 13 <= len(digits) <= 19 and luhn(digits)


class Masker:
    """Masks columns. One per log; used by its writer thread alone. `odd` counts what had to be decided."""

    def __init__(self, schema: MaskSchema | None, keys: Keyring) -> None:
        self._schema = schema
        self._hash = keys.active
        self.odd: Counter[str] = Counter()
        self._by_action: dict[str, Mask] = {"clear": self._clear, "hash": self._hashed}

    def feature(self, model: str, name: str) -> Mask | None:
        """How the column of a feature is masked; None is dropped."""
        if self._schema is None:
            return self._open
        return self._of(self._schema.action(model, name))

    def prediction(self) -> Mask | None:
        return self._open if self._schema is None else self._of(self._schema.prediction)

    def name(self, name: Any) -> str:
        """A feature name as text; one that is a card number leaves as its hash."""
        return str(self.word(name if type(name) is str else str(plain(name, self.odd))))

    def word(self, value: Any) -> Any:
        """An identifier or label of the record itself: kept, unless it is a card number."""
        if type(value) is not str:
            value = plain(value, self.odd)
            if type(value) is not str:
                return self._hash.text(str(value)) if value is not None and card_number(value) else value
        value = text(value, self.odd)
        return self._hash.text(value) if card_text(value) else value

    def words(self, values: Values) -> list[Any]:
        first = values[0]
        if type(first) is str and values.count(first) == len(values):
            return [self.word(first)] * len(values)
        return [value if value is None else self.word(value) for value in values]

    def entities(self, values: Values) -> list[Any]:
        return [None if value is None else self._hashed_value(value) for value in values]

    def _of(self, action: Action | None) -> Mask | None:
        return None if action is None else self._by_action.get(action.kind)

    def _open(self, values: Values) -> list[Any]:
        kinds = frozenset(map(type, values))
        if kinds in _PLAIN_NUMBERS:
            if any(value is not None and not -_CARD_LOW < value < _CARD_LOW for value in values):
                return [self._open_value(value) for value in values]
            return list(values)
        return [self._open_value(value) for value in values]

    def _open_value(self, value: Any) -> Any:
        kind = type(value)
        if kind is str:
            return self._hash.text(value)
        if kind is bytes:
            return self._hash.raw(value)
        value = plain(value, self.odd)
        if value is None or value is True or value is False:
            return value
        if isinstance(value, str):
            return self._hash.text(value)
        if card_number(value):
            self.odd["card_number"] += 1
            return self._hash.text(str(int(value)))
        return value

    def _clear(self, values: Values) -> list[Any]:
        if frozenset(map(type, values)) in _PLAIN_NUMBERS:
            return list(values)
        return [plain(value, self.odd) for value in values]

    def _hashed(self, values: Values) -> list[Any]:
        return [None if value is None else self._hashed_value(value) for value in values]

    def _hashed_value(self, value: Any) -> str | None:
        kind = type(value)
        if kind is str:
            return self._hash.text(value)
        if kind is bytes:
            return self._hash.raw(value)
        spoken = plain(value, self.odd)
        return None if spoken is None else self._hash.text(str(spoken))
