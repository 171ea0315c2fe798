"""The masker of a service, outside of its process: by the same schema and the same key."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mlobs.config import load_settings
from mlobs.errors import Problem, UsageError
from mlobs.featurelog.keys import BLAKE2B, KEY_FILE_NAME, configured_keys, kept_keys
from mlobs.featurelog.masking import Masker
from mlobs.featurelog.maskschema import load_schema
from mlobs.names import PREDICTION
from mlobs.settings import Settings

if TYPE_CHECKING:
    from mlobs.drift.columns import Columns


def masker_of(settings: Settings) -> Masker:
    """Key from `mask.key_file`, MLOBS_HASH_KEY, or beside the feature log. Raises ConfigError, UsageError."""
    schema = load_schema(settings.mask.schema) if settings.mask.schema else None
    algorithm = schema.algorithm if schema else BLAKE2B
    keys = configured_keys(settings.mask.key_file, os.environ, algorithm)
    log = settings.feature_log
    if keys is None and log is not None and "://" not in log and (Path(log) / KEY_FILE_NAME).exists():
        keys = kept_keys(Path(log), algorithm)
    if keys is None:
        raise UsageError(
            Problem("hash key", "the key of the service", "none", "set mask.key_file, or MLOBS_HASH_KEY")
        )
    return Masker(schema, keys)


def masked_as(
    config: Path | None, model: str, words: Sequence[str | None], score: str | None
) -> Callable[[Columns], Columns]:
    """What the masking of that service's feature log makes of a batch; without `config` nothing.

    `words` are columns that are no features. Raises UsageError where the file has several models and none is
    named.
    """
    if config is None:
        return lambda batch: batch
    from mlobs.drift.columns import as_table  # pyarrow: only where a table is read
    from mlobs.featurelog.maskframe import masked_table

    settings = load_settings(config)
    if not model and len(settings.models) > 1:
        known = ", ".join(one.name for one in settings.models)
        raise UsageError.of("--model", f"one of {known}", "nothing", "say whose features these are")
    masker, name = masker_of(settings), model or next((one.name for one in settings.models), "")
    own = [word for word in words if word]
    return lambda batch: masked_table(as_table(batch), masker, name, words=own, score=score or PREDICTION)
