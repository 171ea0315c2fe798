"""A subject's records and labels go, everywhere, and a scan afterwards proves it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from mlobs.cli import app
from mlobs.errors import UnavailableError
from mlobs.featurelog import erase as erasing
from mlobs.featurelog import spool
from mlobs.featurelog.compact import compact, held
from mlobs.featurelog.erase import Target, erase
from mlobs.featurelog.keys import Keyring
from mlobs.featurelog.lake import Lake
from mlobs.featurelog.reader import LogReader
from mlobs.featurelog.storage import DiskStorage, Storage, open_storage
from tests.featurelog.helpers import KEY, column, label, opened, read_all, record
from tests.servers import S3

OLD = "f" * 32
SUBJECT = "customer-42"
TARGET = Target(frozenset(Keyring([KEY.encode(), OLD.encode()]).hashes(SUBJECT)))


def fill(folder: Path, numbers: range, key: str = KEY, **options: Any) -> None:
    """Every fifth record is the subject's; every record has a label, in a segment of its own."""
    log = opened(folder, environ={"MLOBS_HASH_KEY": key}, **options)
    labels = opened(folder, environ={"MLOBS_HASH_KEY": key}, **options)
    for number in numbers:
        entity = SUBJECT if number % 5 == 0 else f"customer-{1000 + number}"
        log.offer(record(number, event_time=number * 600.0, entity_key=entity))
        labels.offer_label(label(number))
    assert log.close(5)
    assert labels.close(5)


def left(folder: Path) -> tuple[list[str], list[str]]:
    chunk = read_all(folder)
    assert (chunk.stats.gaps, chunk.stats.duplicates, chunk.stats.unreadable) == (0, 0, 0)
    return sorted(column(chunk.records["fraud"], "prediction_id")), sorted(
        column(chunk.labels, "prediction_id")
    )


def others(count: int) -> list[str]:
    return sorted(f"p{number}" for number in range(count) if number % 5)


def holds(folder: Path) -> bool:
    """A hash of the subject, in the bytes of any file, Parquet decoded."""
    found = False
    for path in folder.rglob("*"):
        if path.suffix == ".parquet":
            found |= any(each in str(pq.read_table(path).to_pydict()) for each in TARGET.hashes)
        elif path.is_file():
            found |= any(each.encode() in path.read_bytes() for each in TARGET.hashes)
    return found


def test_a_subject_leaves_spool_and_lake_with_the_labels_whatever_key_was_in_force(tmp_path: Path) -> None:
    fill(tmp_path, range(20), OLD)
    compact(tmp_path, DiskStorage(tmp_path), 1e6)
    fill(tmp_path, range(20, 40))
    assert holds(tmp_path)
    result = erase(tmp_path, DiskStorage(tmp_path), TARGET)
    assert (result.records, result.labels, result.remains, result.proved) == (8, 8, 0, True)
    assert left(tmp_path) == (others(40), others(40))
    assert not holds(tmp_path)
    assert not list((tmp_path / "lake" / "erase").iterdir())
    assert erase(tmp_path, DiskStorage(tmp_path), TARGET).records == 0


def test_what_was_erased_from_the_spool_is_no_gap_in_the_lake_either(tmp_path: Path) -> None:
    fill(tmp_path, range(20))
    erase(tmp_path, DiskStorage(tmp_path), TARGET)
    compact(tmp_path, DiskStorage(tmp_path), 1e6)
    assert left(tmp_path) == (others(20), others(20))


def test_a_label_in_another_place_than_its_record_goes_too(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.offer(record(1, entity_key=SUBJECT))
    assert log.close(5)
    compact(tmp_path, DiskStorage(tmp_path), 1e6)
    later = opened(tmp_path)
    later.offer_label(label(1))
    later.offer_label(label(2))
    assert later.close(5)
    result = erase(tmp_path, DiskStorage(tmp_path), TARGET)
    assert (result.records, result.labels) == (1, 1)
    assert column(read_all(tmp_path).labels, "prediction_id") == ["p2"]


@pytest.mark.parametrize("limit", [1, 7])
def test_a_reader_in_the_middle_of_a_segment_goes_on_where_it_was(tmp_path: Path, limit: int) -> None:
    log = opened(tmp_path)
    for number in range(20):
        log.offer(record(number, entity_key=SUBJECT if number % 5 == 0 else None))
        assert log.flush(5)  # a frame each
    assert log.close(5)
    reader = LogReader(tmp_path)
    first = reader.poll(None, limit)
    erase(tmp_path, DiskStorage(tmp_path), TARGET)
    rest = reader.poll(first.cursor)
    got = column(first.records["fraud"], "prediction_id") + column(rest.records["fraud"], "prediction_id")
    assert [each for each in got if int(each[1:]) % 5] == [f"p{n}" for n in range(20) if n % 5]
    assert len(got) == len(set(got))
    assert (rest.stats.gaps, rest.stats.unreadable) == (0, 0)


class _Dies(Exception):
    pass


def test_a_run_that_is_killed_before_any_write_is_finished_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, delete, rewrite = DiskStorage.write, DiskStorage.delete, spool.rewrite_segment
    for step in range(1, 100):
        folder = tmp_path / str(step)
        fill(folder, range(10), OLD)
        compact(folder, DiskStorage(folder), 1e6)
        fill(folder, range(10, 20))
        done = 0

        def dying(call: Callable[..., None], step: int = step) -> Callable[..., None]:
            def step_or_die(*args: Any) -> None:
                nonlocal done
                done += 1
                if done == step:
                    raise _Dies
                call(*args)

            return step_or_die

        with monkeypatch.context() as patch:
            patch.setattr(DiskStorage, "write", dying(write))
            patch.setattr(DiskStorage, "delete", dying(delete))
            patch.setattr(erasing, "rewrite_segment", dying(rewrite))
            try:
                erase(folder, DiskStorage(folder), TARGET)
                break
            except _Dies:
                left_now = read_all(folder)
                assert left_now.stats.unreadable == 0
        assert erase(folder, DiskStorage(folder), TARGET).proved
        assert left(folder) == (others(20), others(20))
        assert not holds(folder)
    assert 5 < step < 99


def test_between_the_note_in_the_manifest_and_the_new_file_nobody_reads_the_subject(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, range(10))
    compact(tmp_path, DiskStorage(tmp_path), 1e6)
    write = DiskStorage.write

    def dying(self: DiskStorage, name: str, data: bytes) -> None:
        if name.endswith(".parquet"):
            raise _Dies
        write(self, name, data)

    with monkeypatch.context() as patch:
        patch.setattr(DiskStorage, "write", dying)
        with pytest.raises(_Dies):
            erase(tmp_path, DiskStorage(tmp_path), TARGET)
    assert holds(tmp_path), "the file is still the old one"
    reader, of_others, of_subject = LogReader(tmp_path), others(10), [f"p{n}" for n in range(0, 10, 5)]
    chunk = reader.poll()
    assert column(chunk.records["fraud"], "prediction_id") == of_others
    assert (chunk.stats.duplicates, chunk.stats.gaps) == (0, 0)
    assert column(reader.scan(0.0, 9e9), "prediction_id") == of_others
    assert reader.find(prediction_ids=of_subject) == []
    assert [each.prediction_id for each in reader.find(prediction_ids=[*of_subject, "p1"])] == ["p1"]


def test_another_subjects_erasure_finishes_the_one_that_died(tmp_path: Path) -> None:
    fill(tmp_path, range(10))
    storage = DiskStorage(tmp_path)
    note = {"hashes": sorted(TARGET.hashes), "features": [], "prediction_ids": ["p0", "p5"]}
    storage.write("lake/erase/died.json", json.dumps(note).encode())
    erase(tmp_path, storage, Target(frozenset({"k:0"})))
    assert not holds(tmp_path / "spool")


def test_on_s3(tmp_path: Path, moto_s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    storage: Storage = open_storage(
        f"s3://{moto_s3.bucket}/logs?region=us-east-1", {"AWS_ENDPOINT_URL": moto_s3.endpoint}
    )
    fill(tmp_path, range(20))
    compact(tmp_path, storage, 1e6)
    result = erase(None, storage, TARGET)
    assert (result.records, result.labels, result.proved) == (4, 4, True)
    lake = Lake(storage)
    texts = [str(lake.table(file).to_pydict()) for entry in lake.entries() for file in entry.files]
    assert not any(each in text for text in texts for each in TARGET.hashes)
    assert sum(file.rows for entry in lake.entries() for file in entry.files) == 32


def test_a_segment_that_is_written_to_is_waited_for_or_named(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.offer(record(0, entity_key=SUBJECT))
    assert log.flush(5)
    named = erase(tmp_path, DiskStorage(tmp_path), TARGET)
    assert (len(named.waiting), named.proved) == (1, False)
    done = erase(tmp_path, DiskStorage(tmp_path), TARGET, pause=lambda _names: log.close(5))
    assert (done.records, done.proved) == (1, True)


def test_an_unreadable_stretch_that_holds_the_subject_is_blanked(tmp_path: Path) -> None:
    fill(tmp_path, range(10))
    path = min((tmp_path / "spool").glob("*.seg"))  # the records; the labels have the other
    data = bytearray(path.read_bytes())
    data[16] ^= 1  # the check of the first payload
    path.write_bytes(data)
    result = erase(tmp_path, DiskStorage(tmp_path), TARGET)
    assert (result.blanked, result.proved) == (1, True)
    assert not holds(tmp_path)


def test_a_hash_in_another_column_is_told_and_erased_when_named(tmp_path: Path) -> None:
    log = opened(tmp_path)
    log.offer(record(0, {"customer": SUBJECT}))
    log.offer(record(1, {"customer": "another"}))
    assert log.close(5)
    told = erase(tmp_path, DiskStorage(tmp_path), TARGET)
    assert (told.records, told.elsewhere, told.proved) == (0, {"customer": 1}, False)
    done = erase(tmp_path, DiskStorage(tmp_path), Target(TARGET.hashes, ("customer",)))
    assert (done.records, done.elsewhere, done.proved) == (1, {}, True)


def test_dead_letters_of_the_subject_go_too(tmp_path: Path) -> None:
    folder = tmp_path / "spool" / "dead"
    folder.mkdir(parents=True)
    mine = {"event": {"subject": "p1", "data": {"fields": {"entity_key": min(TARGET.hashes)}}}}
    lines = [json.dumps(each) for each in (mine, {"event": {"subject": "p2"}})]
    (folder / "letters.jsonl").write_text("\n".join(lines) + "\n")
    result = erase(tmp_path, DiskStorage(tmp_path), TARGET)
    assert (result.letters, result.proved) == (1, True)
    assert (folder / "letters.jsonl").read_text() == lines[1] + "\n"


@pytest.mark.parametrize("compacted", [False, True])
def test_rows_by_a_key_that_was_not_given_spoil_the_proof_until_it_is_given_or_called_lost(
    tmp_path: Path, compacted: bool
) -> None:
    fill(tmp_path, range(20), key=OLD)
    fill(tmp_path, range(20, 40))
    if compacted:
        compact(tmp_path, DiskStorage(tmp_path), 1e6)
    new_alone = Keyring([KEY.encode()])
    target = Target(frozenset(new_alone.hashes(SUBJECT)))
    old_id = Keyring([OLD.encode()]).active.key_id
    assert erase(tmp_path, DiskStorage(tmp_path), target, dry_run=True).strange_keys == {old_id: 20}
    result = erase(tmp_path, DiskStorage(tmp_path), target)
    assert (result.records, result.remains, result.strange_keys) == (4, 0, {old_id: 20})
    assert not result.proved
    lost = Target(target.hashes, (), frozenset({old_id}))
    assert erase(tmp_path, DiskStorage(tmp_path), lost).proved
    result = erase(tmp_path, DiskStorage(tmp_path), TARGET)
    assert (result.records, result.proved) == (4, True)
    assert not holds(tmp_path)


def test_the_command_names_the_key_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, range(10), key=OLD)
    monkeypatch.setenv("MLOBS_HASH_KEY", KEY)
    command = ["log", "erase", str(tmp_path), "--subject", SUBJECT]
    found = CliRunner().invoke(app, command)
    old_id = Keyring([OLD.encode()]).active.key_id
    assert found.exit_code == 1
    assert "NOT all is gone" in found.stdout
    assert f"the entity of 10 rows is hashed by key {old_id}, which was not given" in found.stdout
    assert CliRunner().invoke(app, [*command, "--lost-key", old_id]).exit_code == 0
    monkeypatch.setenv("MLOBS_HASH_KEY", f"{KEY},{OLD}")
    assert "2 records and 2 labels erased" in CliRunner().invoke(app, command).stdout
    assert not holds(tmp_path)


def test_it_does_not_run_beside_a_compaction(tmp_path: Path) -> None:
    fill(tmp_path, range(5))
    with held(tmp_path), pytest.raises(UnavailableError):
        erase(tmp_path, DiskStorage(tmp_path), TARGET)


def run(*args: str) -> Any:
    return CliRunner().invoke(app, ["log", "erase", *args])


def test_the_command_says_what_would_go_then_does_it_and_names_what_it_cannot_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLOBS_HASH_KEY", f"{KEY},{OLD}")
    fill(tmp_path, range(10))
    args = [str(tmp_path), "--subject", SUBJECT]
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    would = run(*args, "--dry-run", "--json")
    assert (would.exit_code, json.loads(would.stdout)["records"]) == (0, 2)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    done = run(*args, "--json")
    found = json.loads(done.stdout)
    assert (done.exit_code, found["records"], found["labels"], found["proved"]) == (0, 2, 2, True)
    assert "Kafka" in found["unreached"][0]
    again = run(*args)
    assert again.exit_code == 0
    assert "nothing is left" in again.stdout


def test_without_a_key_there_is_nothing_to_look_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLOBS_HASH_KEY", raising=False)
    assert "hash key" in str(run(str(tmp_path), "--subject", "x").exception)
