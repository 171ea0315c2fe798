"""Blocks laid end to end give the values that were packed, whatever their columns look like."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlobs.featurelog.blocks import pack_block, unpack_block
from mlobs.featurelog.columns import RECORD_COLUMNS, Part, table
from mlobs.featurelog.compact import distinct

KINDS = {
    "f": st.none() | st.floats(allow_nan=False),
    "i": st.none() | st.integers(-(2**63), 2**63 - 1),
    "b": st.none() | st.booleans(),
    "s": st.none() | st.sampled_from(["", "text", "grün", "x" * 300]),
}


@st.composite
def blocks(draw: st.DrawFn) -> list[tuple[list[dict[str, Any]], list[bool] | None]]:
    """Rows of features by block, and which of them stay. A feature has one kind and may be absent."""
    kinds = draw(st.lists(st.sampled_from(sorted(KINDS)), max_size=4))
    found = []
    for _ in range(draw(st.integers(1, 4))):
        rows = draw(st.integers(1, 4))
        present = [(f"{kind}{place}", kind) for place, kind in enumerate(kinds) if draw(st.booleans())]
        columns = {
            name: draw(
                st.lists(KINDS[kind], min_size=rows, max_size=rows)
                | KINDS[kind].map(lambda each, rows=rows: [each] * rows)
            )
            for name, kind in present
        }
        values = [{name: column[row] for name, column in columns.items()} for row in range(rows)]
        found.append((values, draw(st.none() | st.lists(st.booleans(), min_size=rows, max_size=rows))))
    return found


def part(values: list[dict[str, Any]], keep: list[bool] | None, first: int, writer: str = "w") -> Part:
    rows = len(values)
    packed = pack_block(
        writer,
        range(first, first + rows),
        first + rows,
        {"model": ["fraud"] * rows, "event_time": [float(first + row) for row in range(rows)]},
        {name: [row[name] for row in values] for name in values[0]},
        {},
    )
    return Part(unpack_block(packed), None if keep is None else np.array(keep, bool))


@settings(max_examples=150, deadline=None)
@given(blocks(), st.lists(st.sampled_from("vw"), min_size=4, max_size=4))
def test_a_table_holds_the_rows_that_stay_as_they_were_packed(
    chosen: list[tuple[list[dict[str, Any]], list[bool] | None]], writers: list[str]
) -> None:
    parts, expected, first = [], [], 0
    names = {name for values, _keep in chosen for name in values[0]}
    for (values, keep), writer in zip(chosen, writers, strict=False):
        parts.append(part(values, keep, first, writer))
        for row, each in enumerate(values):
            if keep is None or keep[row]:
                expected.append((f"{writer}-{first + row}", {**dict.fromkeys(names), **each}))
        first += len(values)
    found = table(parts, RECORD_COLUMNS, {})
    assert found.column("event_id").to_pylist() == [event_id for event_id, _ in expected]
    if names:
        assert found.column("features").to_pylist() == [features for _, features in expected]
    assert found.column("model").to_pylist() == ["fraud"] * len(expected)
    assert found.column("conflicts").null_count == len(expected)


@pytest.mark.parametrize("place", [1, 2])
def test_lengths_that_make_up_for_each_other_are_no_column(place: int) -> None:
    """Two blocks of two rows whose bytes, or flags, are of three rows and one: 4 in all."""
    both = [part([{"a": 1.0}, {"a": None}], None, 0), part([{"a": 3.0}, {"a": None}], None, 2)]
    one, two = (each.block["features"]["a"] for each in both)
    width = 8 if place == 1 else 1
    one[place], two[place] = one[place] + two[place][:width], two[place][width:]
    with pytest.raises(ValueError, match="rows of 2"):
        table(both, RECORD_COLUMNS, {})


def test_the_same_text_in_every_block_is_laid_out_once() -> None:
    same = [part([{"a": "x"}] * 3, None, first) for first in (0, 3)]
    other = part([{"a": "y"}] * 2, [True, False], 6)
    assert table(same, RECORD_COLUMNS, {}).column("features").combine_chunks().field("a") == pa.array(
        ["x"] * 6
    )
    found = table([*same, other], RECORD_COLUMNS, {}).column("features").combine_chunks().field("a")
    assert found.to_pylist() == ["x"] * 6 + ["y"]


@given(st.lists(st.integers(-3, 3) | st.integers(-(2**60), 2**60)))
def test_distinct_values_are_those_of_a_set(values: list[int]) -> None:
    assert distinct(np.array(values, np.int64)).tolist() == sorted(set(values))
