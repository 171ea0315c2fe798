"""Free text: what looks private is replaced by what it was: `[email]`, `[phone]`, `[card]`, `[iban]`,
`[key]`.

A scan finds what has a form. It does not find names, addresses or a disease: text that may hold those is
hashed or dropped. It errs towards replacing: every run of 13 digits or more goes, Luhn or not, and a long
enough number with separators is taken for a phone. Pure.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import Final

_DOUBLED: Final = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)
_INVISIBLE: Final = dict.fromkeys(map(ord, "\u00ad\u200b\u200c\u200d\u2060\ufeff"))
PRIVATE: Final = "[private]"
CARD_LOW: Final = 10**12
CARD_HIGH: Final = 10**19
_GAP: Final = r"[\s.\-_/]{0,2}"

_EMAIL: Final = re.compile(r"[\w.+%'-]+@[\w-]+(?:\.[\w-]+)+")
_LONG_NUMBER: Final = re.compile(rf"(?<!\d)\d(?:{_GAP}\d){{12,}}")
_DIGITS: Final = re.compile(r"\d+")
_PHONE: Final = re.compile(r"(?<![\w.])(?:\+\s?)?\(?\d{1,5}\)?(?:[\s./-]{0,2}\(?\d{1,6}\)?){1,6}(?!\w)")
_ISO_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d")
_IBAN: Final = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}\d{2}(?:[ -]?[A-Za-z0-9]){11,30}(?![A-Za-z0-9])")
_KEYS: Final = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"
    r"|\b(?:gh[pousr]_|github_pat_|glpat-|xox[abposr]-|sk-|sk_live_|rk_live_|pk_live_|AIza)[A-Za-z0-9_-]{10,}"
    r"|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"
    r"|(?i:\b(?:bearer|basic)\s+[A-Za-z0-9+/=._-]{12,})"
    r"|(?i:\b(?:password|passwd|secret|api[_-]?key|token)\s*[:=]\s*\S+)",
    re.DOTALL,
)


def scrub(text: str) -> str:
    """`text` without what looks private; costs about 3 us for a short line."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).translate(_INVISIBLE)
    text = _KEYS.sub("[key]", text)
    text = _EMAIL.sub("[email]", text)
    text = _IBAN.sub(_iban, text)
    text = _LONG_NUMBER.sub(_long_number, text)
    return _PHONE.sub(_if(_is_phone, "[phone]"), text)


def private(text: str) -> bool:
    """Whether an identifier or label holds an e-mail address, an IBAN or a key. Phone numbers are left out:
    half of all order numbers look like one; card numbers are `holds_card`.
    """
    if ("@" in text and _EMAIL.search(text)) or _KEYS.search(text):
        return True
    return any(_iban(found) != found[0] for found in _IBAN.finditer(text))


def veiled(text: str) -> str:
    """`text`, or `[private]` where it holds a card number, an e-mail address, an IBAN or a key: for what
    leaves by other ways than the feature log. 1 to 3 us.
    """
    return PRIVATE if holds_card(text) or private(text) else text


def without_cards(text: str) -> str:
    """`text` with card numbers replaced by `[card]`; one that begins with 1 stays, as times in milliseconds
    do.
    """
    if not text.isascii():
        text = text.translate(_INVISIBLE)
    for start, end in reversed(list(_cards(text, told_apart=True))):
        text = f"{text[:start]}[card]{text[end:]}"
    return text


def digits_of(text: str) -> str:
    """The digits in `text`, of any script, as ASCII."""
    return "".join(str(unicodedata.digit(each)) for each in text if each.isdigit())


def luhn(digits: str) -> bool:
    """The check digit of card numbers (ISO/IEC 7812) is right; one number in ten passes by chance."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        number = ord(digit) - 48
        total += _DOUBLED[number] if place % 2 else number
    return total % 10 == 0


def card_number(value: int | float) -> bool:
    """A whole number of 13 to 19 digits that passes Luhn and does not begin with 1, as times in
    milliseconds do.
    """
    if not CARD_LOW <= abs(value) < CARD_HIGH or value != value // 1:
        return False
    digits = str(abs(int(value)))
    return digits[0] != "1" and luhn(digits)


def card_text(value: str) -> bool:
    """A text that is a card number as a whole, with or without separators."""
    if not 13 <= len(value) <= 40:
        return False
    digits = digits_of(value)
    return len(digits) + sum(each in " .-_/" for each in value) == len(value) and _is_card(digits)


def holds_card(text: str, told_apart: bool = False) -> bool:
    """Somewhere in `text` stands a number of 13 to 19 digits that passes Luhn.

    `told_apart`: one that begins with 1 is none, as times in milliseconds and many ids do.
    """
    if len(text) < 13:
        return False
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).translate(_INVISIBLE)
    return any(True for _ in _cards(text, told_apart))


def _cards(text: str, told_apart: bool) -> Iterator[tuple[int, int]]:
    """Where card numbers stand in `text`: runs of digits as a whole, or the groups of a run that make one.

    `order 3 4539 5787 6362 1486` is one run of digits and gaps, and the card is its last four groups.
    """
    for found in _LONG_NUMBER.finditer(text):
        groups = [(each.start() + found.start(), each.end() + found.start())
                  for each in _DIGITS.finditer(found[0])]  # fmt: skip
        after = found.start()
        for first, (start, end) in enumerate(groups):
            if start < after or (first and end - start < 4):
                continue
            if told_apart and digits_of(text[start]) == "1":
                continue
            for _, last in groups[first:]:
                if _is_card(digits_of(text[start:last])):
                    yield start, last
                    after = last
                    break


def _is_card(digits: str) -> bool:
    return 13 <= len(digits) <= 19 and luhn(digits)


def _long_number(found: re.Match[str]) -> str:
    return "[card]" if _is_card(digits_of(found[0])) else "[number]"


def _is_phone(text: str) -> bool:
    return 7 <= len(digits_of(text)) <= 15 and not _ISO_DATE.fullmatch(text)


def _iban(found: re.Match[str]) -> str:
    """The match may run on into the next words: its longest beginning that is an IBAN and ends at a word."""
    text = found[0]
    for end in range(len(text), 14, -1):
        if not text[end : end + 1].isalnum() and _is_iban(text[:end]):
            return "[iban]" + text[end:]
    return text


def _is_iban(text: str) -> bool:
    """ISO 13616: letters as numbers, the first four moved to the end, modulo 97 is 1."""
    plain = re.sub(r"[ -]", "", text).upper()
    moved = plain[4:] + plain[:4]
    return moved.isascii() and int("".join(str(int(each, 36)) for each in moved)) % 97 == 1


def _if(test: Callable[[str], bool], word: str) -> Callable[[re.Match[str]], str]:
    return lambda found: word if test(found[0]) else found[0]
