"""Masking: what may leave, in which form, and that a planted card number never does."""

import base64
import datetime
import decimal
import json
import logging
import math
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlobs.errors import ConfigError
from mlobs.featurelog.freetext import card_number, holds_card, luhn, scrub, without_cards
from mlobs.featurelog.keys import HMAC, KeyedHash, Keyring, configured_keys
from mlobs.featurelog.masking import Masker, bucket, token
from mlobs.featurelog.maskschema import MaskSchema, parse_schema
from mlobs.featurelog.proposal import draft, of_value
from mlobs.featurelog.scalars import plain
from mlobs.settings import MaskSettings
from tests.featurelog.bytescan import betrayals, forms_of
from tests.featurelog.helpers import KEY, column, features_of, label, opened, read_all, record, rows

CARD = "4539578763621486"
KEYS = Keyring([KEY.encode()])


def masked(features: dict[str, Any], schema: str | None = None) -> dict[str, Any]:
    """One row of features through a masker; dropped ones are not in it."""
    masker = Masker(parse_schema(schema, "mask.yaml") if schema else None, KEYS)
    found = {}
    for name, value in features.items():
        mask = masker.feature("fraud", name)
        if mask is not None:
            (found[name],) = mask([value])
    return found


def hashed(text: str) -> str:
    return KEYS.active.text(text)


def test_a_schema_that_does_not_name_the_prediction_lets_numbers_pass_and_no_text() -> None:
    masker = Masker(parse_schema("fields: {amount: clear}", "mask.yaml"), KEYS)
    mask = masker.prediction()
    assert mask is not None
    assert mask([0.5, "Dear Jane Roe"]) == [0.5, hashed("Dear Jane Roe")]


@pytest.mark.parametrize("private", ["jane.roe@example.com", "DE89370400440532013000", f"card {CARD}"])
def test_an_identifier_or_word_with_a_private_form_leaves_hashed(private: str) -> None:
    masker = Masker(None, KEYS)
    assert masker.words([private, "EWR"]) == [hashed(private), "EWR"]
    assert masker.name(private) == hashed(private)
    if CARD not in private:  # an id may hold a run of digits
        assert masker.ids([private, "order-12345678901"]) == [hashed(private), "order-12345678901"]


# -- without a schema ------------------------------------------------------------------------------------


def test_without_a_schema_numbers_pass_and_text_leaves_hashed() -> None:
    assert masked({"n": 1.5, "i": 7, "b": True, "none": None, "s": "Jane", "raw": b"Jane"}) == {
        "n": 1.5, "i": 7, "b": True, "none": None, "s": hashed("Jane"), "raw": hashed("Jane"),
    }  # fmt: skip


@pytest.mark.parametrize("value", [int(CARD), float(CARD), -int(CARD), np.int64(CARD), 378282246310005])
def test_a_number_that_looks_like_a_card_number_is_hashed(value: Any) -> None:
    (found,) = masked({"a": value}).values()
    assert found == hashed(str(int(value)))


@pytest.mark.parametrize(
    "value", [1795425672434, 1795425672434123456, 12345, 4539578763621487, 0.5, float("nan")]
)
def test_times_and_other_numbers_are_no_card_numbers(value: Any) -> None:
    (found,) = masked({"a": value}).values()
    assert repr(found) == repr(value)


def test_a_column_with_one_card_number_hides_that_one_alone() -> None:
    mask = Masker(None, KEYS).feature("fraud", "n")
    assert mask is not None
    assert mask([1.0, float(CARD), None, 2.0]) == [1.0, hashed(CARD), None, 2.0]


@given(st.permutations([1.0, math.nan, -4.5, math.inf, float(CARD)]), st.booleans(), st.booleans())
def test_a_card_number_is_found_wherever_it_stands(values: list[Any], negative: bool, null: bool) -> None:
    """Also behind a NaN, with which nothing compares."""
    mask = Masker(None, KEYS).feature("fraud", "n")
    assert mask is not None
    values = [-value if negative else value for value in values] + [None] * null
    assert hashed(str(int(float(CARD) * (-1 if negative else 1)))) in mask(values)


def test_floats_without_a_card_number_pass_as_they_are() -> None:
    mask = Masker(None, KEYS).feature("fraud", "n")
    assert mask is not None
    for values in ([1.0, -2.5e12], [math.nan, 1.0], [1.0, math.inf, math.nan], [0.5, None]):
        assert repr(mask(values)) == repr(values)


# -- with a schema ---------------------------------------------------------------------------------------

SCHEMA = """
fields:
  clear: clear
  hash: hash
  drop: drop
  zip: {truncate: 3}
  age: {bucket: [18, 30, 65]}
  plate: tokenise
  note: scan
"""


def test_with_a_schema_what_it_does_not_name_is_dropped_and_counted(tmp_path: Path) -> None:
    schema = tmp_path / "mask.yaml"
    schema.write_text(SCHEMA)
    log = opened(tmp_path / "log", mask=MaskSettings(schema=str(schema)))
    log.offer(record(0, {"clear": "as it is", "unknown": 5, "drop": 6}))
    assert log.close(5)
    assert features_of(read_all(tmp_path / "log")) == [{"clear": "as it is"}]
    assert log.odd()["masked_out"] == 2


def test_each_action_does_what_it_says() -> None:
    found = masked(
        {
            "clear": "x",
            "hash": 12,
            "drop": 1,
            "zip": "10115",
            "age": 42,
            "plate": "B-AB 123",
            "note": "to a@b.de",
        },
        SCHEMA,
    )
    plate = found.pop("plate")
    assert found == {"clear": "x", "hash": hashed("12"), "zip": "101", "age": "30..65", "note": "to [email]"}
    assert plate != "B-AB 123"
    assert [each.isalpha() for each in plate] == [each.isalpha() for each in "B-AB 123"]
    assert [each.isdigit() for each in plate] == [each.isdigit() for each in "B-AB 123"]


def test_a_models_own_word_goes_before_the_common_one() -> None:
    schema = parse_schema("fields: {a: clear}\nmodels: {churn: {fields: {a: hash}}}", "mask.yaml")
    masker = Masker(schema, KEYS)
    churn, fraud = masker.feature("churn", "a"), masker.feature("fraud", "a")
    assert churn is not None
    assert fraud is not None
    assert (churn(["x"]), fraud(["x"])) == ([hashed("x")], ["x"])


@given(st.floats(allow_nan=False), st.lists(st.integers(-50, 50), min_size=1, max_size=5, unique=True))
def test_every_number_falls_into_the_bucket_that_holds_it(value: float, edges: list[int]) -> None:
    ascending = tuple(float(edge) for edge in sorted(edges))
    name = bucket(value, ascending)
    assert name is not None
    if name.startswith("<"):
        assert value < float(name[1:])
    elif name.startswith(">="):
        assert value >= float(name[2:])
    else:
        low, high = name.split("..")
        assert float(low) <= value < float(high)


def test_what_is_no_number_has_no_bucket() -> None:
    assert [bucket(value, (1.0,)) for value in ("a", None, float("nan"))] == [None, None, None]


@given(st.text(max_size=60))
def test_a_token_has_the_form_of_its_text_and_stays_the_same(text: str) -> None:
    key = KeyedHash(KEY.encode())
    found = token(text, key)
    assert found == token(text, key)
    assert len(found) == len(text)
    assert [each.isdigit() for each in found] == [each.isdigit() for each in text]


def test_equal_values_have_equal_hashes_under_one_key_and_others_under_another() -> None:
    one, two = KeyedHash(b"k" * 16), KeyedHash(b"l" * 16)
    assert one.text("a") == one.text("a")
    assert one.text("a").split(":")[1] != two.text("a").split(":")[1]
    assert one.key_id != two.key_id
    assert len(one.text("a").split(":")[1]) == 32
    assert len(KeyedHash(b"k" * 16, HMAC).text("a").split(":")[1]) == 64


def test_the_first_key_of_a_file_is_in_force_and_the_others_are_tried(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("new key of 16 bytes or more\n\nold key of 16 bytes or more\n")
    keys = configured_keys(str(tmp_path / "keys"), {})
    assert keys is not None
    assert keys.active.text("a") == KeyedHash(b"new key of 16 bytes or more").text("a")
    assert keys.hashes("a")[1] == KeyedHash(b"old key of 16 bytes or more").text("a")


def test_an_entity_is_always_hashed_and_told_by_its_text(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.offer(record(0, entity_key="customer 7"))
    log.offer(record(1, entity_key=7))
    log.offer(record(2, entity_key=uuid.UUID(int=5)))
    log.offer(record(3))
    assert log.close(5)
    assert column(read_all(tmp_path).records["fraud"], "entity_key") == [
        hashed("customer 7"), hashed("7"), hashed(str(uuid.UUID(int=5))), None,
    ]  # fmt: skip


def test_a_schema_shows_every_problem_with_its_line() -> None:
    text = "version: 2\nfields:\n  a: {truncate: 0}\n  b: {bucket: [3, 1]}\n  c: hide\nhash: md5\n"
    with pytest.raises(ConfigError) as caught:
        parse_schema(text, "mask.yaml")
    assert [problem.where.split(": ", 1)[1] for problem in caught.value.problems] == [
        "fields.a.truncate", "fields.b.bucket", "fields.c", "version", "hash",
    ] or len(caught.value.problems) == 5  # fmt: skip


@pytest.mark.parametrize("text", ["fields: [", "a: 1\na: 2", "- 1", "fields: {a: }", "x: &a [*a]", ""])
def test_a_schema_that_is_none_is_a_clear_error(text: str) -> None:
    with pytest.raises(ConfigError, match=r"mask\.yaml"):
        parse_schema(text, "mask.yaml")


def test_a_drafted_schema_reads_back_and_leaves_numbers_clear() -> None:
    values = {"amount": 1.5, "name: x": "Jane", "card": int(CARD)}
    drafted = draft({name: of_value(value) for name, value in values.items()})
    schema = parse_schema(drafted, "mask.yaml")
    kinds = {name: action.kind for name, action in schema.fields.items()}
    assert kinds == {"amount": "clear", "name: x": "hash", "card": "hash"}
    assert parse_schema(draft({}), "mask.yaml") == MaskSchema()


# -- free text -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"card {CARD}.", "card [card]."),
        ("4539 5787 6362 1486 thanks", "[card] thanks"),
        ("4539-5787-6362-1486", "[card]"),
        ("4539.5787.6362.1486", "[card]"),
        ("４５３９５７８７６３６２１４８６", "[card]"),
        ("4539\u200b5787\u200b63621486", "[card]"),
        ("order 99999999999999", "order [number]"),
        ("mail jane.doe+x@mail.example.org now", "mail [email] now"),
        ("call +49 170 1234567", "call [phone]"),
        ("call (555) 123-4567", "call [phone]"),
        ("0170/1234567", "[phone]"),
        ("IBAN DE89 3704 0044 0532 0130 00", "IBAN [iban]"),
        ("GB82WEST12345698765432 paid", "[iban] paid"),
        ("key AKIAIOSFODNN7EXAMPLE", "key [key]"),
        ("Authorization: Bearer abcdefghijklmnop", "Authorization: [key]"),
        ("password=hunter2 x", "[key] x"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.abc", "[key]"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY----- tail", "[key] tail"),
        ("on 2026-11-23 at 12:30, 3 items", "on 2026-11-23 at 12:30, 3 items"),
        ("version 1.2.3 of UA 1545", "version 1.2.3 of UA 1545"),
    ],
)
def test_free_text_is_scanned(text: str, expected: str) -> None:
    assert scrub(text) == expected


@given(st.text(max_size=40), st.text(max_size=40), st.sampled_from([" ", "-", ".", "", "/"]))
def test_a_card_number_within_any_text_is_scrubbed(before: str, after: str, separator: str) -> None:
    written = separator.join(CARD[start : start + 4] for start in range(0, 16, 4))
    found = scrub(f"{before} {written} {after}")
    assert CARD not in found
    assert written not in found


@given(st.text(max_size=300))
def test_scrubbing_never_fails(text: str) -> None:
    assert isinstance(scrub(text), str)
    assert holds_card(text) in (True, False)


def test_luhn_agrees_with_numbers_that_are_known() -> None:
    assert luhn("4111111111111111")
    assert luhn("378282246310005")
    assert not luhn("4111111111111112")
    assert card_number(4111111111111111)
    assert not card_number(4111111111111111.5)


# -- values ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected", "counted"),
    [
        (10**400, None, "huge_int"),
        ("\ud800x", "\\ud800x", "surrogate"),
        ("y" * 5000, "y" * 4096, "long_text"),
        ([1, 2], None, "nested"),
        ({"a": 1}, None, "nested"),
        (np.array([1, 2]), None, "nested"),
        (object(), None, "unreadable"),
        (decimal.Decimal("1.5"), 1.5, ""),
        (np.float32(0.5), 0.5, ""),
        (np.bool_(True), True, ""),
        (np.array(3), 3, ""),
        (np.str_("x"), "x", ""),
        (datetime.date(2026, 1, 2), "2026-01-02", ""),
        (b"\xff", "\\xff", ""),
    ],
)
def test_strange_values_are_decided(value: Any, expected: Any, counted: str) -> None:
    odd: Counter[str] = Counter()
    found = plain(value, odd)
    if counted == "huge_int":
        assert str(found).startswith("int:")
    else:
        assert found == expected
        assert type(found) is type(expected)
    assert odd == (Counter({counted: 1}) if counted else Counter())


# -- the planted card number -----------------------------------------------------------------------------


def planted() -> list[Any]:
    """Records and a label that hold the card number wherever data can stand."""
    spaced = " ".join(CARD[start : start + 4] for start in range(0, 16, 4))
    return [
        record(
            0, {"card": CARD, "n": int(CARD), "f": float(CARD), "spaced": spaced, "note": f"paid by {CARD}"}
        ),
        record(
            1, {"card": CARD.encode(), CARD: 1, "np": np.int64(CARD), "nested": {"card": CARD}, "l": [CARD]}
        ),
        record(
            2, {"many": int(CARD)}, prediction=CARD, decision=f"deny {CARD}", segment=CARD, variant=spaced
        ),
        record(3, prediction_id=CARD, entity_key=CARD, trace_id=CARD, span_id=CARD),
        record(4, entity_key=int(CARD), prediction=int(CARD), stage_durations_s={CARD: 1.0}),
        record(5, [CARD], event_time=CARD, duration_s=CARD),
        label(6, CARD),
        label(7, int(CARD), prediction_id=CARD),
    ]


def outputs(folder: Path, caplog: pytest.LogCaptureFixture) -> list[bytes]:
    """Everything that leaves: files, what is read back, ledger, counts, log lines."""
    with caplog.at_level(logging.DEBUG):
        log = opened(folder)
        for each in planted():
            log.offer(each)
        assert log.close(5)
    assert log.ledger().delivered == len(planted())
    chunk = read_all(folder)
    told = [repr(log.ledger()), repr(log.odd()), repr(log.__dict__), caplog.text]
    read = [json.dumps(rows(chunk), default=str), json.dumps(chunk.labels.to_pylist(), default=str)]
    files = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    assert files
    return [
        *files,
        *(text.encode() for text in told + read),
        *(path.name.encode() for path in folder.rglob("*")),
    ]


def test_a_planted_card_number_never_leaves(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert betrayals(CARD, outputs(tmp_path, caplog)) == []


def test_with_masking_turned_off_the_scan_finds_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Masker, "feature", lambda self, model, name: self._clear)
    found = betrayals(CARD, outputs(tmp_path, caplog))
    assert {"raw", "grouped", "binary"} <= set(found)


@pytest.mark.parametrize("part", ["entities", "words", "ids", "name", "prediction"])
def test_with_one_part_of_masking_turned_off_the_scan_finds_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    off = {
        "entities": lambda self, values: self._clear(values),
        "words": lambda self, values: self._clear(values),
        "ids": lambda self, values: self._clear(values),
        "name": lambda self, name: str(name),
        "prediction": lambda self: self._clear,
    }
    monkeypatch.setattr(Masker, part, off[part])
    assert betrayals(CARD, outputs(tmp_path, caplog)) != []


@pytest.mark.parametrize("form", sorted(forms_of(CARD)))
def test_the_scan_knows_each_form(form: str) -> None:
    for needle in forms_of(CARD)[form]:
        assert form in betrayals(CARD, [b"before" + needle + b"after"])


def test_the_scan_knows_base64_at_every_alignment() -> None:
    for shift in range(6):
        assert "base64" in betrayals(CARD, [base64.b64encode(b"x" * shift + CARD.encode() + b"y" * 5)])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("order 3 4539 5787 6362 1486", "order 3 [card]"),
        ("4539 5787 6362 1486 12", "[card] 12"),
        ("7 378282 246310 005", "7 [card]"),
        ("16 4539 5787 6362 1486", "16 [card]"),
        ("id-3-4539578763621486-9", "id-3-[card]-9"),
        ("４５３９５７８７６３６２１４８６", "[card]"),
        ("at 1795425672434 and 1795425672434123456", "at 1795425672434 and 1795425672434123456"),
        ("twice 4111111111111111, 4539-5787-6362-1486", "twice [card], [card]"),
        ("no digits", "no digits"),
    ],
)
def test_a_card_number_beside_another_number_is_still_one(text: str, found: str) -> None:
    assert without_cards(text) == found
    if found.isascii() and "[card]" in found:
        assert holds_card(text, told_apart=True)
        assert Masker(None, KEYS).ids([text]) == [hashed(text)]
