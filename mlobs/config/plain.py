"""The checked file -> the plain values of `settings.py`: absolute paths, seconds, defaults settled."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mlobs.config.paging import plain_notify
from mlobs.config.shape import Feature, File, Lake, Model, Objective, RowChecks, Window
from mlobs.config.values import period
from mlobs.names import PAGE
from mlobs.settings import (
    BurnWindowSettings,
    CanarySettings,
    ChannelSettings,
    DriftSettings,
    FeatureSettings,
    LakeSettings,
    MaskSettings,
    ModelSettings,
    ObjectiveSettings,
    RowsSettings,
    Settings,
    SloSettings,
)


def plain(file: File, base: Path, channels: Mapping[str, ChannelSettings]) -> Settings:
    return Settings(
        service=file.service,
        environment=file.environment,
        base=str(base),
        feature_log=_location(file.feature_log, base),
        lake=_plain_lake(file.lake, base),
        sample=file.sample,
        sample_by=file.sample_by,
        trace_sample=file.trace_sample,
        otlp=file.otlp,
        durability=file.durability,
        buckets=tuple(sorted(set(file.buckets))) if file.buckets is not None else None,
        mask=MaskSettings(_location(file.mask.schema_, base), _location(file.mask.key_file, base)),
        targets=file.targets,
        store=_store(file.store, base),
        listen=file.listen,
        listen_asked="listen" in file.model_fields_set,
        public_url=file.public_url,
        models=tuple(_plain_model(model, base) for model in file.models),
        drift=DriftSettings(
            window=file.drift.window,
            zone=file.drift.timezone,
            min_rows=file.drift.min_rows,
            persistence=file.drift.persistence,
            late=file.drift.late,
            margin=file.drift.margin,
        ),
        slo=SloSettings(
            evaluator=file.slo.evaluator,
            prometheus=file.slo.prometheus,
            objectives=tuple(_plain_objective(objective) for objective in file.slo.objectives),
            slice=file.slo.slice,
            zone=file.slo.timezone,
            scrape_interval=file.slo.scrape_interval,
            evaluation_interval=file.slo.evaluation_interval,
            windows=_plain_windows(file.slo.windows),
            breach=file.slo.breach,
            canaries=tuple(CanarySettings(**one.model_dump()) for one in file.slo.canaries),
        ),
        notify=plain_notify(file.notify, channels, base),
        clock=file.clock,
    )


def _plain_lake(lake: Lake | None, base: Path) -> LakeSettings | None:
    return None if lake is None else LakeSettings(_location(lake.to, base), lake.every, lake.keep)


def _plain_model(model: Model, base: Path) -> ModelSettings:
    return ModelSettings(
        name=model.name,
        reference=_location(model.reference, base),
        features=plain_features(model.features),
        rows=plain_rows(model.rows),
        checks=_location(model.checks, base),
        runbook=model.runbook,
        sample=model.sample,
        sample_by=model.sample_by,
        decision_threshold=model.decision_threshold,
        near_threshold=model.near_threshold,
    )


def plain_features(features: Mapping[str, Feature]) -> dict[str, FeatureSettings]:
    return {
        name: FeatureSettings(
            name, one.type, one.range, one.categories, one.critical, one.aliases,
            {str(check): share for check, share in one.most.items()},
        )
        for name, one in features.items()
    }  # fmt: skip


def plain_rows(rows: RowChecks) -> RowsSettings:
    return RowsSettings(rows.duplicates, rows.volume, rows.freshness, rows.critical)


def _plain_objective(objective: Objective) -> ObjectiveSettings:
    length, calendar = period(objective.period)
    return ObjectiveSettings(
        name=objective.name,
        sli=objective.sli,
        objective=objective.objective,
        model=objective.model,
        period=length,
        calendar=calendar,
        zone=objective.timezone,
        description=objective.description,
        runbook=objective.runbook,
        windows=_plain_windows(objective.windows),
        severity=objective.severity,
    )


def _plain_windows(windows: tuple[Window, ...] | None) -> tuple[BurnWindowSettings, ...] | None:
    if windows is None:
        return None
    order = sorted(windows, key=lambda window: (window.severity != PAGE, window.long))
    return tuple(BurnWindowSettings(one.severity, one.long, one.short, one.budget) for one in order)


def _location(value: str | None, base: Path) -> str | None:
    """Absolute path of a local place; an address (`s3://`, `kafka://`) stays as it is."""
    if value is None or "://" in value:
        return value
    return str((base / Path(value).expanduser()).resolve())


def _store(url: str, base: Path) -> str:
    prefix = "sqlite:///"
    if url.startswith(prefix) and not url.startswith(prefix + "/") and url != prefix + ":memory:":
        return f"{prefix}{(base / url.removeprefix(prefix)).resolve()}"
    return url
