"""Awkward columns, one row each: a stated result, no exception, the columns beside them judged as ever."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from mlobs.drift.compare import ColumnReport, Comparison, compare
from mlobs.drift.profile import profile
from mlobs.drift.reference import Slicing, build_reference

ROWS = 2000
EVEN = np.arange(ROWS) % 2 == 0
GREATEST = float(np.finfo(np.float64).max)
Column = object


def normal(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=ROWS)


def words(kinds: int, seed: int) -> pa.Array:
    return pa.array([f"k{place}" for place in np.random.default_rng(seed).integers(0, kinds, ROWS)])


def whole(seed: int, most: int = 50) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, most, ROWS)


def cents(seed: int) -> pa.Array:
    return pa.array([Decimal(int(value)).scaleb(-2) for value in whole(seed, 9999)], pa.decimal128(20, 2))


def times(zone: str | None, later: int = 0, unit: str = "us") -> pa.Array:
    scale = {"us": 10**6, "ns": 10**9}[unit]
    return pa.array(np.arange(ROWS) * scale + later * scale, pa.timestamp(unit, zone))


def signs(seed: int) -> np.ndarray:
    return np.where(normal(seed) > 0, 1.0, -1.0)


def union() -> pa.Array:
    halves = [pa.array(np.arange(ROWS // 2)), pa.array(["x"] * (ROWS // 2))]
    places = pa.array(np.repeat(np.arange(ROWS // 2), 2), pa.int32())
    return pa.UnionArray.from_dense(pa.array([0, 1] * (ROWS // 2), pa.int8()), places, halves)


def hashed(kinds: int, seed: int) -> pa.Array:
    return pa.array([f"0badcafe:{place:032x}" for place in whole(seed, kinds)])


def mixed(seed: int) -> pa.Array:
    return pa.array([str(value) if even else "oops" for value, even in zip(normal(seed), EVEN, strict=True)])


LISTS = pa.array([[1.0]] * ROWS)
STRUCTS = pa.array([{"a": 1}] * ROWS)
INTERVALS = pa.array([(1, 2, 3)] * ROWS, pa.month_day_nano_interval())
BYTES = pa.array([b"\xff\x00", b"a"] * (ROWS // 2))
HOLES = pa.DictionaryArray.from_arrays(pa.array(np.arange(ROWS) % 3), pa.array(["k1", None, "k2"]))
UUIDS = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0123456789abcdef"] * ROWS, pa.binary(16)))
CASES: list[tuple[str, Column, Column, str, str]] = [
    ("all null", normal(1), pa.nulls(ROWS, pa.float64()), "drifted", "null"),
    ("all null, no type left", normal(1), pa.nulls(ROWS), "drifted", "null"),
    ("the reference all null", pa.nulls(ROWS, pa.float64()), normal(2), "absent", "no_data"),
    ("both null without a type", pa.nulls(ROWS), pa.nulls(ROWS), "absent", "unsupported"),
    ("constant, same", np.full(ROWS, 5.0), np.full(ROWS, 5.0), "ok", "constant"),
    ("constant, changed", np.full(ROWS, 5.0), np.full(ROWS, 6.0), "drifted", "range"),
    ("constant, changed by 5e-5", np.ones(ROWS), np.full(ROWS, 1.00005), "ok", "constant_changed"),
    ("constant zero", np.zeros(ROWS), np.zeros(ROWS), "ok", "constant"),
    ("constant zero, changed", np.zeros(ROWS), np.full(ROWS, 1e-9), "drifted", "range"),
    ("half NaN", normal(1), np.where(EVEN, np.nan, normal(2)), "drifted", "null"),
    ("half None", normal(1), pa.array(normal(2), mask=EVEN), "drifted", "null"),
    ("half NaN ever since", *[np.where(EVEN, np.nan, normal(seed)) for seed in (1, 2)], "ok", "ok"),
    ("a tenth infinite", normal(1), np.where(np.arange(ROWS) % 10, normal(2), np.inf), "drifted", "range"),
    ("all minus infinity", normal(1), np.full(ROWS, -np.inf), "drifted", "range"),
    ("the reference infinite", np.full(ROWS, np.inf), normal(2), "absent", "no_data"),
    ("new categories", words(5, 1), words(8, 2), "drifted", "unseen"),
    ("500 categories", words(500, 1), words(500, 2), "ok", "ok"),
    ("10,000 categories", words(10_000, 1), words(10_000, 2), "ok", "ok"),
    ("integers beyond 2**53", 2**60 + whole(1), 2**60 + whole(2), "ok", "constant"),
    ("spread integers beyond 2**53", 2**53 + whole(1, 2**60), 2**53 + whole(2, 2**60), "ok", "ok"),
    ("integers beyond 2**53, doubled", 2**60 + whole(1), 2**61 + whole(2), "drifted", "range"),
    ("the greatest uint64", *[np.full(ROWS, 2**64 - 1, np.uint64)] * 2, "ok", "constant"),
    ("booleans", normal(1) > 0, normal(2) > 0, "ok", "ok"),
    ("booleans, moved", normal(1) > 0, normal(2) > 1, "drifted", "distribution"),
    ("booleans as numbers", normal(1) > 0, (normal(2) > 0).astype(float), "drifted", "unseen"),
    ("decimals", cents(1), cents(2), "ok", "ok"),
    ("decimals of 256 bit", *[cents(seed).cast(pa.decimal256(50, 2)) for seed in (1, 2)], "ok", "ok"),
    ("decimals, now floats", cents(1), cents(2).cast(pa.float64()), "ok", "ok"),
    ("timestamps with a zone", times("Europe/Berlin"), times("Europe/Berlin"), "ok", "ok"),
    ("timestamps, another zone", times("Europe/Berlin"), times("UTC"), "ok", "ok"),
    ("timestamps, no zone, ns", times("Europe/Berlin"), times(None, unit="ns"), "ok", "ok"),
    ("timestamps, later", times("UTC"), times("UTC", later=10**6), "drifted", "range"),
    ("intervals", INTERVALS, INTERVALS, "absent", "unsupported"),
    ("dictionary", words(5, 1).dictionary_encode(), words(5, 2).dictionary_encode(), "ok", "ok"),
    ("dictionary, now plain", words(5, 1).dictionary_encode(), words(5, 2), "ok", "ok"),
    ("dictionary of numbers", *[pa.array(whole(s)).dictionary_encode() for s in (1, 2)], "ok", "ok"),
    ("dictionary that holds null", words(5, 1), HOLES, "drifted", "null"),
    ("lists", LISTS, LISTS, "absent", "unsupported"),
    ("structs", STRUCTS, STRUCTS, "absent", "unsupported"),
    ("unions", union(), union(), "absent", "unsupported"),
    ("numbers, now lists", normal(1), LISTS, "drifted", "type"),
    ("categories, now lists", words(4, 1), LISTS, "drifted", "type"),
    ("numbers, half of them words", normal(1), mixed(2), "drifted", "type"),
    ("numbers as text", normal(1), pa.array([str(value) for value in normal(2)]), "ok", "ok"),
    ("words, now numbers", words(5, 1), normal(2), "drifted", "cardinality"),
    ("bytes", BYTES, BYTES, "ok", "ok"),
    ("other bytes", BYTES, pa.array([b"\xfe"] * ROWS), "drifted", "unseen"),
    ("text as views", *[words(5, seed).cast(pa.string_view()) for seed in (1, 2)], "ok", "ok"),
    ("runs", *[pc.run_end_encode(pa.array(normal(seed).round())) for seed in (1, 2)], "ok", "ok"),
    ("an extension type", UUIDS, UUIDS, "ok", "ok"),
    ("half floats", normal(1).astype(np.float16), normal(2).astype(np.float16), "ok", "ok"),
    ("near 1e308", normal(1) * 2e307, normal(2) * 2e307, "ok", "ok"),
    ("near 1e308, wider", normal(1) * 1e307, normal(2) * 4e307, "drifted", "range"),
    ("the greatest float, negated", np.full(ROWS, GREATEST), np.full(ROWS, -GREATEST), "drifted", "range"),
    ("plus and minus the greatest", signs(1) * GREATEST, signs(2) * GREATEST, "ok", "ok"),
    ("from normal to the greatest", normal(1), signs(2) * GREATEST, "drifted", "range"),
    ("denormal", whole(1, 5) * 5e-324, whole(2, 5) * 5e-324, "ok", "ok"),
    ("raw text, now keyed hashes", words(50, 1), hashed(50, 2), "absent", "masked"),
    ("keyed hashes", hashed(50, 1), hashed(50, 2), "ok", "ok"),
    ("keyed hashes, all new", hashed(50, 1), hashed(5000, 2), "drifted", "cardinality"),
]  # fmt: skip


def beside(column: Column, seed: int) -> pa.Table:
    return pa.table({"number": normal(seed), "x": column, "word": words(4, seed)})


def of(result: Comparison, name: str = "x") -> ColumnReport:
    return next(column for column in result.columns if column.name == name)


@pytest.mark.parametrize(
    ("before", "after", "verdict", "status"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_an_awkward_column_has_a_stated_result_and_spoils_no_other(
    before: Column, after: Column, verdict: str, status: str
) -> None:
    result = compare(build_reference(beside(before, 11), "r"), [beside(after, 12)], "c")
    assert (of(result).verdict, of(result).status) == (verdict, status), of(result).detail
    assert [of(result, name).verdict for name in ("number", "word")] == ["ok", "ok"]
    assert status == "ok" or of(result).detail


def without(table: pa.Table) -> pa.Table:
    return table.drop_columns("x")


def doubled(table: pa.Table) -> pa.Table:
    return table.append_column("x", table.column("x"))


def extra(table: pa.Table) -> pa.Table:
    return table.append_column("new", pa.array(normal(9)))


@pytest.mark.parametrize(
    ("change", "status"),
    [(without, "missing"), (doubled, "schema"), (extra, "ok")],
    ids=str,
)
def test_missing_doubled_and_extra_columns_are_told(
    change: Callable[[pa.Table], pa.Table], status: str
) -> None:
    reference = build_reference(beside(normal(1), 11), "r")
    result = compare(reference, [change(beside(normal(2), 12))], "c")
    assert of(result).status == status
    assert [of(result, name).verdict for name in ("number", "word")] == ["ok", "ok"]
    assert result.extra == (("new",) if change is extra else ())


def test_a_reference_with_a_name_twice_leaves_it_out() -> None:
    reference = build_reference(doubled(beside(normal(1), 11)), "r")
    assert list(reference.spec.columns) == ["number", "word"]


@pytest.mark.parametrize("rows", [0, 1])
def test_no_row_and_one_row_are_not_judged(rows: int) -> None:
    reference = build_reference(beside(normal(1), 11), "r")
    result = compare(reference, [beside(normal(2), 12).slice(0, rows)], "c")
    assert {column.verdict for column in result.columns} == {"insufficient" if rows else "absent"}
    assert result.exit_code == 3


def test_weights_and_days_take_columns_that_arrow_cannot_filter() -> None:
    table = beside(words(5, 1).cast(pa.string_view()), 11)
    days = pa.array(np.where(EVEN, "monday", "tuesday"))
    reference = build_reference(table.append_column("day", days), "r", slicing=Slicing(day="day"))
    state = profile(table, reference.spec, np.where(EVEN, 1.0, 2.0))
    assert state.rows == ROWS
