"""Ranges of numbers behave like a set of them."""

from hypothesis import given
from hypothesis import strategies as st

from mlobs.featurelog.sequences import Seen

RANGES = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 12)), max_size=30)


@given(RANGES)
def test_ranges_hold_what_a_set_holds(ranges: list[tuple[int, int]]) -> None:
    seen, model = Seen(), set()
    for start, length in ranges:
        new = set(range(start, start + length))
        assert seen.overlaps(start, start + length) == len(new & model)
        assert seen.covers(start, start + length) == (new <= model)
        assert seen.add_range(start, start + length) == len(new - model)
        model |= new
    assert seen.count == len(model)
    assert seen.top == max(model, default=-1) + 1
    assert all((number in seen) == (number in model) for number in range(80))
    stops = [end for _, end in seen.ranges()]
    assert all(start > stop for (start, _), stop in zip(seen.ranges()[1:], stops, strict=False))
    for first, until in ((0, 0), (5, 0), (0, 90), (30, 70)):
        assert seen.gaps(first, until) == len(set(range(first, max(seen.top, until))) - model)
    assert Seen(seen.ranges()).ranges() == seen.ranges()


def test_adding_twice_is_told() -> None:
    seen = Seen()
    assert seen.add(5)
    assert not seen.add(5)
    assert seen.gaps() == 5
