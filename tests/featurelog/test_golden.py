"""A log of every released format is read by every later version; tests/golden/featurelog is frozen."""

from pathlib import Path

import pytest

from tests.featurelog.helpers import column, read_all

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "featurelog"
VERSIONS = sorted(path.name for path in GOLDEN.iterdir())


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("place", ["in-spool", "in-lake"])
def test_a_log_of_an_older_version_is_read_whole(version: str, place: str) -> None:
    chunk = read_all(GOLDEN / version / place)
    table = chunk.records["fraud"].sort_by("event_time")
    assert column(table, "prediction_id") == [f"p{number}" for number in range(6)]
    assert [each["amount"] for each in column(table, "features")] == [float(number) for number in range(6)]
    assert column(table, "weight") == [100.0] * 6
    assert column(table, "stage_durations_s") == [{"inference": 0.005}] * 6
    assert column(chunk.labels, "label") == [1, 0]
    assert (chunk.stats.gaps, chunk.stats.duplicates, chunk.stats.unreadable) == (0, 0, 0)
