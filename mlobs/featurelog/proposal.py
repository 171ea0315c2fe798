"""A first masking schema, proposed from columns of a table or features of a log, for a person to read.

What is proposed errs on the side of leaving out: numbers and booleans clear, text hashed, what looks personal
by its name or its values hashed, cut or dropped and marked REVIEW. No value of the data is written. A guess
by names and forms finds much and not all: people have names, rare diseases and towns of twelve no form. Pure.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from mlobs.featurelog.freetext import card_number, holds_card, private, scrub

LOOKED_AT: Final = 10_000
"""Rows of a table that are looked at."""
FEW: Final = 50
"""Different texts up to which a column is called one of categories."""
_LONG: Final = 40
"""Characters from which a text, on average, is called free text."""
_SOME: Final = 0.01
"""Share of values that look like a phone number, or a network address, beyond which the column holds such."""


@dataclass(frozen=True, slots=True)
class Proposed:
    """What is proposed for one field: the action as it stands in the file, and why, in words."""

    action: str
    why: str
    review: bool = False
    """Likely personal, or nothing that can be told from here."""


_BY_NAME: Final[tuple[tuple[str, str, str], ...]] = (
    ("drop", "a secret", "password passwd secret token cvv cvc pin credential apikey"),
    ("drop", "a date of birth", "birth birthday birthdate dob geburtstag"),
    ("drop", "free text", "comment note notes message remark description body freetext subject"),
    ("drop", "a place", "lat latitude lon lng longitude geo location gps coordinates"),
    ("{truncate: 3}", "a postal code", "zip zipcode postal postcode postalcode plz"),
    ("{bucket: [18, 30, 45, 65]}", "an age", "age alter"),
    ("hash", "an e-mail address", "email mail"),
    ("hash", "a phone number", "phone mobile telephone tel fax msisdn"),
    ("hash", "a bank account or card", "iban bic account card pan creditcard"),
    ("hash", "a person's name", "name firstname lastname surname forename fullname username nickname holder"),
    ("hash", "an address", "address addr street city town"),
    ("hash", "an official number", "ssn passport taxid licence license plate vat insurance"),
    ("hash", "a network address or device", "ip ipaddress mac imei idfa cookie session device fingerprint"),
    ("hash", "who it is", "user customer client patient member employee person subject cardholder owner"),
    ("hash", "a special category of personal data",
     "gender sex religion ethnicity ethnic race nationality diagnosis disease health disability orientation"),
)  # fmt: skip
_WORDS: Final = {word: (action, what) for action, what, words in _BY_NAME for word in words.split()}
_PARTS: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


def of_value(value: Any) -> Proposed:
    """For a feature of a log, by one value of it: numbers clear, the rest hashed (as text is in the log)."""
    if isinstance(value, int | float) and not card_number(value):
        return Proposed("clear", "number" if not isinstance(value, bool) else "boolean")
    return Proposed("hash", "no number in the log", review=value is None)


def of_column(name: str, values: pa.Array) -> Proposed:
    """For a column of a table, by its name, its type and the first rows of it."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    kind, given = values.type, len(values) - values.null_count
    by_name = _by_name(name)
    if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return Proposed("drop", f"{kind}: no feature that can be logged", review=True)
    if pa.types.is_boolean(kind):
        return _named(by_name, "boolean") if by_name else Proposed("clear", "boolean")
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return _number(values, given, by_name)
    if pa.types.is_temporal(kind):
        return (
            _named(by_name, "a time")
            if by_name
            else Proposed("drop", "a time: say what it is needed for", True)
        )
    if pa.types.is_null(kind) or not given:
        return Proposed("hash", "no value was seen", review=True)
    return _text([str(each) for each in values.drop_null().to_pylist()], by_name)


def draft(proposals: Mapping[str, Proposed], source: str = "") -> str:
    """The text of the schema's file."""
    lines = [
        "# What may leave the process. A field that is not listed is dropped and counted.",
        "# Actions: clear, hash, drop, scan, tokenise, {truncate: 3}, {bucket: [18, 30, 65]}.",
    ]
    if source:
        lines.append(
            f"# Proposed from {json.dumps(source)}: a guess by names, types and forms. Read every line."
        )
    lines += ["version: 1", "fields:" if proposals else "fields: {}"]
    for name, one in proposals.items():
        mark = "REVIEW: " if one.review else ""
        lines.append(f"  {json.dumps(str(name), ensure_ascii=True)}: {one.action}   # {mark}{one.why}")
    return "\n".join([*lines, ""])


def told(proposals: Mapping[str, Proposed]) -> str:
    """One line for people: how many of each action, and what to look at first."""
    counts = Counter(one.action.strip("{").split(":")[0] for one in proposals.values())
    text = ", ".join(f"{count} {action}" for action, count in counts.most_common())
    marked = [str(name) for name, one in proposals.items() if one.review]
    return f"{text}; REVIEW: {', '.join(marked)}" if marked else text


def _by_name(name: str) -> tuple[str, str] | None:
    parts = [part.lower() for part in _PARTS.findall(name)]
    pairs = ["".join(pair) for pair in pairwise(parts)]
    found = next((_WORDS[part] for part in (*pairs, *parts) if part in _WORDS), None)
    if found is None and parts and parts[-1] in ("id", "uuid", "guid", "key"):
        return "hash", "an id"
    return found


def _named(by_name: tuple[str, str], kind: str) -> Proposed:
    action, what = by_name
    return Proposed(action, f"{kind}; by its name {what}", review=True)


def _number(values: pa.Array, given: int, by_name: tuple[str, str] | None) -> Proposed:
    if any(card_number(each) for each in values.drop_null().to_pylist()):
        return Proposed("hash", "number; some values pass for card numbers", review=True)
    if by_name is not None:
        action, what = by_name
        if action.startswith("{truncate"):  # of a number no beginning is taken
            action = "hash"
        return _named((action, what), "number")
    if (
        pa.types.is_integer(values.type)
        and given >= 100
        and pc.count_distinct(values, "only_valid").as_py() == given
    ):
        return Proposed("hash", "whole number; every value differs: an id?", review=True)
    return Proposed("clear", "number")


def _text(words: list[str], by_name: tuple[str, str] | None) -> Proposed:
    for what, looks, share in _FORMS:
        if sum(map(looks, words)) > share * len(words):
            return Proposed("hash", f"text; values look like {what}", review=True)
    if by_name is not None:
        return _named(by_name, "text")
    different = len(set(words))
    if sum(map(len, words)) >= _LONG * len(words) and sum(" " in each for each in words) > len(words) / 2:
        return Proposed("drop", "free text; scan replaces what has a form, names stay", review=True)
    if different <= FEW:
        why = f"text, {different} different; clear shows them by name, if they are nobody's"
        return Proposed("hash", why)
    if different == len(words) >= 100:
        return Proposed("hash", "text; every value differs: an id?", review=True)
    return Proposed("hash", f"text, {different} different in {len(words)} rows")


_FORMS: Final[tuple[tuple[str, Callable[[str], bool], float], ...]] = (
    ("card numbers", holds_card, 0.0),
    ("e-mail addresses, IBANs or keys", private, 0.0),
    ("phone numbers", lambda text: scrub(text) == "[phone]", _SOME),
    (
        "network addresses",
        lambda text: bool(re.fullmatch(r"\d{1,3}(\.\d{1,3}){3}|[0-9a-f]*:[0-9a-f:]+", text)),
        _SOME,
    ),
)
