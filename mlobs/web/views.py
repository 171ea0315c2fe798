"""The read models of the stages as view values."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mlobs.records import FeatureRecord, Ledger
from mlobs.settings import Settings
from mlobs.store import Store
from mlobs.web.model import DriftView, IncidentView, SloView, StatusView


class StoreViews:
    """Views over the state store; every call reads anew."""

    def __init__(
        self, settings: Settings, store: Store, find_call: Callable[[str], FeatureRecord | None] | None
    ) -> None:
        self._settings = settings
        self._store = store
        self._find_call = find_call

    def status(self) -> StatusView:
        settings = self._settings
        return StatusView(settings.service, settings.environment, settings.clock, settings.slo.zone, None)

    def slos(self) -> Sequence[SloView]:
        return ()

    def drift(self, windows: int) -> Sequence[DriftView]:
        return ()

    def incidents(self) -> Sequence[IncidentView]:
        return ()

    def incident(self, key: str) -> IncidentView | None:
        return next((incident for incident in self.incidents() if incident.id == key), None)

    def call(self, key: str) -> FeatureRecord | None:
        return self._find_call(key) if self._find_call is not None else None

    def pipelines(self) -> Sequence[Ledger]:
        return ()
