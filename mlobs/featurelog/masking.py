"""Masking by column, on the writer thread, before anything is encoded.

With a schema a feature leaves only if it is listed. Without one numbers and booleans pass, integers that
look like card numbers and all text leave as keyed hashes: the first minute shows something and leaks
nothing. `entity_key` is hashed always; a prediction id, a decision or another label that is a card number,
an e-mail address, an IBAN or a key is hashed too.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

from mlobs.featurelog.freetext import CARD_LOW, card_number, card_text, holds_card, private, scrub
from mlobs.featurelog.keys import KeyedHash, Keyring
from mlobs.featurelog.maskschema import Action, MaskSchema
from mlobs.featurelog.scalars import plain, text

_NONE = type(None)
_ID: Final = re.compile(r"[A-Za-z0-9_.:-]{0,12}|[0-9a-f-]*[a-f][0-9a-f-]*").fullmatch
"""Ids that cannot be a card number: too short, or with a letter among hex digits."""
_PLAIN_NUMBERS: Final = (frozenset({float}), frozenset({float, _NONE}))

_DIGITS: Final = "0123456789"
_LOWER: Final = "abcdefghijklmnopqrstuvwxyz"
_UPPER: Final = _LOWER.upper()

Values = Sequence[Any]
Mask = Callable[[Values], list[Any]]


class Masker:
    """Masks columns. One per log; used by its writer thread alone. `odd` counts what had to be decided."""

    def __init__(self, schema: MaskSchema | None, keys: Keyring) -> None:
        self._schema = schema
        self._hash = keys.active
        self.odd: Counter[str] = Counter()
        self._actions: dict[Action, Mask | None] = {}

    def feature(self, model: str, name: str) -> Mask | None:
        """How the column of a feature is masked; None is dropped."""
        if self._schema is None:
            return self._open
        return self._of(self._schema.action(model, name))

    def prediction(self) -> Mask | None:
        """Where the schema does not name it: numbers pass, text leaves hashed, as without a schema."""
        named = None if self._schema is None else self._schema.prediction
        return self._open if named is None else self._of(named)

    def name(self, name: Any) -> str:
        """A feature name as text; one that is a card number leaves as its hash."""
        return str(self.word(name if type(name) is str else str(plain(name, self.odd))))

    def word(self, value: Any) -> Any:
        """An identifier or label of the record itself: kept, unless it has a private form."""
        if type(value) is not str:
            value = plain(value, self.odd)
            if type(value) is not str:
                return self._hash.text(str(value)) if value is not None and card_number(value) else value
        value = text(value, self.odd)
        return self._hash.text(value) if holds_card(value) or private(value) else value

    def ids(self, values: Values) -> list[Any]:
        """Prediction, trace and span ids: as words, but a run of digits within that begins with 1 stays."""
        return [value if type(value) is str and _ID(value) else self._id(value) for value in values]

    def _id(self, value: Any) -> Any:
        value = plain(value, self.odd)
        if isinstance(value, str):
            hidden = card_text(value) or holds_card(value, told_apart=True) or private(value)
            return self._hash.text(value) if hidden else value
        return value if value is None else self.word(value)

    def declared(self, values: Values) -> list[Any]:
        """Words that stand in the code: service, model, version. Made plain, not looked at."""
        return [text(value, self.odd) if type(value) is str else plain(value, self.odd) for value in values]

    def words(self, values: Values) -> list[Any]:
        first = values[0]
        if type(first) is str and values.count(first) == len(values):
            return [self.word(first)] * len(values)
        return [value if value is None else self.word(value) for value in values]

    def entities(self, values: Values) -> list[Any]:
        return [None if value is None else self._hashed_value(value) for value in values]

    def _of(self, action: Action | None) -> Mask | None:
        if action is None:
            return None
        if action not in self._actions:
            self._actions[action] = self._mask_of(action)
        return self._actions[action]

    def _mask_of(self, action: Action) -> Mask | None:
        match action.kind:
            case "clear":
                return self._clear
            case "hash":
                return self._hashed
            case "scan":
                return self._each(scrub)
            case "tokenise":
                return self._each(lambda text: token(text, self._hash))
            case "truncate":
                return self._each(lambda text: text[: action.length])
            case "bucket":
                return lambda values: [bucket(plain(value, self.odd), action.edges) for value in values]
        return None  # drop

    def _each(self, change: Callable[[str], str]) -> Mask:
        """Changes the text of every value that is not null; a number is taken as its text."""

        def mask(values: Values) -> list[Any]:
            spoken = (plain(value, self.odd) for value in values)
            return [None if value is None else change(str(value)) for value in spoken]

        return mask

    def _open(self, values: Values) -> list[Any]:
        kinds = frozenset(map(type, values))
        if kinds in _PLAIN_NUMBERS and _small(values, kinds):
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


def _small(values: Values, kinds: frozenset[type]) -> bool:
    """None of these numbers is as long as a card number. A NaN may make it say no, never yes."""
    if _NONE not in kinds:
        return bool(min(values) > -CARD_LOW and max(values) < CARD_LOW)
    return all(value is None or -CARD_LOW < value < CARD_LOW for value in values)


def bucket(value: Any, edges: tuple[float, ...]) -> str | None:
    """The bucket of a number by ascending edges, half-open: `<18`, `18..30`, `>=65`; None for what is no
    number.
    """
    if not isinstance(value, int | float) or value != value:
        return None
    place = bisect_right(edges, value)
    if place == 0:
        return f"<{edges[0]:g}"
    if place == len(edges):
        return f">={edges[-1]:g}"
    return f"{edges[place - 1]:g}..{edges[place]:g}"


def token(text: str, key: KeyedHash) -> str:
    """Another text of the same form: letters for letters, digits for digits, the rest as it is.

    Decided by the key and the whole text, not reversible. Short texts may share a token: what must stay
    distinct is hashed.
    """
    stream: list[int] = []
    found = []
    for place, each in enumerate(text):
        if place >= len(stream):
            stream.extend(key.stream(f"{len(stream)}:{text}"))
        if each.isdigit():
            found.append(_DIGITS[stream[place] % 10])
        elif each.isalpha():
            found.append((_UPPER if each.isupper() else _LOWER)[stream[place] % 26])
        else:
            found.append(each)
    return "".join(found)
