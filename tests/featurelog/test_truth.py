"""Labels find their predictions whenever they come, and weighted statistics stay unbiased."""

import random
from pathlib import Path

import numpy as np
import pytest

from mlobs.featurelog.truth import greatest_rate, join_truth, maturity
from mlobs.sdk.sampling import crc_limit, kept_by_id
from tests.featurelog.helpers import column, label, opened, read_all, record


def logged(folder: Path, each: list[object]):  # type: ignore[no-untyped-def]
    log = opened(folder)
    for one in each:
        log.offer(one)  # type: ignore[arg-type]
    assert log.close(5)
    chunk = read_all(folder)
    return chunk.records["fraud"], chunk.labels


def test_a_label_joins_whenever_it_comes_and_the_latest_counts(tmp_path: Path) -> None:
    records, labels = logged(
        tmp_path,
        [
            label(1, 0, event_time=50.0),
            *(record(number) for number in range(4)),
            label(1, 1, event_time=90.0),
            label(1, 0, event_time=70.0),
            label(2, 1),
            label(2, 1),
        ],
    )
    truth = join_truth(records, labels)
    assert dict(zip(column(truth.joined, "prediction_id"), column(truth.joined, "label"), strict=True)) == {
        "p1": 1,
        "p2": 1,
    }
    assert (truth.waiting, truth.corrected, truth.unsampled, truth.unknown) == (2, 1, 0, 0)


def test_labels_of_unsampled_and_of_unknown_predictions_are_counted_apart(tmp_path: Path) -> None:
    limit = crc_limit(0.1)
    ids = [f"id-{number}" for number in range(2000)]
    kept = [each for each in ids if kept_by_id(each, limit)]
    records, labels = logged(
        tmp_path,
        [
            *(record(n, prediction_id=each, weight=10.0) for n, each in enumerate(kept[5:])),
            record(9999, prediction_id="slow one", weight=1.0, sampling_reason="slow"),
            *(label(n, 1, prediction_id=each) for n, each in enumerate(ids)),
        ],
    )
    truth = join_truth(records, labels)
    assert greatest_rate(records) == 0.1
    assert len(truth.joined) == len(kept) - 5
    assert (truth.unsampled, truth.unknown) == (2000 - len(kept), 5)


def test_labels_that_find_no_record_are_untold_where_some_were_drawn_by_entity(tmp_path: Path) -> None:
    records, labels = logged(
        tmp_path,
        [
            record(0, weight=10.0, sampling_reason="entity"),
            record(1, weight=1.0, sampling_reason="error"),
            *(label(number, 1) for number in range(50)),
        ],
    )
    truth = join_truth(records, labels)
    assert (len(truth.joined), truth.unsampled, truth.unknown, truth.untold) == (2, 0, 0, 48)
    assert greatest_rate(records) == 0.1


def test_labels_that_find_no_record_are_untold_where_calls_without_an_id_were_drawn_by_chance(
    tmp_path: Path,
) -> None:
    rng = random.Random(5)
    ids = [f"{rng.getrandbits(128):032x}" for _ in range(2000)]
    kept = [each for each in ids if rng.random() < 0.1]
    records, labels = logged(
        tmp_path,
        [
            *(record(n, prediction_id=each, weight=10.0) for n, each in enumerate(kept)),
            *(label(n, 1, prediction_id=each) for n, each in enumerate(ids)),
        ],
    )
    truth = join_truth(records, labels)
    assert len(truth.joined) == len(kept)
    assert (truth.unsampled, truth.unknown, truth.untold) == (0, 0, 2000 - len(kept))


def test_maturity_is_the_share_of_labelled_records_by_age(tmp_path: Path) -> None:
    records, labels = logged(
        tmp_path,
        [
            *(record(number, event_time=1000.0 - number) for number in range(30)),
            *(label(n) for n in range(20, 30)),
        ],
    )
    truth = join_truth(records, labels)
    assert maturity(records, truth, 1000.0, [9.5, 24.5, 100.0]) == pytest.approx(
        [0.0, 1 / 3, 1.0, 0], abs=1e-9
    ) or (maturity(records, truth, 1000.0, [9.5, 24.5, 100.0])[3] is None)


def test_without_labels_everything_waits(tmp_path: Path) -> None:
    records, labels = logged(tmp_path, [record(0), record(1)])
    truth = join_truth(records, labels)
    assert (len(truth.joined), truth.waiting, truth.unknown) == (0, 2, 0)


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.3, 0.9, 1.0])
def test_weighted_statistics_are_unbiased_at_every_rate(rate: float) -> None:
    """Count, share and sum of 20,000 calls from what is kept: the error stays within 4.5 standard errors.

    Errors are always kept with weight 1, drawn or not; the others by id with one over the rate. Seeded; the
    bound is passed by chance in less than one run of 100,000.
    """
    rng = random.Random(int(rate * 1000))
    limit = crc_limit(rate)
    calls = [(f"{rng.getrandbits(64):016x}", rng.random() < 0.05, rng.gauss(5, 2)) for _ in range(20_000)]
    kept = [
        (1.0 if failed else 1 / rate, failed, value)
        for ident, failed, value in calls
        if failed or kept_by_id(ident, limit)
    ]
    weights = np.array([weight for weight, _, _ in kept])
    for of in (lambda failed, value: 1.0, lambda failed, value: float(failed), lambda failed, value: value):
        true = sum(of(failed, value) for _, failed, value in calls)
        values = np.array([of(failed, value) for _, failed, value in kept])
        estimate = float(weights @ values)
        drawn = np.array([0.0 if failed else of(failed, value) ** 2 for _, failed, value in calls])
        error = float(np.sqrt(drawn.sum() * (1 - rate) / rate))
        assert abs(estimate - true) <= 4.5 * error + 1e-6
